//! Whole memory_op calls: decoding, permissions, answers, preemption.

extern crate std;

use crate::domain::Domain;
use crate::host::Host;
use crate::memory::testing::{TestCaller, control_settings, domain, host, insert, settings};
use crate::memory::{adopt, populate};
use crate::outcome::{Reply, Stop};
use crate::p2m::Kind;
use core::sync::atomic::Ordering;
use machine::cpu::Work;
use machine::fake::FakeMachine;
use machine::{Gfn, Mfn, frame};
use public_abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, E820Entry, E820Type, ForeignMemoryMap, MEMF_POPULATE_ON_DEMAND,
    MemAcquireResource, MemoryDomain, MemoryExchange, MemoryMap, MemoryOp, MemoryReservation, PodTarget,
    RemoveFromPhysmap, ReservedDeviceMemoryMap, VnumaTopologyInfo,
};
use public_abi::memory_tools::MemAccessOp;
use public_abi::{Errno, GuestPtr};
use std::vec::Vec;

const SELF: u16 = 0x7ff0;
const LIST: u64 = 0x2000;
const LIST_2: u64 = 0x3000;
const ERRORS: u64 = 0x4000;

/// A 1:1 control domain with frames 0 to 1023, guest 5 with pages 100 to 103, and free RAM above.
fn with_host(work: impl FnOnce(&FakeMachine, &Host, &Domain)) {
    let machine = FakeMachine::builder().pages(4096).reserve(0, 1024).build();
    machine.on_cpu(0, || {
        let host = host();
        let control = domain(0, control_settings(), 1024);
        adopt(&control, Mfn::new(0), 1024).unwrap();
        let guest = domain(5, settings(), 200);
        for page in 100..104 {
            populate(&host, &guest, Gfn::new(page), 0).unwrap();
        }
        insert(&host, guest);
        work(&machine, &host, &control);
        control.p2m.check().unwrap();
    });
}

fn error(errno: Errno) -> Reply {
    Err(Stop::Error(errno))
}

fn op(operation: MemoryOp) -> u64 {
    operation.number().into()
}

fn reservation(list: GuestPtr<u64>, count: u64, order: u32, domid: u16) -> MemoryReservation {
    MemoryReservation {
        extent_start: list,
        nr_extents: count,
        extent_order: order,
        domid,
        ..MemoryReservation::default()
    }
}

#[test]
fn reservations_count_what_is_done() {
    with_host(|_, host, control| {
        let caller = TestCaller::new(host, control);
        let list = caller.list(LIST, &[200, 201, 202, 1 << 40, 203]);
        let populate_op = op(MemoryOp::PopulatePhysmap);
        let (reply, _) = caller.call(populate_op, &reservation(list, 5, 0, 5));
        assert_eq!(reply, Ok(3), "stops at the bad frame");
        assert_eq!(host.domains.get(machine::DomId(5)).unwrap().accounting.pages.load(Ordering::Relaxed), 7);
        assert_eq!(caller.call(op(MemoryOp::DecreaseReservation), &reservation(list, 5, 0, 5)).0, Ok(3));
        assert_eq!(caller.call(op(MemoryOp::DecreaseReservation), &reservation(list, 5, 0, 5)).0, Ok(0));
        // Nothing of these is an error; nothing is done either.
        let on_demand = MemoryReservation { mem_flags: MEMF_POPULATE_ON_DEMAND, ..reservation(list, 1, 0, 5) };
        let narrow = MemoryReservation { mem_flags: 20, ..reservation(list, 1, 0, 5) };
        let elsewhere = MemoryReservation { mem_flags: 2 << 8 | 1 << 17, ..reservation(list, 1, 0, 5) };
        for request in [on_demand, narrow, elsewhere, reservation(list, 1, 10, 5), reservation(list, 1, 0, 77)] {
            assert_eq!(caller.call(populate_op, &request).0, Ok(0), "{request:?}");
        }
        let unreadable = GuestPtr::from_address(0x8000_0000);
        assert_eq!(caller.call(populate_op, &reservation(unreadable, 1, 0, 5)).0, Ok(0));
        assert_eq!(caller.call(populate_op, &reservation(list, 1 << 27, 0, 5)).0, Ok(0), "too many to continue");
        assert_eq!(caller.call(populate_op | 7 << 6, &reservation(list, 5, 0, 5)).0, Ok(7), "a cursor behind the end");
        assert_eq!(caller.call(op(MemoryOp::IncreaseReservation), &reservation(list, 1, 0, 5)).0, Ok(0));
        assert_eq!(
            caller.call(populate_op, &MemoryReservation { mem_flags: 32, ..reservation(list, 1, 0, 5) }).0,
            Ok(1)
        );
    });
}

