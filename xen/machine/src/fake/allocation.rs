//! Memory that runs out when a test says so.
//!
//! Frames are counted by `arch::may_allocate`; small objects by [`TestAllocator`], if the test program has made it its
//! global allocator. Both share one countdown per thread, so that "fail the n-th allocation, for every n" visits all of them.

use core::cell::Cell;
use std::alloc::{GlobalAlloc, Layout, System};

std::thread_local! {
    /// Allocations left before one fails; negative when none shall.
    static LEFT: Cell<i64> = const { Cell::new(-1) };
}

/// Whether the next allocation may succeed.
pub(super) fn may_allocate() -> bool {
    LEFT.with(|left| match left.get() {
        count if count < 0 => true,
        0 => {
            // One fails, later ones succeed again: what follows must cope with the failure, not with a dead machine.
            left.set(-1);
            false
        }
        count => {
            left.set(count - 1);
            true
        }
    })
}

/// Runs `work` while no allocation fails; for the fake machine's own needs.
pub(super) fn exempt<R>(work: impl FnOnce() -> R) -> R {
    let left = LEFT.with(|left| left.replace(-1));
    let result = work();
    LEFT.with(|place| place.set(left));
    result
}

/// Runs `work` and lets its allocation number `n`, counted from 0, fail. Says also whether it came to that: if not, `work`
/// makes fewer allocations.
pub fn with_failing_allocation<R>(n: u32, work: impl FnOnce() -> R) -> (R, bool) {
    LEFT.with(|left| left.set(i64::from(n)));
    let result = work();
    let left = LEFT.with(|left| left.replace(-1));
    (result, left < 0)
}

/// The system's allocator, failing where [`with_failing_allocation`] says.
#[derive(Debug)]
pub struct TestAllocator;

// SAFETY: passes everything on to the system's allocator, or gives null, as the contract allows.
unsafe impl GlobalAlloc for TestAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if may_allocate() {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        } else {
            core::ptr::null_mut()
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if may_allocate() {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.realloc(place, layout, new_size) }
        } else {
            core::ptr::null_mut()
        }
    }
}
