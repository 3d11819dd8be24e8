//! The two-level ABI: a pending and a mask bit per port in shared_info, and a selector word per vCPU.
//!
//! Layouts are those of 64-bit guests (public/xen.h, shared_info): 64 words of 64 bits. The selector is in vcpu_info, which
//! `upcall` writes after the table's lock is released.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use machine::frame::Pin;
use machine::memory;
use public_abi::event_channel::TWO_LEVEL_NR_CHANNELS;
use public_abi::x86::SharedInfo;

use super::port::index;

const PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
const MASK: usize = offset_of!(SharedInfo, evtchn_mask);
/// Ports in a word.
const WORD: u32 = 64;

/// The bitmap word of a port and the port's bit in it; `None` for ports that this ABI does not have.
#[inline]
fn place(shared_info: &Pin, map: usize, port: u32) -> Option<(&AtomicU64, u64)> {
    if port >= TWO_LEVEL_NR_CHANNELS {
        return None;
    }
    let word = memory::atomic::<u64>(shared_info, map + index(port / WORD) * size_of::<u64>())?;
    Some((word, 1 << (port % WORD)))
}

/// Whether the port's event has been raised.
pub fn is_pending(shared_info: &Pin, port: u32) -> bool {
    place(shared_info, PENDING, port).is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
}

/// Whether the guest has masked the port.
pub fn is_masked(shared_info: &Pin, port: u32) -> bool {
    place(shared_info, MASK, port).is_none_or(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
}

/// Forgets a raised event.
pub fn clear_pending(shared_info: &Pin, port: u32) {
    if let Some((word, bit)) = place(shared_info, PENDING, port) {
        word.fetch_and(!bit, Ordering::SeqCst);
    }
}

/// What raising an event did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The event was not pending before.
    pub newly_pending: bool,
    /// The word whose bit must be set in the selector of the vCPU.
    pub select: Option<u8>,
}

/// The word of a port, as the selector counts.
#[inline]
fn selector(port: u32) -> Option<u8> {
    u8::try_from(port / WORD).ok()
}

/// Raises an event.
#[inline]
pub fn set_pending(shared_info: &Pin, port: u32) -> Change {
    const NOTHING: Change = Change { newly_pending: false, select: None };
    let Some((word, bit)) = place(shared_info, PENDING, port) else { return NOTHING };
    if word.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
        return NOTHING;
    }
    Change { newly_pending: true, select: if is_masked(shared_info, port) { None } else { selector(port) } }
}

/// Unmasks a port; gives the word to select if an event has been waiting behind the mask.
pub fn unmask(shared_info: &Pin, port: u32) -> Option<u8> {
    let (word, bit) = place(shared_info, MASK, port)?;
    let was_masked = word.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
    if was_masked && is_pending(shared_info, port) { selector(port) } else { None }
}
