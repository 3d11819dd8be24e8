//! libxc: what a toolstack is written on.
//!
//! [`plan`] decides everything about building a domain before any of it is done.

pub mod build;
pub mod core_dump;
pub mod device;
pub mod error;
pub mod fault;
pub mod handle;
pub mod linux;
pub mod plan;
pub mod trap;
pub mod verbs;
pub mod xenstore;

pub use error::{Error, Result};
pub use handle::Handle;
pub use linux::Privcmd;
