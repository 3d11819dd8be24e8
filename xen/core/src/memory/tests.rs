//! Verbs one by one: what comes of them, what stays afterwards, and what happens when memory is out.

use super::testing::{GuestCpu, domain, host, insert, settings};
use super::{
    claim, decrease, foreign_page, map_foreign, map_grant, map_shared, move_frame, populate, relinquish,
    remove_from_physmap, unmap_grant,
};
use crate::domain::Domain;
use crate::domain::lifecycle::Stage;
use crate::fault::Handled;
use crate::guest_mem::SharedPage;
use crate::host::Host;
use crate::outcome::Stop;
use crate::p2m::{Access, Kind};
use core::sync::atomic::Ordering;
use machine::cpu::Work;
use machine::fake::{FakeMachine, with_failing_allocation};
use machine::frame::{self, Pin};
use machine::{Gfn, Mfn};
use public_abi::Errno;

const PAGE: u64 = 4096;

fn gfn(number: u64) -> Gfn {
    Gfn::new(number)
}

fn pages(domain: &Domain) -> u64 {
    domain.accounting.pages()
}

/// A machine, a host and a domain 1 that may have 2000 pages; afterwards every page must be free again.
fn with_domain(work: impl FnOnce(&FakeMachine, &Host, &Domain)) {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.on_cpu(0, || {
        let before = frame::free_pages();
        let host = host();
        let guest = domain(1, settings(), 2000);
        work(&machine, &host, &guest);
        assert_eq!(guest.p2m.lost_flushes(), 0);
        guest.p2m.check().unwrap();
        drop(guest);
        drop(host);
        assert_eq!(frame::free_pages(), before, "pages were lost");
    });
}

#[test]
fn memory_comes_zeroed_and_goes_back() {
    with_domain(|machine, host, guest| {
        let mut cpu = GuestCpu::new(machine, guest);
        let free = frame::free_pages();
        populate(host, guest, gfn(5), 0).unwrap();
        assert_eq!((pages(guest), guest.p2m.maximum_gfn()), (1, gfn(5)));
        assert_eq!(cpu.access(guest, 5 * PAGE, None), Ok(0));
        assert_eq!(cpu.access(guest, 5 * PAGE + 8, Some(7)), Ok(7));
        decrease(guest, gfn(5), 0).unwrap();
        assert_eq!(pages(guest), 0);
        let (_, handled) = cpu.access(guest, 5 * PAGE, None).unwrap_err();
        assert_eq!(handled, Handled::Emulate, "nothing is there any more");
        assert_eq!(frame::free_pages() + guest.p2m.table_pages() - 1, free, "only tables are left");
        assert_eq!(decrease(guest, gfn(5), 0), Err(Errno::ENOENT));
        assert_eq!(decrease(guest, gfn(u64::MAX), 0), Err(Errno::EINVAL));
    });
}

#[test]
fn large_extents_are_one_entry_where_they_fit() {
    with_domain(|machine, host, guest| {
        let mut cpu = GuestCpu::new(machine, guest);
        populate(host, guest, gfn(512), 9).unwrap();
        assert_eq!(guest.p2m.lookup(gfn(513)).order, 9);
        populate(host, guest, gfn(1024 + 3), 9).unwrap();
        assert_eq!(guest.p2m.lookup(gfn(1024 + 3)).order, 0, "not aligned");
        assert_eq!(pages(guest), 1024);
        assert_eq!(populate(host, guest, gfn(4096), 9), Ok(()), "a third one still fits into 2000 pages");
        assert_eq!(populate(host, guest, gfn(8192), 9), Err(Errno::ENOMEM), "a fourth does not");
        // A hole in the middle splits the block; the others keep their content.
        cpu.access(guest, (512 + 77) * PAGE, Some(77)).unwrap();
        cpu.access(guest, (512 + 79) * PAGE, Some(79)).unwrap();
        decrease(guest, gfn(512 + 78), 0).unwrap();
        assert_eq!(cpu.access(guest, (512 + 77) * PAGE, None), Ok(77));
        assert_eq!(cpu.access(guest, (512 + 79) * PAGE, None), Ok(79));
        assert!(cpu.access(guest, (512 + 78) * PAGE, None).is_err());
        assert_eq!(decrease(guest, gfn(512), 9), Err(Errno::ENOENT), "stops at the hole");
        assert_eq!(pages(guest), 1536 - 79);
        decrease(guest, gfn(512 + 79), 0).unwrap();
        decrease(guest, gfn(4096), 9).unwrap();
        assert_eq!(pages(guest), 1536 - 80 - 512);
    });
}

