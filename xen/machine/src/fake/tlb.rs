//! The walk of nested page tables, through a TLB that forgets nothing by itself.
//!
//! Translations are cached as finished leaves and, like real processors do, as pointers to the lower tables; both are kept
//! until their address-space tag is flushed. Accessed and dirty bits are set as hardware sets them (AMD APM volume 2,
//! 15.25.5 and 5.4.2). All accesses of a nested walk count as user accesses (15.25.5).

use super::ram::Ram;
use crate::exit::AccessKind;
use crate::frame::{FrameTable, Kind};
use crate::units::{Gpa, Maddr, Mfn};
use core::sync::atomic::Ordering;
use std::collections::HashMap;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const NO_EXECUTE: u64 = 1 << 63;

/// What is remembered of translations, by address-space tag.
#[derive(Debug, Default)]
pub(super) struct Tlb {
    leaves: HashMap<(u32, u64), Leaf>,
    tables: HashMap<(u32, u32, u64), Step>,
}

/// A finished translation of one 4 KiB page.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    mfn: Mfn,
    rights: Rights,
    dirty: bool,
}

/// The rights that all entries on the way give.
#[derive(Clone, Copy, Debug)]
struct Rights {
    write: bool,
    execute: bool,
}

/// A table on the way.
#[derive(Clone, Copy, Debug)]
struct Step {
    table: Mfn,
    rights: Rights,
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NotPresent,
    Rights,
    Reserved,
}

impl Rights {
    fn allow(self, kind: AccessKind) -> bool {
        match kind {
            AccessKind::Read => true,
            AccessKind::Write => self.write,
            AccessKind::Execute => self.execute,
        }
    }

    fn and(self, entry: u64) -> Self {
        Self { write: self.write && entry & WRITABLE != 0, execute: self.execute && entry & NO_EXECUTE == 0 }
    }
}

/// What a walk reads.
pub(super) struct Walk<'a> {
    pub(super) ram: &'a Ram,
    pub(super) frames: &'a FrameTable,
    /// Address-space tag.
    pub(super) tag: u32,
    /// Level 4 table.
    pub(super) root: Mfn,
}

impl Tlb {
    pub(super) fn flush_all(&mut self) {
        self.leaves.clear();
        self.tables.clear();
    }

    pub(super) fn flush_tag(&mut self, tag: u32) {
        self.leaves.retain(|key, _| key.0 != tag);
        self.tables.retain(|key, _| key.0 != tag);
    }

    /// Remembered translations of a tag.
    pub(super) fn len(&self, tag: u32) -> usize {
        self.leaves.keys().filter(|key| key.0 == tag).count()
    }

    /// The machine page behind a guest address.
    pub(super) fn translate(&mut self, walk: &Walk<'_>, gpa: Gpa, kind: AccessKind) -> Result<Mfn, Fault> {
        let key = (walk.tag, gpa.frame().number());
        if let Some(leaf) = self.leaves.get(&key).copied() {
            if !leaf.rights.allow(kind) {
                // The processor reports what it remembers and forgets it: the fault may be spurious.
                self.forget(walk.tag, gpa);
                return Err(Fault::Rights);
            }
            if kind != AccessKind::Write || leaf.dirty {
                return Ok(leaf.mfn);
            }
            self.leaves.remove(&key);
        }
        let leaf = self.walk(walk, gpa, kind)?;
        self.leaves.insert(key, leaf);
        Ok(leaf.mfn)
    }

    fn forget(&mut self, tag: u32, gpa: Gpa) {
        self.leaves.remove(&(tag, gpa.frame().number()));
        for level in 2..=4 {
            self.tables.remove(&(tag, level, gpa.number() >> shift(level)));
        }
    }

    fn walk(&mut self, walk: &Walk<'_>, gpa: Gpa, kind: AccessKind) -> Result<Leaf, Fault> {
        if gpa.number() >> 48 != 0 {
            return Err(Fault::NotPresent);
        }
        let (mut level, mut step) = self.start(walk, gpa);
        loop {
            let state = walk.frames.info(step.table).map(crate::frame::FrameInfo::state);
            assert!(
                state.is_some_and(|state| state.kind == Kind::Table),
                "the walk of {gpa:?} reads {:?} as a level {level} table, but that is {state:?}",
                step.table
            );
            let index = gpa.number() >> shift(level) & 511;
            let place = step.table.address().checked_add(index * 8).expect("tables are below the top");
            let entry = walk.ram.word(place).expect("the frame table knows RAM only").load(Ordering::Acquire);
            if entry & PRESENT == 0 {
                return Err(Fault::NotPresent);
            }
            let is_leaf = level == 1 || entry & LARGE != 0 && level <= 3;
            let low_bits = (1 << shift(level)) - 1;
            let reserved = if is_leaf && level > 1 { entry & ADDRESS & low_bits & !(1 << 12) } else { 0 };
            if reserved != 0 || level == 4 && entry & LARGE != 0 {
                return Err(Fault::Reserved);
            }
            let rights = step.rights.and(entry);
            if entry & USER == 0 || is_leaf && !rights.allow(kind) {
                return Err(Fault::Rights);
            }
            let dirty = if is_leaf && kind == AccessKind::Write { DIRTY } else { 0 };
            if !self.mark(walk, place, entry, ACCESSED | dirty) {
                // Somebody changed the entry meanwhile: read it again.
                continue;
            }
            if is_leaf {
                let base = Maddr::new(entry & ADDRESS & !low_bits).frame();
                let mfn = base.saturating_add((gpa.number() & low_bits) >> crate::PAGE_SHIFT);
                return Ok(Leaf { mfn, rights, dirty: (entry | dirty) & DIRTY != 0 });
            }
            step = Step { table: Maddr::new(entry & ADDRESS).frame(), rights };
            self.tables.insert((walk.tag, level, gpa.number() >> shift(level)), step);
            level -= 1;
        }
    }

    /// Where the walk begins: at the lowest table that is remembered.
    fn start(&self, walk: &Walk<'_>, gpa: Gpa) -> (u32, Step) {
        for level in 2..=4 {
            if let Some(step) = self.tables.get(&(walk.tag, level, gpa.number() >> shift(level))) {
                return (level - 1, *step);
            }
        }
        (4, Step { table: walk.root, rights: Rights { write: true, execute: true } })
    }

    /// Sets bits in an entry if it still is what was read.
    fn mark(&self, walk: &Walk<'_>, place: Maddr, entry: u64, bits: u64) -> bool {
        let Some(word) = walk.ram.word(place) else { return false };
        entry & bits == bits || word.compare_exchange(entry, entry | bits, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// log2 of the bytes that an entry of a level spans.
const fn shift(level: u32) -> u32 {
    3 + 9 * level
}
