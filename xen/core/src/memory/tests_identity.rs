//! The 1:1 control domain: its own frames never leave it, and its devices come by themselves.

use super::testing::{GuestCpu, control_settings, domain, host, settings};
use super::{adopt, decrease, foreign_page, map_foreign, mark_emulated, move_frame, populate, remove_from_physmap};
use crate::domain::Domain;
use crate::fault::Handled;
use crate::host::Host;
use crate::p2m::Kind;
use core::sync::atomic::Ordering;
use machine::fake::FakeMachine;
use machine::frame;
use machine::{DomId, Gfn, Mfn};
use public_abi::Errno;

const PAGE: u64 = 4096;

fn gfn(number: u64) -> Gfn {
    Gfn::new(number)
}

fn pages(domain: &Domain) -> u64 {
    domain.accounting.pages.load(Ordering::Relaxed)
}

/// A 1:1 control domain with frames 64 to 1600 of a machine whose RAM ends at 2048, and the rest of RAM free.
fn with_control(work: impl FnOnce(&FakeMachine, &Host, &Domain)) {
    let machine = FakeMachine::builder().pages(2048).reserve(64, 1536).build();
    machine.on_cpu(0, || {
        let host = host();
        let control = domain(0, control_settings(), 1536);
        assert_eq!(adopt(&control, Mfn::new(64), 1536), Ok(1536));
        work(&machine, &host, &control);
        control.p2m.check().unwrap();
        assert_eq!(control.p2m.lost_flushes(), 0);
    });
}

#[test]
fn a_control_domain_gets_its_own_frames_back_and_no_others() {
    with_control(|machine, host, control| {
        let mut cpu = GuestCpu::new(machine, control);
        assert_eq!(control.p2m.lookup(gfn(512)).order, 9, "adopted in blocks");
        assert_eq!(pages(control), 1536);
        cpu.access(control, 700 * PAGE, Some(7)).unwrap();
        let free = frame::free_pages();
        decrease(control, gfn(700), 0).unwrap();
        assert_eq!(control.p2m.lookup(gfn(700)).kind, Kind::Reserved);
        assert_eq!(pages(control), 1535);
        assert!(frame::free_pages() <= free, "the frame is not lent to anybody");
        assert_eq!(
            cpu.access(control, 700 * PAGE, None).unwrap_err().1,
            Handled::Emulate,
            "RAM is never mapped by a fault"
        );
        assert_eq!(populate(host, control, gfn(3000), 0), Err(Errno::ENOMEM), "no frame of that number");
        assert_eq!(populate(host, control, gfn(701), 0), Err(Errno::ENOMEM), "it is there");
        populate(host, control, gfn(700), 0).unwrap();
        assert_eq!(control.p2m.lookup(gfn(700)).mfn, Mfn::new(700));
        assert_eq!(cpu.access(control, 700 * PAGE, None), Ok(0), "populated memory is zero");
        assert_eq!(move_frame(control, gfn(700), gfn(5000)), Err(Errno::EINVAL));
    });
}

#[test]
fn whole_blocks_are_reserved_and_come_back_as_blocks() {
    with_control(|machine, host, control| {
        let mut cpu = GuestCpu::new(machine, control);
        cpu.access(control, 600 * PAGE, Some(9)).unwrap();
        decrease(control, gfn(512), 9).unwrap();
        assert_eq!(control.p2m.lookup(gfn(600)), crate::p2m::Entry::with_frame(Kind::Reserved, 9, Mfn::new(512)));
        populate(host, control, gfn(512), 9).unwrap();
        assert_eq!(control.p2m.lookup(gfn(600)).order, 9);
        assert_eq!(pages(control), 1536);
        assert_eq!(cpu.access(control, 600 * PAGE, None), Ok(0), "all pages of the block are zero");
        // With one page missing the block cannot come back.
        decrease(control, gfn(1024), 9).unwrap();
        populate(host, control, gfn(1030), 0).unwrap();
        assert_eq!(populate(host, control, gfn(1024), 9), Err(Errno::ENOMEM));
        assert_eq!(pages(control), 1536 - 511);
    });
}

