//! What must not be left behind: tables of frames that were moved about, pages that others still use, claims.

use super::testing::{domain, host, insert, settings};
use super::{
    claim, decrease, foreign_page, map_foreign, map_shared, move_frame, populate, relinquish, remove_from_physmap,
};
use crate::domain::destroy;
use crate::domain::lifecycle::Stage;
use crate::guest_mem::SharedPage;
use crate::outcome::Stop;
use crate::p2m::{Access, DEFAULT_TABLE_LIMIT};
use core::sync::atomic::Ordering;
use machine::fake::FakeMachine;
use machine::frame::{self, Pin};
use machine::{DomId, Gfn};
use public_abi::Errno;

fn gfn(number: u64) -> Gfn {
    Gfn::new(number)
}

#[test]
fn a_page_that_is_moved_over_far_frames_leaves_no_tables_behind() {
    FakeMachine::builder().pages(512).build().on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 100);
        populate(&host, &guest, gfn(0), 0).unwrap();
        let shared = SharedPage::try_new(guest.id).unwrap();
        let start = frame::free_pages();
        for round in 1..10_000 {
            // Through all of the tables' reach, in steps of a lowest table.
            let at = gfn(((round * 0x1_2345) << 9) & 0xf_ffff_ffff);
            map_shared(&guest, at, Pin::take(shared.mfn(), guest.id).unwrap()).unwrap();
            assert!(guest.p2m.table_pages() <= 10);
        }
        assert!(start - frame::free_pages() < 10);
        let mut at = gfn(0);
        for round in 1..1000 {
            let next = gfn(((round * 0x1_2347) << 9) & 0xf_ffff_ffff);
            move_frame(&guest, at, next).unwrap();
            at = next;
        }
        assert!(guest.p2m.table_pages() <= 10);
        assert_eq!(guest.accounting.pages(), 1);
        assert_eq!(guest.p2m.lost_flushes(), 0);
        guest.p2m.check().unwrap();
    });
}

#[test]
fn a_frame_that_cannot_be_moved_stays_where_it_is() {
    FakeMachine::builder().pages(512).build().on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 100);
        populate(&host, &guest, gfn(0), 0).unwrap();
        populate(&host, &guest, gfn(1), 0).unwrap();
        guest.p2m.set_table_limit(4);
        let before = guest.p2m.lookup(gfn(0));
        assert_eq!(move_frame(&guest, gfn(0), gfn(1 << 20)), Err(Errno::ENOMEM));
        assert_eq!(guest.p2m.lookup(gfn(0)), before);
        assert_eq!((guest.accounting.pages(), frame::state(before.mfn).unwrap().count), (2, 1));
        move_frame(&guest, gfn(0), gfn(7)).unwrap();
        assert_eq!((guest.accounting.pages(), frame::state(before.mfn).unwrap().count), (2, 1));
    });
}

#[test]
fn a_page_that_others_use_is_charged_for_until_they_let_it_go() {
    FakeMachine::builder().pages(512).build().on_cpu(0, || {
        let host = host();
        let (guest, other) = (domain(1, settings(), 3), domain(2, settings(), 3));
        for at in 0..3 {
            populate(&host, &guest, gfn(at), 0).unwrap();
        }
        // A foreign mapping, a hypercall under way, and nobody.
        map_foreign(&other, gfn(9), foreign_page(&guest, gfn(0)).unwrap()).unwrap();
        let pin = guest.p2m.pin(gfn(1), Access::Write).unwrap();
        for at in 0..3 {
            decrease(&guest, gfn(at), 0).unwrap();
        }
        assert_eq!(guest.accounting.pages(), 2);
        assert_eq!(populate(&host, &guest, gfn(5), 0), Ok(()));
        assert_eq!(populate(&host, &guest, gfn(6), 0), Err(Errno::ENOMEM));
        drop(pin);
        assert_eq!(populate(&host, &guest, gfn(6), 0), Ok(()));
        assert_eq!(populate(&host, &guest, gfn(7), 0), Err(Errno::ENOMEM));
        remove_from_physmap(&other, gfn(9)).unwrap();
        assert_eq!(populate(&host, &guest, gfn(7), 0), Ok(()));
        assert_eq!((guest.accounting.pages(), other.accounting.pages()), (3, 0));
        // Replaced memory is charged for in the same way.
        let pin = guest.p2m.pin(gfn(5), Access::Read).unwrap();
        decrease(&guest, gfn(6), 0).unwrap();
        populate(&host, &guest, gfn(5), 0).unwrap();
        assert_eq!(guest.accounting.pages(), 3);
        drop(pin);
        assert_eq!(guest.accounting.pages(), 2);
    });
}

