//! Memory that runs out when a test says so, and is counted.
//!
//! Frames are counted by `arch::may_allocate`; small objects by [`TestAllocator`], if the test program has made it its
//! global allocator. Both share one ledger per thread, so that "fail the n-th allocation, for every n" visits all of them.
//! The fake machine's own needs, and what guests' scripts do, are nobody's: [`exempt`].

use core::cell::Cell;
use std::alloc::{GlobalAlloc, Layout, System};

/// What the hypervisor has allocated under [`account`], on one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Allocations to come before one fails; `None` when none shall.
    pub left: Option<u64>,
    /// Allocations that were asked for: objects on the heap, and blocks of frames.
    pub allocations: u64,
    /// Bytes of objects on the heap that were allocated less those that were freed. Frames are counted by the pool itself.
    pub bytes: i64,
}

std::thread_local! {
    static LEDGER: Cell<Option<Ledger>> = const { Cell::new(None) };
}

/// Whether the next allocation may succeed.
pub(super) fn may_allocate() -> bool {
    let Some(mut ledger) = LEDGER.get() else { return true };
    ledger.allocations += 1;
    let may = match ledger.left {
        None => true,
        // One fails, later ones succeed again: what follows must cope with the failure, not with a dead machine.
        Some(0) => {
            ledger.left = None;
            false
        }
        Some(left) => {
            ledger.left = Some(left - 1);
            true
        }
    };
    LEDGER.set(Some(ledger));
    may
}

fn note_bytes(bytes: i64) {
    if let Some(mut ledger) = LEDGER.get() {
        ledger.bytes += bytes;
        LEDGER.set(Some(ledger));
    }
}

/// Puts the ledger before back when it is dropped, also by a panic.
struct Restore(Option<Ledger>);

impl Drop for Restore {
    fn drop(&mut self) {
        LEDGER.set(self.0);
    }
}

/// Runs `work` while no allocation fails or counts: what a test needs for itself in the middle of the hypervisor's work.
pub fn exempt<R>(work: impl FnOnce() -> R) -> R {
    let _restore = Restore(LEDGER.take());
    work()
}

/// Runs `work`, writing its allocations into a ledger and failing the one that the ledger says.
pub fn account<R>(ledger: &mut Ledger, work: impl FnOnce() -> R) -> R {
    let restore = Restore(LEDGER.replace(Some(*ledger)));
    let result = work();
    *ledger = LEDGER.get().unwrap_or(*ledger);
    drop(restore);
    result
}

/// Runs `work` and lets its allocation number `n`, counted from 0, fail. Says also whether it came to that: if not, `work`
/// makes fewer allocations.
pub fn with_failing_allocation<R>(n: u32, work: impl FnOnce() -> R) -> (R, bool) {
    let mut ledger = Ledger { left: Some(u64::from(n)), ..Ledger::default() };
    let result = account(&mut ledger, work);
    (result, ledger.left.is_none())
}

/// The system's allocator, failing where the ledger says.
#[derive(Debug)]
pub struct TestAllocator;

/// Sizes fit: the allocator's contract limits them to `isize`.
fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

// SAFETY: passes everything on to the system's allocator, or gives null, as the contract allows.
unsafe impl GlobalAlloc for TestAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !may_allocate() {
            return core::ptr::null_mut();
        }
        note_bytes(signed(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        note_bytes(-signed(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !may_allocate() {
            return core::ptr::null_mut();
        }
        note_bytes(signed(new_size) - signed(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(place, layout, new_size) }
    }
}
