//! A QEMU plugin that counts the instructions that a hypervisor and its guest retire, and where the hypervisor spends them.
//!
//! The guest marks what is measured with NOPs (`rt::marker_row`, `marker_begin`, `marker_end`): a row is one operation,
//! a sample is one time that it is done. The hypervisor is what runs between a #VMEXIT and the next VMRUN. Loaded by
//! `cargo xtask bench --profile` as `-plugin libhvcount.so,out=FILE,dm=HEX[,row=N]`:
//!
//! - `out`: the report, a text file; see [`report`]. It is written row by row, for QEMU may be killed at any time.
//! - `dm`: where the hypervisor maps physical memory one to one, to read exit codes from VMCBs.
//! - `row`: the row whose instructions are counted by address, from 0.
//!
//! In the order of the data: `qemu` (QEMU's plugin interface, the only unsafe code) → `meter` (what an event means) →
//! `report` (text).

mod meter;
#[cfg(not(test))]
mod qemu;
mod report;
