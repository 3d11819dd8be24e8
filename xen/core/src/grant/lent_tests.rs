//! Granted pages that their owner gives up, and granted pages where a hypercall's memory should be.

use super::tests::{HOST, OWN, PAGE, RO, grant, map, unmap, with_domains};
use crate::event::fixture::{caller, domain};
use crate::memory::{decrease, populate};
use core::sync::atomic::Ordering;
use machine::frame;
use machine::{DomId, Gfn, Mfn, memory};
use public_abi::grant_table::*;
use public_abi::{Errno, GuestPtr};

/// Pages of RAM that belong to a domain, wherever they are shown.
fn owned(id: u16) -> usize {
    let is_owned = |number: &u64| {
        frame::state(Mfn::new(*number))
            .is_some_and(|state| state.kind == frame::Kind::Guest && state.owner == DomId(id))
    };
    (0..frame::total_pages()).filter(is_owned).count()
}

#[test]
fn a_domain_that_grants_to_itself_gets_no_more_than_its_maximum() {
    with_domains(|_, host| {
        let guest = domain(host, 1);
        let before = owned(1);
        guest.accounting.max_pages.store(4, Ordering::Relaxed);
        for at in 50..54 {
            populate(host, &guest, Gfn::new(at), 0).unwrap();
        }
        let mut handles = std::vec::Vec::new();
        for (gref, at) in (5..).zip(50..54) {
            grant(host, gref, GTF_PERMIT_ACCESS, 1, at);
            handles.push(map(host, 1, gref, HOST, 100 + at).handle);
            decrease(&guest, Gfn::new(at), 0).unwrap();
            assert_eq!(populate(host, &guest, Gfn::new(at), 0), Err(Errno::ENOMEM), "the page is still there");
        }
        assert_eq!((owned(1) - before, guest.accounting.pages()), (4, 4));
        for (handle, at) in handles.into_iter().zip(50..54) {
            assert_eq!(unmap(host, 1, handle, 100 + at), GNTST_OKAY);
            populate(host, &guest, Gfn::new(at), 0).unwrap();
        }
        assert_eq!((owned(1) - before, guest.accounting.pages()), (4, 4));
    });
}

#[test]
fn a_granted_page_is_no_place_for_a_hypercalls_memory() {
    with_domains(|_, host| {
        grant(host, 1, GTF_PERMIT_ACCESS, 0, PAGE);
        let (writable, readable) = (map(host, 0, 1, HOST, 100), map(host, 0, 1, HOST | RO, 101));
        let control = domain(host, 0);
        let caller = caller(host, &control, 0);
        for at in [100, 101] {
            let pointer = GuestPtr::<u64>::from_address(at << 12);
            assert_eq!(caller.memory.read(pointer), Err(Errno::EFAULT));
            assert_eq!(caller.memory.write(pointer, &1), Err(Errno::EFAULT));
            let across = GuestPtr::<u64>::from_address((at << 12) - 4);
            assert!(caller.memory.read(across).is_err());
        }
        assert!(caller.memory.read(GuestPtr::<u64>::from_address(OWN << 12)).is_ok());
        // So when the uses have ended nothing is left that could reach the page.
        assert_eq!(unmap(host, 0, writable.handle, 100), GNTST_OKAY);
        assert_eq!(unmap(host, 0, readable.handle, 101), GNTST_OKAY);
        let mfn = domain(host, 1).p2m.lookup(Gfn::new(PAGE)).mfn;
        assert_eq!(frame::state(mfn).unwrap().count, 1);
        let page = frame::Pin::take(mfn, DomId(1)).unwrap();
        assert_eq!(memory::atomic::<u64>(&page, 0).unwrap().load(Ordering::Relaxed), 0);
    });
}