#[test]
fn populating_over_memory_frees_what_was_there() {
    with_domain(|machine, host, guest| {
        let mut cpu = GuestCpu::new(machine, guest);
        populate(host, guest, gfn(0), 9).unwrap();
        cpu.access(guest, 3 * PAGE, Some(3)).unwrap();
        populate(host, guest, gfn(3), 0).unwrap();
        assert_eq!(cpu.access(guest, 3 * PAGE, None), Ok(0), "a new page");
        assert_eq!(pages(guest), 512);
        populate(host, guest, gfn(0), 9).unwrap();
        assert_eq!(pages(guest), 512);
        assert_eq!(cpu.access(guest, 3 * PAGE, None), Ok(0));
    });
}

#[test]
fn an_extent_beyond_the_tables_is_refused_before_anything_is_replaced() {
    with_domain(|machine, host, guest| {
        let last = (1 << 36) - 1;
        populate(host, guest, gfn(last), 0).unwrap();
        let mut cpu = GuestCpu::new(machine, guest);
        cpu.access(guest, last * PAGE, Some(1)).unwrap();
        assert_eq!(populate(host, guest, gfn(last), 9), Err(Errno::EINVAL));
        assert_eq!(cpu.access(guest, last * PAGE, None), Ok(1));
        assert_eq!(populate(host, guest, gfn(last + 1), 0), Err(Errno::EINVAL));
    });
}

#[test]
fn a_block_goes_where_a_table_was() {
    with_domain(|machine, host, guest| {
        let mut cpu = GuestCpu::new(machine, guest);
        populate(host, guest, gfn(3), 0).unwrap();
        cpu.access(guest, 3 * PAGE, Some(1)).unwrap();
        decrease(guest, gfn(3), 0).unwrap();
        populate(host, guest, gfn(0), 9).unwrap();
        assert_eq!(guest.p2m.lookup(gfn(0)).order, 9);
        drop(guest.p2m.begin());
        assert_eq!(guest.p2m.table_pages(), 3 + 3, "three levels, and the reserve");
        // The processor still remembers that table; had it been freed without a flush, this would end the test.
        assert_eq!(cpu.access(guest, 4 * PAGE, None), Ok(0));
    });
}

#[test]
fn a_dying_domain_gets_nothing_and_the_end_is_preemptible() {
    with_domain(|machine, host, guest| {
        for block in 0..3 {
            populate(host, guest, gfn(block * 1024 + 1), 9).unwrap();
        }
        populate(host, guest, gfn(1 << 30), 0).unwrap();
        guest.lifecycle.advance(Stage::Dying);
        assert_eq!(populate(host, guest, gfn(9000), 0), Err(Errno::ESRCH));
        machine.note_work(0, Work::KICK);
        let mut steps = 0;
        while let Err(stop) = relinquish(host, guest) {
            assert_eq!(stop, Stop::Restart(None));
            steps += 1;
            if steps == 2 {
                machine::cpu::take_work();
            }
            assert!(steps < 100);
            guest.p2m.check().unwrap();
        }
        assert!(steps >= 1, "work was waiting");
        assert_eq!(pages(guest), 0);
        assert_eq!(relinquish(host, guest), Ok(0), "nothing more to do");
    });
}

