//! The transaction by itself: blocks and splits, lost flushes, room, rules for devices, and real threads as processors.

extern crate std;

use super::entry::{MemoryAccess, ORDER_1G, ORDER_2M};
use super::{Access, ChangeError, DomainP2m, Entry, Kind, P2mTxn, PinError};
use crate::memory::testing::{GuestCpu, domain, host, settings};
use crate::memory::{decrease, populate};
use machine::fake::{FakeMachine, with_failing_allocation};
use machine::frame::{self, Fill};
use machine::{CpuId, DomId, Gfn, Mfn};
use public_abi::Errno;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::vec::Vec;

const OWNER: DomId = DomId(1);
/// Device memory far above RAM.
const DEVICE: u64 = 0x40_0000;

fn with_p2m(work: impl FnOnce(&FakeMachine, &DomainP2m)) {
    let machine = FakeMachine::builder().pages(1024).build();
    machine.on_cpu(0, || {
        let before = frame::free_pages();
        let p2m = DomainP2m::try_new(OWNER, &settings()).unwrap();
        work(&machine, &p2m);
        p2m.check().unwrap();
        drop(p2m);
        assert_eq!(frame::free_pages(), before);
    });
}

fn set(p2m: &DomainP2m, gfn: u64, entry: Entry) -> Result<Entry, ChangeError> {
    let mut txn = p2m.begin().unwrap();
    let result = txn.set(Gfn::new(gfn), entry);
    txn.finish();
    result
}

fn ram() -> Mfn {
    frame::allocate(0, frame::Kind::Guest, OWNER, Fill::Zero).unwrap()
}

#[test]
fn a_1_gib_block_splits_twice_and_keeps_its_addresses() {
    with_p2m(|machine, p2m| {
        let block = Entry::with_frame(Kind::MmioDirect, ORDER_1G, Mfn::new(DEVICE));
        assert_eq!(set(p2m, 1 << 18, block), Ok(Entry::hole(ORDER_1G)));
        assert_eq!(p2m.lookup(Gfn::new((1 << 18) + 12345)), block);
        drop(p2m.begin());
        let tables = p2m.table_pages();
        assert_eq!(set(p2m, (1 << 18) + 700, Entry::hole(0)).unwrap().mfn, Mfn::new(DEVICE + 700));
        drop(p2m.begin());
        assert_eq!(p2m.table_pages(), tables + 2);
        for (offset, order) in [(0, ORDER_2M), (511, ORDER_2M), (701, 0), (699, 0), ((1 << 18) - 1, ORDER_2M)] {
            let gfn = Gfn::new((1 << 18) + offset);
            let entry = p2m.lookup(gfn);
            assert_eq!((entry.kind, entry.order), (Kind::MmioDirect, order), "{offset}");
            assert_eq!(entry.frame_at(gfn), Mfn::new(DEVICE + offset));
            let seen = machine.translate(p2m.root().mfn(), gfn.address(), machine::exit::AccessKind::Write);
            assert_eq!(seen, Some(Mfn::new(DEVICE + offset)));
        }
        assert_eq!(p2m.lookup(Gfn::new((1 << 18) + 700)).kind, Kind::Hole);
    });
}

#[test]
fn absent_blocks_split_with_what_they_say() {
    with_p2m(|_, p2m| {
        set(p2m, 0, Entry::without_frame(Kind::MmioDm, ORDER_1G)).unwrap();
        set(p2m, 5, Entry::hole(0)).unwrap();
        for gfn in [0, 4, 6, 511, 512, (1 << 18) - 1] {
            assert_eq!(p2m.lookup(Gfn::new(gfn)).kind, Kind::MmioDm);
        }
        assert_eq!(p2m.lookup(Gfn::new(5)).kind, Kind::Hole);
    });
}

