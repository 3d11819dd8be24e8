//! Tables: how many there may be, that emptied ones go, and that the end of a map is a walk in bounded steps.

extern crate std;

use super::entry::ORDER_2M;
use super::{ChangeError, DEFAULT_TABLE_LIMIT, DomainP2m, Entry, Kind};
use crate::memory::testing::{GuestCpu, domain, host, settings};
use crate::memory::{decrease, populate};
use machine::fake::FakeMachine;
use machine::frame::{self, Fill};
use machine::{DomId, Gfn};
use public_abi::Errno;

const OWNER: DomId = DomId(1);
const NOTHING: Entry = Entry::hole(0);
/// Something that needs no frame.
const SOMETHING: Entry = Entry::without_frame(Kind::MmioDm, 0);

fn with_p2m(work: impl FnOnce(&DomainP2m)) {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.on_cpu(0, || {
        let before = frame::free_pages();
        let p2m = DomainP2m::try_new(OWNER, &settings()).unwrap();
        work(&p2m);
        p2m.check().unwrap();
        drop(p2m);
        assert_eq!(frame::free_pages(), before);
    });
}

fn set(p2m: &DomainP2m, gfn: u64, entry: Entry) -> Result<(), ChangeError> {
    let mut txn = p2m.begin().unwrap();
    let result = txn.set(Gfn::new(gfn), entry).map(drop);
    txn.finish();
    p2m.check().unwrap();
    result
}

/// Tables in the tree.
fn tables(p2m: &DomainP2m) -> u64 {
    p2m.locked.lock().tree.tables
}

#[test]
fn a_table_goes_with_its_last_entry() {
    with_p2m(|p2m| {
        assert_eq!(tables(p2m), 1);
        // Neighbours in a lowest table, in the one above, in the one above that.
        let places = [0, 511, 512, 1 << 18, 1 << 27];
        let with = [4, 4, 5, 7, 10];
        for (place, expected) in places.into_iter().zip(with) {
            set(p2m, place, SOMETHING).unwrap();
            assert_eq!(tables(p2m), expected, "with {place:#x}");
        }
        let without = [7, 5, 4, 4, 1];
        for (place, expected) in places.into_iter().rev().zip(without) {
            set(p2m, place, NOTHING).unwrap();
            assert_eq!(tables(p2m), expected, "without {place:#x}");
        }
        // A hole in a hole needs no table.
        set(p2m, 5, NOTHING).unwrap();
        set(p2m, 512, Entry::hole(ORDER_2M)).unwrap();
        assert_eq!(tables(p2m), 1);
    });
}

#[test]
fn a_processor_that_remembers_an_emptied_table_does_not_reach_what_it_becomes() {
    let machine = FakeMachine::builder().pages(2048).build();
    machine.on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 1000);
        let mut cpu = GuestCpu::new(&machine, &guest);
        for round in 0..20 {
            let at = round << 18;
            populate(&host, &guest, Gfn::new(at), 0).unwrap();
            assert_eq!(cpu.access(&guest, at << 12, Some(round)), Ok(round));
            decrease(&guest, Gfn::new(at), 0).unwrap();
            assert!(cpu.access(&guest, at << 12, None).is_err());
            assert!(guest.p2m.table_pages() <= 1 + 3, "the root and the reserve");
        }
        assert_eq!(guest.p2m.lost_flushes(), 0);
    });
}

#[test]
fn a_change_beyond_the_limit_of_tables_is_refused_and_leaves_nothing() {
    with_p2m(|p2m| {
        assert_eq!(p2m.table_limit(), DEFAULT_TABLE_LIMIT);
        p2m.set_table_limit(5);
        set(p2m, 0, SOMETHING).unwrap();
        set(p2m, 512, SOMETHING).unwrap();
        let before = tables(p2m);
        for far in [1024, 1 << 18, 1 << 27] {
            assert_eq!(set(p2m, far, SOMETHING), Err(ChangeError::TooManyTables));
            assert_eq!(p2m.lookup(Gfn::new(far)).kind, Kind::Hole);
        }
        assert_eq!(tables(p2m), before);
        set(p2m, 1, SOMETHING).unwrap();
        set(p2m, 1024, Entry::without_frame(Kind::MmioDm, ORDER_2M)).unwrap();
        // A block that would have to be split.
        assert_eq!(set(p2m, 1030, NOTHING), Err(ChangeError::TooManyTables));
        // What is given back can be used again.
        set(p2m, 512, NOTHING).unwrap();
        set(p2m, 1030, NOTHING).unwrap();
        p2m.set_table_limit(0);
        assert_eq!(p2m.table_limit(), 5, "not less than there are");
        set(p2m, 0, NOTHING).unwrap();
        assert_eq!(set(p2m, 1 << 27, SOMETHING), Err(ChangeError::TooManyTables));
    });
}

