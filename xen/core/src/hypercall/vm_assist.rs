//! vm_assist (hypercall 21): the assists that a domain switches on and off.
//!
//! HVM and PVH guests have one, the flag in run-state areas; all others are about PV page tables and do not exist for them.

use super::Caller;
use crate::outcome::Reply;
use public_abi::Errno;
use public_abi::vm_assist::{VmAssistOp, VmAssistType};

/// Answers the call.
///
/// # Errors
/// EINVAL for an assist that the domain does not have, ENOSYS for a command that does not exist.
pub fn vm_assist(caller: &Caller<'_>, command: u32, assist: u32) -> Reply {
    if assist != VmAssistType::RunstateUpdateFlag.number() {
        return Err(Errno::EINVAL.into());
    }
    let bit = 1u64 << (assist & 63);
    match VmAssistOp::try_from(command).map_err(|_| Errno::ENOSYS)? {
        VmAssistOp::Enable => caller.domain.events.change_assists(bit, 0),
        VmAssistOp::Disable => caller.domain.events.change_assists(0, bit),
        _ => return Err(Errno::ENOSYS.into()),
    }
    Ok(0)
}