#[test]
fn foreign_pages_outlive_their_owner() {
    with_domain(|machine, host, guest| {
        let owner = domain(2, settings(), 100);
        populate(host, &owner, gfn(40), 0).unwrap();
        let mut owner_cpu = GuestCpu::new(machine, &owner);
        owner_cpu.access(&owner, 40 * PAGE, Some(0x1234)).unwrap();
        map_foreign(guest, gfn(7), foreign_page(&owner, gfn(40)).unwrap()).unwrap();
        let mut cpu = GuestCpu::new(machine, guest);
        assert_eq!(cpu.access(guest, 7 * PAGE, None), Ok(0x1234));
        assert_eq!((pages(guest), pages(&owner)), (0, 1), "the owner pays");
        let mfn = guest.p2m.lookup(gfn(7)).mfn;
        owner.lifecycle.advance(Stage::Dying);
        relinquish(host, &owner).unwrap();
        drop(owner);
        assert_eq!(cpu.access(guest, 7 * PAGE, Some(5)), Ok(5), "the mapping keeps the page");
        assert_eq!(frame::state(mfn).unwrap().count, 1);
        remove_from_physmap(guest, gfn(7)).unwrap();
        assert_eq!(frame::state(mfn).unwrap().count & 0xff, frame::state(mfn).unwrap().count, "in the pool again");
        assert_ne!(frame::state(mfn).unwrap().kind, frame::Kind::Guest);
        assert!(cpu.access(guest, 7 * PAGE, None).is_err());
        assert_eq!(remove_from_physmap(guest, gfn(7)), Err(Errno::ENOENT));
    });
}

#[test]
fn only_own_memory_can_be_shown_to_others() {
    with_domain(|_, host, guest| {
        let other = domain(2, settings(), 100);
        populate(host, &other, gfn(1), 0).unwrap();
        populate(host, guest, gfn(1), 0).unwrap();
        map_foreign(guest, gfn(2), foreign_page(&other, gfn(1)).unwrap()).unwrap();
        assert_eq!(foreign_page(guest, gfn(2)).map(drop), Err(Errno::EINVAL), "no lending on");
        assert_eq!(foreign_page(guest, gfn(3)).map(drop), Err(Errno::EINVAL));
        let shared = SharedPage::try_new(guest.id).unwrap();
        map_shared(guest, gfn(4), Pin::take(shared.mfn(), guest.id).unwrap()).unwrap();
        assert_eq!(foreign_page(guest, gfn(4)).map(drop), Err(Errno::EINVAL), "nor pages of the hypervisor");
        // Ballooning and populating leave pages of others alone; a foreign page may replace another.
        assert_eq!(decrease(guest, gfn(2), 0), Err(Errno::ENXIO));
        assert_eq!(populate(host, guest, gfn(2), 0), Err(Errno::EINVAL));
        map_foreign(guest, gfn(2), foreign_page(&other, gfn(1)).unwrap()).unwrap();
        assert_eq!(pages(guest), 1);
        remove_from_physmap(guest, gfn(2)).unwrap();
    });
}

#[test]
fn read_only_memory_stays_read_only_for_others() {
    with_domain(|machine, host, guest| {
        let owner = domain(2, settings(), 100);
        populate(host, &owner, gfn(1), 0).unwrap();
        let mut txn = owner.p2m.begin().unwrap();
        txn.retype(gfn(1), 0, Kind::RamRo).unwrap();
        txn.finish();
        map_foreign(guest, gfn(2), foreign_page(&owner, gfn(1)).unwrap()).unwrap();
        let mut cpu = GuestCpu::new(machine, guest);
        assert_eq!(cpu.access(guest, 2 * PAGE, None), Ok(0));
        assert_eq!(cpu.access(guest, 2 * PAGE, Some(1)).unwrap_err().1, Handled::Emulate, "writes are swallowed");
        assert!(guest.p2m.pin(gfn(2), Access::Write).is_err());
        let mut owner_cpu = GuestCpu::new(machine, &owner);
        assert_eq!(owner_cpu.access(&owner, PAGE, Some(1)).unwrap_err().1, Handled::Emulate, "writes are swallowed");
        remove_from_physmap(guest, gfn(2)).unwrap();
    });
}