#[test]
fn bad_places_and_targets_change_nothing() {
    with_p2m(|_, p2m| {
        let page = ram();
        let entry = Entry::with_frame(Kind::RamRw, 0, page);
        assert_eq!(set(p2m, 1 << 36, entry), Err(ChangeError::BadFrame));
        let block = Entry::with_frame(Kind::MmioDirect, ORDER_2M, Mfn::new(DEVICE));
        assert_eq!(set(p2m, 5, block), Err(ChangeError::BadFrame), "not aligned");
        assert_eq!(set(p2m, 512, Entry { mfn: Mfn::new(DEVICE + 1), ..block }), Err(ChangeError::BadFrame));
        assert_eq!(set(p2m, 0, Entry::hole(27)), Err(ChangeError::BadFrame), "no such entries");
        // The hypervisor's own pages, and device memory claimed as RAM or the other way round.
        let own = p2m.root().mfn();
        assert_eq!(set(p2m, 5, Entry::with_frame(Kind::RamRw, 0, own)), Err(ChangeError::WrongTarget(own)));
        assert_eq!(set(p2m, 5, Entry::with_frame(Kind::MmioDirect, 0, own)), Err(ChangeError::WrongTarget(own)));
        let device = Mfn::new(DEVICE);
        assert_eq!(set(p2m, 5, Entry::with_frame(Kind::RamRw, 0, device)), Err(ChangeError::WrongTarget(device)));
        assert_eq!(p2m.lookup(Gfn::new(5)).kind, Kind::Hole);
        assert_eq!(p2m.maximum_gfn(), Gfn::new(0));
        set(p2m, 5, entry).unwrap();
        assert_eq!(set(p2m, 0, block), Err(ChangeError::Occupied), "a page is in the way");
    });
}

#[test]
fn what_belongs_to_devices_is_left_alone() {
    with_p2m(|_, p2m| {
        let mut txn = p2m.begin().unwrap();
        txn.set_anything(Gfn::new(7), Entry::with_frame(Kind::IdentityRdm, 0, Mfn::new(DEVICE))).unwrap();
        txn.set_anything(Gfn::new(8), Entry::without_frame(Kind::RdmHole, 0)).unwrap();
        txn.finish();
        for gfn in [7, 8] {
            assert_eq!(set(p2m, gfn, Entry::hole(0)), Err(ChangeError::PinnedByDevices));
            assert!(p2m.pin_for_others(Gfn::new(gfn), Access::Read).is_err());
            assert!(p2m.pin(Gfn::new(gfn), Access::Read).is_err());
            let mut txn = p2m.begin().unwrap();
            assert_eq!(txn.restrict(Gfn::new(gfn), 0, MemoryAccess::N), Err(ChangeError::PinnedByDevices));
        }
        let rdm = Entry::without_frame(Kind::RdmHole, 0);
        assert_eq!(set(p2m, 9, rdm), Err(ChangeError::PinnedByDevices), "and none comes about by itself");
    });
}

#[test]
fn every_verb_leaves_reserved_regions_alone() {
    FakeMachine::builder().pages(2048).build().on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 1000);
        let mut txn = guest.p2m.begin().unwrap();
        txn.set_anything(Gfn::new(600), Entry::without_frame(Kind::RdmHole, 0)).unwrap();
        txn.finish();
        assert_eq!(populate(&host, &guest, Gfn::new(600), 0), Err(Errno::EBUSY));
        assert_eq!(populate(&host, &guest, Gfn::new(512), 9), Err(Errno::EBUSY), "in the middle of an extent");
        assert_eq!(guest.accounting.pages(), 0);
        assert_eq!(guest.p2m.lookup(Gfn::new(512)).kind, Kind::Hole, "nothing of the extent is there");
        assert_eq!(decrease(&guest, Gfn::new(600), 0), Err(Errno::EBUSY));
        assert_eq!(crate::memory::remove_from_physmap(&guest, Gfn::new(600)), Err(Errno::EBUSY));
        populate(&host, &guest, Gfn::new(1), 0).unwrap();
        assert_eq!(crate::memory::move_frame(&guest, Gfn::new(1), Gfn::new(600)), Err(Errno::EBUSY));
        let page = crate::memory::foreign_page(&guest, Gfn::new(1)).unwrap();
        assert_eq!(crate::memory::map_foreign(&guest, Gfn::new(600), page), Err(Errno::EBUSY));
        assert_eq!(guest.p2m.lookup(Gfn::new(600)).kind, Kind::RdmHole);
    });
}

#[test]
fn a_dropped_flush_flushes_anyway_and_is_counted() {
    with_p2m(|_, p2m| {
        let page = ram();
        set(p2m, 5, Entry::with_frame(Kind::RamRw, 0, page)).unwrap();
        assert_eq!(p2m.lost_flushes(), 0);
        let epoch = p2m.epoch();
        let mut txn = p2m.begin().unwrap();
        txn.set(Gfn::new(5), Entry::hole(0)).unwrap();
        drop(txn.commit());
        assert_eq!(p2m.lost_flushes(), 1);
        assert_ne!(p2m.epoch(), epoch, "the flush was done");
        assert_ne!(frame::state(page).unwrap().kind, frame::Kind::Guest, "and the page given up");
        // A transaction that is dropped has made its changes.
        let page = ram();
        set(p2m, 5, Entry::with_frame(Kind::RamRw, 0, page)).unwrap();
        let mut txn = p2m.begin().unwrap();
        txn.set(Gfn::new(5), Entry::hole(0)).unwrap();
        drop(txn);
        assert_eq!(p2m.lost_flushes(), 2);
        assert_ne!(frame::state(page).unwrap().kind, frame::Kind::Guest);
        // One that has changed nothing owes nothing.
        drop(p2m.begin());
        assert_eq!(p2m.lost_flushes(), 2);
    });
}

