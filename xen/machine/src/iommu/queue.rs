//! A ring in memory from which a unit takes what it is told, and the word in which it says how far it is. The same for all makers
//! but for what the records mean.
//!
//! Before this: `amd` and `intel`, which compose records. After it: the unit.

use super::{MAX_UNITS, Stuck};
use crate::arch;
use crate::cpu;
use crate::frame::{self, Fill, Kind};
use crate::lock::{Lock, rank};
use crate::platform::device_write;
use crate::units::{DomId, Maddr, Mfn, PAGE_SIZE_U64};
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a record.
pub(super) const RECORD_BYTES: u64 = 16;
/// Records of a ring, which takes a page.
pub(super) const RECORDS: u64 = PAGE_SIZE_U64 / RECORD_BYTES;
/// Records that go into a ring in one go. All CPUs together cannot fill a ring: each has one batch in it, and waits.
pub(super) const MOST_RECORDS: usize = 3;
const _: () = assert!(MOST_RECORDS * crate::platform::MAX_CPUS < RECORDS as usize);
/// How long a unit may take for a batch, in milliseconds. What a healthy one takes are microseconds.
const PATIENCE: u64 = 1000;

/// Two words that a unit reads or writes.
pub(super) type Record = [u64; 2];

/// A word of the hypervisor's memory that a unit reads or writes, too.
pub(super) fn word(maddr: Maddr) -> &'static AtomicU64 {
    let place = arch::page_address(maddr.frame()).wrapping_add(maddr.offset() & !7).cast::<AtomicU64>();
    // SAFETY: all callers pass addresses inside of pages that `iommu` has allocated and never frees while it uses them;
    // they are reached by atomics and by the units only.
    unsafe { &*place }
}

/// As [`word`], all of a page.
pub(super) fn page_words(mfn: Mfn) -> &'static [AtomicU64] {
    let place = arch::page_address(mfn).cast::<AtomicU64>();
    // SAFETY: as in `word`; a page has 512 words and is aligned to its size.
    unsafe { core::slice::from_raw_parts(place, (PAGE_SIZE_U64 / 8) as usize) }
}

/// Zeroed pages for what units read and write.
pub(super) fn allocate(order: u32) -> Option<Mfn> {
    frame::allocate(order, Kind::Hypervisor, DomId(0), Fill::Zero)
}

/// Waits for something that a unit does by itself, for a second at the most.
pub(super) fn within_patience(mut is_done: impl FnMut() -> bool) -> Result<(), Stuck> {
    let start = cpu::timestamp();
    while !is_done() {
        if cpu::timestamp().wrapping_sub(start) > cpu::timestamp_khz().saturating_mul(PATIENCE) {
            return Err(Stuck);
        }
        cpu::relax();
    }
    Ok(())
}

/// The records under way.
#[derive(Debug, Default)]
struct Ring {
    /// Where the next record goes, in bytes.
    tail: u64,
    /// The number that the last batch stores.
    last: u32,
}

/// The ring of one unit.
#[derive(Debug)]
pub(super) struct Queue {
    records: Mfn,
    /// Where the unit stores the number of a batch that it has done.
    done: Mfn,
    ring: Lock<Ring, { rank::IOMMU }>,
}

impl Queue {
    pub(super) fn try_new() -> Option<Self> {
        let records = allocate(0)?;
        let Some(done) = allocate(0) else {
            frame::free(records, 0);
            return None;
        };
        Some(Self { records, done, ring: Lock::new(Ring::default()) })
    }

    /// Where the records are.
    pub(super) fn base(&self) -> u64 {
        self.records.address().number()
    }

    /// Hands records over by writing the tail to its register, and gives the number to wait for. `wait` makes the record that
    /// lets the unit store a number at an address when it has done all before.
    pub(super) fn begin(&self, records: &[Record], wait: impl Fn(u64, u32) -> Record, tail: Maddr) -> u32 {
        let mut ring = self.ring.lock();
        ring.last = ring.last.wrapping_add(1);
        let wait = wait(self.done.address().number(), ring.last);
        for record in records.iter().take(MOST_RECORDS - 1).chain([&wait]) {
            let place = self.base() + ring.tail;
            for (offset, value) in [0, 8].into_iter().zip(record) {
                word(Maddr::new(place + offset)).store(*value, Ordering::Relaxed);
            }
            ring.tail = (ring.tail + RECORD_BYTES) % PAGE_SIZE_U64;
        }
        // Units see the stores above before the tail, which is written last (AMD 48882, 2.4; Intel VT-d, 6.5.2).
        core::sync::atomic::fence(Ordering::SeqCst);
        // It was mapped when the unit was set up, so this cannot fail; if it did, `wait` would say so.
        let _written = device_write(tail, 4, ring.tail as u32);
        ring.last
    }

    /// Waits until a batch is done. Numbers wrap around: a later one counts as done, too.
    pub(super) fn wait(&self, number: u32) -> Result<(), Stuck> {
        let done = word(self.done.address());
        within_patience(|| (done.load(Ordering::Acquire) as u32).wrapping_sub(number) < 1 << 31)
    }

    pub(super) fn free(self) {
        [self.records, self.done].into_iter().for_each(|page| frame::free(page, 0));
    }
}

/// Hands something to all units, by `begin`, before the first is waited for.
pub(super) fn tell_all<U>(units: &[U], queue: impl Fn(&U) -> &Queue, begin: impl Fn(&U) -> u32) -> Result<(), Stuck> {
    let numbers: heapless::Vec<u32, MAX_UNITS> = units.iter().map(begin).collect();
    units.iter().zip(numbers).try_for_each(|(unit, number)| queue(unit).wait(number))
}
