//! The frame table and the pool of free pages of this machine, as the rest of the hypervisor uses them.
//!
//! A page is handed out with a kind and an owner, and given back when its last reference goes. References are values:
//! a [`Pin`] keeps a guest's page from being freed for as long as it lives. Zeroing happens here, before a page changes hands.

mod info;
mod pool;
mod scrub;
mod table;

pub use info::{FrameInfo, Kind, State};
pub use pool::MAX_ORDER;
pub use table::{FrameTable, LeavingCounts, MAX_REGIONS, OWNERS, Region};

use crate::units::{DomId, Gfn, Mfn};
use crate::{arch, memory};

/// What a newly allocated page must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Zeroes: for everything that a guest or a table walker will see.
    Zero,
    /// Anything: the hypervisor writes it whole before it reads.
    Any,
}

/// Allocates `1 << order` contiguous pages. `Guest` and `Shared` pages start with one reference each: the allocation's.
/// `None` when there is no such block.
pub fn allocate(order: u32, kind: Kind, owner: DomId, fill: Fill) -> Option<Mfn> {
    if !arch::may_allocate() {
        return None;
    }
    let count = u32::from(matches!(kind, Kind::Guest | Kind::Shared));
    let mfn = arch::with_frames(|table| table.allocate(order, State::new(kind, owner, count)))?;
    if fill == Fill::Zero {
        scrub(mfn, 1 << order);
    }
    Some(mfn)
}

/// Frees pages of a kind that is not counted (`Hypervisor`, `Slab`, `Table`).
pub fn free(mfn: Mfn, order: u32) {
    arch::with_frames(|table| table.free(mfn, order));
}

/// Zeroes those of `count` pages that may hold old content.
fn scrub(mfn: Mfn, count: u64) {
    arch::with_frames(|table| {
        table.each(mfn, count, |mfn, info| {
            if info.is_dirty() {
                memory::zero_page(mfn);
                info.mark_clean();
            }
        });
    });
}

/// Looks at one page that was freed, and zeroes it if nobody has yet, so that nobody has to wait for that later. False when there
/// are no more. Pages that have never been used are left as they are.
pub fn scrub_free() -> bool {
    arch::with_frames(FrameTable::scrub_free)
}

/// Hands RAM that was reserved since boot to the pool: pages `[start, start + count)`.
pub fn release(start: Mfn, count: u64) {
    arch::with_frames(|table| table.release(start, count));
}

/// Makes a reserved page a guest's own without going through the pool, for the 1:1 control domain. False if the page is
/// not RAM or is not reserved. Its content is kept.
#[must_use]
pub fn adopt(mfn: Mfn, owner: DomId) -> bool {
    arch::with_frames(|table| {
        table.info(mfn).is_some_and(|info| {
            info.update(|state| {
                (state.kind == Kind::Reserved).then_some(State { dirty: true, ..State::new(Kind::Guest, owner, 1) })
            })
            .is_ok()
        })
    })
}

/// Pages free now.
pub fn free_pages() -> u64 {
    arch::with_frames(FrameTable::free_pages)
}

/// Bytes that the frame table has for each page of RAM.
pub const RECORD_BYTES: u64 = size_of::<FrameInfo>() as u64;

/// Pages of RAM in all, free or not.
pub fn total_pages() -> u64 {
    arch::with_frames(FrameTable::total_pages)
}

/// The highest page of RAM.
pub fn last_page() -> Mfn {
    arch::with_frames(FrameTable::last_page)
}

/// A page's record; `None` if it is not RAM.
pub fn state(mfn: Mfn) -> Option<State> {
    arch::with_frames(|table| table.info(mfn).map(FrameInfo::state))
}

/// How many pages from `mfn` on, of `count`, are RAM in states that `is_good` agrees to, up to the first that is not.
#[inline]
pub fn count_while(mfn: Mfn, count: u64, is_good: impl Fn(State) -> bool) -> u64 {
    let mut good = mfn;
    arch::with_frames(|table| {
        table.each(mfn, count, |page, info| {
            if page == good && is_good(info.state()) {
                good = page.saturating_add(1);
            }
        });
    });
    good.number() - mfn.number()
}

/// Where the owner last saw the page; `None` if it is not RAM.
pub fn gfn(mfn: Mfn) -> Option<Gfn> {
    arch::with_frames(|table| table.info(mfn).map(FrameInfo::gfn))
}

/// Records where the owner sees its page.
pub fn set_gfn(mfn: Mfn, gfn: Gfn) {
    arch::with_frames(|table| {
        if let Some(info) = table.info(mfn) {
            info.set_gfn(gfn);
        }
    });
}

/// Notes that the owner's map does not show `1 << order` guest pages any more; the caller still has the references that
/// the map had. From now on until they are free, [`leaving_pages`] counts them.
pub fn leave(mfn: Mfn, order: u32) {
    arch::with_frames(|table| table.leave(mfn, order));
}

/// Pages of an owner that its map does not show any more, but that references still keep.
pub fn leaving_pages(owner: DomId) -> u64 {
    arch::with_frames(|table| table.leaving_pages(owner))
}

/// Drops the references that an entry for `1 << order` pages held; the caller has removed it. As dropping [`Pin::from_entry`] of each
/// page, at less cost.
pub fn put_block(mfn: Mfn, order: u32) {
    arch::with_frames(|table| table.put_block(mfn, order));
}

/// A reference to a page that a guest owns or may map: while it lives, the page is not freed.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pin that is dropped at once protects nothing"]
pub struct Pin {
    mfn: Mfn,
}

impl Pin {
    /// Takes a reference to a page of `owner`. `None` if the page is not RAM, not a guest's or shared, somebody else's,
    /// or has no references left (it is being freed).
    pub fn take(mfn: Mfn, owner: DomId) -> Option<Self> {
        let is_taken = arch::with_frames(|table| table.info(mfn).is_some_and(|info| info.take(owner)));
        // Made only if it is one: a pin that is dropped gives its reference back.
        is_taken.then(|| Self { mfn })
    }

    /// The page.
    pub fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// Turns the pin into a bare reference that a table entry holds; [`Pin::from_entry`] takes it back.
    pub fn into_entry(self) -> Mfn {
        let mfn = self.mfn;
        core::mem::forget(self);
        mfn
    }

    /// Takes back the reference that a table entry, or the allocation itself, holds. The caller has removed that holder:
    /// the reference goes when the pin is dropped.
    pub fn from_entry(mfn: Mfn) -> Self {
        Self { mfn }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mfn = self.mfn;
        arch::with_frames(|table| table.put(mfn));
    }
}
