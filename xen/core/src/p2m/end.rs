//! The end of a domain's memory map: every entry goes, and with the entries the tables, in bounded steps.
//!
//! A cursor in the map remembers how far it has come, and emptied tables are freed as it passes; so all steps together look
//! at each entry of each table about once, and what is left for the domain's last moment is the root. Before this:
//! `memory::relinquish`. Nothing comes after it: a map that is being taken apart gets no table any more.

use super::entry::Entry;
use super::update::Spares;
use super::{DomainP2m, P2mTxn};
use machine::Gfn;

/// Entries that a step looks at before it stops: a few tables full.
const MOST_LOOKS: u64 = 2048;
/// Pages that a step gives up before it stops.
const MOST_PAGES: u64 = 512;

/// What a step has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndStep {
    /// Nothing is left but the root.
    pub is_done: bool,
    /// Pages given up, or entries removed where these are more.
    pub pages: u64,
    /// Entries looked at.
    pub looks: u64,
}

impl DomainP2m {
    /// Takes a bounded part of the map apart: entries are removed whole, own RAM and pages of others lose the entry's
    /// reference. `removed` hears of each, before its pages are given up.
    pub fn end_step(&self, mut removed: impl FnMut(&Entry)) -> EndStep {
        self.close();
        let mut txn = self.begin_removal();
        let mut step = EndStep { is_done: false, pages: 0, looks: 0 };
        while txn.has_room_to_release() && step.looks < MOST_LOOKS && step.pages < MOST_PAGES {
            let Some((gfn, entry)) = txn.next_to_end(&mut step.looks) else {
                step.is_done = true;
                break;
            };
            // A whole entry becomes a hole of its own size, which needs nothing and is always allowed.
            let result = txn.set_anything(gfn, Entry::hole(entry.order));
            debug_assert!(result.is_ok(), "{gfn:?} cannot be removed: {result:?}");
            if result.is_ok() {
                removed(&entry);
            }
            // Giving pages up is what takes time; other entries count once.
            let pages = if entry.kind.holds_reference() { 1 << entry.order } else { 1 };
            step.pages = step.pages.saturating_add(pages);
        }
        txn.finish();
        step
    }

    /// Devices reach nothing any more, no table is made any more, and none is kept in reserve.
    fn close(&self) {
        self.detach();
        let spares = {
            let mut locked = self.locked.lock();
            locked.is_closing = true;
            core::mem::replace(&mut locked.spares, Spares::new())
        };
        spares.free();
    }
}

impl P2mTxn<'_> {
    /// The first entry that the end of the map has not passed yet.
    fn next_to_end(&mut self, looks: &mut u64) -> Option<(Gfn, Entry)> {
        let locked = &mut *self.locked;
        let mut found = locked.tree.next(locked.cursor, looks);
        if found.is_none() && locked.tree.tables > 1 {
            // Something was put behind the cursor. Without a new table it cannot have been much.
            found = locked.tree.next(Gfn::new(0), looks);
        }
        if let Some((gfn, entry)) = found {
            locked.cursor = gfn.saturating_add(1 << entry.order);
        }
        found
    }
}

impl Drop for DomainP2m {
    /// Frees the root. Whatever else is there is there because the domain was never finished, or in a test.
    fn drop(&mut self) {
        while !self.end_step(|_| {}).is_done {}
        if let Some(root) = self.locked.get_mut().tree.root.take() {
            self.flush_all();
            root.free();
        }
    }
}
