//! The pool of free pages: a buddy allocator whose lists run through the frame table.
//!
//! Blocks of 2^0 to 2^18 pages. The pool owns nothing but list heads; all else is in [`FrameInfo`]. A free page keeps the
//! mark that it may hold old content, and whoever allocates it asks for zeroes or does not care: nothing is scrubbed twice.

use super::info::{FrameInfo, Kind, State};
use super::scrub::Unscrubbed;
use crate::units::{DomId, Mfn};

/// The largest block: 1 GiB.
pub const MAX_ORDER: u32 = 18;
/// End of a list.
const NONE: u32 = u32::MAX;

/// Where a page's record is found; `None` for pages that are not RAM.
pub trait Records {
    /// The record of `mfn`.
    fn info(&self, mfn: Mfn) -> Option<&FrameInfo>;

    /// Calls `work` with each of `count` pages from `mfn` on that is RAM, and its record.
    fn each(&self, mfn: Mfn, count: u64, mut work: impl FnMut(Mfn, &FrameInfo)) {
        for mfn in (0..count).map(|page| mfn.saturating_add(page)) {
            if let Some(info) = self.info(mfn) {
                work(mfn, info);
            }
        }
    }
}

/// The list heads and the count of free pages.
#[derive(Debug)]
pub struct Pool {
    heads: [u32; MAX_ORDER as usize + 1],
    free_pages: u64,
    unscrubbed: Unscrubbed,
}

impl Pool {
    /// An empty pool.
    pub const fn new() -> Self {
        Self { heads: [NONE; MAX_ORDER as usize + 1], free_pages: 0, unscrubbed: Unscrubbed::new() }
    }

    /// Pages free now.
    pub fn free_pages(&self) -> u64 {
        self.free_pages
    }

    /// Takes a block of `1 << order` pages and marks each of its pages as `state` says, keeping the mark of old content.
    /// `None` when no block is large enough.
    pub fn allocate(&mut self, records: &impl Records, order: u32, state: State) -> Option<Mfn> {
        let mut found = order;
        while *self.heads.get(found as usize)? == NONE {
            found += 1;
        }
        let mfn = Mfn::new(u64::from(self.heads[found as usize]));
        self.unlink(records, mfn, found);
        while found > order {
            found -= 1;
            self.link(records, mfn.saturating_add(1 << found), found);
        }
        records.each(mfn, 1 << order, |_, info| info.set_state_of_content(state));
        self.free_pages -= 1 << order;
        Some(mfn)
    }

    /// Takes the next page of those that were [`Pool::free`]d, and says whether it is free still and may hold old content. `None` when
    /// there are no more.
    pub fn next_freed(&mut self, records: &impl Records) -> Option<(Mfn, bool)> {
        let mfn = self.unscrubbed.take()?;
        let state = records.info(mfn)?.state();
        Some((mfn, matches!(state.kind, Kind::Free | Kind::FreeTail) && state.dirty))
    }

    /// Gives back a block of `1 << order` pages, all of which may hold old content, and joins it with free neighbours.
    pub fn free(&mut self, records: &impl Records, mfn: Mfn, order: u32) {
        self.unscrubbed.add(mfn, order);
        self.add(records, mfn, order);
    }

    /// The same for pages that are handed out for the first time. Nobody zeroes them beforehand: it would take all the machine's RAM.
    pub fn add(&mut self, records: &impl Records, mfn: Mfn, order: u32) {
        const STATE: State = State { dirty: true, ..State::new(Kind::FreeTail, DomId(0), 0) };
        records.each(mfn, 1 << order, |_, info| info.set_state(STATE));
        self.free_pages += 1 << order;
        let (mut mfn, mut order) = (mfn, order);
        while order < MAX_ORDER {
            let buddy = Mfn::new(mfn.number() ^ 1 << order);
            if !records.info(buddy).is_some_and(|info| info.begins_free(order)) {
                break;
            }
            self.unlink(records, buddy, order);
            mfn = mfn.align_down(order + 1);
            order += 1;
        }
        self.link(records, mfn, order);
    }