#[test]
fn the_limit_is_logged_once() {
    let machine = FakeMachine::builder().pages(64).build();
    machine.on_cpu(0, || {
        let p2m = DomainP2m::try_new(OWNER, &settings()).unwrap();
        p2m.set_table_limit(1);
        for at in 0..5 {
            assert_eq!(set(&p2m, at, SOMETHING), Err(ChangeError::TooManyTables));
        }
        assert_eq!(machine.console().matches("page tables").count(), 1);
    });
}

#[test]
fn a_guest_cannot_have_more_tables_than_its_pool() {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 3000);
        let (mut got, before) = (0, frame::free_pages());
        let result = (0..3000).find_map(|at| {
            let result = populate(&host, &guest, Gfn::new(at << 9), 0);
            got += u64::from(result.is_ok());
            result.err()
        });
        assert_eq!(result, Some(Errno::ENOMEM));
        assert!(got > 200 && got < DEFAULT_TABLE_LIMIT, "{got}");
        assert_eq!(guest.accounting.pages(), got, "what failed is not charged for");
        assert!(before - frame::free_pages() - got <= DEFAULT_TABLE_LIMIT + 3);
        guest.p2m.check().unwrap();
        // Where tables are there is still room.
        populate(&host, &guest, Gfn::new(1), 0).unwrap();
        populate(&host, &guest, Gfn::new(3), 0).unwrap();
        decrease(&guest, Gfn::new(5 << 9), 0).unwrap();
        populate(&host, &guest, Gfn::new(got << 9), 0).unwrap();
    });
}

#[test]
fn the_end_is_a_walk_in_bounded_steps() {
    with_p2m(|p2m| {
        let mut entries = 0;
        for block in 0..60u64 {
            // Sparse tables, full tables, and large entries.
            let at = block << 18;
            for offset in [0, 511, 700].into_iter().chain(2048..2048 + 8 * block) {
                let mfn = frame::allocate(0, frame::Kind::Guest, OWNER, Fill::Zero).unwrap();
                set_fast(p2m, at + offset, Entry::with_frame(Kind::RamRw, 0, mfn));
                entries += 1;
                if frame::free_pages() < 100 {
                    break;
                }
            }
        }
        p2m.check().unwrap();
        let (all, mut looks, mut removed) = (tables(p2m), 0, 0);
        let mut steps = 0;
        loop {
            let step = p2m.end_step(|_| removed += 1);
            assert!(step.looks <= 2048 + 8 * 512 && step.pages <= 512 + 512, "{step:?}");
            (looks, steps) = (looks + step.looks, steps + 1);
            if step.is_done {
                break;
            }
            p2m.check().unwrap();
        }
        assert_eq!(removed, entries);
        assert!(steps > 10, "in many steps");
        // Each entry of each table once, and a way down from the root for each step and entry at the most.
        assert!(looks <= all * 512 + 4 * (entries + steps) * 4 + 60 * steps, "{looks} looks for {all} tables");
        assert_eq!(p2m.table_pages(), 1, "nothing but the root is left for the last moment");
        assert!(p2m.begin().is_err(), "and no table is made any more");
        assert!(p2m.end_step(|_| panic!("nothing is left")).is_done);
    });
}

fn set_fast(p2m: &DomainP2m, gfn: u64, entry: Entry) {
    let mut txn = p2m.begin().unwrap();
    txn.set(Gfn::new(gfn), entry).unwrap();
    txn.finish();
}
