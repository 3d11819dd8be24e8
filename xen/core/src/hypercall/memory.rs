//! Memory hypercalls (temporary).
use super::Caller;
use crate::outcome::Reply;
use public_abi::{Errno, GuestPtr};
/// None yet.
pub fn call(_c: &Caller<'_>, _cmd: u64, _arg: GuestPtr<()>) -> Reply { Err(Errno::ENOSYS.into()) }
