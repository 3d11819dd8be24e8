//! The transaction: change the truth under the lock, then make everybody forget, and only then give pages up.
//!
//! [`P2mTxn`] holds the lock and collects what the changes gave up; [`P2mTxn::commit`] releases the lock and gives the duty
//! to flush, as a value; [`Flush::complete`] flushes, waits, and then drops references and frees tables (INV-2). So no page
//! can reach a new owner while any CPU could still reach it through an old translation.

use super::entry::{Entry, Kind, MemoryAccess};
use super::tree::Tree;
use super::update::{ChangeError, Emptied, MOST_TABLES, Replaced, Spares};
use super::view::{IoLost, View};
use super::{DomainP2m, HostFormat};
use core::sync::atomic::Ordering;
use machine::frame;
use machine::lock::{Guard, rank};
use machine::table::Table;
use machine::{Gfn, Mfn, log};
use public_abi::Errno;

/// What one change gives up at the most: a frame or block, and the tables that it has emptied, here and in the view.
const MOST_OF_ONE: usize = 1 + 2 * MOST_TABLES;
/// What a transaction gives up at the most: the rest belongs to the next transaction.
const MOST_RELEASED: usize = 16 + MOST_OF_ONE;

/// What a change gave up, to be released after the flush.
#[derive(Debug)]
pub(super) enum Released {
    /// One reference to each page of a block.
    Frames(Mfn, u32),
    /// A table that was taken out of the tree.
    Table(Table),
}

/// What becomes of the references that a replaced entry held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OldReferences {
    /// They are dropped after the flush.
    Released,
    /// They are the caller's now.
    Callers,
}

/// Which translations a transaction takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lost {
    /// None yet.
    Nothing,
    /// Those of one page.
    Page(Mfn),
    /// Others, too.
    More,
}

/// What the lock of a p2m protects.
#[derive(Debug)]
pub(super) struct Locked {
    pub(super) tree: Tree<HostFormat>,
    /// What the domain's devices see of it.
    pub(super) view: Option<View>,
    pub(super) spares: Spares,
    /// The domain's memory is being taken apart: no table is made any more.
    pub(super) is_closing: bool,
    /// Before this frame all entries were removed by the end of the domain's memory.
    pub(super) cursor: Gfn,
    /// What transactions gave up beyond one thing each. It waits here and not in the transaction, which would be ten times as
    /// large for the few that need it. Whoever takes it out flushes everything before releasing it, whoever put it in.
    pub(super) released: heapless::Vec<Released, { MOST_RELEASED - 1 }>,
}

/// Changes to a p2m. The lock is held until it is committed or dropped; a dropped one has made its changes, too.
#[derive(Debug)]
pub struct P2mTxn<'p> {
    pub(super) p2m: &'p DomainP2m,
    // Dropped before the flush, which must not wait under the lock.
    pub(super) locked: Guard<'p, Locked, { rank::P2M }>,
    pub(super) flush: Flush<'p>,
}

/// The duty to flush, and what may be released after it. Dropping it instead of completing it does the same, and is counted
/// as a bug.
#[derive(Debug)]
#[must_use = "pages stay allocated and stale until the flush is completed"]
pub struct Flush<'p> {
    p2m: &'p DomainP2m,
    first: Option<Released>,
    /// There may be more in the map itself.
    has_more: bool,
    /// Whether somebody may still use a right that is gone.
    stale: bool,
    /// What the rights were to.
    lost: Lost,
    /// What devices have lost.
    io_lost: IoLost,
    /// Whether there is something to flush or to release.
    due: bool,
}

impl<'p> Flush<'p> {
    pub(super) const fn new(p2m: &'p DomainP2m) -> Self {
        let (lost, io_lost) = (Lost::Nothing, IoLost::Nothing);
        Self { p2m, first: None, has_more: false, stale: false, lost, io_lost, due: false }
    }

    /// Makes all CPUs forget what changed, waits until they have, and releases what the changes gave up. Must not be
    /// called with a lock of rank P2M or above held.
    #[inline]
    pub fn complete(mut self) {
        self.due = false;
        self.run();
    }

