//! What is special to x86: shared pages, boot information, hypervisor CPUID leaves and register images.
//!
//! Data only, so it compiles everywhere: `shared_info` (pages that hypervisor and guest share), `start_info` (what a
//! PVH guest finds at entry), `cpuid` (leaves and MSR of the hypervisor), `guest_context` (registers of a vCPU as PV
//! tools and core dumps see them).

pub mod cpuid;
mod guest_context;
mod shared_info;
mod start_info;

pub use guest_context::*;
pub use shared_info::*;
pub use start_info::*;
