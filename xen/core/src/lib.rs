//! Everything the hypervisor decides. No unsafe code: what touches hardware is asked of `machine`.
//!
//! In the order of the data: `boot` brings up the host and its control domain; `vcpu::run` is the loop that everything
//! passes through: run → exit → outcome → resume. A hypercall goes `hypercall` (table, access) → `hypercall::<family>`
//! (decode, check) → a verb in `memory`, `event`, `grant`, `domain`, `sched`. Guest memory is reached through `guest_mem`
//! only, and translations are changed through `p2m` only.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot;
pub mod dom0;
pub mod domain;
pub mod event;
pub mod fault;
pub mod grant;
pub mod guest_mem;
pub mod host;
pub mod hypercall;
pub mod interrupt;
pub mod iommu;
pub mod memory;
pub mod outcome;
pub mod p2m;
pub mod pci;
pub mod power;
pub mod sched;
#[cfg(test)]
mod test_allocator;
pub mod time;
pub mod timer;
pub mod vcpu;
pub mod x86;
