//! Event channels, and the pages through which a domain and the hypervisor share small things.

use crate::domain::Settings;
use machine::DomId;
use machine::boxed::OutOfMemory;

/// A domain's event channels.
#[derive(Debug)]
pub struct DomainEvents {}

impl DomainEvents {
    /// No channel open.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(_id: DomId, _settings: &Settings) -> Result<Self, OutOfMemory> {
        Ok(Self {})
    }
}

/// A vCPU's side of events.
#[derive(Debug)]
pub struct VcpuEvents {}

impl VcpuEvents {
    /// Nothing registered.
    pub const fn new() -> Self {
        Self {}
    }
}

impl Default for VcpuEvents {
    fn default() -> Self {
        Self::new()
    }
}
