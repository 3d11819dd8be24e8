//! Changing a table tree: going down to a level, splitting blocks on the way, setting one entry.
//!
//! Nothing here allocates: tables come from [`Spares`], which a transaction has filled before it took the lock. So a change
//! fails before its first write or not at all.

use super::entry::Entry;
use super::format::{Format, LEVELS};
use super::tree::{Tree, in_range, index};
use machine::frame::Kind as FrameKind;
use machine::table::{ENTRIES, Table, TableRef, Target};
use machine::{DomId, Gfn, Mfn};
use public_abi::Errno;

/// Table pages that one change can need: one for each level below the root.
pub(super) const MOST_TABLES: usize = 3;

/// Table pages in reserve.
#[derive(Debug, Default)]
pub(super) struct Spares(heapless::Vec<Table, MOST_TABLES>);

impl Spares {
    pub(super) const fn new() -> Self {
        Self(heapless::Vec::new())
    }

    /// Whether the next change is sure to have enough.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.0.is_full()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a table; gives it back if there are enough.
    pub(super) fn put(&mut self, table: Table) -> Result<(), Table> {
        self.0.push(table)
    }

    pub(super) fn take(&mut self) -> Option<Table> {
        self.0.pop()
    }
}

/// Why an entry was not changed. Nothing was written that anybody can see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeError {
    /// The frame number has more bits than the tables translate, or is not aligned to the entry's order.
    BadFrame,
    /// More spare tables, or more room for released pages, is needed: commit, and begin again.
    NoRoom,
    /// A block shall go where smaller entries still are.
    Occupied,
    /// The machine frame is not what the kind claims, by the frame table.
    WrongTarget(Mfn),
    /// Only assigning devices changes this entry (INV-4).
    PinnedByDevices,
    /// The caller's own rule forbids to replace what is there.
    Refused(Errno),
}

/// What an entry was before it was set.
#[derive(Debug)]
pub(super) struct Replaced {
    /// What it was.
    pub(super) entry: Entry,
    /// The table that was taken out, if the entry pointed to one that was empty.
    pub(super) table: Option<Table>,
}

impl<F: Format> Tree<F> {
    /// Sets one entry if `agree` agrees to what it was, cut to the order of the new one. References to frames are the
    /// caller's business. On failure blocks on the way may have been split, which changes nothing that they say.
    #[inline]
    pub(super) fn set(
        &mut self,
        gfn: Gfn,
        new: &Entry,
        spares: &mut Spares,
        agree: impl FnOnce(&Entry) -> Result<(), ChangeError>,
    ) -> Result<Replaced, ChangeError> {
        let level = new.order / 9;
        let mfn_is_aligned = !new.kind.has_frame() || new.mfn.is_aligned(new.order);
        if level >= LEVELS - 1 || !in_range(gfn) || !gfn.is_aligned(new.order) || !mfn_is_aligned {
            return Err(ChangeError::BadFrame);
        }
        let target = target_of(new)?;
        let found = self.locate(gfn).ok_or(ChangeError::BadFrame)?;
        if found.level == level {
            let old = F::decode(found.bits, new.order);
            agree(&old)?;
            write::<F>(found.table, found.place, new, target)?;
            return Ok(Replaced { entry: old, table: None });
        }
        let root = self.root.as_ref().ok_or(ChangeError::BadFrame)?;
        let table = descend::<F>(root.borrow(), gfn, level, spares, &mut self.tables)?;
        let place = index(gfn, level);
        let bits = table.get(place);
        if F::HARDWARE.is_table(bits) {
            agree(&Entry::hole(new.order))?;
            let taken = replace_table::<F>(table, place, new, target)?;
            self.tables = self.tables.saturating_sub(1);
            return Ok(Replaced { entry: Entry::hole(new.order), table: Some(taken) });
        }
        let old = F::decode(bits, new.order);
        agree(&old)?;
        write::<F>(table, place, new, target)?;
        Ok(Replaced { entry: old, table: None })
    }

    /// Takes the tree apart and frees its tables; entries that hold references were removed before.
    pub(super) fn free_tables(&mut self) {
        if let Some(root) = self.root.take() {
            free_below::<F>(root, LEVELS - 1);
            self.tables = 0;
        }
    }
}

