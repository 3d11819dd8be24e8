//! Linear pages that a vCPU's hypercalls have used, kept from one hypercall to the next: a guest's kernel has its arguments
//! in the same few places again and again, and a walk of its tables costs a thousand instructions.
//!
//! Why a kept page cannot mislead. In each hypercall it is checked before its first use: the registers that decide a walk are
//! the same, so is the p2m's epoch (no guest page has been taken away or moved), and each entry of the walk, read again, is
//! unchanged. That is the walk itself with only the look-ups in the p2m left out. Within one hypercall it is not checked
//! again for reading: a guest that changes its tables in the middle of its own hypercall gets either page. It is written only
//! if the map has taken nothing away since it was found writable. The pages and the tables are pinned, so that they are not
//! freed; `forget` gives them back when the vCPU leaves its CPU, `begin` when the epoch has moved. If all that happened between
//! two epochs is that one frame went, pages that have nothing to do with it stay (`forget_frame`).

use super::walk::Registers;
use crate::p2m::Access;
use core::cell::{Cell, RefCell};
use machine::frame::Pin;
use machine::memory::PinnedWord;
use machine::{Gpa, Mfn};

/// Levels of a walk that are kept.
const KEPT_LEVELS: usize = 4;
/// Pages that are kept.
const KEPT_PAGES: usize = 2;

/// The entries that a walk has read: where each is, and what it was.
#[derive(Debug, Default)]
pub(super) struct Steps {
    entries: heapless::Vec<(PinnedWord, u64), KEPT_LEVELS>,
    is_incomplete: bool,
}

impl Steps {
    /// No step yet.
    pub(super) const fn new() -> Self {
        Self { entries: heapless::Vec::new(), is_incomplete: false }
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, word: PinnedWord, entry: u64) {
        self.is_incomplete |= self.entries.push((word, entry)).is_err();
    }

    /// Says that there was a step which is not added: the walk cannot be checked.
    pub(super) const fn skip(&mut self) {
        self.is_incomplete = true;
    }

    /// The table of the lowest level, if the walk had all four.
    pub(super) fn lowest_table(mut self) -> Option<Pin> {
        let is_whole = !self.is_incomplete && self.entries.len() == KEPT_LEVELS;
        self.entries.pop().filter(|_| is_whole).map(|(word, _)| word.into_pin())
    }

    /// Whether an entry lies in a frame, or might.
    fn rest_on(&self, frame: Mfn) -> bool {
        self.is_incomplete || self.entries.iter().any(|(word, _)| word.lies_in(frame))
    }

    /// Whether a new walk would read the same.
    #[inline]
    fn hold(&self) -> bool {
        !self.is_incomplete && self.entries.iter().all(|(word, entry)| word.load() == *entry)
    }
}

/// A page that was found.
pub(super) struct Page {
    /// Linear page number.
    pub(super) number: u64,
    /// The registers that it was found with.
    pub(super) registers: Registers,
    /// The p2m's epoch then.
    pub(super) epoch: u64,
    /// The entries of the walk.
    pub(super) steps: Steps,
    /// Where it begins in guest physical memory.
    pub(super) gpa: Gpa,
    /// Whether it was found writable, by the guest's tables and the p2m.
    pub(super) writable: bool,
    /// The page itself.
    pub(super) pin: Pin,
}

impl Page {
    /// Whether it serves an access in a hypercall that has used it before.
    #[inline]
    fn serves(&self, access: Access, epoch: u64) -> bool {
        access == Access::Read || self.writable && self.epoch == epoch
    }

    /// Whether a new walk and a new look-up would find it again.
    #[inline]
    fn holds(&self, registers: &Registers, epoch: u64) -> bool {
        self.epoch == epoch && self.registers == *registers && self.steps.hold()
    }
}

/// The kept pages.
pub struct Pages {
    slots: RefCell<Slots>,
    /// Which ones the hypercall under way has checked, one bit each.
    checked: Cell<u8>,
    /// The p2m's epoch when it began.
    begun: Cell<u64>,
}

struct Slots {
    pages: [Option<Page>; KEPT_PAGES],
    /// Which one to replace next.
    next: usize,
}

impl Pages {
    /// None.
    pub const fn new() -> Self {
        let slots = RefCell::new(Slots { pages: [const { None }; KEPT_PAGES], next: 0 });
        Self { slots, checked: Cell::new(0), begun: Cell::new(0) }
    }

    /// Gives all pages back.
    pub fn forget(&self) {
        if let Ok(mut slots) = self.slots.try_borrow_mut() {
            slots.pages = [const { None }; KEPT_PAGES];
        }
    }

    /// Gives the pages back that have to do with a frame, and those that were not known at the epoch `before`. The others are
    /// as good at the epoch `now`: the frame is all that the domain has lost between the two.
    pub fn forget_frame(&self, frame: Mfn, before: u64, now: u64) {
        let Ok(mut slots) = self.slots.try_borrow_mut() else { return };
        for slot in &mut slots.pages {
            match slot {
                Some(page) if page.epoch == before && page.pin.mfn() != frame && !page.steps.rest_on(frame) => {
                    page.epoch = now;
                }
                _ => *slot = None,
            }
        }
        self.begun.set(now);
    }

    /// Another hypercall begins: nothing is checked, and pages of before the p2m's epoch are given back, since they may be
    /// the domain's no more.
    #[inline]
    pub(super) fn begin(&self, epoch: u64) {
        self.checked.set(0);
        // Epochs only grow: pages that were found since the last one like this are of this one.
        if self.begun.replace(epoch) == epoch {
            return;
        }
        self.drop_older(epoch);
    }

    #[cold]
    fn drop_older(&self, epoch: u64) {
        let Ok(mut slots) = self.slots.try_borrow_mut() else { return };
        for slot in &mut slots.pages {
            if slot.as_ref().is_some_and(|page| page.epoch != epoch) {
                *slot = None;
            }
        }
    }

    /// Does something with a kept page; gives `work` back if none serves.
    #[inline]
    pub(super) fn with<R, W: FnOnce(&Pin, Gpa) -> R>(
        &self,
        number: u64,
        access: Access,
        registers: &Registers,
        epoch: u64,
        work: W,
    ) -> Result<R, W> {
        let Ok(slots) = self.slots.try_borrow() else { return Err(work) };
        for (page, bit) in slots.pages.iter().zip([1, 2]) {
            let Some(page) = page.as_ref().filter(|page| page.number == number && page.serves(access, epoch)) else {
                continue;
            };
            if self.checked.get() & bit != 0 || page.holds(registers, epoch) {
                self.checked.set(self.checked.get() | bit);
                return Ok(work(&page.pin, page.gpa));
            }
        }
        Err(work)
    }

    /// Keeps a page that the hypercall under way has found; another one goes.
    pub(super) fn keep(&self, page: Page) {
        let Ok(mut slots) = self.slots.try_borrow_mut() else { return };
        let Slots { pages, next } = &mut *slots;
        // A page that no longer serves is replaced first.
        let stale = pages.iter().position(|old| old.as_ref().is_none_or(|old| old.number == page.number));
        let place = stale.unwrap_or(*next);
        *next = if place == 0 { KEPT_PAGES - 1 } else { 0 };
        if let Some(slot) = pages.get_mut(place) {
            *slot = Some(page);
            self.checked.set(self.checked.get() | 1 << place);
        }
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}
