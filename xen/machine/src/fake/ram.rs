//! RAM: aligned blocks of the test's own memory, one for each region.

use crate::units::{Maddr, Mfn, PAGE_SIZE};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::vec::Vec;

/// All RAM of a machine.
#[derive(Debug)]
pub(super) struct Ram {
    blocks: Vec<Block>,
}

/// A region's memory.
#[derive(Debug)]
struct Block {
    start: Mfn,
    pages: u64,
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is plain memory that is reached by raw pointers and atomics only; it is freed when nothing borrows it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    fn new(start: Mfn, pages: u64) -> Self {
        let bytes = usize::try_from(pages).expect("a region fits into memory") * PAGE_SIZE;
        let layout = Layout::from_size_align(bytes.max(PAGE_SIZE), PAGE_SIZE).expect("a region fits into memory");
        // SAFETY: the size is not zero.
        let place = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(place).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, pages, base, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

impl Ram {
    /// Zeroed RAM for regions given as (first page, pages).
    pub(super) fn new(regions: &[(u64, u64)]) -> Self {
        Self { blocks: regions.iter().map(|(start, pages)| Block::new(Mfn::new(*start), *pages)).collect() }
    }

    /// Where the test's process sees a page; `None` if it is not RAM.
    pub(super) fn page_address(&self, mfn: Mfn) -> Option<*mut u8> {
        self.blocks.iter().find_map(|block| {
            let index = mfn.number().checked_sub(block.start.number()).filter(|index| *index < block.pages)?;
            Some(block.base.as_ptr().wrapping_add(usize::try_from(index).ok()? * PAGE_SIZE))
        })
    }

    /// The page behind an address of the test's process.
    pub(super) fn page_of(&self, place: *const u8) -> Option<Mfn> {
        self.blocks.iter().find_map(|block| {
            let offset = place.addr().checked_sub(block.base.as_ptr().addr())?;
            let index = (offset / PAGE_SIZE) as u64;
            (index < block.pages).then(|| block.start.saturating_add(index))
        })
    }

    /// A word of RAM, as walkers see it.
    pub(super) fn word(&self, maddr: Maddr) -> Option<&AtomicU64> {
        let offset = maddr.offset();
        let place = self.page_address(maddr.frame())?.wrapping_add(offset).cast::<AtomicU64>();
        // SAFETY: inside a block that lives as long as self, aligned because page bases and walkers' offsets are.
        offset.is_multiple_of(8).then(|| unsafe { &*place })
    }

    /// The bytes from an address on, which do not leave their page. `None` if there is no RAM.
    fn bytes(&self, maddr: Maddr, length: usize) -> Option<&[AtomicU8]> {
        let offset = maddr.offset();
        assert!(offset + length <= PAGE_SIZE, "{length} bytes at {maddr:?} leave their page");
        let place = self.page_address(maddr.frame())?.wrapping_add(offset).cast::<AtomicU8>();
        // SAFETY: a page of a block that lives as long as self, and the range lies in it; whoever else reaches it does so by
        // atomics, or by the raw accesses of `memory`, as hardware would.
        Some(unsafe { core::slice::from_raw_parts(place, length) })
    }

    /// Reads bytes that do not leave their page. False if there is no RAM.
    pub(super) fn read(&self, maddr: Maddr, out: &mut [u8]) -> bool {
        let bytes = self.bytes(maddr, out.len());
        bytes.is_some_and(|bytes| {
            out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte.load(Ordering::Relaxed));
            true
        })
    }

    /// Writes bytes that do not leave their page. False if there is no RAM.
    pub(super) fn write(&self, maddr: Maddr, bytes: &[u8]) -> bool {
        let places = self.bytes(maddr, bytes.len());
        places.is_some_and(|places| {
            places.iter().zip(bytes).for_each(|(place, byte)| place.store(*byte, Ordering::Relaxed));
            true
        })
    }
}
