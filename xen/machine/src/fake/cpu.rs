//! What each CPU of the fake machine has: noted work, a pending interrupt, a timer, a TLB, address-space tags.
//!
//! As on the real machine, another CPU notes its kick itself, while devices and the timer only raise an interrupt, which is
//! noted as work when it is taken: in a window, in the idle loop, or when it makes a guest exit. An interrupt that was taken
//! in a window does not stop the next guest.

use super::tlb::Tlb;
use crate::codec::tags::{AddressSpaceTag, Flush, Tags};
use crate::cpu::Work;
use crate::units::CpuId;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// No deadline.
const NEVER: u64 = u64::MAX;
/// Address-space tags of a CPU; few, so that tests see them used up.
const TAGS: u32 = 8;

/// A CPU.
#[derive(Debug)]
pub(super) struct Cpu {
    work: AtomicU32,
    /// Work that will be noted when the interrupt is taken.
    raised: AtomicU32,
    /// Vectors of devices, one bit each; noted as work when the interrupt is taken.
    vectors: [AtomicU64; 4],
    interrupt: AtomicBool,
    deadline: AtomicU64,
    pub(super) working_for: AtomicU64,
    pub(super) kicks: AtomicU64,
    /// DR0 to DR3, which VMRUN does not exchange.
    debug_registers: [AtomicU64; 4],
    translation: Mutex<Translation>,
}

/// What the CPU remembers of translations.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) tlb: Tlb,
    tags: Tags,
}

impl Cpu {
    pub(super) fn new(id: CpuId) -> Self {
        Self {
            work: AtomicU32::new(0),
            raised: AtomicU32::new(0),
            vectors: [const { AtomicU64::new(0) }; 4],
            interrupt: AtomicBool::new(false),
            deadline: AtomicU64::new(NEVER),
            working_for: AtomicU64::new(NEVER),
            kicks: AtomicU64::new(0),
            debug_registers: [const { AtomicU64::new(0) }; 4],
            translation: Mutex::new(Translation { tlb: Tlb::default(), tags: Tags::new(id) }),
        }
    }

    /// The TLB and the tags. A test that failed on another thread does not matter.
    pub(super) fn translation(&self) -> MutexGuard<'_, Translation> {
        self.translation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, work: Work) {
        let noted_by_sender = work & Work::KICK;
        self.work.fetch_or(noted_by_sender.bits(), Ordering::AcqRel);
        self.raised.fetch_or((work - noted_by_sender).bits(), Ordering::AcqRel);
        self.interrupt.store(true, Ordering::Release);
    }

    pub(super) fn note_vector(&self, vector: u8) {
        self.vectors[usize::from(vector >> 6)].fetch_or(1 << (vector & 63), Ordering::AcqRel);
    }

    pub(super) fn take_device_vectors(&self) -> [u64; 4] {
        self.vectors.each_ref().map(|part| part.swap(0, Ordering::AcqRel))
    }

    pub(super) fn work(&self) -> Work {
        Work::from_bits_retain(self.work.load(Ordering::Acquire))
    }

    pub(super) fn take_work(&self) -> u32 {
        self.work.swap(0, Ordering::AcqRel)
    }

    /// Whether an interrupt was pending; it is not any more, and what it raised is noted.
    pub(super) fn take_interrupt(&self) -> bool {
        let was_pending = self.interrupt.swap(false, Ordering::AcqRel);
        if was_pending {
            self.work.fetch_or(self.raised.swap(0, Ordering::AcqRel), Ordering::AcqRel);
        }
        was_pending
    }

    pub(super) fn has_interrupt(&self) -> bool {
        self.interrupt.load(Ordering::Acquire)
    }

    pub(super) fn debug_registers(&self) -> [u64; 4] {
        self.debug_registers.each_ref().map(|register| register.load(Ordering::Relaxed))
    }

    pub(super) fn set_debug_registers(&self, values: [u64; 4]) {
        self.debug_registers.iter().zip(values).for_each(|(register, value)| register.store(value, Ordering::Relaxed));
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        Some(self.deadline.load(Ordering::Acquire)).filter(|deadline| *deadline != NEVER)
    }

    pub(super) fn set_deadline(&self, deadline: Option<u64>, now: u64) {
        self.deadline.store(deadline.unwrap_or(NEVER), Ordering::Release);
        self.expire(now);
    }

    /// Raises the timer's interrupt if its time has come.
    pub(super) fn expire(&self, now: u64) {
        let due = |deadline: u64| (deadline != NEVER && deadline <= now).then_some(NEVER);
        if self.deadline.try_update(Ordering::AcqRel, Ordering::Acquire, due).is_ok() {
            self.note(Work::TIMER);
        }
    }
}

impl Translation {
    /// A tag that names something on this CPU, new if `tag` does not; and what must be flushed before it is used.
    pub(super) fn renew(&mut self, tag: AddressSpaceTag) -> (AddressSpaceTag, Flush) {
        if self.tags.is_current(tag) { (tag, Flush::No) } else { self.tags.allocate(TAGS) }
    }

    /// A control block was refused, and nothing was flushed for it.
    pub(super) fn end_round(&mut self) {
        self.tags.end_round();
    }
}
