//! A domain's table tree: finding entries, and going through those that are not empty.
//!
//! Reading is here, changing is in `update`. Both are reached through the lock in [`super::DomainP2m`] only.

use super::entry::Entry;
use super::format::{Format, GFN_BITS, LEVELS};
use core::marker::PhantomData;
use machine::Gfn;
use machine::table::{ENTRIES, Step, Table, TableRef};

/// The tree. Its root is absent only after the domain's memory was taken apart.
#[derive(Debug)]
pub(super) struct Tree<F> {
    pub(super) root: Option<Table>,
    /// Table pages in the tree.
    pub(super) tables: u64,
    format: PhantomData<F>,
}

/// The lowest entry that covers a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located<'a> {
    /// The table that it stands in.
    pub(super) table: TableRef<'a>,
    /// Its place there.
    pub(super) place: usize,
    /// What it was when it was read.
    pub(super) bits: u64,
    /// The table's level.
    pub(super) level: u32,
}

/// The place of a frame's entry in a table of a level.
#[inline]
pub(super) fn index(gfn: Gfn, level: u32) -> usize {
    // Masked to nine bits: fits into any usize.
    usize::try_from(gfn.number() >> (9 * level) & 511).unwrap_or(0)
}

/// Whether four levels can translate the frame.
#[inline]
pub(super) const fn in_range(gfn: Gfn) -> bool {
    gfn.number() >> GFN_BITS == 0
}

impl<F: Format> Tree<F> {
    pub(super) const fn new(root: Table) -> Self {
        Self { root: Some(root), tables: 1, format: PhantomData }
    }

    /// Goes down to the lowest entry that covers a frame. `None` beyond what the tables translate.
    #[inline]
    pub(super) fn locate(&self, gfn: Gfn) -> Option<Located<'_>> {
        let root = self.root.as_ref().filter(|_| in_range(gfn))?;
        let (mut table, mut level) = (root.borrow(), LEVELS - 1);
        loop {
            let place = index(gfn, level);
            match table.step(place, &F::HARDWARE) {
                Step::Other(bits) => return Some(Located { table, place, bits, level }),
                // Nothing hangs below a page; a tree that is broken there ends here.
                Step::Table(child) => (table, level) = (child, level.checked_sub(1)?),
            }
        }
    }

    /// What a frame is. The entry may cover more frames than this one.
    #[inline]
    pub(super) fn find(&self, gfn: Gfn) -> Entry {
        match self.locate(gfn) {
            Some(found) => F::decode(found.bits, found.level * 9),
            None => Entry::hole((LEVELS - 1) * 9),
        }
    }

    /// The first entry at or after `from` that is not an empty hole: its first frame, and what it is.
    pub(super) fn next(&self, from: Gfn) -> Option<(Gfn, Entry)> {
        let root = self.root.as_ref().filter(|_| in_range(from))?;
        next_below::<F>(root.borrow(), LEVELS - 1, Gfn::new(0), from)
    }

    /// Calls `visit` with the bits, level and first frame of every entry that is not empty and points to no table.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn for_each_leaf(&self, mut visit: impl FnMut(Gfn, u64, u32)) {
        if let Some(root) = &self.root {
            each_below::<F>(root.borrow(), LEVELS - 1, Gfn::new(0), &mut visit);
        }
    }
}

/// The first frame that an entry of a table covers.
fn entry_start(table_start: Gfn, place: usize, level: u32) -> Gfn {
    table_start.saturating_add(u64::try_from(place).unwrap_or(0) << (9 * level))
}

/// As [`Tree::next`], in the table whose first frame is `start`. Depth is bounded by the levels.
fn next_below<F: Format>(table: TableRef<'_>, level: u32, start: Gfn, from: Gfn) -> Option<(Gfn, Entry)> {
    let first = if from > start { index(from, level) } else { 0 };
    for place in first..ENTRIES {
        let at = entry_start(start, place, level);
        match table.step(place, &F::HARDWARE) {
            Step::Other(0) => {}
            Step::Other(bits) => return Some((at, F::decode(bits, level * 9))),
            // Only the first table can hold frames before `from`.
            Step::Table(child) => {
                let found = next_below::<F>(child, level.saturating_sub(1), at, from.max(at));
                if found.is_some() {
                    return found;
                }
            }
        }
    }
    None
}

#[cfg(any(test, debug_assertions))]
fn each_below<F: Format>(table: TableRef<'_>, level: u32, start: Gfn, visit: &mut impl FnMut(Gfn, u64, u32)) {
    for place in 0..ENTRIES {
        let at = entry_start(start, place, level);
        match table.step(place, &F::HARDWARE) {
            Step::Other(0) => {}
            Step::Other(bits) => visit(at, bits, level),
            Step::Table(child) => each_below::<F>(child, level.saturating_sub(1), at, visit),
        }
    }
}
