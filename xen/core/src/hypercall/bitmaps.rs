//! `xenctl_bitmap` to and from 64-bit sets: CPU maps and node maps of domctl and sysctl.
//!
//! The caller's map may be shorter or longer than ours: what it has no room for is left out, and what we do not have is
//! zero. CPUs and nodes are at most 64 here. Comes after the families' decoding; uses the caller's memory only.

use super::Caller;
#[allow(unused_imports, reason = "needed only while LinearMemory lacks the methods")]
use super::guest_copy::GuestCopy as _;
use public_abi::Errno;
use public_abi::bitmap::Bitmap;

/// Bytes of the largest map that is written whole; Xen has no limit, and tools send one bit per CPU.
const MAX_BYTES: usize = 4096;

/// Bits 0 to `count - 1`.
#[must_use]
pub fn first_bits(count: usize) -> u64 {
    u32::try_from(count).ok().and_then(|count| 1u64.checked_shl(count)).map_or(u64::MAX, |bit| bit.wrapping_sub(1))
}

/// Takes from 8 bytes what a map of `nr_bits` bits means on a host with `count` bits.
fn decode(bytes: [u8; 8], nr_bits: u32, count: usize) -> u64 {
    let valid = usize::try_from(nr_bits).unwrap_or(usize::MAX);
    u64::from_le_bytes(bytes) & first_bits(valid) & first_bits(count)
}

/// Reads a caller's map; bits from `count` on are ignored.
///
/// # Errors
/// `EFAULT`.
pub fn read(caller: &Caller<'_>, map: &Bitmap, count: usize) -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    let length = map_bytes(map).min(count.div_ceil(8)).min(bytes.len());
    if let Some(part) = bytes.get_mut(..length).filter(|part| !part.is_empty()) {
        caller.memory.read_bytes(map.bitmap.address(), part)?;
    }
    Ok(decode(bytes, map.nr_bits, count))
}

/// Writes the first `count` bits of `set` to a caller's map, as many as fit, and zeroes the rest of it.
///
/// # Errors
/// `EFAULT`; `EINVAL` for a map of more than [`MAX_BYTES`].
pub fn write(caller: &Caller<'_>, map: &Bitmap, set: u64, count: usize) -> Result<(), Errno> {
    const CHUNK: usize = 64;
    let bytes = (set & first_bits(count)).to_le_bytes();
    let total = map_bytes(map);
    if total > MAX_BYTES {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while done < total {
        let mut chunk = [0; CHUNK];
        let length = total.saturating_sub(done).min(CHUNK);
        for (place, byte) in chunk.iter_mut().zip(bytes.iter().skip(done)) {
            *place = *byte;
        }
        let address = u64::try_from(done).ok().and_then(|done| map.bitmap.address().checked_add(done));
        let part = chunk.get(..length).unwrap_or_default();
        caller.memory.write_bytes(address.ok_or(Errno::EFAULT)?, part)?;
        done = done.saturating_add(length);
    }
    Ok(())
}

fn map_bytes(map: &Bitmap) -> usize {
    usize::try_from(map.nr_bits).unwrap_or(usize::MAX).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bits_covers_the_whole_word() {
        assert_eq!(first_bits(0), 0);
        assert_eq!(first_bits(1), 1);
        assert_eq!(first_bits(63), u64::MAX >> 1);
        assert_eq!(first_bits(64), u64::MAX);
        assert_eq!(first_bits(1000), u64::MAX);
    }

    #[test]
    fn bits_beyond_either_side_are_dropped() {
        let all = [0xff; 8];
        assert_eq!(decode(all, 3, 64), 7, "the caller's last byte has three valid bits");
        assert_eq!(decode(all, 64, 2), 3, "the host has two CPUs");
        assert_eq!(decode(all, 0, 64), 0);
    }
}
