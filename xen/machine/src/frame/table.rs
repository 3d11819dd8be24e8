//! The frame table: the records of all RAM pages, by regions, and the pool that runs through them.

use super::info::{Change, FrameInfo, Kind, State};
use super::pool::{MAX_ORDER, Pool, Records};
use crate::lock::{Lock, rank};
use crate::memory;
use crate::units::{DomId, Mfn};
use core::sync::atomic::{AtomicU32, Ordering};

/// Numbers that owners of pages can have: those of domains (Xen's DOMID_FIRST_RESERVED is 0x7ff0).
pub const OWNERS: usize = 0x8000;

/// Pages that are freed at once: the pool is locked meanwhile.
const MOST_AT_ONCE: u64 = 512;

/// Regions of RAM at the most; firmware maps seen have two to eight, and `codec::ranges` cuts those that have more.
pub const MAX_REGIONS: usize = 32;

#[cfg(target_os = "none")]
type InfoSlice = &'static [FrameInfo];
#[cfg(not(target_os = "none"))]
type InfoSlice = alloc::boxed::Box<[FrameInfo]>;

/// For each owner, the pages that have left its map and are not free yet; [`OWNERS`] of them.
#[cfg(target_os = "none")]
pub type LeavingCounts = &'static [AtomicU32];
/// For each owner, the pages that have left its map and are not free yet; [`OWNERS`] of them.
#[cfg(not(target_os = "none"))]
pub type LeavingCounts = alloc::boxed::Box<[AtomicU32]>;

/// A contiguous range of RAM and its records.
#[derive(Debug)]
pub struct Region {
    /// First page.
    pub start: Mfn,
    /// One record a page.
    pub info: InfoSlice,
}

/// All regions.
#[derive(Debug)]
pub struct FrameTable {
    regions: heapless::Vec<Region, MAX_REGIONS>,
    pool: Lock<Pool, { rank::FRAMES }>,
    leaving: LeavingCounts,
}

/// A page's record; `None` if it is not RAM.
#[inline]
fn find(regions: &[Region], mfn: Mfn) -> Option<&FrameInfo> {
    regions.iter().find_map(|region| {
        // A page before the region has an index that is far too large.
        region.info.get(usize::try_from(mfn.number().wrapping_sub(region.start.number())).ok()?)
    })
}

/// Calls `work` with each of `count` pages from `mfn` on that is RAM, and its record. Most often all are in one region, which is
/// looked for once.
#[inline]
fn each(regions: &[Region], mfn: Mfn, count: u64, mut work: impl FnMut(Mfn, &FrameInfo)) {
    if count == 1 {
        return find(regions, mfn).into_iter().for_each(|info| work(mfn, info));
    }
    let mut page = mfn;
    let end = mfn.saturating_add(count);
    while page < end {
        let left = end.number() - page.number();
        let records = regions.iter().find_map(|region| {
            let index = usize::try_from(page.number().wrapping_sub(region.start.number())).ok()?;
            let rest = region.info.get(index..).filter(|rest| !rest.is_empty())?;
            Some(&rest[..rest.len().min(usize::try_from(left).unwrap_or(usize::MAX))])
        });
        // What is not RAM has no record.
        page = match records {
            None => page.saturating_add(1),
            Some(records) => records.iter().fold(page, |page, info| {
                work(page, info);
                page.saturating_add(1)
            }),
        };
    }
}

struct ByRegion<'a>(&'a [Region]);

impl Records for ByRegion<'_> {
    #[inline]
    fn info(&self, mfn: Mfn) -> Option<&FrameInfo> {
        find(self.0, mfn)
    }

    #[inline]
    fn each(&self, mfn: Mfn, count: u64, work: impl FnMut(Mfn, &FrameInfo)) {
        each(self.0, mfn, count, work);
    }
}

impl FrameTable {
    /// A table of `regions`, all pages reserved until [`FrameTable::release`]; `leaving` is all zeroes.
    pub fn new(mut regions: heapless::Vec<Region, MAX_REGIONS>, leaving: LeavingCounts) -> Self {
        // The largest first: most look-ups end there.
        regions.sort_unstable_by_key(|region| core::cmp::Reverse(region.info.len()));
        Self { regions, pool: Lock::new(Pool::new()), leaving }
    }