    #[inline]
    fn run(&mut self) {
        if self.has_more {
            self.has_more = false;
            self.stale = false;
            self.io_lost = IoLost::Nothing;
            return self.p2m.release_waiting(self.first.take());
        }
        if self.stale {
            self.stale = false;
            let page = if let Lost::Page(mfn) = self.lost { Some(mfn) } else { None };
            self.p2m.epoch.flush(page);
        }
        if !matches!(self.io_lost, IoLost::Nothing) {
            let io_lost = core::mem::replace(&mut self.io_lost, IoLost::Nothing);
            if self.p2m.flush_devices(io_lost).is_err() {
                return self.p2m.keep_for_ever(self.first.take().is_some());
            }
        }
        if let Some(released) = self.first.take() {
            self.p2m.let_go(released);
        }
    }
}

impl DomainP2m {
    /// Locks the map for a transaction, which finds all room for what it will give up.
    #[inline]
    pub(super) fn lock_for_changes(&self) -> Guard<'_, Locked, { rank::P2M }> {
        loop {
            let locked = self.locked.lock();
            if locked.released.is_empty() {
                return locked;
            }
            drop(locked);
            self.release_waiting(None);
        }
    }

    /// Flushes everything, and releases what waits in the map. Some of it may be of another transaction, which has not come to
    /// its own flush yet: its changes were made before it was put there, so this flush is after them, too.
    #[cold]
    fn release_waiting(&self, first: Option<Released>) {
        let rest = core::mem::take(&mut self.locked.lock().released);
        self.epoch.flush(None);
        if self.flush_devices(IoLost::More).is_err() {
            return self.keep_for_ever(true);
        }
        for released in first.into_iter().chain(rest) {
            self.let_go(released);
        }
    }

    /// Pages that devices may still reach are never given up: they stay with their last owner, and are lost to the machine.
    #[cold]
    fn keep_for_ever(&self, is_loss: bool) {
        if is_loss && !self.has_lost_pages.swap(true, Ordering::AcqRel) {
            log!(Error, "an IOMMU does not answer: what {} gives up from now on is not used again", self.owner);
        }
    }

    fn let_go(&self, released: Released) {
        match released {
            Released::Frames(mfn, order) => frame::put_block(mfn, order),
            Released::Table(table) => self.recycle(table),
        }
    }
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        if self.due {
            self.p2m.lost_flushes.fetch_add(1, Ordering::Relaxed);
            self.run();
        }
    }
}

impl<'p> P2mTxn<'p> {
    /// What a frame is now. The entry may cover more frames.
    #[inline]
    pub fn entry(&self, gfn: Gfn) -> Entry {
        self.locked.tree.find(gfn)
    }

    /// The first entry at or after `from` that is not an empty hole: for whoever looks at all of them.
    pub fn next(&self, from: Gfn) -> Option<(Gfn, Entry)> {
        self.locked.tree.next(from, &mut 0)
    }

