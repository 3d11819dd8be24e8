//! `cargo xtask bench`: what operations cost in instructions, on Oxen and on Debian's Xen, and how much memory both take.
//!
//! In the order of the data: [`plan`] (which machines, chosen by the options) → [`machines`] (boots each, gives its console's
//! text) → [`parse`] (numbers out of the text) → [`rows`] (what is known of each number: title, unit, goal) → [`table`] (both
//! hypervisors side by side) → [`print`] (for people) and [`json`]. [`profile`] looks into one row by hypervisor address.
//! [`toolstack`] is the scene that the plugin counts, with the programs of [`marks`].
//! To add a row: measure it in `tests/guests/src/bin/bench` and name it in `rows`.

pub(crate) mod json;
pub(crate) mod machines;
pub(crate) mod marks;
pub(crate) mod parse;
pub(crate) mod plan;
pub(crate) mod print;
pub(crate) mod profile;
pub(crate) mod rows;
pub(crate) mod table;
pub(crate) mod toolstack;