    fn records(&self) -> ByRegion<'_> {
        ByRegion(&self.regions)
    }

    /// A page's record; `None` if it is not RAM.
    #[inline]
    pub fn info(&self, mfn: Mfn) -> Option<&FrameInfo> {
        find(&self.regions, mfn)
    }

    /// Calls `work` with each of `count` pages from `mfn` on that is RAM, and its record.
    #[inline]
    pub fn each(&self, mfn: Mfn, count: u64, work: impl FnMut(Mfn, &FrameInfo)) {
        each(&self.regions, mfn, count, work);
    }

    /// Takes a block from the pool.
    pub fn allocate(&self, order: u32, state: State) -> Option<Mfn> {
        self.pool.lock().allocate(&self.records(), order, state)
    }

    /// Gives a block back to the pool.
    pub fn free(&self, mfn: Mfn, order: u32) {
        self.pool.lock().free(&self.records(), mfn, order);
    }

    /// Looks at one page that was freed, and zeroes it if that has not been done. False when there are no more.
    pub fn scrub_free(&self) -> bool {
        // A page that is free stays free as long as the pool is locked.
        let mut pool = self.pool.lock();
        let Some((mfn, is_dirty)) = pool.next_freed(&self.records()) else { return false };
        if is_dirty && let Some(info) = self.info(mfn) {
            memory::zero_page(mfn);
            info.mark_clean();
        }
        true
    }

    /// Hands reserved pages to the pool, in the largest aligned blocks; pages that are not RAM or not reserved are skipped.
    pub fn release(&self, start: Mfn, count: u64) {
        let mut pool = self.pool.lock();
        let end = start.saturating_add(count);
        let mut page = start;
        while page < end {
            let mut order = 0;
            while order < MAX_ORDER
                && page.is_aligned(order + 1)
                && page.saturating_add(2 << order) <= end
                && (1u64 << order..2 << order).all(|offset| self.is_reserved(page.saturating_add(offset)))
            {
                order += 1;
            }
            if self.is_reserved(page) {
                pool.add(&self.records(), page, order);
            }
            page = page.saturating_add(1 << order);
        }
    }

    fn is_reserved(&self, mfn: Mfn) -> bool {
        self.info(mfn).is_some_and(|info| info.state().kind == Kind::Reserved)
    }

    /// Drops one reference of a counted page and frees the page with the last one.
    #[inline]
    pub fn put(&self, mfn: Mfn) {
        let Some(info) = self.info(mfn) else { return };
        if let Some(state) = drop_reference(mfn, info) {
            self.free(mfn, 0);
            self.has_left(state.owner, u32::from(state.leaving));
        }
    }

    /// As [`FrameTable::put`] for each of `1 << order` pages: what nobody else has references to is freed in blocks, as it was
    /// allocated, which is a tenth of the work.
    pub fn put_block(&self, mfn: Mfn, order: u32) {
        if order == 0 {
            return self.put(mfn);
        }
        // Pages in a row that were in the same state, and whose last reference this was.
        let (mut start, mut end, mut limit) = (mfn, mfn, mfn);
        let (mut before, mut change) = (State::new(Kind::Guest, DomId(0), 1), Change::NEVER);
        self.each(mfn, 1 << order, |page, info| {
            if page == end && page < limit && info.apply(change) {
                end = page.saturating_add(1);
                return;
            }
            self.give_back(start, end, before);
            (start, end, limit) = (page, page, page);
            if let Some(state) = drop_reference(page, info) {
                (before, change) = (state, Change::between(state, State { count: 0, ..state }));
                (end, limit) = (page.saturating_add(1), page.saturating_add(MOST_AT_ONCE));
            }
        });
        self.give_back(start, end, before);
    }

    /// Frees pages that were in this state before their last reference went.
    fn give_back(&self, start: Mfn, end: Mfn, before: State) {
        self.free_range(start, end);
        let count = end.number() - start.number();
        self.has_left(before.owner, if before.leaving { u32::try_from(count).unwrap_or(u32::MAX) } else { 0 });
    }

    /// Gives pages back to the pool in the largest aligned blocks.
    fn free_range(&self, start: Mfn, end: Mfn) {
        let mut page = start;
        while page < end {
            let mut order = 0;
            while order < MAX_ORDER && page.is_aligned(order + 1) && page.saturating_add(2 << order) <= end {
                order += 1;
            }
            self.free(page, order);
            page = page.saturating_add(1 << order);
        }
    }

    /// Pages that their owner's map had ceased to show are free now.
    #[inline]
    fn has_left(&self, owner: DomId, pages: u32) {
        if pages != 0
            && let Some(count) = self.leaving.get(usize::from(owner.0))
        {
            count.fetch_sub(pages, Ordering::AcqRel);
        }
    }

    /// Marks guest pages as shown by their owner's map no longer. They have the same owner, and the caller's references.
    pub fn leave(&self, mfn: Mfn, order: u32) {
        let (mut owner, mut count, mut change) = (DomId(0), 0, Change::NEVER);
        self.each(mfn, 1 << order, |_, info| {
            // Most often the pages of a block are in the same state.
            if order != 0 && info.apply(change) {
                count += 1;
                return;
            }
            if let Ok(state) = info.leave() {
                (owner, count, change) =
                    (state.owner, count + 1, Change::between(state, State { leaving: true, ..state }));
            }
        });
        if let Some(place) = self.leaving.get(usize::from(owner.0)) {
            // The caller's references keep the pages, so nobody can have counted one of them down before.
            place.fetch_add(count, Ordering::AcqRel);
        }
    }

    /// Pages of an owner that its map does not show any more, but that references still keep.
    #[inline]
    pub fn leaving_pages(&self, owner: DomId) -> u64 {
        self.leaving.get(usize::from(owner.0)).map_or(0, |count| u64::from(count.load(Ordering::Acquire)))
    }

    /// Pages free now.
    pub fn free_pages(&self) -> u64 {
        self.pool.lock().free_pages()
    }

    /// Pages of RAM in all.
    pub fn total_pages(&self) -> u64 {
        self.regions.iter().map(|region| region.info.len() as u64).sum()
    }

    /// The highest page of RAM, or page 0 if there is none.
    pub fn last_page(&self) -> Mfn {
        self.regions
            .iter()
            .map(|region| region.start.saturating_add((region.info.len() as u64).saturating_sub(1)))
            .max()
            .unwrap_or_default()
    }

    /// Marks pages as the hypervisor's own; they were reserved before.
    pub fn claim(&self, start: Mfn, count: u64) {
        for page in 0..count {
            if let Some(info) = self.info(start.saturating_add(page)) {
                info.set_state(State { dirty: true, ..State::new(Kind::Hypervisor, DomId(0), 0) });
            }
        }
    }
}