#[test]
fn something_else_at_a_control_domains_frame_does_not_lose_the_frame() {
    with_control(|machine, host, control| {
        let owner = domain(3, settings(), 10);
        populate(host, &owner, gfn(1), 0).unwrap();
        let mut cpu = GuestCpu::new(machine, control);
        cpu.access(control, 800 * PAGE, Some(8)).unwrap();
        // Over RAM, and over a ballooned frame.
        decrease(control, gfn(801), 0).unwrap();
        for at in [800, 801] {
            map_foreign(control, gfn(at), foreign_page(&owner, gfn(1)).unwrap()).unwrap();
            cpu.access(control, at * PAGE, Some(at)).unwrap();
        }
        assert_eq!(pages(control), 1534);
        assert_eq!(frame::state(Mfn::new(800)).unwrap().owner, DomId(0));
        for at in [800, 801] {
            remove_from_physmap(control, gfn(at)).unwrap();
            assert_eq!(control.p2m.lookup(gfn(at)).kind, Kind::Reserved);
            assert_eq!(frame::state(Mfn::new(at)).unwrap().count, 1);
            populate(host, control, gfn(at), 0).unwrap();
        }
        assert_eq!(
            cpu.access(control, 800 * PAGE, None),
            Ok(0),
            "not what was written to the foreign page, nor the old 8"
        );
        assert_eq!(pages(control), 1536);
        assert_eq!(frame::state(owner.p2m.lookup(gfn(1)).mfn).unwrap().count, 1);
    });
}

#[test]
fn a_foreign_page_of_the_same_number_is_not_taken_for_an_own_one() {
    with_control(|_, host, control| {
        let owner = domain(3, settings(), 10);
        populate(host, &owner, gfn(1), 0).unwrap();
        populate(host, &owner, gfn(2), 0).unwrap();
        let mfn = owner.p2m.lookup(gfn(1)).mfn;
        let same = gfn(mfn.number());
        map_foreign(control, same, foreign_page(&owner, gfn(1)).unwrap()).unwrap();
        map_foreign(control, same, foreign_page(&owner, gfn(2)).unwrap()).unwrap();
        map_foreign(control, same, foreign_page(&owner, gfn(1)).unwrap()).unwrap();
        remove_from_physmap(control, same).unwrap();
        assert_eq!(control.p2m.lookup(same).kind, Kind::Hole);
        assert_eq!(frame::state(mfn).unwrap().count, 1, "the owner's alone");
    });
}

#[test]
fn devices_are_mapped_at_their_first_use_unless_they_are_emulated() {
    with_control(|machine, host, control| {
        let mut cpu = GuestCpu::new(machine, control);
        mark_emulated(control, gfn(0xfee00), 1).unwrap();
        mark_emulated(control, gfn(0xb0000), 1 << 14).unwrap();
        assert_eq!(cpu.access(control, 0xfee0_0020, None).unwrap_err().1, Handled::Emulate);
        assert_eq!(cpu.access(control, 0xb000_1000, None).unwrap_err().1, Handled::Emulate);
        assert_eq!(cpu.access(control, 0xfeb0_0000, None), Ok(u64::MAX), "the fake device answers with ones");
        cpu.access(control, 0xfeb0_0008, Some(3)).unwrap();
        assert_eq!(machine.device_writes().len(), 1);
        assert_eq!(control.p2m.lookup(gfn(0xfeb00)).kind, Kind::MmioDirect);
        // RAM that is not the domain's: the pool's, the hypervisor's.
        assert_eq!(cpu.access(control, 5 * PAGE, None).unwrap_err().1, Handled::Emulate);
        assert_eq!(decrease(control, gfn(0xfeb00), 0), Err(Errno::EPERM));
        assert_eq!(populate(host, control, gfn(0xfee00), 0), Err(Errno::ENOMEM));
        assert_eq!(mark_emulated(control, gfn(700), 1), Err(Errno::EBUSY), "RAM is there");
        // A large area is a few large entries, where nothing smaller is in the way.
        cpu.access(control, (1 << 39) + 5 * PAGE, None).unwrap();
        mark_emulated(control, gfn(1 << 27), 3 << 18).unwrap();
        assert_eq!([0, 1, 2].map(|block| control.p2m.lookup(gfn((1 << 27) + (block << 18) + 1023)).order), [9, 18, 18]);
        assert_eq!(cpu.access(control, (1 << 39) + 5 * PAGE, None).unwrap_err().1, Handled::Emulate);
        // Marking takes a mapping away again.
        mark_emulated(control, gfn(0xfeb00), 1).unwrap();
        assert_eq!(cpu.access(control, 0xfeb0_0000, None).unwrap_err().1, Handled::Emulate);
    });
}