#[test]
fn granted_pages_are_unmapped_by_their_own_call_only() {
    with_domain(|machine, host, guest| {
        let owner = domain(2, settings(), 100);
        populate(host, &owner, gfn(1), 0).unwrap();
        let page = owner.p2m.pin_for_others(gfn(1), Access::Write).unwrap();
        let mfn = page.mfn();
        map_grant(guest, gfn(9), page, Access::Write).unwrap();
        let mut cpu = GuestCpu::new(machine, guest);
        cpu.access(guest, 9 * PAGE, Some(1)).unwrap();
        assert_eq!(remove_from_physmap(guest, gfn(9)), Err(Errno::EINVAL));
        assert_eq!(decrease(guest, gfn(9), 0), Err(Errno::ENXIO));
        assert_eq!(unmap_grant(guest, gfn(9), Mfn::new(mfn.number() + 1)), Err(Errno::EINVAL));
        unmap_grant(guest, gfn(9), mfn).unwrap();
        assert_eq!(unmap_grant(guest, gfn(9), mfn), Err(Errno::EINVAL));
        assert!(cpu.access(guest, 9 * PAGE, None).is_err());
        assert_eq!(frame::state(mfn).unwrap().count, 1, "the owner's alone");
    });
}

#[test]
fn shared_pages_are_seen_by_both_and_not_charged() {
    with_domain(|machine, host, guest| {
        populate(host, guest, gfn(1), 0).unwrap();
        let shared = SharedPage::try_new(guest.id).unwrap();
        map_shared(guest, gfn(1), Pin::take(shared.mfn(), guest.id).unwrap()).unwrap();
        assert_eq!(pages(guest), 0, "the page that was there is freed");
        let mut cpu = GuestCpu::new(machine, guest);
        assert!(machine::memory::write(shared.pin(), 0, &9u64.to_le_bytes()));
        assert_eq!(cpu.access(guest, PAGE, None), Ok(9));
        let mfn = shared.mfn();
        drop(shared);
        assert_eq!(cpu.access(guest, PAGE, None), Ok(9), "the mapping keeps it");
        populate(host, guest, gfn(1), 0).unwrap();
        assert_ne!(frame::state(mfn).unwrap().kind, frame::Kind::Shared);
    });
}

#[test]
fn a_shared_page_is_at_one_place_at_a_time() {
    with_domain(|machine, _, guest| {
        let shared = SharedPage::try_new(guest.id).unwrap();
        assert_eq!(shared.gfn(), None);
        let mut cpu = GuestCpu::new(machine, guest);
        for at in [7, 1 << 20, 1 << 20, 8] {
            map_shared(guest, gfn(at), Pin::take(shared.mfn(), guest.id).unwrap()).unwrap();
            assert_eq!(cpu.access(guest, at * PAGE, Some(at)), Ok(at));
            assert_eq!(shared.gfn(), Some(gfn(at)));
            assert_eq!(frame::state(shared.mfn()).unwrap().count, 2);
        }
        for gone in [7, 1 << 20] {
            assert!(cpu.access(guest, gone * PAGE, None).is_err());
        }
        remove_from_physmap(guest, gfn(8)).unwrap();
        map_shared(guest, gfn(9), Pin::take(shared.mfn(), guest.id).unwrap()).unwrap();
    });
}

#[test]
fn frames_move_within_a_domain() {
    with_domain(|machine, host, guest| {
        populate(host, guest, gfn(0), 9).unwrap();
        populate(host, guest, gfn(600), 0).unwrap();
        let mut cpu = GuestCpu::new(machine, guest);
        cpu.access(guest, 5 * PAGE, Some(55)).unwrap();
        cpu.access(guest, 600 * PAGE, Some(66)).unwrap();
        move_frame(guest, gfn(5), gfn(600)).unwrap();
        assert_eq!(cpu.access(guest, 600 * PAGE, None), Ok(55));
        assert!(cpu.access(guest, 5 * PAGE, None).is_err());
        assert_eq!(pages(guest), 512);
        move_frame(guest, gfn(600), gfn(1 << 27)).unwrap();
        assert_eq!(cpu.access(guest, (1 << 27) * PAGE, None), Ok(55));
        move_frame(guest, gfn(1 << 27), gfn(1 << 27)).unwrap();
        assert_eq!(move_frame(guest, gfn(600), gfn(1)), Err(Errno::EINVAL), "nothing is there");
        assert_eq!(move_frame(guest, gfn(1), gfn(1 << 40)), Err(Errno::EINVAL), "beyond what tables translate");
        assert_eq!(pages(guest), 512);
    });
}

