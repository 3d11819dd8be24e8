//! Where a domain has more than hypervisor and xenstore know: the machine that serves its devices, and the directories of the
//! toolstack's files. Creating and destroying are told; tests have others.

use std::path::{Path, PathBuf};

use libxc::device::host::Host;
use libxc::linux::LinuxHost;

use crate::host_config::HostConfig;
use crate::userdata::{DIRECTORY, UserData};

/// Where libxl keeps what need not live longer than the machine.
const RUN: &str = "/run/xen";

/// The machine.
#[derive(Clone, Debug)]
pub struct Machine<H: Host = LinuxHost> {
    /// What serves devices.
    pub host: H,
    /// Where user data are.
    pub data: PathBuf,
    /// Where the list of ids that were in use is.
    pub run: PathBuf,
    /// What holds for all domains; `None`: what xl.conf says when it is needed.
    pub settings: Option<HostConfig>,
}

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        Machine { host: LinuxHost, data: DIRECTORY.into(), run: RUN.into(), settings: None }
    }
}

impl<H: Host> Machine<H> {
    /// The user data of a domain.
    pub(crate) fn user_data(&self, domid: u16, uuid: &[u8; 16]) -> UserData {
        UserData::below(&self.data, domid, uuid)
    }

    /// What holds for all domains.
    pub(super) fn settings(&self) -> HostConfig {
        self.settings.clone().unwrap_or_else(HostConfig::load)
    }

    /// The directory of the list of ids.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }
}