    /// Whether any change is sure to find enough spare tables and room for what it gives up. If not: commit, complete, and
    /// begin again.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.locked.spares.is_full() && self.has_room_to_release()
    }

    /// Whether a change finds room for what it gives up.
    #[inline]
    pub fn has_room_to_release(&self) -> bool {
        usize::from(self.flush.first.is_some()) + self.locked.released.len() <= MOST_RELEASED - MOST_OF_ONE
    }

    /// Sets an entry. A reference to each frame of `new` goes over to the table, if its kind holds references; what the old
    /// entry held is released after the flush. Gives the old entry, cut to the order of the new one.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed, and the references stay the caller's.
    #[inline]
    pub fn set(&mut self, gfn: Gfn, new: Entry) -> Result<Entry, ChangeError> {
        self.set_checked(gfn, new, |_| Ok(()))
    }

    /// As [`P2mTxn::set`], if `check` lets what is there be replaced: saves looking it up first.
    ///
    /// # Errors
    /// As [`P2mTxn::set`], and `Refused` with the error of `check`.
    #[inline]
    pub fn set_checked(
        &mut self,
        gfn: Gfn,
        new: Entry,
        check: impl FnOnce(Kind) -> Result<(), Errno>,
    ) -> Result<Entry, ChangeError> {
        self.set_unless_pinned(gfn, new, OldReferences::Released, check)
    }

    /// As [`P2mTxn::set_checked`], but the references that the old entry held go over to the caller. A page that others
    /// shall get must not be among them before the flush is complete.
    ///
    /// # Errors
    /// As [`P2mTxn::set_checked`].
    pub fn exchange(
        &mut self,
        gfn: Gfn,
        new: Entry,
        check: impl FnOnce(Kind) -> Result<(), Errno>,
    ) -> Result<Entry, ChangeError> {
        self.set_unless_pinned(gfn, new, OldReferences::Callers, check)
    }

    #[inline]
    fn set_unless_pinned(
        &mut self,
        gfn: Gfn,
        new: Entry,
        references: OldReferences,
        check: impl FnOnce(Kind) -> Result<(), Errno>,
    ) -> Result<Entry, ChangeError> {
        if new.kind.is_pinned_by_devices() {
            return Err(ChangeError::PinnedByDevices);
        }
        self.set_if(gfn, new, references, |old| {
            check(old.kind).map_err(ChangeError::Refused)?;
            if old.kind.is_pinned_by_devices() { Err(ChangeError::PinnedByDevices) } else { Ok(()) }
        })
    }

    /// As [`P2mTxn::set`], also for entries that belong to devices: for assigning and taking away devices, and for building.
    ///
    /// # Errors
    /// As [`P2mTxn::set`].
    pub fn set_anything(&mut self, gfn: Gfn, new: Entry) -> Result<Entry, ChangeError> {
        self.set_if(gfn, new, OldReferences::Released, |_| Ok(()))
    }

    #[inline]
    fn set_if(
        &mut self,
        gfn: Gfn,
        new: Entry,
        references: OldReferences,
        agree: impl FnOnce(&Entry) -> Result<(), ChangeError>,
    ) -> Result<Entry, ChangeError> {
        let old = self.write(gfn, &new, agree)?;
        if old.kind.holds_reference() && references == OldReferences::Released {
            if old.kind.is_own_ram() {
                // Its owner pays for it until the last reference goes, which may not be this one.
                frame::leave(old.mfn, old.order);
            }
            self.release(Released::Frames(old.mfn, old.order));
        }
        self.note_change(gfn, &old, &new);
        Ok(old)
    }

    /// Sets an entry, and notes what became of tables. Gives the old entry, cut to the order of the new one.
    #[inline]
    fn write(
        &mut self,
        gfn: Gfn,
        new: &Entry,
        agree: impl FnOnce(&Entry) -> Result<(), ChangeError>,
    ) -> Result<Entry, ChangeError> {
        if !self.has_room_to_release() {
            return Err(ChangeError::NoRoom);
        }
        let Locked { tree, view, spares, .. } = &mut *self.locked;
        // Most domains have no devices, and most changes empty no table: what is needed then is kept out of the way.
        if let Some(view) = view {
            // Nothing may stand against the view's change once the truth has changed.
            let missing = view.missing(gfn, new);
            if missing > 0 && missing.saturating_add(tree.missing(gfn, new)) > spares.len() {
                return Err(ChangeError::NoRoom);
            }
        }
        match tree.set(gfn, new, spares, agree) {
            Ok(Replaced { entry, emptied }) => {
                if view.is_some() {
                    self.follow(gfn, new);
                }
                if !emptied.is_empty() {
                    // A stale walk may still read them.
                    self.flush.stale = true;
                    self.release_tables(emptied);
                }
                Ok(entry)
            }
            Err(error) => {
                if error == ChangeError::TooManyTables {
                    self.p2m.complain_of_limit(tree.limit);
                }
                Err(error)
            }
        }
    }

    /// Has the view follow a change of the truth.
    #[inline(never)]
    fn follow(&mut self, gfn: Gfn, new: &Entry) {
        let Locked { view, spares, .. } = &mut *self.locked;
        let Some(view) = view else { return };
        let emptied = view.follow(gfn, new, spares, &mut self.flush.io_lost);
        self.flush.due |= self.flush.io_lost != IoLost::Nothing;
        self.release_tables(emptied);
    }

    #[cold]
    fn release_tables(&mut self, tables: Emptied) {
        for table in tables {
            self.release(Released::Table(table));
        }
    }

    /// Changes what a frame is while its machine frame stays: rights narrowed or widened, ballooned out of a 1:1 domain and
    /// back. Splits a larger entry. Gives the old entry.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed. `WrongTarget` if one of the kinds has a frame with reference and the other not.
    #[inline]
    pub fn retype(&mut self, gfn: Gfn, order: u32, kind: Kind) -> Result<Entry, ChangeError> {
        let old = self.entry(gfn).part_covering(gfn, order);
        if old.order != order {
            return Err(ChangeError::WrongTarget(old.mfn));
        }
        self.retype_entry(gfn, &old, kind)?;
        Ok(old)
    }

    /// As [`P2mTxn::retype`], where `old` is what [`P2mTxn::entry`] has said, cut to the order that is wanted: saves looking it
    /// up again.
    ///
    /// # Errors
    /// As [`P2mTxn::retype`]; also `WrongTarget` if that is not what is there.
    #[inline]
    pub fn retype_entry(&mut self, gfn: Gfn, old: &Entry, kind: Kind) -> Result<(), ChangeError> {
        if old.kind.holds_reference() != kind.holds_reference() {
            return Err(ChangeError::WrongTarget(old.mfn));
        }
        self.rewrite(gfn, old, Entry { kind, ..*old })
    }

    /// Narrows or widens what introspection leaves of a frame's rights. Splits a larger entry. Gives the old entry.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed. `PinnedByDevices` for what belongs to a device.
    pub fn restrict(&mut self, gfn: Gfn, order: u32, access: MemoryAccess) -> Result<Entry, ChangeError> {
        let old = self.entry(gfn).part_covering(gfn, order);
        if old.kind.is_pinned_by_devices() {
            return Err(ChangeError::PinnedByDevices);
        }
        if old.order != order {
            return Err(ChangeError::BadFrame);
        }
        self.rewrite(gfn, &old, Entry { access, ..old })?;
        Ok(old)
    }

    /// Writes an entry whose machine frame stays. `old` is what [`P2mTxn::entry`] has said in this transaction, cut to the
    /// order of `new`; both kinds hold references, or none does.
    #[inline]
    fn rewrite(&mut self, gfn: Gfn, old: &Entry, new: Entry) -> Result<(), ChangeError> {
        self.write(gfn, &new, |now| if now == old { Ok(()) } else { Err(ChangeError::WrongTarget(now.mfn)) })?;
        self.note_change(gfn, old, &new);
        Ok(())
    }

    fn note_change(&mut self, gfn: Gfn, old: &Entry, new: &Entry) {
        let rights = old.rights();
        if !rights.is_empty() && (old.mfn != new.mfn || !rights.difference(new.rights()).is_empty()) {
            self.flush.stale = true;
            self.flush.due = true;
            let is_first = self.flush.lost == Lost::Nothing && old.order == 0 && new.order == 0;
            self.flush.lost = if is_first { Lost::Page(old.mfn) } else { Lost::More };
        }
        if new.kind != Kind::Hole {
            self.p2m.note_mapped(gfn, new.order);
        }
    }

    fn release(&mut self, released: Released) {
        self.flush.due = true;
        if self.flush.first.is_none() {
            self.flush.first = Some(released);
            return;
        }
        self.flush.has_more = true;
        if let Err(released) = self.locked.released.push(released) {
            // Cannot be: room was checked before the change. Losing a page is better than freeing it too early.
            debug_assert!(false, "no room for {released:?}");
            self.p2m.lost_flushes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the changes, releases the lock, and completes the flush: [`P2mTxn::commit`] and [`Flush::complete`] without moving
    /// what is to be released about. Must not be called with another lock of rank P2M or above held.
    #[inline]
    pub fn finish(mut self) {
        drop(self.locked);
        self.flush.due = false;
        self.flush.run();
    }

    /// Ends the changes and releases the lock. The flush is still to be completed.
    #[inline]
    pub fn commit(self) -> Flush<'p> {
        let Self { locked, flush, .. } = self;
        drop(locked);
        flush
    }
}
