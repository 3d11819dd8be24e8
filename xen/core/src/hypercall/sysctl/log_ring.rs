//! sysctl readconsole: the hypervisor's log, as `xl dmesg` and xenconsoled read it.
//!
//! The log is a ring of the last bytes, numbered from the first ever written; the caller knows the lower 32 bits of such a
//! number. `domain::console` remembers what was cleared.

use super::{answer, parameters};
use crate::hypercall::Caller;
use crate::hypercall::answer::Answer;
#[allow(unused_imports, reason = "needed only while LinearMemory lacks the methods")]
use crate::hypercall::guest_copy::GuestCopy as _;
use public_abi::Errno;
use public_abi::sysctl::{ReadConsole, Sysctl};

/// Bytes copied in one go.
const CHUNK: usize = 256;

/// readconsole.
pub fn read(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut ring: ReadConsole = parameters(request)?;
    let (first, end) = caller.host.console.log_range();
    let mut at = if ring.incremental != 0 { go_on(first, end, ring.index) } else { first };
    let mut copied = 0_u64;
    while copied < u64::from(ring.count) && at < end {
        let mut chunk = [0; CHUNK];
        let most = u64::from(ring.count).saturating_sub(copied).min(end.saturating_sub(at));
        let room = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
        let Some(space) = chunk.get_mut(..room) else {
            break;
        };
        // What is too old by now is skipped.
        let (start, count) = machine::console::read_ring(at, space);
        let Some(text) = space.get(..count).filter(|text| !text.is_empty()) else {
            break;
        };
        let address = ring.buffer.address().checked_add(copied).ok_or(Errno::EFAULT)?;
        caller.memory.write_bytes(address, text)?;
        let count = u64::try_from(count).unwrap_or(0);
        copied = copied.saturating_add(count);
        at = start.saturating_add(count);
    }
    if ring.clear != 0 {
        caller.host.console.clear_log(at);
    }
    ring.count = u32::try_from(copied).unwrap_or(u32::MAX);
    ring.index = low_half(at);
    answer(request, &ring)
}

/// Where to go on for a caller who has read up to a number with these lower bits: there, if it is between the first byte
/// that can be read and the end; else at the first.
fn go_on(first: u64, end: u64, index: u32) -> u64 {
    let behind = low_half(end).wrapping_sub(index);
    match end.checked_sub(u64::from(behind)) {
        Some(at) if at > first && at <= end => at,
        _ => first,
    }
}

fn low_half(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_where_it_stopped() {
        assert_eq!(go_on(100, 200, 150), 150);
        assert_eq!(go_on(100, 200, 200), 200, "nothing new");
        assert_eq!(go_on(100, 200, 100), 100);
    }

    #[test]
    fn a_reader_from_elsewhere_starts_at_the_first_byte() {
        assert_eq!(go_on(100, 200, 0), 100, "too old");
        assert_eq!(go_on(100, 200, 201), 100, "not yet written");
        assert_eq!(go_on(0, 200, u32::MAX), 0);
    }

    #[test]
    fn numbers_wrap_around_in_32_bits() {
        let end = (1 << 32) + 50;
        assert_eq!(go_on(end - 100, end, 20), (1 << 32) + 20);
        assert_eq!(go_on(end - 100, end, u32::MAX), (1 << 32) - 1);
        assert_eq!(low_half(end), 50);
    }
}
