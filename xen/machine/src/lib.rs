//! Everything that touches hardware: the only crate of the hypervisor with unsafe code.
//!
//! `x86` runs on the real thing, `fake` is a host architecture for tests whose RAM is an array and whose exits are scripted.
//! Both export equal names (`arch::…`), on which the modules here build one API for the core: pages (`frame`, `memory`,
//! `table`), processors (`cpu`, `lock`), virtual processors (`vcpu`, `exit`), and the console. Formats that hardware reads
//! are pure data in `codec`.
//!
//! What comes before: the boot loader. What comes after: `xen-core`, which decides.

#![no_std]
#![expect(unsafe_code, reason = "this crate is where unsafe lives; every block says why it is sound")]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

pub mod boot_info;
pub mod boxed;
pub mod codec;
pub mod console;
pub mod cpu;
pub mod exit;
pub mod frame;
pub mod heap;
pub mod iommu;
pub mod lock;
pub mod memory;
pub mod platform;
pub mod table;
pub mod units;
pub mod vcpu;

#[cfg(not(target_os = "none"))]
pub mod fake;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod x86;

#[cfg(not(target_os = "none"))]
use fake::arch;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
use x86 as arch;

pub use units::{CpuId, DomId, Gfn, Gpa, Maddr, Mfn, PAGE_SHIFT, PAGE_SIZE, PAGE_SIZE_U64};
