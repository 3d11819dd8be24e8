//! Changing a table tree: going down to a level, splitting blocks on the way, setting one entry.
//!
//! Nothing here allocates: tables come from [`Spares`], which a transaction has filled before it took the lock. So a change
//! fails before its first write or not at all. A table whose last entry goes is taken out of the tree in the same change, so
//! a guest cannot leave a trail of empty tables behind; and a tree has a limit, which the toolstack sets.

use super::entry::Entry;
use super::format::{Format, LEVELS};
use super::tree::{Tree, in_range, index};
use machine::frame::Kind as FrameKind;
use machine::table::{ENTRIES, Table, TableRef, Target};
use machine::{DomId, Gfn, Mfn};
use public_abi::Errno;

/// Table pages that one change can need: one for each level below the root.
pub(super) const MOST_TABLES: usize = 3;

/// Table pages in reserve: for the truth, and as many again if there is a view.
#[derive(Debug)]
pub(super) struct Spares {
    tables: heapless::Vec<Table, { 2 * MOST_TABLES }>,
    wanted: usize,
}

impl Spares {
    pub(super) const fn new() -> Self {
        Self { tables: heapless::Vec::new(), wanted: MOST_TABLES }
    }

    /// How many there shall be from now on.
    pub(super) fn want(&mut self, count: usize) {
        self.wanted = count;
    }

    /// Whether the next change is sure to have enough.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.tables.len() >= self.wanted
    }

    pub(super) fn len(&self) -> usize {
        self.tables.len()
    }

    /// Adds a table; gives it back if there are enough.
    pub(super) fn put(&mut self, table: Table) -> Result<(), Table> {
        if self.is_full() { Err(table) } else { self.tables.push(table) }
    }

    fn take(&mut self) -> Option<Table> {
        self.tables.pop()
    }

    /// Frees them.
    pub(super) fn free(self) {
        self.tables.into_iter().for_each(Table::free);
    }
}

/// Why an entry was not changed. Nothing was written that anybody can see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeError {
    /// The frame number has more bits than the tables translate, or is not aligned to the entry's order.
    BadFrame,
    /// More spare tables, or more room for released pages, is needed: commit, and begin again.
    NoRoom,
    /// The domain has as many tables as it may have.
    TooManyTables,
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
    /// The tables that the change has emptied and taken out.
    pub(super) emptied: Emptied,
}

/// Tables taken out of a tree.
pub(super) type Emptied = heapless::Vec<Table, MOST_TABLES>;

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
        if found.level < level {
            // No table is empty.
            return Err(ChangeError::Occupied);
        }
        let old = F::decode(found.bits, found.level * 9).part_covering(gfn, new.order);
        agree(&old)?;
        let bits = F::encode(new);
        if found.level == level {
            write::<F>(found.table, found.place, bits, new.order, target)?;
            let is_emptied = bits == 0 && found.table.is_empty();
            let emptied = if is_emptied { self.take_emptied(gfn) } else { Emptied::new() };
            return Ok(Replaced { entry: old, emptied });
        }
        if bits != 0 || found.bits != 0 {
            let missing = found.level.saturating_sub(level);
            self.check_room(missing, spares)?;
            if target.is_some_and(|target| !target.is_valid(new.order)) {
                return Err(ChangeError::WrongTarget(new.mfn));
            }
            let root = self.root.as_ref().ok_or(ChangeError::BadFrame)?;
            let table = descend::<F>(root.borrow(), gfn, level, spares, &mut self.tables)?;
            write::<F>(table, index(gfn, level), bits, new.order, target)?;
        }
        Ok(Replaced { entry: old, emptied: Emptied::new() })
    }

    /// How many tables setting an entry would take.
    pub(super) fn missing(&self, gfn: Gfn, new: &Entry) -> usize {
        let Some(found) = self.locate(gfn) else { return 0 };
        let needs_none = F::encode(new) == 0 && found.bits == 0;
        let missing = found.level.saturating_sub(new.order / 9);
        if needs_none { 0 } else { usize::try_from(missing).unwrap_or(MOST_TABLES) }
    }

    /// Whether so many more tables may be made, and can be.
    fn check_room(&self, missing: u32, spares: &Spares) -> Result<(), ChangeError> {
        if self.tables.saturating_add(u64::from(missing)) > self.limit {
            return Err(ChangeError::TooManyTables);
        }
        let is_enough = usize::try_from(missing).is_ok_and(|missing| missing <= spares.len());
        if is_enough { Ok(()) } else { Err(ChangeError::NoRoom) }
    }

    /// Takes the tables on the way to a frame out that have become empty, from the lowest up. The root stays.
    #[cold]
    fn take_emptied(&mut self, gfn: Gfn) -> Emptied {
        let mut emptied = Emptied::new();
        let Some(root) = &self.root else { return emptied };
        let (mut table, mut level) = (root.borrow(), LEVELS - 1);
        let mut parents = heapless::Vec::<_, MOST_TABLES>::new();
        while let Some(child) = table.child(index(gfn, level), &F::HARDWARE)
            && parents.push((table, index(gfn, level))).is_ok()
        {
            (table, level) = (child, level.saturating_sub(1));
        }
        while let Some((parent, place)) = parents.pop().filter(|_| table.is_empty())
            && let Some(taken) = parent.take_table(place, 0, &F::HARDWARE)
        {
            self.tables = self.tables.saturating_sub(1);
            if let Err(taken) = emptied.push(taken) {
                // Cannot be: there are no more levels than places.
                taken.free();
            }
            table = parent;
        }
        emptied
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

/// Writes the bits of an entry at a checked place.
fn write<F: Format>(
    table: TableRef<'_>,
    place: usize,
    bits: u64,
    order: u32,
    target: Option<Target>,
) -> Result<(), ChangeError> {
    match target {
        Some(target) => table
            .set_leaf(place, target, order, bits, &F::HARDWARE)
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
                    table.set_table(place, fresh, at.saturating_sub(1), F::TABLE, &F::HARDWARE);
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
        let written = target_of(&part).and_then(|target| write::<F>(table, place, F::encode(&part), order, target));
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

/// A page for a table of `owner`; `None` when memory is out.
pub(super) fn new_table(owner: DomId) -> Option<Table> {
    Table::allocate(owner)
}