#[test]
fn guests_never_get_device_memory_by_a_fault() {
    with_domain(|machine, _, guest| {
        let mut cpu = GuestCpu::new(machine, guest);
        assert_eq!(cpu.access(guest, 0xfeb0_0000, None).unwrap_err().1, Handled::Emulate);
        assert_eq!(guest.p2m.lookup(gfn(0xfeb00)).kind, Kind::Hole);
    });
}

#[test]
fn claims_keep_memory_for_their_domain() {
    with_domain(|_, host, guest| {
        let other = domain(2, settings(), 10_000);
        populate(host, guest, gfn(0), 0).unwrap();
        assert_eq!(claim(host, guest, 2001), Err(Errno::EINVAL), "more than it may have");
        assert_eq!(claim(host, guest, 1), Err(Errno::EINVAL), "it has that");
        assert_eq!(claim(host, &other, 10_000), Err(Errno::ENOMEM));
        claim(host, guest, 2000).unwrap();
        assert_eq!(claim(host, guest, 2000), Err(Errno::EINVAL), "one claim at a time");
        assert_eq!(guest.accounting.claimed.load(Ordering::Relaxed), 1999);
        // The other gets what is left, and no page more.
        let mut got = 0;
        while populate(host, &other, gfn(got), 0).is_ok() {
            got += 1;
        }
        assert!(got > 0 && frame::free_pages() >= 1999, "{got} {}", frame::free_pages());
        populate(host, guest, gfn(512), 9).unwrap();
        assert_eq!(guest.accounting.claimed.load(Ordering::Relaxed), 1999 - 512);
        assert_eq!(host.domains.claimed_pages.load(Ordering::Relaxed), 1999 - 512);
        claim(host, guest, 0).unwrap();
        assert_eq!(host.domains.claimed_pages.load(Ordering::Relaxed), 0);
        populate(host, &other, gfn(got), 0).unwrap();
    });
}

#[test]
fn the_host_counts_claims_of_dead_domains_out() {
    with_domain(|_, host, guest| {
        claim(host, guest, 50).unwrap();
        guest.lifecycle.advance(Stage::Dying);
        relinquish(host, guest).unwrap();
        assert_eq!(host.domains.claimed_pages.load(Ordering::Relaxed), 0);
        insert(host, domain(9, settings(), 1));
    });
}

/// Runs `work` on a fresh domain with allocation 0, 1, 2, … failing, until none fails any more.
fn fail_every_allocation(work: impl Fn(&Host, &Domain) -> Result<(), Errno>) {
    for nth in 0..200 {
        let mut has_failed = true;
        with_domain(|_, host, guest| {
            populate(host, guest, gfn(100), 0).unwrap();
            let (result, failed) = with_failing_allocation(nth, || work(host, guest));
            has_failed = failed;
            guest.p2m.check().unwrap();
            if result.is_err() {
                assert!(failed, "{result:?} though memory was there");
                // Once more with enough memory, over whatever is left of the first time.
                work(host, guest).unwrap();
            }
        });
        if !has_failed {
            return;
        }
    }
    panic!("more allocations than expected");
}

#[test]
fn no_failing_allocation_loses_a_page_or_a_count() {
    fail_every_allocation(|host, guest| {
        populate(host, guest, gfn(5), 0)?;
        populate(host, guest, gfn(1 << 20), 9)?;
        populate(host, guest, gfn(509), 9)?;
        let expected = guest.accounting.pages();
        assert_eq!(expected, 1 + 1 + 512 + 512);
        decrease(guest, gfn((1 << 20) + 7), 0)?;
        populate(host, guest, gfn((1 << 20) + 7), 0)
    });
    fail_every_allocation(|host, guest| {
        populate(host, guest, gfn(512), 9)?;
        move_frame(guest, gfn(600), gfn(1 << 27))?;
        remove_from_physmap(guest, gfn(601))
    });
}
