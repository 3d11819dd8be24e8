//! Devices of a guest: block devices, network interfaces and 9pfs shares, over xenstore, with backends of Linux.
//!
//! In the order of the data: [`vdev`] knows the numbers of block devices, [`nodes`] writes down what a device has in
//! xenstore, [`medium`] and [`link`] decide how this machine serves it and do that through a [`host::Host`], [`dma`] says
//! where that is not safe, [`attach`] adds a device with everything undone when a step fails, [`detach`] removes it, and
//! [`list`] finds those there are. Nodes and states are libxl's, so that either toolstack can manage the other's devices.

pub mod attach;
pub mod detach;
pub mod dma;
pub mod host;
pub mod link;
pub mod list;
pub mod medium;
pub mod nodes;
pub mod vdev;

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::xenstore::Client;
use dma::Facts;
use host::Host;

/// How long a backend may take for a step, as in libxl.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    Block,
    /// A network interface.
    Network,
    /// A directory, shared by 9pfs.
    Share,
}

impl Kind {
    /// Its name in xenstore.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Block => "vbd",
            Kind::Network => "vif",
            Kind::Share => "9pfs",
        }
    }
}

/// A device, by what its places in xenstore are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub kind: Kind,
    /// The guest.
    pub domain: u16,
    /// Its number among the guest's devices of its kind.
    pub number: u32,
    /// The domain that serves it.
    pub backend: u16,
}

impl Device {
    /// The guest's half.
    pub fn frontend_path(&self) -> String {
        format!("/local/domain/{}/device/{}/{}", self.domain, self.kind.name(), self.number)
    }

    /// The serving half.
    pub fn backend_path(&self) -> String {
        format!("/local/domain/{}/backend/{}/{}/{}", self.backend, self.kind.name(), self.domain, self.number)
    }

    /// The toolstack's own record of it.
    pub fn record_path(&self) -> String {
        format!("/libxl/{}/device/{}/{}", self.domain, self.kind.name(), self.number)
    }
}

/// What devices are added and removed with.
pub struct Devices<'a, H: Host> {
    /// xenstore.
    pub store: &'a Client,
    /// This machine.
    pub host: &'a H,
    /// What is known of the hypervisor's DMA protection.
    pub facts: Facts,
    /// How long a backend may take for a step.
    pub patience: Duration,
}

/// A device that could not be added or removed.
#[derive(Debug)]
pub struct DeviceError {
    /// The device, in words.
    pub device: String,
    /// What was being done.
    pub step: &'static str,
    /// Why it failed.
    pub error: Error,
    /// Why taking back what had been done failed, if it did.
    pub left_behind: Option<Error>,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.device, self.step, self.error)?;
        match &self.left_behind {
            None => Ok(()),
            Some(error) => write!(f, "; taking back what was done failed, too: {error}"),
        }
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
