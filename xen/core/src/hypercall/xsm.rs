//! xsm_op: there is no security module, and Xen's answer to that is `ENOSYS`, whoever calls. xl accepts it.

use crate::outcome::Reply;
use public_abi::Errno;

/// Answers xsm_op.
///
/// # Errors
/// Always `ENOSYS`.
pub fn handle() -> Reply {
    Err(Errno::ENOSYS.into())
}
