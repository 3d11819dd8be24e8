//! libxc: what a toolstack is written on.
//!
//! [`plan`] decides everything about building a domain before any of it is done.

pub mod plan;
