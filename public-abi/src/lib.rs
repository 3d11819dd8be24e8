//! The Xen public ABI, version 4.17, as Rust: what a guest, a toolstack and the hypervisor say to each other.
//!
//! Read it family by family: `hypercall` is the table of calls; each further module holds the numbers and structures
//! of one family and is named like Xen's header. Nothing here does anything: no memory is reached, no call is made.
//! Layouts are those of 64-bit callers, `compat32` has the few 32-bit ones. Field names are Xen's; a structure's
//! documentation begins with the C type it equals. Facts come from Xen's public headers of release 4.17.
//!
//! Users: `xen-core` decodes guests' requests with it, `libxc` makes requests, the bare-metal guests and hvmloader
//! read `start_info` and the rings. See README.md for a list of the main types.
#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
mod layout;

mod arch_hvm_save_devices;

pub mod arch_hvm_save;
pub mod arm;
pub mod bitmap;
pub mod callback;
pub mod compat32;
pub mod console_io;
pub mod cpu_features;
pub mod cpu_policy;
pub mod dm_op;
pub mod domctl;
pub mod domctl_debug;
pub mod domctl_device;
pub mod domctl_domain;
pub mod domctl_vcpu;
pub mod domid;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod grant_table;
pub mod handle;
pub mod hvm_op;
pub mod hvm_params;
pub mod hvm_save;
pub mod hypercall;
pub mod io;
pub mod ioreq;
pub mod kvm_apf;
pub mod memory;
pub mod memory_tools;
pub mod multicall;
pub mod payload;
pub mod physdev;
pub mod platform;
pub mod platform_more;
pub mod sched;
pub mod sched_params;
pub mod sysctl;
pub mod sysctl_more;
pub mod vcpu;
pub mod version;
pub mod virq;
pub mod vm_assist;
pub mod vm_event;
pub mod x86;
pub mod xsm;

pub use errno::Errno;
pub use handle::{GuestPtr, GuestPtr32};
pub use hypercall::{Hypercall, Request};

use core::fmt;

/// A number that a family does not define.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownNumber {
    /// The prefix of the family's names, such as `"XENMEM_"`.
    pub family: &'static str,
    /// The number.
    pub number: u32,
}

impl fmt::Display for UnknownNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}* has no number {}", self.family, self.number)
    }
}

impl core::error::Error for UnknownNumber {}
