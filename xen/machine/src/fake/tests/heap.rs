//! The heap of small objects, on the fake machine's pages.

use crate::fake::FakeMachine;
use crate::frame;
use crate::heap::Heap;
use core::alloc::Layout;
use std::vec::Vec;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn objects_are_aligned_disjoint_and_leave_nothing_behind() {
    FakeMachine::builder().pages(512).build().on_cpu(0, || {
        let heap = Heap::new();
        let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let mut seed = 99u64;
        for round in 0..20_000u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if seed >> 63 == 0 && held.len() < 400 {
                let layout = layout((seed >> 40) as usize % 3000 + 1, 1 << ((seed >> 20) % 8));
                let place = heap.allocate(layout);
                if place.is_null() {
                    continue;
                }
                assert_eq!(place.addr() % layout.align(), 0);
                // SAFETY: the heap gave this memory for this layout.
                unsafe { place.write_bytes(round as u8, layout.size()) };
                held.push((place, layout, round as u8));
            } else if !held.is_empty() {
                let (place, layout, mark) = held.swap_remove((seed >> 30) as usize % held.len());
                for offset in [0, layout.size() / 2, layout.size() - 1] {
                    // SAFETY: inside the object, which was written whole.
                    assert_eq!(unsafe { place.wrapping_add(offset).read() }, mark, "overwritten by a neighbour");
                }
                // SAFETY: allocated above with this layout, used by nobody else.
                unsafe { heap.free(place, layout) };
            }
        }
        for (place, layout, _) in held {
            // SAFETY: as above.
            unsafe { heap.free(place, layout) };
        }
        assert_eq!(frame::free_pages(), 512, "every page came back");
    });
}

#[test]
fn small_objects_share_a_page_and_large_ones_take_whole_pages() {
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        let heap = Heap::new();
        let small: Vec<_> = (0..256).map(|_| heap.allocate(layout(16, 8))).collect();
        assert_eq!(frame::free_pages(), 63);
        let one_more = heap.allocate(layout(1, 1));
        assert_eq!(frame::free_pages(), 62, "the first page is full");
        let large = heap.allocate(layout(5 * 4096, 4096));
        assert_eq!(frame::free_pages(), 62 - 8, "rounded up to a power of two");
        // SAFETY: allocated above with these layouts.
        unsafe { heap.free(large, layout(5 * 4096, 4096)) };
        // SAFETY: as above.
        unsafe { heap.free(one_more, layout(1, 1)) };
        for place in small {
            // SAFETY: as above.
            unsafe { heap.free(place, layout(16, 8)) };
        }
        assert_eq!(frame::free_pages(), 64);
    });
}

#[test]
fn no_memory_is_null_not_a_panic() {
    FakeMachine::builder().pages(2).build().on_cpu(0, || {
        let heap = Heap::new();
        assert!(heap.allocate(layout(3 * 4096, 8)).is_null());
        let held: Vec<_> = (0..4).map(|_| heap.allocate(layout(2048, 8))).collect();
        assert!(held.iter().all(|place| !place.is_null()));
        assert!(heap.allocate(layout(2048, 8)).is_null());
        assert!(heap.allocate(layout(16, 8)).is_null());
    });
}
