//! The hypervisor's console in a log file: what its ring holds at the start, then what VIRQ_CON_RING tells of.

use libxc::linux::Evtchn;
use libxc::trap::Events;
use libxc::{Error, Handle, Privcmd, Result};
use public_abi::virq::Virq;

use super::guests::style;
use crate::log::Log;
use crate::options::Options;

/// The log.
pub(super) struct HypervisorLog {
    log: Log,
    port: u32,
    /// Up to where the ring was read.
    index: u32,
}

impl HypervisorLog {
    /// Opens it.
    ///
    /// # Errors
    /// The file system's, and the hypervisor's if another daemon listens.
    pub(super) fn open(options: &Options, events: &Evtchn) -> Result<HypervisorLog> {
        let path = options.log_dir.join("hypervisor.log");
        let failed = |error| Error::system(path.display().to_string(), error);
        let log = Log::open(path.clone(), style(options, options.timestamp.has_hypervisor())).map_err(failed)?;
        Ok(HypervisorLog { log, port: events.bind_virq(Virq::ConRing)?, index: 0 })
    }

    /// Our event channel.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Writes what is new.
    ///
    /// # Errors
    /// The hypervisor's, and the file system's.
    pub(super) fn carry(&mut self, handle: &Handle<Privcmd>) -> Result<()> {
        let (text, index) = handle.console_ring_since(self.index)?;
        self.index = index;
        self.log.write(&text).map_err(|error| Error::system(self.log.path().display().to_string(), error))
    }

    /// Opens the file anew.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn reopen(&mut self) -> Result<()> {
        self.log.reopen().map_err(|error| Error::system(self.log.path().display().to_string(), error))
    }
}
