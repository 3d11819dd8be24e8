//! Grant hypercalls (temporary).
use super::Caller;
use crate::outcome::Reply;
use public_abi::{Errno, GuestPtr};
/// None yet.
pub fn call(_c: &Caller<'_>, _cmd: u32, _arg: GuestPtr<()>, _n: u32) -> Reply { Err(Errno::ENOSYS.into()) }
