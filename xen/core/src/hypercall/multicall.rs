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

/// Where in the count's register the number of finished entries stands.
const DONE_SHIFT: u32 = 32;
const COUNT_REGISTER: usize = 1;

/// Makes the calls of a list.
///
/// # Errors
/// EFAULT if the list cannot be read or written; the results of single calls are in the list.
#[inline(never)]
pub fn call(caller: &Caller<'_>, list: GuestPtr<()>, registers: [u64; 6]) -> Reply {
    let register = registers.get(COUNT_REGISTER).copied().unwrap_or(0);
    let (done, count) = (register >> DONE_SHIFT, register & u64::from(u32::MAX));
    let size = u64::try_from(size_of::<MulticallEntry>()).unwrap_or(0);
    for index in done..count {
        if index != done && cpu::has_work() {
            return Err(restart(index, count));
        }
        let address = index.checked_mul(size).and_then(|offset| list.address().checked_add(offset));
        let address = address.ok_or(Errno::EFAULT)?;
        let entry: MulticallEntry = caller.memory.read(GuestPtr::from_address(address))?;
        // A list inside a list would let a guest nest without end.
        let reply = if entry.op == Hypercall::Multicall.number() {
            Err(Stop::Error(Errno::EINVAL))
        } else {
            super::dispatch(caller, entry.op, entry.args)
        };
        let field = |offset: usize| u64::try_from(offset).ok().and_then(|offset| address.checked_add(offset));
        let put = |place: Option<u64>, value: u64| {
            let place = place.ok_or(Errno::EFAULT)?;
            caller.memory.write(GuestPtr::<u64>::from_address(place), &value)
        };
        let value = match reply {
            Ok(value) | Err(Stop::Block(value) | Stop::Yield(value)) => value,
            Err(Stop::Error(errno)) => i64::from(errno.number()).wrapping_neg().cast_unsigned(),
            Err(Stop::Restart(cursor)) => {
                if let Some(cursor) = cursor {
                    let offset = usize::from(cursor.argument).saturating_mul(8);
                    put(field(offset_of!(MulticallEntry, args).saturating_add(offset)), cursor.value)?;
                }
                return Err(restart(index, count));
            }
            Err(crash @ Stop::Crash(_)) => return Err(crash),
        };
        put(field(offset_of!(MulticallEntry, result)), value)?;
        // A call that waits or gives way does so after the whole list is done up to here.
        if let Err(Stop::Block(_) | Stop::Yield(_)) = reply
            && index.saturating_add(1) < count
        {
            return Err(restart(index.saturating_add(1), count));
        }
    }
    Ok(0)
}

fn restart(done: u64, count: u64) -> Stop {
    let value = done << DONE_SHIFT | count;
    Stop::Restart(Some(Cursor { argument: 1, value }))
}
