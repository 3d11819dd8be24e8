//! Hypercalls from 32-bit code: those whose structures look the same to 32-bit and 64-bit callers.
//!
//! GRUB's PVH image is the caller that matters. Numbers and arguments are in EAX and EBX, ECX, EDX, ESI, EDI, EBP, which
//! `vcpu::run` knows. Calls with pointers inside their structures
//! (memory_op, grant_table_op, poll) answer ENOSYS: SUPPORT.md says so.

use super::Caller;
use crate::outcome::Reply;
use public_abi::{Errno, Request};

/// Does what the registers of a 32-bit caller ask for.
///
/// # Errors
/// The family's, or ENOSYS for a call that needs another layout.
pub fn dispatch(caller: &Caller<'_>, number: u64, registers: [u64; 6]) -> Reply {
    const SCHEDOP_POLL: u32 = 3;
    let registers = registers.map(|register| register & u64::from(u32::MAX));
    match Request::decode(number & u64::from(u32::MAX), registers)? {
        Request::EventChannelOp { cmd, arg } => super::event::event_channel_op(caller, cmd, arg),
        Request::SchedOp { cmd, arg } if cmd != SCHEDOP_POLL => super::sched::sched_op(caller, cmd, arg),
        Request::HvmOp { cmd, arg } => super::hvm::handle(caller, cmd, arg),
        Request::XenVersion { cmd, arg } => super::version::handle(caller, cmd, arg),
        Request::ConsoleIo { cmd, count, buffer } => super::console_io::handle(caller, cmd, count, buffer),
        _ => Err(Errno::ENOSYS.into()),
    }
}
