//! Boots machines for tests and for people, and judges how they ended.
//!
//! [`dom0`] prepares a run with a Linux control domain and [`watch`] follows it; [`run_dir`] holds a run's files and
//! log. The commands in `crate::commands` only fill in requests.

pub(crate) mod dom0;
pub(crate) mod request;
pub(crate) mod run_dir;
pub(crate) mod watch;
