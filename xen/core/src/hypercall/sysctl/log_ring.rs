//! sysctl readconsole: the hypervisor's log, as `xl dmesg` and xenconsoled read it.
//!
//! The log is a ring of the last bytes, numbered from the first ever written; the caller knows the lower 32 bits of such a
//! number. `domain::console` remembers what was cleared.

use super::{answer, parameters};
use crate::hypercall::Caller;
use crate::hypercall::answer::Answer;
use core::ops::Range;
use public_abi::Errno;
use public_abi::sysctl::{ReadConsole, Sysctl};

/// Bytes copied in one go.
const CHUNK: usize = 256;

/// readconsole.
pub fn read(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut ring: ReadConsole = parameters(request)?;
    let (first, end) = caller.host.console.log_range();
    let from = if ring.incremental != 0 { go_on(first, end, ring.index) } else { first };
    let (copied, at) = copy(from..end, ring.count, machine::console::read_ring, |offset, text| {
        let address = ring.buffer.address().checked_add(offset).ok_or(Errno::EFAULT)?;
        caller.memory.write_bytes(address, text)
    })?;
    if ring.clear != 0 {
        caller.host.console.clear_log(at);
    }
    ring.count = u32::try_from(copied).unwrap_or(u32::MAX);
    ring.index = low_half(at);
    answer(request, &ring)
}

/// Copies up to `room` bytes of a range of the log, piece by piece; gives how many, and where to go on. `read` is the ring:
/// it skips what is too old by now.
fn copy(
    range: Range<u64>,
    room: u32,
    read: impl Fn(u64, &mut [u8]) -> (u64, usize),
    mut write: impl FnMut(u64, &[u8]) -> Result<(), Errno>,
) -> Result<(u64, u64), Errno> {
    let (mut at, mut copied) = (range.start, 0_u64);
    while copied < u64::from(room) && at < range.end {
        let mut chunk = [0; CHUNK];
        let most = u64::from(room).saturating_sub(copied).min(range.end.saturating_sub(at));
        let length = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
        let Some(space) = chunk.get_mut(..length) else { break };
        let (start, count) = read(at, space);
        let Some(text) = space.get(..count).filter(|text| !text.is_empty()) else { break };
        write(copied, text)?;
        let count = u64::try_from(count).unwrap_or(0);
        copied = copied.saturating_add(count);
        at = start.saturating_add(count);
    }
    Ok((copied, at))
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
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A ring that keeps the last 1000 bytes of a text.
    fn ring(text: &[u8], from: u64, out: &mut [u8]) -> (u64, usize) {
        let (from, kept) = (usize::try_from(from).unwrap(), text.len().saturating_sub(1000));
        let start = from.clamp(kept, text.len());
        let part = &text[start..text.len().min(start + out.len())];
        out[..part.len()].copy_from_slice(part);
        (u64::try_from(start).unwrap(), part.len())
    }

    proptest! {
        /// Who reads often enough, with buffers of any size, sees every byte once and in order.
        #[test]
        fn the_log_is_a_stream(steps in prop::collection::vec((0_usize..700, 1_u32..900), 1..30)) {
            let (mut text, mut seen, mut index) = (Vec::new(), Vec::new(), 0);
            for (length, room) in steps {
                text.extend((text.len()..text.len() + length).map(|n| n.to_le_bytes()[0]));
                loop {
                    let end = u64::try_from(text.len()).unwrap();
                    let from = go_on(end.saturating_sub(1000), end, index);
                    let mut part = Vec::new();
                    let (copied, at) = copy(from..end, room, |from, out| ring(&text, from, out), |offset, piece| {
                        assert_eq!(offset, u64::try_from(part.len()).unwrap());
                        part.extend_from_slice(piece);
                        Ok(())
                    })
                    .unwrap();
                    prop_assert!(copied == u64::try_from(part.len()).unwrap() && copied <= u64::from(room));
                    if part.is_empty() {
                        break;
                    }
                    index = low_half(at);
                    seen.extend_from_slice(&part);
                }
            }
            prop_assert_eq!(seen, text);
        }
    }

    #[test]
    fn what_is_too_old_is_skipped() {
        let text: Vec<u8> = (0..1500_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (copied, at) = copy(0..1500, 5000, |from, out| ring(&text, from, out), |_, _| Ok(())).unwrap();
        assert_eq!((copied, at), (1000, 1500));
        let failed = copy(0..1500, 5000, |from, out| ring(&text, from, out), |_, _| Err(Errno::EFAULT));
        assert_eq!(failed, Err(Errno::EFAULT));
    }

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
