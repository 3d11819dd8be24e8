//! A whole host in one test: toolstack, hypervisor, control domain and guests on the fake machine.
//!
//! The text of a configuration file goes through the real toolstack, which makes real hypercalls from the memory of a
//! control domain that the real hypervisor has booted; guests run scripts, and touch their memory through tables and TLBs
//! that keep stale entries. All of it runs on one thread at a time and takes milliseconds.
//!
//! In the order of the data: `kernel` (what all domains run) → `world` (a host that has booted) → `processor` (single
//! instructions) → `control` (the control domain's kernel) → `trap` (the toolstack's way down), `store` (a xenstored) →
//! `command` (xl's commands, each a process) → `guest`, `calls` (guest code) → `snapshot` (everything there is, for "as before").

pub mod audit;
pub mod backends;
pub mod calls;
pub mod command;
pub mod control;
pub mod guest;
pub mod harmless;
pub mod host;
pub mod kernel;
pub mod processor;
pub mod random;
pub mod snapshot;
pub mod store;
pub mod tally;
pub mod templates;
pub mod toolstack;
pub mod trap;
pub mod world;
