//! References to pages, adoption, scrubbing, and the allocation that fails on demand.

use crate::fake::{FakeMachine, with_failing_allocation};
use crate::frame::{self, Fill, Kind, Pin};
use crate::{DomId, Gfn, Mfn, memory};
use std::vec::Vec;

const OWNER: DomId = DomId(7);

fn guest_page() -> Mfn {
    frame::allocate(0, Kind::Guest, OWNER, Fill::Zero).unwrap()
}

#[test]
fn the_last_reference_frees_the_page() {
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        assert_eq!((frame::free_pages(), frame::total_pages(), frame::last_page()), (64, 64, Mfn::new(63)));
        let mfn = guest_page();
        let pin = Pin::take(mfn, OWNER).unwrap();
        assert_eq!(frame::state(mfn).unwrap().count, 2);
        drop(Pin::from_entry(mfn));
        assert_eq!(frame::state(mfn).unwrap().kind, Kind::Guest, "the pin keeps it");
        drop(pin);
        assert_eq!(frame::free_pages(), 64);
        assert_eq!(Pin::take(mfn, OWNER), None, "a free page cannot be pinned");
    });
}

#[test]
fn only_the_owners_counted_pages_can_be_pinned() {
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        let mfn = guest_page();
        assert_eq!(Pin::take(mfn, DomId(8)), None);
        let table = frame::allocate(0, Kind::Table, OWNER, Fill::Zero).unwrap();
        assert_eq!(Pin::take(table, OWNER), None, "tables are the hypervisor's business");
        assert_eq!(Pin::take(Mfn::new(64), OWNER), None, "beyond RAM");
        let entry = Pin::take(mfn, OWNER).unwrap().into_entry();
        assert_eq!(frame::state(mfn).unwrap().count, 2, "an entry's reference outlives the pin value");
        drop(Pin::from_entry(entry));
        drop(Pin::from_entry(mfn));
        frame::free(table, 0);
        assert_eq!(frame::free_pages(), 64);
    });
}

#[test]
fn pages_that_left_the_map_are_counted_until_they_are_free() {
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        let block = frame::allocate(1, Kind::Guest, OWNER, Fill::Zero).unwrap();
        let kept = Pin::take(block, OWNER).unwrap();
        assert_eq!(frame::leaving_pages(OWNER), 0);
        frame::leave(block, 1);
        frame::leave(block, 1);
        assert_eq!(frame::leaving_pages(OWNER), 2, "each once");
        assert_eq!(frame::leaving_pages(DomId(8)), 0);
        drop(Pin::from_entry(block));
        drop(Pin::from_entry(block.saturating_add(1)));
        assert_eq!(frame::leaving_pages(OWNER), 1, "one is still used");
        let again = Pin::take(block, OWNER).unwrap();
        drop(kept);
        drop(again);
        assert_eq!((frame::leaving_pages(OWNER), frame::free_pages()), (0, 64));
        // The next owner's page has not left anything.
        let mfn = guest_page();
        assert!(!frame::state(mfn).unwrap().leaving);
        drop(Pin::from_entry(mfn));
        frame::leave(Mfn::new(1000), 0);
        assert_eq!(frame::leaving_pages(OWNER), 0);
    });
}

#[test]
fn a_new_owner_never_sees_old_content() {
    FakeMachine::builder().pages(4).build().on_cpu(0, || {
        for _ in 0..8 {
            let mfn = guest_page();
            let pin = Pin::take(mfn, OWNER).unwrap();
            let mut bytes = [1; 4096];
            assert!(memory::read(&pin, 0, &mut bytes));
            assert_eq!(bytes, [0; 4096]);
            assert!(memory::fill(&pin, 0, 4096, 0xaa));
            drop(pin);
            drop(Pin::from_entry(mfn));
        }
    });
}

#[test]
fn reserved_pages_are_adopted_with_their_content() {
    let machine = FakeMachine::builder().pages(32).reserve(8, 4).build();
    machine.on_cpu(0, || {
        assert_eq!(frame::free_pages(), 28);
        assert!(machine.write_ram(Mfn::new(9).address(), b"kernel"));
        assert!(frame::adopt(Mfn::new(9), OWNER));
        assert!(!frame::adopt(Mfn::new(9), OWNER), "once only");
        assert!(!frame::adopt(Mfn::new(1), OWNER), "a free page is not reserved");
        frame::set_gfn(Mfn::new(9), Gfn::new(0x1234));
        assert_eq!(frame::gfn(Mfn::new(9)), Some(Gfn::new(0x1234)));
        let pin = Pin::take(Mfn::new(9), OWNER).unwrap();
        let mut bytes = [0; 6];
        assert!(memory::read(&pin, 0, &mut bytes));
        assert_eq!(&bytes, b"kernel");
    });
}