#[test]
fn a_flush_tells_the_page_that_it_is_about_and_no_more() {
    with_p2m(|_, p2m| {
        let pages: Vec<Mfn> = (0..4).map(|_| ram()).collect();
        for (gfn, page) in pages.iter().enumerate() {
            set(p2m, gfn as u64, Entry::with_frame(Kind::RamRw, 0, *page)).unwrap();
        }
        let change = |work: &dyn Fn(&mut P2mTxn<'_>)| {
            let before = p2m.epoch();
            let mut txn = p2m.begin().unwrap();
            work(&mut txn);
            txn.finish();
            p2m.only_change(before, p2m.epoch())
        };
        let remove = |txn: &mut P2mTxn<'_>, gfn| {
            txn.set(Gfn::new(gfn), Entry::hole(0)).unwrap();
        };
        let narrowed = change(&|txn| {
            txn.retype(Gfn::new(0), 0, Kind::RamRo).unwrap();
        });
        assert_eq!(narrowed, Some(pages[0]));
        assert_eq!(change(&|txn| remove(txn, 0)), Some(pages[0]), "taken away");
        let other = ram();
        let replaced = change(&|txn| {
            txn.set(Gfn::new(1), Entry::with_frame(Kind::RamRw, 0, other)).unwrap();
        });
        assert_eq!(replaced, Some(pages[1]), "replaced");
        let two = change(&|txn| {
            remove(txn, 2);
            remove(txn, 3);
        });
        assert_eq!(two, None, "two pages");
        assert_eq!(change(&|txn| remove(txn, 1)), None, "and the last table with its last page");
        let before = p2m.epoch();
        p2m.flush_all();
        assert_eq!(p2m.only_change(before, p2m.epoch()), None);
    });
}

#[test]
fn what_waits_for_a_flush_is_released_after_one_by_whoever_comes_first() {
    with_p2m(|_, p2m| {
        let pages: Vec<Mfn> = (0..4).map(|_| ram()).collect();
        for (gfn, page) in pages.iter().enumerate() {
            set(p2m, gfn as u64, Entry::with_frame(Kind::RamRw, 0, *page)).unwrap();
        }
        let is_used = |page: &Mfn| frame::state(*page).unwrap().kind == frame::Kind::Guest;
        let mut txn = p2m.begin_removal();
        for gfn in 0..3 {
            txn.set(Gfn::new(gfn), Entry::hole(0)).unwrap();
        }
        let flush = txn.commit();
        assert_eq!(pages.iter().filter(|page| is_used(page)).count(), 4, "nothing is released before the flush");
        let epoch = p2m.epoch();
        // Another transaction finds all room that there is, and so releases what waits.
        let txn = p2m.begin_removal();
        assert_ne!(p2m.epoch(), epoch, "not without a flush");
        assert_eq!(pages.iter().filter(|page| is_used(page)).count(), 2, "the first waits with its own transaction");
        txn.finish();
        flush.complete();
        assert_eq!(pages.iter().filter(|page| is_used(page)).count(), 1);
        assert!(is_used(&pages[3]));
        assert_eq!(p2m.lost_flushes(), 0);
    });
}

#[test]
fn adding_rights_needs_no_flush_and_taking_them_does() {
    with_p2m(|_, p2m| {
        let mut epoch = p2m.epoch();
        let mut flushed = || core::mem::replace(&mut epoch, p2m.epoch()) != p2m.epoch();
        set(p2m, 5, Entry::with_frame(Kind::RamRw, 0, ram())).unwrap();
        assert!(!flushed());
        let retype = |kind| {
            let mut txn = p2m.begin().unwrap();
            txn.retype(Gfn::new(5), 0, kind).unwrap();
            txn.finish();
        };
        retype(Kind::RamLogDirty);
        assert!(flushed());
        retype(Kind::RamRo);
        assert!(!flushed(), "the same rights");
        retype(Kind::RamRw);
        assert!(!flushed());
        set(p2m, 5, Entry::with_frame(Kind::RamRw, 0, ram())).unwrap();
        assert!(flushed(), "another page");
    });
}

