//! Boots machines for tests and for people, and judges how they ended.
//!
//! [`dom0`] prepares a run with a Linux control domain, [`boot`] writes its command lines, [`watch`] follows it; [`guest`] runs a bare-metal guest in its
//! place; [`run_dir`] holds a run's files and log. The commands in `crate::commands` only fill in requests.

pub(crate) mod boot;
pub(crate) mod dom0;
pub(crate) mod guest;
pub(crate) mod request;
pub(crate) mod run_dir;
pub(crate) mod watch;
