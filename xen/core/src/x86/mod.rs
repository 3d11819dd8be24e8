//! The x86 that guests see: CPUID, MSRs, interrupt controllers, ports.

use crate::domain::Settings;
use machine::boxed::OutOfMemory;

/// A domain's share of x86 state.
#[derive(Debug)]
pub struct DomainX86 {}

impl DomainX86 {
    /// As after power-on.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(_settings: &Settings) -> Result<Self, OutOfMemory> {
        Ok(Self {})
    }
}

/// A vCPU's share of x86 state.
#[derive(Debug)]
pub struct VcpuX86 {}

impl VcpuX86 {
    /// As after power-on.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(_index: u32) -> Result<Self, OutOfMemory> {
        Ok(Self {})
    }
}