/// Puts a block where a table of nothing but holes is, and gives the table.
fn replace_table<F: Format>(
    table: TableRef<'_>,
    place: usize,
    new: &Entry,
    target: Option<Target>,
) -> Result<Table, ChangeError> {
    let child = table.child(place, &F::HARDWARE).ok_or(ChangeError::Occupied)?;
    if !(0..ENTRIES).all(|place| child.get(place) == 0) {
        return Err(ChangeError::Occupied);
    }
    // Taking the table out leaves a hole for a moment, as the frames were before.
    let taken = table.take_table(place, 0, &F::HARDWARE).ok_or(ChangeError::Occupied)?;
    match write::<F>(table, place, new, target) {
        Ok(()) => Ok(taken),
        Err(error) => {
            table.set_table(place, taken, F::TABLE, &F::HARDWARE);
            Err(error)
        }
    }
}

/// What the machine shall check an entry's frame against; `None` if the entry is absent.
fn target_of(entry: &Entry) -> Result<Option<Target>, ChangeError> {
    if entry.rights().is_empty() {
        return Ok(None);
    }
    if entry.kind.holds_reference() {
        return Ok(Some(Target::Ram(entry.mfn)));
    }
    // Device memory, or RAM that firmware kept for a device: the machine refuses what is neither.
    match machine::frame::state(entry.mfn) {
        Some(state) if state.kind != FrameKind::Reserved => Err(ChangeError::WrongTarget(entry.mfn)),
        _ => Ok(Some(Target::Device(entry.mfn))),
    }
}

/// Writes an entry of a checked place.
fn write<F: Format>(
    table: TableRef<'_>,
    place: usize,
    entry: &Entry,
    target: Option<Target>,
) -> Result<(), ChangeError> {
    let bits = F::encode(entry);
    match target {
        Some(target) => table
            .set_leaf(place, target, entry.order, bits, &F::HARDWARE)
            .map(drop)
            .map_err(|wrong| ChangeError::WrongTarget(wrong.0)),
        None => {
            table.set_absent(place, bits, &F::HARDWARE);
            Ok(())
        }
    }
}

/// The table of `level` that holds a frame's entry; creates it and splits what is in the way.
fn descend<'a, F: Format>(
    root: TableRef<'a>,
    gfn: Gfn,
    level: u32,
    spares: &mut Spares,
    tables: &mut u64,
) -> Result<TableRef<'a>, ChangeError> {
    let mut table = root;
    let mut at = LEVELS - 1;
    while at > level {
        let place = index(gfn, at);
        let bits = table.get(place);
        if !F::HARDWARE.is_table(bits) {
            let fresh = spares.take().ok_or(ChangeError::NoRoom)?;
            match fill::<F>(fresh, bits, at) {
                Ok(fresh) => {
                    table.set_table(place, fresh, F::TABLE, &F::HARDWARE);
                    *tables = tables.saturating_add(1);
                }
                Err((fresh, error)) => {
                    // There was room for it a moment ago.
                    if let Err(fresh) = spares.put(fresh) {
                        fresh.free();
                    }
                    return Err(error);
                }
            }
        }
        table = table.child(place, &F::HARDWARE).ok_or(ChangeError::BadFrame)?;
        at = at.saturating_sub(1);
    }
    Ok(table)
}

/// Makes a new table say of its frames what one entry of level `level` said.
fn fill<F: Format>(fresh: Table, bits: u64, level: u32) -> Result<Table, (Table, ChangeError)> {
    let whole = F::decode(bits, level * 9);
    if bits == 0 {
        return Ok(fresh);
    }
    let order = level.saturating_sub(1) * 9;
    let table = fresh.borrow();
    for (place, number) in (0..ENTRIES).zip(0u64..) {
        let part = whole.part(number, order);
        let written = target_of(&part).and_then(|target| write::<F>(table, place, &part, target));
        if let Err(error) = written {
            for place in 0..ENTRIES {
                table.set_absent(place, 0, &F::HARDWARE);
            }
            return Err((fresh, error));
        }
        if F::HARDWARE.is_present(bits) {
            table.change(place, 0, bits & F::TRACKED, &F::HARDWARE);
        }
    }
    Ok(fresh)
}

fn free_below<F: Format>(table: Table, level: u32) {
    if level > 0 {
        let entries = table.borrow();
        for place in 0..ENTRIES {
            if let Some(child) = entries.take_table(place, 0, &F::HARDWARE) {
                free_below::<F>(child, level.saturating_sub(1));
            }
        }
    }
    table.free();
}

/// A page for a table of `owner`; `None` when memory is out.
pub(super) fn new_table(owner: DomId) -> Option<Table> {
    Table::allocate(owner)
}
