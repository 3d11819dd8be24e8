//! The ring that block and network devices share (public/io/ring.h): header and arithmetic.
//!
//! Indices count up for ever and wrap at 2^32; the slot is the index modulo the (power of two) number of slots. Memory
//! barriers and the accesses themselves are the user's: a producer writes the slots, then a barrier, then its index; a
//! consumer reads the index, then a barrier, then copies each slot out exactly once.

abi! {
    /// The head of every shared ring (a C `name_sring` up to its member `ring`).
    pub struct RingHeader = 64 {
        0  req_prod: u32 = "Written by the front end.";
        4  req_event: u32 = "Written by the back end: notify when `req_prod` passes it.";
        8  rsp_prod: u32 = "Written by the back end.";
        12 rsp_event: u32 = "Written by the front end: notify when `rsp_prod` passes it.";
        16 pvt: [u8; 4] = "Private to the protocol.";
        20 pad: [u8; 44];
    }
}

impl RingHeader {
    /// An empty ring that asks for a notification of the first entry on either side.
    #[must_use]
    pub fn empty() -> Self {
        Self { req_event: 1, rsp_event: 1, ..Self::default() }
    }
}

/// Slots of `entry` bytes in a ring of `bytes` bytes: the largest power of two that fits; 0 if none does.
#[must_use]
pub const fn ring_size(bytes: usize, entry: usize) -> u32 {
    let room = bytes.saturating_sub(size_of::<RingHeader>());
    if entry == 0 || room < entry {
        return 0;
    }
    // At most 2^31 slots, so the shift cannot lose the bit.
    let power = (room / entry).ilog2();
    if power > 31 { 0 } else { 1 << power }
}

/// Byte offset of the slot of `index` in a ring of `slots` slots of `entry` bytes.
#[must_use]
pub const fn slot_offset(index: u32, slots: u32, entry: usize) -> usize {
    let slot = (index & slots.wrapping_sub(1)) as usize;
    size_of::<RingHeader>() + slot * entry
}

/// How many entries `producer` is ahead of `consumer`.
#[must_use]
pub const fn unconsumed(producer: u32, consumer: u32) -> u32 {
    producer.wrapping_sub(consumer)
}

/// Whether a producer index read from the other side claims more entries than the ring has: the other side lies.
#[must_use]
pub const fn overflows(producer: u32, consumer: u32, slots: u32) -> bool {
    unconsumed(producer, consumer) > slots
}

/// Whether moving an index from `old` to `new` passes the other side's `event` index, so that it must be notified.
#[must_use]
pub const fn must_notify(old: u32, new: u32, event: u32) -> bool {
    new.wrapping_sub(event) < new.wrapping_sub(old)
}