    /// Puts a block at the head of its list. The pages' marks of old content stay as they are.
    fn link(&mut self, records: &impl Records, mfn: Mfn, order: u32) {
        let head = &mut self.heads[order as usize];
        if let Some(info) = records.info(mfn) {
            info.set_state_of_content(State::new(Kind::Free, DomId(0), order));
            info.set_links(NONE, *head);
        }
        if let Some(next) = records.info(Mfn::new(u64::from(*head))).filter(|_| *head != NONE) {
            let (_, after) = next.links();
            next.set_links(mfn.number() as u32, after);
        }
        *head = mfn.number() as u32;
    }

    /// Takes a block out of its list.
    fn unlink(&mut self, records: &impl Records, mfn: Mfn, order: u32) {
        let Some(info) = records.info(mfn) else { return };
        let (previous, next) = info.links();
        if previous == NONE {
            self.heads[order as usize] = next;
        } else if let Some(info) = records.info(Mfn::new(u64::from(previous))) {
            info.set_links(info.links().0, next);
        }
        if next != NONE
            && let Some(info) = records.info(Mfn::new(u64::from(next)))
        {
            info.set_links(previous, info.links().1);
        }
        info.set_state_of_content(State::new(Kind::FreeTail, DomId(0), 0));
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    struct Ram(Vec<FrameInfo>);
    impl Records for Ram {
        fn info(&self, mfn: Mfn) -> Option<&FrameInfo> {
            self.0.get(mfn.number() as usize)
        }
    }

    fn ram(pages: u64) -> (Ram, Pool) {
        let ram = Ram((0..pages).map(|_| FrameInfo::new()).collect());
        let mut pool = Pool::new();
        for page in 0..pages {
            pool.free(&ram, Mfn::new(page), 0);
        }
        (ram, pool)
    }

    const GUEST: State = State::new(Kind::Guest, DomId(1), 1);

    #[test]
    fn single_pages_join_to_large_blocks() {
        let (ram, mut pool) = ram(1024);
        assert_eq!(pool.free_pages(), 1024);
        assert_eq!(pool.allocate(&ram, 10, GUEST), Some(Mfn::new(0)));
        assert_eq!(pool.allocate(&ram, 0, GUEST), None);
        pool.free(&ram, Mfn::new(0), 10);
        assert_eq!(pool.free_pages(), 1024);
    }

    #[test]
    fn blocks_are_aligned_disjoint_and_all_come_back() {
        let (ram, mut pool) = ram(600);
        let mut seed = 12345u64;
        let mut held: Vec<(Mfn, u32)> = Vec::new();
        let mut owned = BTreeSet::new();
        for _ in 0..4000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let order = (seed >> 60) as u32 % 5;
            if seed >> 40 & 1 == 0 {
                if let Some(mfn) = pool.allocate(&ram, order, GUEST) {
                    assert!(mfn.is_aligned(order));
                    for page in 0..1u64 << order {
                        assert!(owned.insert(mfn.number() + page), "page given twice");
                        assert_eq!(ram.0[(mfn.number() + page) as usize].state().kind, Kind::Guest);
                    }
                    held.push((mfn, order));
                }
            } else if !held.is_empty() {
                let (mfn, order) = held.swap_remove((seed >> 20) as usize % held.len());
                for page in 0..1u64 << order {
                    owned.remove(&(mfn.number() + page));
                }
                pool.free(&ram, mfn, order);
            }
            assert_eq!(pool.free_pages(), 600 - owned.len() as u64);
        }
        for (mfn, order) in held {
            pool.free(&ram, mfn, order);
        }
        assert_eq!(pool.free_pages(), 600);
        assert_eq!(pool.allocate(&ram, 9, GUEST), Some(Mfn::new(0)), "everything joined again");
    }

    #[test]
    fn old_content_stays_marked_until_somebody_scrubs() {
        let (ram, mut pool) = ram(4);
        let mfn = pool.allocate(&ram, 1, GUEST).unwrap();
        assert!(ram.info(mfn).unwrap().state().dirty);
        ram.info(mfn).unwrap().set_state(GUEST);
        pool.free(&ram, mfn, 1);
        let again = pool.allocate(&ram, 1, GUEST).unwrap();
        assert!(ram.info(again).unwrap().state().dirty);
    }
}
