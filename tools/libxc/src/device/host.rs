//! What devices need of the machine that the toolstack runs on: block devices over files, bridges, scripts.
//!
//! On Linux that is [`crate::linux::LinuxHost`]; in host tests a machine that only notes what it was asked for.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::dma::{Card, Dma};
use crate::error::Result;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A block device.
    Block {
        /// Its numbers.
        number: Number,
        /// What hardware of the machine is behind it.
        dma: Dma,
    },
    /// An ordinary file.
    File,
    /// Something that is no disk.
    Other,
}

/// A block device's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// How a block device is mounted in this domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// Not.
    No,
    /// For reading.
    ReadOnly,
    /// For reading and writing.
    Writable,
}

/// A block device that was made of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its path, such as /dev/loop0.
    pub path: String,
    /// Its numbers.
    pub number: Number,
}

/// What hears the path of a block device that is about to be made.
pub type AboutTo<'a> = &'a mut dyn FnMut(&str) -> Result<()>;

/// The machine.
pub trait Host {
    /// Whether the control domain's kernel copies every transfer of devices, so that none reaches guests' pages.
    fn bounces(&self) -> Result<bool>;

    /// What is at a path.
    fn inspect(&self, path: &str) -> Result<What>;

    /// How a block device is mounted.
    fn mounted(&self, number: Number) -> Result<Mounted>;

    /// Makes a block device of a file or of another block device, whose data go through the page cache.
    ///
    /// `about_to` is told the device's path just before it is made, so that it is written down somewhere whenever this
    /// process ends.
    fn attach_loop(&self, path: &str, read_only: bool, about_to: AboutTo<'_>) -> Result<Made>;

    /// Makes a block device of an image in a format of QEMU's; `about_to` as above.
    fn attach_image(&self, path: &str, format: &str, read_only: bool, about_to: AboutTo<'_>) -> Result<Made>;

    /// Gives back a block device that was, or was about to be, made of `target`; it goes when its last user has closed it. One
    /// that is made of something else by now is somebody else's.
    fn detach(&self, path: &str, target: &str) -> Result<()>;

    /// Runs a hotplug script with an argument list and additions to the environment.
    fn run_script(&self, script: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<()>;

    /// Whether there is a bridge of that name.
    fn is_bridge(&self, name: &str) -> Result<bool>;

    /// A card of the machine that is, or is a port of, an interface.
    fn card_behind(&self, interface: &str) -> Result<Option<Card>>;

    /// Waits until there is an interface, which a backend makes just after it has said that it waits.
    fn wait_for_interface(&self, interface: &str, patience: Duration) -> Result<()>;

    /// An interface's largest packet.
    fn mtu(&self, interface: &str) -> Result<u32>;

    /// Sets an interface's largest packet.
    fn set_mtu(&self, interface: &str, mtu: u32) -> Result<()>;

    /// Renames an interface, which is down.
    fn rename(&self, interface: &str, name: &str) -> Result<()>;

    /// Sets an interface up.
    fn set_up(&self, interface: &str) -> Result<()>;

    /// Makes an interface a port of a bridge.
    fn join_bridge(&self, interface: &str, bridge: &str) -> Result<()>;

    /// Lets an interface answer for others' addresses, and gives it the address of `gateway`, if there is one.
    fn prepare_routing(&self, interface: &str, gateway: Option<&str>) -> Result<()>;

    /// Sends packets for an address to an interface.
    fn add_route(&self, interface: &str, address: Ipv4Addr) -> Result<()>;
}
