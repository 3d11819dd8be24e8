//! What each CPU of the fake machine has: noted work, a pending interrupt, a timer, a TLB, address-space tags.
//!
//! As on the real machine, another CPU notes its kick itself, while devices and the timer only raise an interrupt, which is
//! noted as work when it is taken: in a window, in the idle loop, or when it makes a guest exit. An interrupt that was taken
//! in a window does not stop the next guest.

use super::tlb::Tlb;
use crate::cpu::Work;
use crate::units::CpuId;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// No deadline.
const NEVER: u64 = u64::MAX;
/// Address-space tags of a CPU; few, so that tests see them used up.
const TAGS: u32 = 8;

/// Names what a CPU may have cached of a vCPU's translations. The default names nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressSpaceTag {
    /// Which CPU, counted from 1, in the lower 16 bits, and how often its tags were used up; 0 for no tag.
    generation: u64,
    number: u32,
}

/// A CPU.
#[derive(Debug)]
pub(super) struct Cpu {
    work: AtomicU32,
    /// Work that will be noted when the interrupt is taken.
    raised: AtomicU32,
    interrupt: AtomicBool,
    deadline: AtomicU64,
    pub(super) working_for: AtomicU64,
    pub(super) kicks: AtomicU64,
    translation: Mutex<Translation>,
}

/// What the CPU remembers of translations.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) tlb: Tlb,
    generation: u64,
    next: u32,
}

impl Cpu {
    pub(super) fn new(id: CpuId) -> Self {
        Self {
            work: AtomicU32::new(0),
            raised: AtomicU32::new(0),
            interrupt: AtomicBool::new(false),
            deadline: AtomicU64::new(NEVER),
            working_for: AtomicU64::new(NEVER),
            kicks: AtomicU64::new(0),
            translation: Mutex::new(Translation {
                tlb: Tlb::default(),
                generation: 0x1_0000 + u64::from(id.0) + 1,
                next: 1,
            }),
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
    /// The number of a tag, renewed if the tag names nothing on this CPU.
    pub(super) fn number(&mut self, tag: &mut AddressSpaceTag) -> u32 {
        if tag.generation != self.generation {
            if self.next >= TAGS {
                self.generation += 0x1_0000;
                self.next = 1;
                self.tlb.flush_all();
            }
            *tag = AddressSpaceTag { generation: self.generation, number: self.next };
            self.next += 1;
        }
        tag.number
    }
}
