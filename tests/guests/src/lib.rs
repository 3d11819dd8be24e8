//! What the tiny guests share: a verdict, a console, the environment, hypercalls by name, shared pages, time limits.
//!
//! A guest is `guests::guest!("name", run)` with `fn run(test: &mut Test)`. `run` makes checks; afterwards this library
//! prints `GUEST-TEST name PASS` or `GUEST-TEST name FAIL reason` and powers off. `cargo xtask test` reads that; the
//! list of guests and of how each must end is `guests.list`. Expectations are what Xen 4.17 was seen to answer.

#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
pub mod builder;
#[cfg(target_os = "none")]
pub mod call;
#[cfg(target_os = "none")]
pub mod check;
#[cfg(target_os = "none")]
pub mod clock;
#[cfg(target_os = "none")]
pub mod code;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod environment;
#[cfg(target_os = "none")]
pub mod event;
#[cfg(target_os = "none")]
pub mod fifo;
#[cfg(target_os = "none")]
pub mod grant;
#[cfg(target_os = "none")]
pub mod shared;
#[cfg(target_os = "none")]
pub mod smp;
#[cfg(target_os = "none")]
pub mod start;
#[cfg(target_os = "none")]
pub mod store;
#[cfg(target_os = "none")]
pub mod wild;

#[cfg(target_os = "none")]
pub use check::Test;
#[cfg(target_os = "none")]
pub use environment::{Role, role};
#[cfg(target_os = "none")]
pub use start::{shut_down, start};