#[test]
fn accesses_stay_inside_their_page() {
    FakeMachine::builder().pages(8).build().on_cpu(0, || {
        let mfn = guest_page();
        let pin = Pin::take(mfn, OWNER).unwrap();
        let bytes: Vec<u8> = (0..100).collect();
        for offset in [0, 1, 7, 8, 3996] {
            assert!(memory::write(&pin, offset, &bytes));
            let mut back = [0; 100];
            assert!(memory::read(&pin, offset, &mut back));
            assert_eq!(back[..], bytes[..]);
        }
        assert!(!memory::write(&pin, 3997, &bytes));
        assert!(!memory::read(&pin, usize::MAX, &mut [0]));
        assert!(memory::atomic::<u64>(&pin, 4088).is_some());
        assert!(memory::atomic::<u64>(&pin, 4092).is_none(), "not aligned, and across the end");
        assert!(memory::atomic::<u32>(&pin, 4096).is_none());
    });
}

#[test]
fn pages_are_copied_to_pages() {
    FakeMachine::builder().pages(8).build().on_cpu(0, || {
        let [one, two] = [(); 2].map(|()| Pin::take(guest_page(), OWNER).unwrap());
        let bytes: Vec<u8> = (0..100).collect();
        assert!(memory::write(&one, 3, &bytes));
        assert!(memory::copy(&one, 3, &two, 3996, 100));
        let mut back = [0; 100];
        assert!(memory::read(&two, 3996, &mut back));
        assert_eq!(back[..], bytes[..]);
        assert!(memory::copy(&one, 3, &one, 13, 90), "ranges of one page may overlap");
        assert!(memory::read(&one, 13, &mut back));
        assert_eq!(back[..90], bytes[..90]);
        assert!(!memory::copy(&one, 3, &two, 3997, 100));
        assert!(!memory::copy(&one, 3997, &two, 3, 100));
        assert!(!memory::copy(&one, 1, &two, 1, usize::MAX));
    });
}

#[test]
fn a_pinned_word_gives_its_page_back_as_a_pin() {
    FakeMachine::builder().pages(8).build().on_cpu(0, || {
        let mfn = guest_page();
        let free = frame::free_pages();
        let word = memory::PinnedWord::new(Pin::take(mfn, OWNER).unwrap(), 8).unwrap();
        let pin = word.into_pin();
        assert_eq!(pin.mfn(), mfn);
        drop(Pin::from_entry(mfn));
        assert_eq!(frame::free_pages(), free, "the pin still needs the page");
        drop(pin);
        assert_eq!(frame::free_pages(), free + 1);
    });
}

#[test]
fn a_pinned_word_keeps_its_page_and_sees_it_change() {
    FakeMachine::builder().pages(8).build().on_cpu(0, || {
        let mfn = guest_page();
        let pin = || Pin::take(mfn, OWNER).unwrap();
        let free = frame::free_pages();
        assert!(memory::PinnedWord::new(pin(), 4).is_none(), "not aligned");
        assert!(memory::PinnedWord::new(pin(), 4096).is_none());
        let word = memory::PinnedWord::new(pin(), 4088).unwrap();
        assert!(memory::write(&pin(), 4088, &7_u64.to_le_bytes()));
        assert_eq!(word.load(), 7);
        drop(Pin::from_entry(mfn));
        assert_eq!(frame::free_pages(), free, "the word still needs the page");
        drop(word);
        assert_eq!(frame::free_pages(), free + 1);
    });
}

#[test]
fn holes_between_regions_are_not_ram() {
    FakeMachine::builder().region(0, 16).region(1 << 20, 16).build().on_cpu(0, || {
        assert_eq!(frame::free_pages(), 32);
        assert_eq!(frame::last_page(), Mfn::new((1 << 20) + 15));
        assert!(frame::state(Mfn::new(16)).is_none());
        assert!(frame::state(Mfn::new(1 << 20)).is_some());
    });
}

#[test]
fn the_nth_allocation_fails_and_the_next_succeeds() {
    FakeMachine::builder().pages(16).build().on_cpu(0, || {
        let (pages, failed) = with_failing_allocation(2, || {
            (0..4).map(|_| frame::allocate(0, Kind::Guest, OWNER, Fill::Any).is_some()).collect::<heapless::Vec<_, 4>>()
        });
        assert!(failed);
        assert_eq!(pages[..], [true, true, false, true]);
        assert!(!with_failing_allocation(5, || ()).1);
    });
}

#[test]
fn two_machines_do_not_share_pages() {
    let (one, two) = (FakeMachine::builder().pages(8).build(), FakeMachine::builder().pages(16).build());
    one.on_cpu(0, || {
        let mfn = guest_page();
        two.on_cpu(0, || {
            assert_eq!(frame::free_pages(), 16);
            assert_eq!(frame::state(mfn).unwrap().owner, DomId(0));
        });
        assert_eq!(frame::free_pages(), 7);
    });
}
