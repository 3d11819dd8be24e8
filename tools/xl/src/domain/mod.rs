//! Life of a domain: its images and specification, creating it, changing it, watching over
//! it, destroying it.

pub mod attach;
pub mod change;
pub mod core_dump;
pub mod create;
pub mod destroy;
pub mod devices;
pub mod guest;
pub mod history;
pub mod machine;
pub mod monitor;
pub mod present;
mod preserve;
mod room;
