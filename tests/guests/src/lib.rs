//! What the tiny guests share: printing through the hypervisor's console, a verdict, an end.
//!
//! A guest prints `GUEST-TEST name PASS` or `GUEST-TEST name FAIL reason` and powers off; `cargo xtask test` reads that.

#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
mod bare;
#[cfg(target_os = "none")]
pub use bare::*;