#[test]
fn the_number_of_a_dead_domain_is_free_when_its_pages_are() {
    FakeMachine::builder().pages(2048).build().on_cpu(0, || {
        let host = host();
        insert(&host, domain(7, settings(), 100));
        let other = domain(2, settings(), 100);
        {
            let guest = host.domains.get(DomId(7)).unwrap();
            populate(&host, &guest, gfn(0), 9).unwrap_err();
            for at in 0..40 {
                populate(&host, &guest, gfn(at), 0).unwrap();
            }
            map_foreign(&other, gfn(9), foreign_page(&guest, gfn(3)).unwrap()).unwrap();
        }
        assert_eq!(destroy::destroy(&host, DomId(0), DomId(7)), Ok(0));
        let choose = || host.domains.choose_number(&mut host.domains.change.lock(), Some(DomId(7)));
        assert_eq!(frame::leaving_pages(DomId(7)), 1);
        assert_eq!(choose(), None);
        remove_from_physmap(&other, gfn(9)).unwrap();
        assert_eq!(choose(), Some(DomId(7)));
    });
}

#[test]
fn the_end_of_a_sparse_domain_gives_way_and_frees_its_tables() {
    FakeMachine::builder().pages(4096).build().on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 3000);
        for at in 0..DEFAULT_TABLE_LIMIT - 10 {
            populate(&host, &guest, gfn(at << 9 | 511), 0).unwrap();
        }
        guest.lifecycle.advance(Stage::Dying);
        let mut steps = 0;
        while let Err(stop) = relinquish(&host, &guest) {
            assert_eq!(stop, Stop::Restart(None));
            steps += 1;
            assert!(steps < 100);
        }
        assert!(steps >= 1, "looking at empty entries takes time, too");
        assert_eq!(guest.p2m.table_pages(), 1);
        assert_eq!(guest.accounting.pages(), 0);
        // A toolstack that is late: nothing comes in any more.
        let shared = SharedPage::try_new(guest.id).unwrap();
        let page = Pin::take(shared.mfn(), guest.id).unwrap();
        assert_eq!(map_shared(&guest, gfn(1), page), Err(Errno::ENOMEM));
        assert_eq!(guest.p2m.table_pages(), 1);
    });
}

#[test]
fn a_dying_domain_claims_nothing() {
    FakeMachine::builder().pages(512).build().on_cpu(0, || {
        let host = host();
        insert(&host, domain(7, settings(), 100));
        {
            let guest = host.domains.get(DomId(7)).unwrap();
            guest.lifecycle.advance(Stage::Dying);
            assert_eq!(claim(&host, &guest, 50), Err(Errno::EINVAL));
            assert_eq!(claim(&host, &guest, 0), Ok(()));
            relinquish(&host, &guest).unwrap();
            // A claim that looked at the stage just before.
            guest.accounting.claimed.store(50, Ordering::Relaxed);
            host.domains.claimed_pages.store(50, Ordering::Relaxed);
        }
        assert_eq!(destroy::destroy(&host, DomId(0), DomId(7)), Ok(0));
        assert_eq!(host.domains.claimed_pages.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_domain_that_others_keep_looking_up_can_be_removed() {
    FakeMachine::builder().pages(512).build().on_cpu(0, || {
        let host = host();
        insert(&host, domain(7, settings(), 100));
        let held = host.domains.get(DomId(7)).unwrap();
        assert_eq!(destroy::destroy(&host, DomId(0), DomId(7)), Err(Stop::Restart(None)));
        // Whoever comes now does not find it, so those who hold it become fewer.
        assert!(host.domains.get(DomId(7)).is_none());
        assert!(host.domains.next_from(DomId(1)).is_none());
        assert!(host.domains.get(DomId(7 | 1 << 15)).is_none());
        assert!(host.domains.is_hidden(DomId(7)) && !host.domains.is_hidden(DomId(8)));
        let choose = || host.domains.choose_number(&mut host.domains.change.lock(), Some(DomId(7)));
        assert_eq!(choose(), None, "its number is not free yet");
        insert(&host, domain(8, settings(), 100));
        assert_eq!(destroy::destroy(&host, DomId(0), DomId(7)), Err(Stop::Restart(None)));
        drop(held);
        assert_eq!(destroy::destroy(&host, DomId(0), DomId(7)), Ok(0));
        assert_eq!(destroy::destroy(&host, DomId(0), DomId(7)), Err(Errno::ESRCH.into()));
        assert_eq!(choose(), Some(DomId(7)));
        assert!(host.domains.get(DomId(8)).is_some(), "another domain's place was not taken");
    });
}
