//! Decisions.
#![no_std]
#![forbid(unsafe_code)]
pub mod boot;
