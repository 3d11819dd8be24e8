//! The hypervisor's heap: small objects in pages of one size each, large ones in whole pages of the pool.
//!
//! A page of small objects goes back to the pool when its last object goes, so that memory use after a domain is destroyed
//! is exactly what it was before. On bare metal this is the program's global allocator (`x86::heap`); tests drive it on the
//! fake machine.

use crate::arch;
use crate::frame::{self, Fill, FrameInfo, Kind, State};
use crate::lock::{Lock, rank};
use crate::units::{DomId, Mfn, PAGE_SIZE};
use core::alloc::Layout;

/// Object sizes: 16 bytes to 2 KiB, doubling.
const CLASSES: usize = 8;
const SMALLEST: usize = 16;
const NONE: u32 = u32::MAX;
/// "No free object in this page".
const FULL: u16 = u16::MAX;

/// The pages of each size that have free objects.
#[derive(Debug)]
pub struct Heap {
    heads: Lock<[u32; CLASSES], { rank::HEAP }>,
}

/// A slab page's record, packed into the count field: objects in use, and the first free one.
#[derive(Clone, Copy)]
struct Slab {
    used: u16,
    free: u16,
}

impl Slab {
    fn of(info: &FrameInfo) -> Self {
        let count = info.state().count;
        Self { used: (count >> 16) as u16, free: count as u16 }
    }

    fn store(self, info: &FrameInfo, class: usize) {
        let count = u32::from(self.used) << 16 | u32::from(self.free);
        info.set_state(State { dirty: true, ..State::new(Kind::Slab, DomId(class as u16), count) });
    }
}

fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(SMALLEST);
    (size <= SMALLEST << (CLASSES - 1)).then(|| (size.next_power_of_two() / SMALLEST).trailing_zeros() as usize)
}

fn order_of(layout: Layout) -> u32 {
    layout.size().max(layout.align()).div_ceil(PAGE_SIZE).next_power_of_two().trailing_zeros()
}

fn object(page: Mfn, class: usize, index: u16) -> *mut u8 {
    arch::page_address(page).wrapping_add(usize::from(index) * (SMALLEST << class))
}

/// The link to the next free object, which stands in the first two bytes of a free one.
fn link(page: Mfn, class: usize, index: u16) -> *mut u16 {
    object(page, class, index).cast()
}

impl Heap {
    /// An empty heap.
    pub const fn new() -> Self {
        Self { heads: Lock::new([NONE; CLASSES]) }
    }

    /// Memory for `layout`, or null.
    pub fn allocate(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else {
            let order = order_of(layout);
            return frame::allocate(order, Kind::Hypervisor, DomId(0), Fill::Any)
                .map_or(core::ptr::null_mut(), arch::page_address);
        };
        let mut heads = self.heads.lock();
        if heads[class] == NONE {
            let Some(page) = new_slab(class) else { return core::ptr::null_mut() };
            heads[class] = page.number() as u32;
        }
        arch::with_frames(|table| {
            let page = Mfn::new(u64::from(heads[class]));
            let Some(info) = table.info(page) else { return core::ptr::null_mut() };
            let slab = Slab::of(info);
            // SAFETY: the object is free, so its first bytes are the heap's own link.
            let next = unsafe { link(page, class, slab.free).read() };
            Slab { used: slab.used + 1, free: next }.store(info, class);
            if next == FULL {
                let (_, after) = info.links();
                heads[class] = after;
                if let Some(after) = table.info(Mfn::new(u64::from(after))) {
                    after.set_links(NONE, after.links().1);
                }
            }
            object(page, class, slab.free)
        })
    }

    /// Takes memory back.
    ///
    /// # Safety
    /// `place` came from [`Heap::allocate`] with the same layout and is used by nobody any more.
    pub unsafe fn free(&self, place: *mut u8, layout: Layout) {
        let page = arch::page_of(place);
        let Some(class) = class_of(layout) else {
            return frame::free(page, order_of(layout));
        };
        let mut heads = self.heads.lock();
        let is_empty = arch::with_frames(|table| {
            let Some(info) = table.info(page) else { return false };
            let slab = Slab::of(info);
            let index = ((place.addr() % PAGE_SIZE) / (SMALLEST << class)) as u16;
            // SAFETY: the caller gave the object up, so its first bytes are free for the link.
            unsafe { link(page, class, index).write(slab.free) };
            Slab { used: slab.used - 1, free: index }.store(info, class);
            let (previous, next) = if slab.free == FULL {
                let next = heads[class];
                info.set_links(NONE, next);
                if let Some(next) = table.info(Mfn::new(u64::from(next))) {
                    next.set_links(page.number() as u32, next.links().1);
                }
                heads[class] = page.number() as u32;
                (NONE, next)
            } else {
                info.links()
            };
            if slab.used > 1 {
                return false;
            }
            if previous == NONE {
                heads[class] = next;
            } else if let Some(previous) = table.info(Mfn::new(u64::from(previous))) {
                previous.set_links(previous.links().0, next);
            }
            if let Some(next) = table.info(Mfn::new(u64::from(next))) {
                next.set_links(previous, next.links().1);
            }
            true
        });
        if is_empty {
            frame::free(page, 0);
        }
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

/// A new page of free objects, linked one to the next.
fn new_slab(class: usize) -> Option<Mfn> {
    let page = frame::allocate(0, Kind::Slab, DomId(class as u16), Fill::Any)?;
    let count = (PAGE_SIZE / (SMALLEST << class)) as u16;
    for index in 0..count {
        let next = if index + 1 == count { FULL } else { index + 1 };
        // SAFETY: the page is new and nobody else's.
        unsafe { link(page, class, index).write(next) };
    }
    arch::with_frames(|table| {
        if let Some(info) = table.info(page) {
            Slab { used: 0, free: 0 }.store(info, class);
            info.set_links(NONE, NONE);
        }
    });
    Some(page)
}
