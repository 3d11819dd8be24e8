//! The frame table: the records of all RAM pages, by regions, and the pool that runs through them.

use super::info::{FrameInfo, Kind, State};
use super::pool::{MAX_ORDER, Pool, Records};
use crate::lock::{Lock, rank};
use crate::units::{DomId, Mfn};
use core::sync::atomic::{AtomicU32, Ordering};

/// Numbers that owners of pages can have: those of domains (Xen's DOMID_FIRST_RESERVED is 0x7ff0).
pub const OWNERS: usize = 0x8000;

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

struct ByRegion<'a>(&'a [Region]);

impl Records for ByRegion<'_> {
    #[inline]
    fn info(&self, mfn: Mfn) -> Option<&FrameInfo> {
        find(self.0, mfn)
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

    /// Takes a block from the pool.
    pub fn allocate(&self, order: u32, state: State) -> Option<Mfn> {
        self.pool.lock().allocate(&self.records(), order, state)
    }

    /// Gives a block back to the pool.
    pub fn free(&self, mfn: Mfn, order: u32) {
        self.pool.lock().free(&self.records(), mfn, order);
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
                pool.free(&self.records(), page, order);
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
        let old = info.update(|state| Some(State { count: state.count.checked_sub(1)?, ..state }));
        match old {
            Ok(state) if state.count == 1 => {
                self.free(mfn, 0);
                if state.leaving
                    && let Some(count) = self.leaving.get(usize::from(state.owner.0))
                {
                    count.fetch_sub(1, Ordering::AcqRel);
                }
            }
            Ok(_) => {}
            Err(state) => panic!("reference count of {mfn:?} below zero: {state:?}"),
        }
    }

    /// Marks guest pages as shown by their owner's map no longer. They have the same owner, and the caller's references.
    pub fn leave(&self, mfn: Mfn, order: u32) {
        let (mut owner, mut count) = (DomId(0), 0);
        for page in 0..1u64 << order {
            let Some(info) = self.info(mfn.saturating_add(page)) else { continue };
            let old = info.update(|state| {
                let is_new = state.kind == Kind::Guest && state.count != 0 && !state.leaving;
                is_new.then_some(State { leaving: true, ..state })
            });
            if let Ok(state) = old {
                (owner, count) = (state.owner, count + 1);
            }
        }
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
