//! Hypercalls: from registers to a verb and back.
//!
//! `public-abi` decodes the registers into a `Request`, `dispatch` hands it to the family's file, and that decodes and checks
//! the sub-operation and calls a verb. Policy is in the verbs.

pub mod event;
pub mod grant;
pub mod memory;
mod memory_info;
mod memory_physmap;
#[cfg(test)]
mod memory_tests;
pub mod sched;
pub mod target;
pub mod vcpu;
mod vcpu_initialise;
pub mod vm_assist;

pub use target::{Need, Target, target};

use crate::domain::Domain;
use crate::guest_mem::LinearMemory;
use crate::host::Host;
use crate::vcpu::Vcpu;

/// Who makes a hypercall, and the memory that its pointers lead to.
pub struct Caller<'a> {
    /// The hypervisor's state.
    pub host: &'a Host,
    /// The calling domain.
    pub domain: &'a Domain,
    /// The calling vCPU. Its `hardware` is held by the run loop.
    pub vcpu: &'a Vcpu,
    /// The calling vCPU's address space.
    pub memory: LinearMemory<'a>,
}