#[test]
fn a_transaction_says_when_it_is_full() {
    with_p2m(|_, p2m| {
        for gfn in 0..40 {
            set(p2m, gfn, Entry::with_frame(Kind::RamRw, 0, ram())).unwrap();
        }
        let mut txn = p2m.begin_removal();
        let mut removed = 0;
        while txn.has_room_to_release() {
            txn.set(Gfn::new(removed), Entry::hole(0)).unwrap();
            removed += 1;
        }
        assert!(removed < 40);
        assert_eq!(txn.set(Gfn::new(removed), Entry::hole(0)), Err(ChangeError::NoRoom));
        txn.finish();
        assert_eq!(p2m.lookup(Gfn::new(removed)).kind, Kind::RamRw);
        // Without spare tables nothing new can be reached, but what is there can be changed.
        let (result, failed) = with_failing_allocation(0, || {
            let mut txn = p2m.begin_removal();
            let far = txn.set(Gfn::new(1 << 27), Entry::without_frame(Kind::MmioDm, 0));
            let again = txn.set(Gfn::new((1 << 27) + (1 << 20)), Entry::without_frame(Kind::MmioDm, 0));
            txn.finish();
            (far, again)
        });
        assert!(!failed, "nothing is allocated under the lock");
        assert!(result.0.is_ok());
        assert_eq!(result.1, Err(ChangeError::NoRoom), "the reserve is used up");
    });
}

#[test]
fn pins_follow_kinds() {
    with_p2m(|_, p2m| {
        let at = Gfn::new(5);
        let error = |access| p2m.pin(at, access).map(drop).unwrap_err();
        assert_eq!(error(Access::Read), PinError::NoRam);
        set(p2m, 5, Entry::with_frame(Kind::RamRw, 0, ram())).unwrap();
        assert!(p2m.pin(at, Access::Write).is_ok());
        for kind in [Kind::RamRo, Kind::PagingOut] {
            let mut txn = p2m.begin().unwrap();
            txn.retype(at, 0, kind).unwrap();
            txn.finish();
            assert!(p2m.pin(at, Access::Read).is_ok());
            assert_eq!(error(Access::Write), PinError::ReadOnly);
        }
        set(p2m, 5, Entry::without_frame(Kind::Paged, 0)).unwrap();
        assert_eq!(error(Access::Read), PinError::Paged);
        set(p2m, 5, Entry::with_frame(Kind::MmioDirect, 0, Mfn::new(DEVICE))).unwrap();
        assert_eq!(error(Access::Read), PinError::NoRam, "device memory is not memory");
    });
}

#[test]
fn threads_that_run_guests_never_reach_a_freed_page() {
    const GUESTS: u16 = 2;
    const ROUNDS: u64 = 3000;
    let machine = FakeMachine::builder().pages(2048).cpus(GUESTS + 1).build();
    let (guest, host) = machine.on_cpu(0, || (domain(1, settings(), 1000), host()));
    let done = AtomicBool::new(false);
    let bursts = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for number in 1..=GUESTS {
            let (machine, guest, done, bursts) = (&machine, &guest, &done, &bursts);
            scope.spawn(move || {
                machine.on_cpu(number, || {
                    let mut cpu = GuestCpu::of_vcpu(machine, guest, number);
                    let mut gfn = 0;
                    while !done.load(Ordering::Acquire) {
                        gfn = (gfn + u64::from(number)) % 8;
                        // Both answers are right; a freed page or table would end the test.
                        if cpu.hammer(guest, gfn << 12, 200) {
                            bursts.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    assert_eq!(machine::cpu::current(), CpuId(number));
                });
            });
        }
        machine.on_cpu(0, || {
            for round in 0..ROUNDS {
                let at = Gfn::new(round % 8);
                if populate(&host, &guest, at, 0).is_ok() && round.is_multiple_of(3) {
                    // Let somebody use it before it goes.
                    std::thread::yield_now();
                    decrease(&guest, at, 0).unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
    });
    assert!(bursts.load(Ordering::Relaxed) > 0, "no guest ever ran");
    machine.on_cpu(0, || {
        guest.p2m.check().unwrap();
        drop(guest);
        drop(host);
        assert_eq!(frame::free_pages(), 2048);
    });
}
