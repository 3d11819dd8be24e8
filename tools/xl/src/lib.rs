//! xl, the command line of the toolstack.
//!
//! [`config`] reads domain configurations.

pub mod config;
pub mod json;
