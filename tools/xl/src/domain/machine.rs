//! Where a domain has more than hypervisor and xenstore know: the machine that serves its devices, and the directories of the
//! toolstack's files. Creating and destroying are told; tests have others.

use std::path::{Path, PathBuf};

use libxc::device::host::Host;
use libxc::linux::LinuxHost;

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
}

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        Machine { host: LinuxHost, data: DIRECTORY.into(), run: RUN.into() }
    }
}

impl<H: Host> Machine<H> {
    /// The user data of a domain.
    pub(super) fn user_data(&self, domid: u16, uuid: &[u8; 16]) -> UserData {
        UserData::below(&self.data, domid, uuid)
    }

    /// The directory of the list of ids.
    pub(super) fn run(&self) -> &Path {
        &self.run
    }
}
