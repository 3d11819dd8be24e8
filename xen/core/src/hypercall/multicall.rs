//! Several hypercalls in one (public/xen.h, multicall_entry): 64-bit libxc sends every memory_op this way.
//!
//! Between entries the caller may be preempted; an entry that stops in its own middle has its cursor put into its list
//! entry, so that it goes on there.

use super::Caller;
use crate::outcome::{Cursor, Reply, Stop};
use core::mem::offset_of;
use machine::cpu;
use public_abi::multicall::MulticallEntry;
use public_abi::{Errno, GuestPtr, Hypercall};

/// Makes the calls of a list. What is left of a preempted list is in the registers: where it goes on, and how many calls.
///
/// # Errors
/// EFAULT if the list cannot be read or written; the results of single calls are in the list.
#[inline(never)]
pub fn call(caller: &Caller<'_>, list: GuestPtr<MulticallEntry>, count: u32) -> Reply {
    for index in 0..u64::from(count) {
        let left = u64::from(count).saturating_sub(index);
        let entry = list.element(index).ok_or(Errno::EFAULT)?;
        if index != 0 && cpu::must_yield() {
            return Err(restart(entry, left));
        }
        // What the call before has taken away must not be used any more.
        caller.memory.begin_call();
        let request = caller.memory.read(entry)?;
        // A list inside a list would let a guest nest without end.
        let reply = if request.op == Hypercall::Multicall.number() {
            Err(Stop::Error(Errno::EINVAL))
        } else {
            super::dispatch(caller, request.op, request.args)
        };
        let value = match reply {
            Ok(value) | Err(Stop::Block(value) | Stop::Yield(value)) => value,
            Err(Stop::Error(errno)) => i64::from(errno.number()).wrapping_neg().cast_unsigned(),
            Err(Stop::Restart(cursor)) => {
                for (argument, value) in cursor.into_iter().flat_map(Cursor::changes) {
                    let offset = usize::from(argument).saturating_mul(size_of::<u64>());
                    put(caller, entry, offset_of!(MulticallEntry, args).saturating_add(offset), value)?;
                }
                return Err(restart(entry, left));
            }
            Err(crash @ Stop::Crash(_)) => return Err(crash),
        };
        put(caller, entry, offset_of!(MulticallEntry, result), value)?;
        // A call that waits or gives way does so after the whole list is done up to here.
        if let Err(Stop::Block(_) | Stop::Yield(_)) = reply
            && let (Some(next), 2..) = (list.element(index.saturating_add(1)), left)
        {
            return Err(restart(next, left.saturating_sub(1)));
        }
    }
    Ok(0)
}

/// Writes a field of a list's entry.
fn put(caller: &Caller<'_>, entry: GuestPtr<MulticallEntry>, offset: usize, value: u64) -> Result<(), Errno> {
    let place =
        u64::try_from(offset).ok().and_then(|offset| entry.address().checked_add(offset)).ok_or(Errno::EFAULT)?;
    caller.memory.write(GuestPtr::<u64>::from_address(place), &value)
}

/// Goes on later at an entry, with so many left.
fn restart(entry: GuestPtr<MulticallEntry>, left: u64) -> Stop {
    Stop::Restart(Some(Cursor::two(0, entry.address(), left)))
}
