//! console_io: text from and to the control domain before it has a console of its own.
//!
//! As in Xen without debugging, other domains get `EPERM`, for unknown commands too. Output passes through unchanged; input
//! is what `domain::console` has collected since VIRQ_CONSOLE.

use super::Caller;
use crate::domain::console::INPUT_BYTES;
use crate::outcome::{Cursor, Reply, Stop};
use machine::cpu;
use public_abi::console_io::ConsoleIoOp;
use public_abi::hypercall::Caller as Who;
use public_abi::{Errno, GuestPtr};

/// Bytes printed in one go; nobody else can print meanwhile.
const CHUNK: usize = 128;
/// The place of the count among the arguments; the buffer is the next.
const COUNT_ARGUMENT: u8 = 1;

/// Answers console_io.
///
/// # Errors
/// `EPERM`, `EFAULT`; `E2BIG` when asked to read 2 GiB or more; `ENOSYS` for unknown commands.
#[inline(never)]
pub fn handle(caller: &Caller<'_>, command: u32, count: u32, buffer: GuestPtr<()>) -> Reply {
    caller.permit(Who::Control)?;
    match ConsoleIoOp::try_from(command).map_err(|_| Errno::ENOSYS)? {
        ConsoleIoOp::Write => write(caller, count, buffer),
        ConsoleIoOp::Read => read(caller, count, buffer),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Prints. When others must run, what is left goes on later: both the count's register and the buffer's move on.
fn write(caller: &Caller<'_>, count: u32, buffer: GuestPtr<()>) -> Reply {
    let mut address = buffer.address();
    let mut left = u64::from(count);
    let mut chunk = [0; CHUNK];
    while left > 0 {
        if left != u64::from(count) && cpu::must_yield() {
            return Err(Stop::Restart(Some(Cursor::two(COUNT_ARGUMENT, left, address))));
        }
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let Some(part) = chunk.get_mut(..length) else {
            break;
        };
        caller.memory.read_bytes(address, part)?;
        machine::console::raw(part);
        let step = u64::try_from(length).unwrap_or(left);
        left = left.saturating_sub(step);
        // The byte after the last one of all need not exist.
        address = if left == 0 { address } else { address.checked_add(step).ok_or(Errno::EFAULT)? };
    }
    Ok(0)
}

/// Hands over input: as much as there is and fits. Input that cannot be stored stays.
fn read(caller: &Caller<'_>, count: u32, buffer: GuestPtr<()>) -> Reply {
    if count > i32::MAX.unsigned_abs() {
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = [0; INPUT_BYTES];
    let room = usize::try_from(count).unwrap_or(INPUT_BYTES).min(INPUT_BYTES);
    let Some(space) = bytes.get_mut(..room) else {
        return Ok(0);
    };
    let taken = caller.host.console.input.lock().take(space);
    let Some(text) = bytes.get(..taken).filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    caller.memory.write_bytes(buffer.address(), text).inspect_err(|_| {
        caller.host.console.input.lock().give_back(text);
    })?;
    Ok(u64::try_from(taken).unwrap_or(0))
}
