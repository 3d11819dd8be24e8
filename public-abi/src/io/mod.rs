//! Protocols of paravirtual devices: rings in granted pages (public/io/*.h).
//!
//! The hypervisor never looks into them. `ring` is common to block and network; console and xenstore have their own.

pub mod blkif;
pub mod console;
pub mod netif;
pub mod ring;
pub mod xenbus;
pub mod xs_wire;
