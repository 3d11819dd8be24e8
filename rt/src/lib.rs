//! The ground under bare-metal guests: entry, hypercall instruction, ports, registers. Their only unsafe code.
//!
//! Used by `tests/guests`, later by hvmloader and the stub domain. A guest defines `rt::entry!(main)` and gets the start
//! info's address.

#![no_std]
#![expect(unsafe_code, reason = "this crate is the guests' contact with the machine; every block says why it is sound")]

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
mod x86;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub use x86::*;