#[test]
fn long_calls_are_continued_where_they_stopped() {
    with_host(|machine, host, control| {
        let caller = TestCaller::new(host, control);
        let gfns: Vec<u64> = (300..330).collect();
        let list = caller.list(LIST, &gfns);
        let mut command = op(MemoryOp::PopulatePhysmap);
        let mut steps = 0;
        let done = loop {
            machine.note_work(0, Work::TIMER);
            match caller.call(command, &reservation(list, 30, 0, 5)).0 {
                Ok(done) => break done,
                Err(Stop::Restart(Some(cursor))) => {
                    let [(0, value)] = cursor.changes().collect::<Vec<_>>()[..] else { panic!("{cursor:?}") };
                    assert_eq!(value & 63, 6, "the same operation");
                    assert!(value > command, "every step gets on");
                    command = value;
                    steps += 1;
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((done, steps), (30, 29));
        assert_eq!(host.domains.get(machine::DomId(5)).unwrap().accounting.pages.load(Ordering::Relaxed), 34);
    });
}

#[test]
fn guests_have_power_over_themselves_only() {
    with_host(|_, host, control| {
        let guest = domain(6, settings(), 100);
        let caller = TestCaller::new(host, &guest);
        let list = caller.list(LIST, &[50]);
        assert_eq!(caller.call(op(MemoryOp::PopulatePhysmap), &reservation(list, 1, 0, 5)).0, Ok(0));
        assert_eq!(caller.call(op(MemoryOp::PopulatePhysmap), &reservation(list, 1, 0, SELF)).0, Ok(1));
        assert_eq!(caller.call(op(MemoryOp::DecreaseReservation), &reservation(list, 1, 0, 6)).0, Ok(1));
        let stat = |domid| caller.call(op(MemoryOp::CurrentReservation), &MemoryDomain { domid }).0;
        assert_eq!([stat(SELF), stat(6), stat(5), stat(9)], [Ok(16), Ok(16), error(Errno::EPERM), error(Errno::ESRCH)]);
        let unmap = RemoveFromPhysmap { domid: 5, gpfn: 100, ..RemoveFromPhysmap::default() };
        assert_eq!(caller.call(op(MemoryOp::RemoveFromPhysmap), &unmap).0, error(Errno::EPERM));
        let add = AddToPhysmap { domid: 5, space: 2, idx: 100, gpfn: 101, ..AddToPhysmap::default() };
        assert_eq!(caller.call(op(MemoryOp::AddToPhysmap), &add).0, error(Errno::EPERM));
        assert_eq!(caller.call(op(MemoryOp::AddToPhysmap), &AddToPhysmap { space: 5, ..add }).0, error(Errno::EACCES));
        let claim = reservation(GuestPtr::NULL, 50, 0, 6);
        assert_eq!(caller.call(op(MemoryOp::ClaimPages), &claim).0, error(Errno::EPERM));
        let pod = PodTarget { domid: 6, ..PodTarget::default() };
        assert_eq!(caller.call(op(MemoryOp::GetPodTarget), &pod).0, error(Errno::EPERM));
        let acquire = MemAcquireResource { domid: 5, kind: 1, ..MemAcquireResource::default() };
        assert_eq!(caller.call(op(MemoryOp::AcquireResource), &acquire).0, error(Errno::EACCES));
        // Foreign pages are the control domain's.
        let batch = AddToPhysmapBatch {
            domid: SELF,
            space: 4,
            size: 1,
            foreign_domid: 5,
            idxs: list,
            gpfns: caller.list(LIST_2, &[60]),
            errs: GuestPtr::from_address(ERRORS),
        };
        assert_eq!(caller.call(op(MemoryOp::AddToPhysmapBatch), &batch).0, Ok(0));
        let errs = caller.with(|caller| caller.memory.read(batch.errs).unwrap());
        assert_eq!(errs, -Errno::EPERM.number());
        assert!(control.is_control());
    });
}

#[test]
fn foreign_pages_come_in_batches_and_go_one_by_one() {
    with_host(|machine, host, control| {
        let caller = TestCaller::new(host, control);
        let batch = AddToPhysmapBatch {
            domid: SELF,
            space: 4,
            size: 4,
            foreign_domid: 5,
            idxs: caller.list(LIST, &[100, 999, 102, 103]),
            gpfns: caller.list(LIST_2, &[5000, 5001, 5002, 1 << 40]),
            errs: GuestPtr::from_address(ERRORS),
        };
        let call = |batch: &AddToPhysmapBatch| {
            let mut command = op(MemoryOp::AddToPhysmapBatch);
            loop {
                machine.note_work(0, Work::TIMER);
                match caller.call(command, batch).0 {
                    Err(Stop::Restart(Some(cursor))) => command = cursor.changes().next().unwrap().1,
                    reply => break reply,
                }
            }
        };
        assert_eq!(call(&batch), Ok(0));
        let errs: Vec<i32> =
            caller.with(|caller| (0..4).map(|index| caller.memory.read_at(batch.errs, index).unwrap()).collect());
        assert_eq!(errs, [0, -22, 0, -22]);
        assert_eq!(control.p2m.lookup(Gfn::new(5002)).kind, Kind::Foreign);
        let unmap = |gpfn| {
            let request = RemoveFromPhysmap { domid: SELF, gpfn, ..RemoveFromPhysmap::default() };
            caller.call(op(MemoryOp::RemoveFromPhysmap), &request).0
        };
        assert_eq!([unmap(5000), unmap(5001), unmap(5002)], [Ok(0), error(Errno::ENOENT), Ok(0)]);
        assert_eq!(unmap(5000), error(Errno::ENOENT));
        // Whole-call errors.
        assert_eq!(call(&AddToPhysmapBatch { space: 3, ..batch }), error(Errno::EOPNOTSUPP));
        assert_eq!(call(&AddToPhysmapBatch { size: 0, ..batch }), Ok(0));
        assert_eq!(caller.call(op(MemoryOp::AddToPhysmapBatch) | 5 << 6, &batch).0, error(Errno::EILSEQ));
        assert_eq!(caller.call(op(MemoryOp::AddToPhysmapBatch) | 1 << 30, &batch).0, error(Errno::EDOM));
        assert_eq!(call(&AddToPhysmapBatch { errs: GuestPtr::NULL, size: 1, ..batch }), Ok(0), "page 0 is RAM");
        assert_eq!(unmap(5000), Ok(0));
        let nobody = AddToPhysmapBatch { foreign_domid: 99, size: 1, ..batch };
        assert_eq!(call(&nobody), Ok(0));
        assert_eq!(caller.with(|caller| caller.memory.read(batch.errs).unwrap()), -Errno::ESRCH.number());
    });
}

#[test]
fn frames_move_in_ranges() {
    with_host(|_, host, control| {
        let caller = TestCaller::new(host, control);
        let range = AddToPhysmap { domid: 5, size: 3, space: 3, idx: 100, gpfn: 700 };
        assert_eq!(caller.call(op(MemoryOp::AddToPhysmap), &range).0, Ok(0));
        let guest = host.domains.get(machine::DomId(5)).unwrap();
        assert_eq!(guest.p2m.lookup(Gfn::new(702)).kind, Kind::RamRw);
        assert_eq!(guest.p2m.lookup(Gfn::new(102)).kind, Kind::Hole);
        assert_eq!(guest.accounting.pages.load(Ordering::Relaxed), 4);
        let call = |request: &AddToPhysmap| caller.call(op(MemoryOp::AddToPhysmap), request).0;
        assert_eq!(call(&range), error(Errno::EINVAL), "nothing is there any more");
        assert_eq!(call(&AddToPhysmap { gpfn: u64::MAX - 1, ..range }), error(Errno::EOVERFLOW));
        assert_eq!(call(&AddToPhysmap { gpfn: u64::MAX, ..range }), error(Errno::EINVAL));
        assert_eq!(call(&AddToPhysmap { space: 4, ..range }), error(Errno::ENOSYS));
        assert_eq!(call(&AddToPhysmap { space: 9, ..range }), error(Errno::EINVAL));
        assert_eq!(call(&AddToPhysmap { domid: 99, ..range }), error(Errno::ESRCH));
        assert_eq!(call(&AddToPhysmap { domid: SELF, space: 5, ..range }), error(Errno::EINVAL));
        assert_eq!(caller.call(op(MemoryOp::AddToPhysmap) | 4 << 6, &range).0, error(Errno::EILSEQ));
    });
}

#[test]
fn maps_and_numbers_are_reported() {
    with_host(|_, host, control| {
        let caller = TestCaller::new(host, control);
        let entries =
            [E820Entry::new(0, 0x9_f000, E820Type::Ram), E820Entry::new(1 << 32, 1 << 33, E820Type::Reserved)];
        let buffer = GuestPtr::<E820Entry>::from_address(LIST);
        caller.with(|caller| {
            caller.memory.write_at(buffer, 0, &entries[0]).unwrap();
            caller.memory.write_at(buffer, 1, &entries[1]).unwrap();
        });
        let map = MemoryMap { nr_entries: 2, buffer, ..MemoryMap::default() };
        let own = MemoryMap { nr_entries: 100, buffer: GuestPtr::from_address(LIST_2), ..MemoryMap::default() };
        assert_eq!(caller.call(op(MemoryOp::MemoryMap), &own).0, error(Errno::ENOSYS), "none was set");
        let set = ForeignMemoryMap { domid: SELF, map, ..ForeignMemoryMap::default() };
        assert_eq!(caller.call(op(MemoryOp::SetMemoryMap), &set).0, Ok(0));
        let (reply, answer) = caller.call(op(MemoryOp::MemoryMap), &own);
        assert_eq!((reply, answer.nr_entries), (Ok(0), 2));
        assert_eq!(caller.with(|caller| caller.memory.read_at(own.buffer, 1)), Ok(entries[1]));
        let (_, answer) = caller.call(op(MemoryOp::MemoryMap), &MemoryMap { nr_entries: 1, ..own });
        assert_eq!(answer.nr_entries, 1);
        let long = ForeignMemoryMap { map: MemoryMap { nr_entries: 1025, ..map }, ..set };
        assert_eq!(caller.call(op(MemoryOp::SetMemoryMap), &long).0, error(Errno::EINVAL));
        let of = |operation| caller.call(op(operation), &MemoryDomain { domid: 5 }).0;
        assert_eq!(of(MemoryOp::CurrentReservation), Ok(4));
        assert_eq!(of(MemoryOp::MaximumReservation), Ok(200));
        assert_eq!(of(MemoryOp::MaximumGpfn), Ok(103));
        assert_eq!(caller.call(op(MemoryOp::MaximumRamPage), &0u64).0, Ok(4096));
        assert_eq!(caller.call(op(MemoryOp::MaximumRamPage) | 1 << 6, &0u64).0, error(Errno::EINVAL));
    });
}

#[test]
fn claims_and_targets_go_through() {
    with_host(|_, host, control| {
        let caller = TestCaller::new(host, control);
        let claim = |request: &MemoryReservation| caller.call(op(MemoryOp::ClaimPages), request).0;
        let good = reservation(GuestPtr::NULL, 150, 0, 5);
        assert_eq!(claim(&good), Ok(0));
        assert_eq!(claim(&good), error(Errno::EINVAL));
        assert_eq!(claim(&MemoryReservation { nr_extents: 0, ..good }), Ok(0));
        assert_eq!(host.domains.claimed_pages.load(Ordering::Relaxed), 0);
        assert_eq!(claim(&MemoryReservation { domid: 99, ..good }), error(Errno::EINVAL));
        assert_eq!(claim(&MemoryReservation { extent_order: 1, ..good }), error(Errno::EINVAL));
        assert_eq!(claim(&MemoryReservation { extent_start: GuestPtr::from_address(8), ..good }), error(Errno::EINVAL));
        let target = PodTarget { target_pages: 100, domid: 5, ..PodTarget::default() };
        let (reply, answer) = caller.call(op(MemoryOp::SetPodTarget), &target);
        assert_eq!((reply, answer.tot_pages, answer.pod_entries), (Ok(0), 4, 0));
        let too_much = PodTarget { target_pages: 201, ..target };
        assert_eq!(caller.call(op(MemoryOp::SetPodTarget), &too_much).0, error(Errno::EINVAL));
        assert_eq!(caller.call(op(MemoryOp::GetPodTarget), &target).1.tot_pages, 4);
    });
}

#[test]
fn what_no_domain_has_is_said_as_xen_says_it() {
    with_host(|_, host, control| {
        let caller = TestCaller::new(host, control);
        let map = ReservedDeviceMemoryMap { flags: 1, nr_entries: 7, ..ReservedDeviceMemoryMap::default() };
        let (reply, answer) = caller.call(op(MemoryOp::ReservedDeviceMemoryMap), &map);
        assert_eq!((reply, answer.nr_entries), (Ok(0), 0));
        let flags = ReservedDeviceMemoryMap { flags: 2, ..map };
        assert_eq!(caller.call(op(MemoryOp::ReservedDeviceMemoryMap), &flags).0, error(Errno::EINVAL));
        let vnuma = VnumaTopologyInfo { domid: 5, ..VnumaTopologyInfo::default() };
        assert_eq!(caller.call(op(MemoryOp::GetVnumaInfo), &vnuma).0, error(Errno::EOPNOTSUPP));
        assert_eq!(
            caller.call(op(MemoryOp::GetVnumaInfo), &VnumaTopologyInfo { pad: 1, ..vnuma }).0,
            error(Errno::EINVAL)
        );
        let access = MemAccessOp { domid: 5, ..MemAccessOp::default() };
        assert_eq!(caller.call(op(MemoryOp::AccessOp), &access).0, error(Errno::ENODEV));
        assert_eq!(caller.call(op(MemoryOp::AccessOp), &MemAccessOp { domid: 0, ..access }).0, error(Errno::EPERM));
        assert_eq!(caller.call(op(MemoryOp::Exchange), &MemoryExchange::default()).0, error(Errno::ENOSYS));
        for number in [8, 10, 12, 20, 22, 25, 29, 63] {
            assert_eq!(caller.call(number, &0u64).0, error(Errno::ENOSYS), "{number}");
        }
        assert_eq!(caller.call(op(MemoryOp::GetSharingFreedPages), &0u64).0, Ok(0));
        let acquire = MemAcquireResource { domid: 5, ..MemAcquireResource::default() };
        let (reply, answer) = caller.call(op(MemoryOp::AcquireResource), &acquire);
        assert_eq!((reply, answer.nr_frames), (Ok(0), 2), "request pages of one vCPU");
        let list = caller.list(LIST, &[5000]);
        let frames = MemAcquireResource { nr_frames: 1, frame_list: list, ..acquire };
        assert_eq!(caller.call(op(MemoryOp::AcquireResource), &frames).0, error(Errno::ENOENT), "no such server");
        for (request, errno) in [
            (MemAcquireResource { kind: 2, ..frames }, Errno::EINVAL),
            (MemAcquireResource { kind: 9, ..frames }, Errno::EOPNOTSUPP),
            (MemAcquireResource { pad: 1, ..frames }, Errno::EINVAL),
            (MemAcquireResource { frame: 1 << 32, ..frames }, Errno::EINVAL),
            (MemAcquireResource { frame: u64::MAX, ..frames }, Errno::EINVAL),
            (MemAcquireResource { domid: 0, ..frames }, Errno::EPERM),
            (MemAcquireResource { domid: 99, ..frames }, Errno::ESRCH),
            (MemAcquireResource { nr_frames: 0, ..frames }, Errno::EINVAL),
        ] {
            assert_eq!(caller.call(op(MemoryOp::AcquireResource), &request).0, error(errno), "{request:?}");
        }
        assert!(frame::free_pages() > 0);
    });
}
