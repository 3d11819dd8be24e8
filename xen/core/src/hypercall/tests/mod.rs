//! Tests of whole control hypercalls on the fake machine: from the structure in the caller's memory to the answer there.

mod access;
mod console;
mod contexts;
mod debugger;
mod hvm;
mod life;
mod models;
mod multicall;
mod policies;
mod queries;
pub(crate) mod support;