/// Drops a reference. If it was the last one, gives the state before: nobody can take one any more, and the page is to be freed.
#[inline]
fn drop_reference(mfn: Mfn, info: &FrameInfo) -> Option<State> {
    match info.put() {
        Ok(last) => last,
        Err(state) => panic!("reference count of {mfn:?} below zero: {state:?}"),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// Pages 4 to 11 in two regions, and 16 to 19.
    fn table() -> FrameTable {
        let region =
            |start, pages| Region { start: Mfn::new(start), info: (0..pages).map(|_| FrameInfo::new()).collect() };
        let regions = heapless::Vec::from_array([region(4, 3), region(7, 5), region(16, 4)]);
        FrameTable::new(regions, (0..OWNERS).map(|_| AtomicU32::new(0)).collect())
    }

    #[test]
    fn each_page_of_ram_is_met_once_in_whatever_region() {
        let table = table();
        let met = |start, count| {
            let mut met = Vec::new();
            table.each(Mfn::new(start), count, |mfn, info| {
                assert!(core::ptr::eq(info, table.info(mfn).unwrap()));
                met.push(mfn.number());
            });
            met
        };
        assert_eq!(met(5, 2), [5, 6]);
        assert_eq!(met(5, 4), [5, 6, 7, 8]);
        assert_eq!(met(0, 18), [4, 5, 6, 7, 8, 9, 10, 11, 16, 17]);
        assert_eq!(met(12, 4), []);
        assert_eq!(met(19, 100), [19]);
    }

    #[test]
    fn a_block_is_freed_across_regions() {
        let table = table();
        table.release(Mfn::new(0), 20);
        assert_eq!(table.free_pages(), 12);
        let block = table.allocate(3, State::new(Kind::Guest, DomId(1), 1));
        assert_eq!(block, None, "pages 4 to 11 are no aligned block");
        let blocks = [4, 8].map(|_| table.allocate(2, State::new(Kind::Guest, DomId(1), 1)).unwrap());
        assert!(blocks.contains(&Mfn::new(4)) || blocks.contains(&Mfn::new(8)), "{blocks:?}");
        for block in blocks {
            table.put_block(block, 2);
        }
        assert_eq!(table.free_pages(), 12);
    }
}
