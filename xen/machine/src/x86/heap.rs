//! The heap as the program's global allocator.

use crate::heap::Heap;
use core::alloc::{GlobalAlloc, Layout};

struct Global(Heap);

// SAFETY: `Heap` gives each caller memory of its own, of the layout's size and alignment, until it is freed.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.allocate(layout)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the same promise of the caller's.
        unsafe { self.0.free(place, layout) }
    }
}

#[global_allocator]
static GLOBAL: Global = Global(Heap::new());
