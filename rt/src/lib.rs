//! The ground under bare-metal guests: entry, traps, page tables, APIC, further processors. Their only unsafe code.
//!
//! Used by `tests/guests`, later by hvmloader and the stub domain. A guest defines `rt::entry!(main)` and gets the start
//! info's address. A guest that wants faults and interrupts as values, or ring 3, calls [`init`] first. Functions take
//! plain addresses and are safe to call in the sense that a guest has nothing but itself to break: that is its purpose.

#![no_std]
#![cfg_attr(
    target_os = "none",
    expect(
        unsafe_code,
        reason = "this crate is the guests' contact with the machine; every block says why it is sound"
    )
)]

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod ap;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod apic;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod cpu;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod execute;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod memory;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod msr;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod page;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod paging;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod trap;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod x86;

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use ap::{StartState, TRAMPOLINE, prepare, progress, start_cpu};
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use cpu::{KERNEL_CODE, KERNEL_DATA, MAX_CPUS, USER_CODE, USER_DATA, cpu_index};
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use execute::{MAX_CODE, Registers, execute, execute_at, execute_user, execute_user_32};
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use page::{console_by_page, hypercall_page, xen_version_by_page};
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use trap::Fault;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use x86::*;

/// Makes the first processor ready for faults, interrupts, ring 3 and further processors.
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub fn init() {
    cpu::init(0);
}
