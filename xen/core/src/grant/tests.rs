//! Grants by their hypercalls: answers and statuses one by one, and what guests see in their frames.

use super::relinquish;
use crate::event::fixture::{add_page, caller, domain, pin, with_host};
use crate::host::Host;
use crate::hypercall::grant::grant_table_op;
use crate::memory::special::{self, GrantFrames};
use crate::outcome::{Cursor, Reply, Stop};
use crate::p2m::Kind;
use core::sync::atomic::Ordering::SeqCst;
use machine::cpu::Work;
use machine::frame::{self, Pin};
use machine::{DomId, Gfn, memory};
use public_abi::grant_table::*;
use public_abi::{Errno, GuestPtr};
use std::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

const SELF: u16 = 0x7ff0;
/// Guest frames: arguments, and pages to grant, map and copy.
const ARGUMENTS: u64 = 1;
const PAGE: u64 = 2;
const OWN: u64 = 3;
const HOST: u32 = 1 << 1;
const RO: u32 = 1 << 2;

/// Makes a call with an array, and gives back what it became.
pub(super) fn call<T: IntoBytes + FromBytes + Immutable, const N: usize>(
    host: &Host,
    id: u16,
    command: u32,
    requests: [T; N],
) -> (Reply, [T; N]) {
    let domain = domain(host, id);
    let caller = caller(host, &domain, 0);
    let at = GuestPtr::<T>::from_address(ARGUMENTS << 12);
    for (number, request) in (0..).zip(&requests) {
        caller.memory.write_at(at, number, request).unwrap();
    }
    let reply = grant_table_op(&caller, command, at.cast(), u32::try_from(N).unwrap());
    let after = core::array::from_fn(|number| caller.memory.read_at(at, u64::try_from(number).unwrap()).unwrap());
    (reply, after)
}

fn map(host: &Host, id: u16, gref: u32, flags: u32, gfn: u64) -> MapGrantRef {
    let request = MapGrantRef { host_addr: gfn << 12, flags, gref, dom: 1, ..MapGrantRef::default() };
    let (reply, [done]) = call(host, id, GrantTableOp::MapGrantRef.number(), [request]);
    assert_eq!(reply, Ok(0));
    done
}

fn unmap(host: &Host, id: u16, handle: u32, gfn: u64) -> i16 {
    let request = UnmapGrantRef { host_addr: gfn << 12, handle, ..UnmapGrantRef::default() };
    let (reply, [done]) = call(host, id, GrantTableOp::UnmapGrantRef.number(), [request]);
    assert_eq!(reply, Ok(0));
    done.status
}

/// An entry of domain 1's first frame, as the guest writes it.
fn grant(host: &Host, gref: u32, flags: u16, domid: u16, gfn: u64) {
    let entry = GrantEntryV1 { flags, domid, frame: u32::try_from(gfn).unwrap() };
    let frame = domain(host, 1).grants.shared_frame(0).unwrap();
    assert!(memory::write(&frame, usize::try_from(gref).unwrap() * 8, entry.as_bytes()));
}

fn flags(host: &Host, gref: u32) -> u16 {
    let frame = domain(host, 1).grants.shared_frame(gref / 512).unwrap();
    memory::atomic::<u16>(&frame, usize::try_from(gref % 512).unwrap() * 8).unwrap().load(SeqCst)
}

/// Domain 1 grants, 0 and 2 use. All have pages for arguments and of their own.
fn with_domains(work: impl FnOnce(&machine::fake::FakeMachine, &Host)) {
    with_host(3, 1, |machine, host| {
        for id in 0..3 {
            for gfn in [ARGUMENTS, PAGE, OWN] {
                add_page(&domain(host, id), gfn);
            }
        }
        work(machine, host);
    });
}

fn granted_page(host: &Host) -> Pin {
    let domain = domain(host, 1);
    let mfn = domain.p2m.lookup(Gfn::new(PAGE)).mfn;
    pin(&domain, mfn)
}

#[test]
fn a_grant_is_mapped_and_let_go() {
    with_domains(|_, host| {
        grant(host, 5, GTF_PERMIT_ACCESS, 0, PAGE);
        let first = map(host, 0, 5, HOST, 100);
        assert_eq!(first.status, GNTST_OKAY);
        assert_eq!(flags(host, 5), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
        let page = granted_page(host);
        assert_eq!(first.dev_bus_addr, page.mfn().address().number());
        let control = domain(host, 0);
        assert_eq!(control.p2m.lookup(Gfn::new(100)).kind, Kind::GrantRw);
        assert_eq!(control.p2m.lookup(Gfn::new(100)).mfn, page.mfn());
        let second = map(host, 0, 5, HOST | RO, 101);
        assert_eq!((second.status, second.handle != first.handle), (GNTST_OKAY, true));
        assert_eq!(control.p2m.lookup(Gfn::new(101)).kind, Kind::GrantRo);
        assert_eq!(frame::state(page.mfn()).unwrap().count, 5, "owner, test, active entry, two mappings");
        assert_eq!(unmap(host, 0, first.handle, 101), GNTST_OKAY, "as in Xen, which mapping goes is the address's");
        assert_eq!(flags(host, 5), GTF_PERMIT_ACCESS | GTF_READING, "the last writer is gone");
        let marked = domain(host, 1).p2m.marked();
        assert!(marked > 0, "and may have written");
        assert_eq!(unmap(host, 0, first.handle, 100), GNTST_BAD_HANDLE);
        assert_eq!(unmap(host, 0, second.handle, 99), GNTST_GENERAL_ERROR, "nothing is mapped there");
        assert_eq!(unmap(host, 0, second.handle, 0), GNTST_OKAY, "an address of 0 is ignored");
        assert_eq!(unmap(host, 0, second.handle, 100), GNTST_OKAY);
        assert_eq!(flags(host, 5), GTF_PERMIT_ACCESS);
        assert_eq!(frame::state(page.mfn()).unwrap().count, 2);
        assert_eq!(domain(host, 1).p2m.marked(), marked, "readers do not make frames dirty");
        assert_eq!(unmap(host, 0, 77777, 100), GNTST_BAD_HANDLE);
    });
}

#[test]
fn what_is_not_granted_is_not_mapped() {
    with_domains(|_, host| {
        let refused = |flags: u32, gref: u32| map(host, 0, gref, flags, 100).status;
        assert_eq!(refused(0, 0), GNTST_BAD_GNTREF, "neither for the CPU nor for devices");
        for bits in [1, HOST | 1, HOST | 8, HOST | 16, HOST | 1 << 20] {
            assert_eq!(refused(bits, 0), GNTST_GENERAL_ERROR, "{bits:#x}");
        }
        assert_eq!(refused(HOST, 512), GNTST_BAD_GNTREF, "beyond the frame");
        assert_eq!(refused(HOST, u32::MAX), GNTST_BAD_GNTREF);
        let cases = [
            (GTF_INVALID, 0, PAGE, GNTST_GENERAL_ERROR),
            (GTF_ACCEPT_TRANSFER, 0, PAGE, GNTST_GENERAL_ERROR),
            (GTF_PERMIT_ACCESS, 2, PAGE, GNTST_GENERAL_ERROR),
            (GTF_PERMIT_ACCESS | GTF_READONLY, 0, PAGE, GNTST_GENERAL_ERROR),
            (GTF_PERMIT_ACCESS | GTF_SUB_PAGE, 0, PAGE, GNTST_GENERAL_ERROR),
            (GTF_PERMIT_ACCESS, 0, 999, GNTST_BAD_PAGE),
        ];
        for (bits, domid, gfn, wanted) in cases {
            grant(host, 9, bits, domid, gfn);
            assert_eq!(refused(HOST, 9), wanted, "{bits:#x} for d{domid}");
            assert_eq!(flags(host, 9), bits, "no use was left behind");
        }
        for dom in [77, SELF] {
            let request = MapGrantRef { dom, flags: HOST, ..MapGrantRef::default() };
            let (_, [done]) = call(host, 0, GrantTableOp::MapGrantRef.number(), [request]);
            assert_eq!(done.status, GNTST_BAD_DOMAIN);
        }
        grant(host, 9, GTF_PERMIT_ACCESS, 0, PAGE);
        let beyond = 1 << 40;
        assert_eq!(map(host, 0, 9, HOST, beyond).status, GNTST_GENERAL_ERROR, "no such guest frame");
        assert_eq!(flags(host, 9), GTF_PERMIT_ACCESS);
        let page = granted_page(host);
        assert_eq!(frame::state(page.mfn()).unwrap().count, 2);
        // What somebody else granted cannot be granted on.
        assert_eq!(map(host, 0, 9, HOST, 100).status, GNTST_OKAY);
        let frame = domain(host, 0).grants.shared_frame(0).unwrap();
        let entry = GrantEntryV1 { flags: GTF_PERMIT_ACCESS, domid: 2, frame: 100 };
        assert!(memory::write(&frame, 8, entry.as_bytes()));
        let request = MapGrantRef { dom: 0, gref: 1, flags: HOST, host_addr: 200 << 12, ..MapGrantRef::default() };
        let (_, [done]) = call(host, 2, GrantTableOp::MapGrantRef.number(), [request]);
        assert_eq!(done.status, GNTST_BAD_PAGE);
    });
}

#[test]
fn a_reader_may_become_a_writer_only_by_the_entry() {
    with_domains(|_, host| {
        grant(host, 3, GTF_PERMIT_ACCESS | GTF_READONLY, 0, PAGE);
        let reader = map(host, 0, 3, HOST | RO, 100);
        assert_eq!(reader.status, GNTST_OKAY);
        assert_eq!(map(host, 0, 3, HOST, 101).status, GNTST_GENERAL_ERROR);
        assert_eq!(flags(host, 3), GTF_PERMIT_ACCESS | GTF_READONLY | GTF_READING);
        // The guest opens it while it is in use, and points it elsewhere: the page in use stays the page.
        grant(host, 3, GTF_PERMIT_ACCESS | GTF_READING, 0, OWN);
        let writer = map(host, 0, 3, HOST, 101);
        assert_eq!(writer.status, GNTST_OKAY);
        assert_eq!(writer.dev_bus_addr, reader.dev_bus_addr);
        assert_eq!(map(host, 2, 3, HOST, 101).status, GNTST_GENERAL_ERROR, "one user at a time");
    });
}

#[test]
fn handles_and_users_run_out() {
    with_domains(|_, host| {
        grant(host, 1, GTF_PERMIT_ACCESS, 0, PAGE);
        grant(host, 2, GTF_PERMIT_ACCESS, 0, OWN);
        let mut handles = Vec::new();
        for number in 0..128 {
            let done = map(host, 0, 1, HOST | RO, 100 + number);
            assert_eq!(done.status, GNTST_OKAY);
            handles.push(done.handle);
        }
        assert_eq!(map(host, 0, 1, HOST | RO, 900).status, GNTST_GENERAL_ERROR, "the count stops at its middle");
        for number in 0..128 {
            assert_eq!(map(host, 0, 1, HOST, 300 + number).status, GNTST_OKAY);
            assert_eq!(map(host, 0, 2, HOST, 500 + number).status, GNTST_OKAY);
            assert_eq!(map(host, 0, 2, HOST | RO, 700 + number).status, GNTST_OKAY);
        }
        grant(host, 4, GTF_PERMIT_ACCESS, 0, OWN);
        assert_eq!(map(host, 0, 4, HOST, 900).status, GNTST_NO_SPACE, "two frames of handles");
        assert_eq!(flags(host, 4), GTF_PERMIT_ACCESS);
        assert_eq!(unmap(host, 0, handles[5], 105), GNTST_OKAY);
        assert_eq!(map(host, 0, 4, HOST, 900).handle, handles[5], "a freed handle is the next");
    });
}

#[test]
fn bytes_are_copied_both_ways() {
    with_domains(|_, host| {
        let (from, control) = (granted_page(host), domain(host, 0));
        let own = pin(&control, control.p2m.lookup(Gfn::new(OWN)).mfn);
        let text: Vec<u8> = (0..=255).cycle().take(4096).collect();
        assert!(memory::write(&from, 0, &text));
        grant(host, 7, GTF_PERMIT_ACCESS, 0, PAGE);
        let gref = CopyPtr { u: 7, domid: 1, ..CopyPtr::default() };
        let frame = CopyPtr { u: OWN, domid: SELF, ..CopyPtr::default() };
        let copy = |source: CopyPtr, dest: CopyPtr, len: u16, bits: u16| {
            let request = GrantCopy { source, dest, len, flags: bits, ..GrantCopy::default() };
            let (reply, [done]) = call(host, 0, GrantTableOp::Copy.number(), [request]);
            assert_eq!(reply, Ok(0));
            assert_eq!(flags(host, 7) & (GTF_READING | GTF_WRITING), 0, "no use is left behind");
            done.status
        };
        let at = |side: CopyPtr, offset| CopyPtr { offset, ..side };
        let read = |offset: usize, length: usize| {
            let mut bytes = std::vec![0; length];
            assert!(memory::read(&own, offset, &mut bytes));
            bytes
        };
        assert_eq!(copy(at(gref, 3), at(frame, 1000), 1500, GNTCOPY_SOURCE_GREF), GNTST_OKAY);
        assert_eq!(read(1000, 1500), text[3..1503]);
        assert_eq!(read(999, 1), [0]);
        assert_eq!(read(2500, 1), [0]);
        assert_eq!(copy(gref, frame, 4096, GNTCOPY_SOURCE_GREF), GNTST_OKAY, "a whole page");
        assert_eq!(read(0, 4096), text);
        assert_eq!(copy(at(gref, 1), frame, 4096, GNTCOPY_SOURCE_GREF), GNTST_BAD_COPY_ARG);
        assert_eq!(copy(gref, at(frame, 4095), 2, GNTCOPY_SOURCE_GREF), GNTST_BAD_COPY_ARG);
        let marked = domain(host, 1).p2m.marked();
        assert_eq!(copy(at(frame, 10), at(gref, 20), 5, GNTCOPY_DEST_GREF), GNTST_OKAY);
        assert!(domain(host, 1).p2m.marked() > marked);
        let mut bytes = [0; 5];
        assert!(memory::read(&from, 20, &mut bytes));
        assert_eq!(bytes, [10, 11, 12, 13, 14]);
        assert_eq!(copy(gref, frame, 1, 0), GNTST_PERMISSION_DENIED, "frames are for oneself only");
        let nobody = CopyPtr { domid: 99, ..gref };
        assert_eq!(copy(nobody, frame, 1, GNTCOPY_SOURCE_GREF), GNTST_BAD_DOMAIN);
        assert_eq!(copy(CopyPtr { u: 512, ..gref }, frame, 1, GNTCOPY_SOURCE_GREF), GNTST_BAD_GNTREF);
        assert_eq!(copy(gref, CopyPtr { u: 999, ..frame }, 1, GNTCOPY_SOURCE_GREF), GNTST_BAD_PAGE);
        grant(host, 7, GTF_PERMIT_ACCESS | GTF_READONLY, 0, PAGE);
        assert_eq!(copy(frame, gref, 1, GNTCOPY_DEST_GREF), GNTST_GENERAL_ERROR);
        assert_eq!(copy(gref, frame, 1, GNTCOPY_SOURCE_GREF), GNTST_OKAY);
        assert_eq!(frame::state(from.mfn()).unwrap().count, 2);
    });
}

#[test]
fn pieces_of_one_array_share_their_pages() {
    with_domains(|_, host| {
        grant(host, 7, GTF_PERMIT_ACCESS, 0, PAGE);
        grant(host, 8, GTF_PERMIT_ACCESS, 0, OWN);
        assert!(memory::fill(&granted_page(host), 0, 4096, 7));
        let piece = |u, offset| GrantCopy {
            source: CopyPtr { u, domid: 1, offset, ..CopyPtr::default() },
            dest: CopyPtr { u: OWN, domid: SELF, offset, ..CopyPtr::default() },
            len: 8,
            flags: GNTCOPY_SOURCE_GREF,
            ..GrantCopy::default()
        };
        let (reply, done) =
            call(host, 0, GrantTableOp::Copy.number(), [piece(7, 0), piece(8, 8), piece(600, 0), piece(7, 16)]);
        assert_eq!(reply, Ok(0));
        assert_eq!(done.map(|piece| piece.status), [GNTST_OKAY, GNTST_OKAY, GNTST_BAD_GNTREF, GNTST_OKAY]);
        let control = domain(host, 0);
        let own = pin(&control, control.p2m.lookup(Gfn::new(OWN)).mfn);
        let mut bytes = [1; 24];
        assert!(memory::read(&own, 0, &mut bytes));
        assert_eq!((&bytes[..8], &bytes[8..16], &bytes[16..]), (&[7; 8][..], &[0; 8][..], &[7; 8][..]));
        assert_eq!((flags(host, 7), flags(host, 8)), (GTF_PERMIT_ACCESS, GTF_PERMIT_ACCESS));
    });
}

#[test]
fn long_arrays_are_interrupted() {
    with_domains(|machine, host| {
        grant(host, 7, GTF_PERMIT_ACCESS, 0, PAGE);
        machine.note_work(0, Work::KICK);
        let request =
            |gfn: u64| MapGrantRef { host_addr: gfn << 12, flags: HOST, gref: 7, dom: 1, ..MapGrantRef::default() };
        let (reply, done) = call(host, 0, GrantTableOp::MapGrantRef.number(), [request(100), request(101)]);
        let cursor = Cursor::one(0, 1 << 12);
        assert_eq!(reply, Err(Stop::Restart(Some(cursor))));
        assert_eq!(done[0].status, GNTST_OKAY);
        assert_eq!(domain(host, 0).p2m.lookup(Gfn::new(101)).kind, Kind::Hole, "one request was done");
        let (reply, done) = call(host, 0, 1 << 12, done);
        assert_eq!(reply, Ok(0));
        assert_eq!(done.map(|request| (request.status, request.handle)), [(0, 0), (0, 1)]);
        machine::cpu::take_work();
        let control = domain(host, 0);
        let guest = caller(host, &control, 0);
        let at = GuestPtr::from_address(ARGUMENTS << 12);
        assert_eq!(grant_table_op(&guest, 0, at, 1 << 20), Err(Errno::EINVAL.into()));
        assert_eq!(grant_table_op(&guest, 0, GuestPtr::from_address(0x20_0000), 1), Err(Errno::EFAULT.into()));
    });
}

#[test]
fn sizes_versions_and_what_hvm_guests_do_not_have() {
    with_domains(|_, host| {
        let query = |id, dom| {
            call(host, id, GrantTableOp::QuerySize.number(), [QuerySize { dom, ..QuerySize::default() }]).1[0]
        };
        let own = query(1, SELF);
        assert_eq!((own.status, own.nr_frames, own.max_nr_frames), (GNTST_OKAY, 1, 4));
        assert_eq!(query(1, 2).status, GNTST_PERMISSION_DENIED);
        assert_eq!(query(0, 2).status, GNTST_OKAY);
        assert_eq!(query(0, 99).status, GNTST_BAD_DOMAIN);
        let two = [QuerySize::default(); 2];
        assert_eq!(call(host, 0, GrantTableOp::QuerySize.number(), two).0, Err(Errno::EINVAL.into()));
        let list = GuestPtr::from_address((ARGUMENTS << 12) + 256);
        let setup = |nr_frames| {
            let request = SetupTable { dom: SELF, nr_frames, frame_list: list, ..SetupTable::default() };
            call(host, 1, GrantTableOp::SetupTable.number(), [request]).1[0].status
        };
        assert_eq!(setup(5), GNTST_GENERAL_ERROR);
        assert_eq!(setup(3), GNTST_OKAY);
        assert_eq!(query(1, SELF).nr_frames, 3);
        assert_eq!(setup(1), GNTST_OKAY);
        assert_eq!(query(1, SELF).nr_frames, 3, "it does not shrink");
        let version = |version| {
            let (reply, [after]) = call(host, 1, GrantTableOp::SetVersion.number(), [SetVersion { version }]);
            assert_eq!(after.version, 1);
            reply
        };
        assert_eq!((version(1), version(2)), (Ok(0), Err(Errno::ENOSYS.into())));
        assert_eq!(version(3), Err(Errno::EINVAL.into()));
        let (reply, [get]) =
            call(host, 1, GrantTableOp::GetVersion.number(), [GetVersion { dom: SELF, ..GetVersion::default() }]);
        assert_eq!((reply, get.version), (Ok(0), 1));
        let other = GetVersion { dom: 2, ..GetVersion::default() };
        assert_eq!(call(host, 1, GrantTableOp::GetVersion.number(), [other]).0, Err(Errno::EPERM.into()));
        use GrantTableOp as Op;
        for op in [Op::DumpTable, Op::Transfer, Op::UnmapAndReplace, Op::GetStatusFrames, Op::CacheFlush] {
            assert_eq!(call(host, 0, op.number(), [0u64]).0, Err(Errno::ENOSYS.into()), "{}", op.name());
        }
        assert_eq!(call(host, 0, 13, [0u64]).0, Err(Errno::ENOSYS.into()));
    });
}

#[test]
fn the_toolstack_reaches_frames_that_grow() {
    with_domains(|_, host| {
        let guest = domain(host, 1);
        let third = special::grant_frame(&guest, GrantFrames::Shared, 2).unwrap();
        assert_eq!(frame::state(third.mfn()).unwrap().kind, frame::Kind::Shared);
        assert_eq!(guest.grants.size(), (3, 4));
        assert_eq!(special::grant_frame(&guest, GrantFrames::Shared, 4), Err(Errno::EINVAL));
        assert_eq!(special::grant_frame(&guest, GrantFrames::Shared, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(special::grant_frame(&guest, GrantFrames::Shared, u64::from(u32::MAX)), Err(Errno::EINVAL));
        assert_eq!(special::grant_frame(&guest, GrantFrames::Status, 0), Err(Errno::EINVAL));
        assert_eq!(special::shared_info(&guest).unwrap().mfn(), guest.events.shared_info_mfn());
        // An entry in the third frame works like any.
        let entry = GrantEntryV1 { flags: GTF_PERMIT_ACCESS, domid: 0, frame: 2 };
        assert!(memory::write(&third, 8, entry.as_bytes()));
        assert_eq!(map(host, 0, 1025, HOST, 100).status, GNTST_OKAY);
        assert_eq!(flags(host, 1025), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    });
}

#[test]
fn entries_change_places_unless_in_use() {
    with_domains(|_, host| {
        grant(host, 1, GTF_PERMIT_ACCESS, 0, PAGE);
        grant(host, 2, GTF_PERMIT_ACCESS | GTF_READONLY, 2, OWN);
        let swap = |ref_a, ref_b| {
            call(
                host,
                1,
                GrantTableOp::SwapGrantRef.number(),
                [SwapGrantRef { ref_a, ref_b, ..SwapGrantRef::default() }],
            )
            .1[0]
                .status
        };
        assert_eq!(swap(1, 2), GNTST_OKAY);
        assert_eq!((flags(host, 1), flags(host, 2)), (GTF_PERMIT_ACCESS | GTF_READONLY, GTF_PERMIT_ACCESS));
        assert_eq!(swap(1, 512), GNTST_BAD_GNTREF);
        assert_eq!(map(host, 0, 2, HOST, 100).status, GNTST_OKAY);
        assert_eq!(swap(1, 2), GNTST_EAGAIN);
        assert_eq!(swap(2, 2), GNTST_OKAY, "with itself nothing changes");
    });
}

#[test]
fn a_dying_user_lets_go() {
    with_domains(|machine, host| {
        grant(host, 1, GTF_PERMIT_ACCESS, 2, PAGE);
        for number in 0..100 {
            assert_eq!(map(host, 2, 1, HOST, 100 + number).status, GNTST_OKAY);
        }
        machine.note_work(0, Work::KICK);
        assert_eq!(relinquish(host, &domain(host, 2)), Err(Stop::Restart(None)));
        assert_eq!(flags(host, 1), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
        grant(host, 3, GTF_PERMIT_ACCESS, 2, PAGE);
        assert_eq!(map(host, 2, 3, HOST, 500).status, GNTST_NO_SPACE, "nothing new begins");
        assert_eq!(relinquish(host, &domain(host, 2)), Ok(()));
        assert_eq!(flags(host, 1), GTF_PERMIT_ACCESS);
        // Its map still shows the pages; the references go with its memory.
        let page = granted_page(host);
        let mfn = page.mfn();
        drop(page);
        assert_eq!(frame::state(mfn).unwrap().count, 1 + 100);
        // The fixture's three pages.
        domain(host, 2).accounting.charge_always(3);
        while let Err(stop) = crate::memory::relinquish(host, &domain(host, 2)) {
            assert_eq!(stop, Stop::Restart(None));
        }
        assert_eq!(frame::state(mfn).unwrap().count, 1, "the owner's");
    });
}

#[test]
fn a_dead_granters_pages_outlive_it() {
    with_domains(|_, host| {
        grant(host, 1, GTF_PERMIT_ACCESS, 0, PAGE);
        let done = map(host, 0, 1, HOST, 100);
        let page = granted_page(host);
        let mfn = page.mfn();
        drop(page);
        let dead = {
            let _numbers = host.domains.change.lock();
            host.domains.remove(DomId(1))
        };
        drop(dead.unwrap());
        assert_eq!(frame::state(mfn).unwrap().count, 1, "the mapping's");
        crate::event::fixture::add_domain(host, 1, 1);
        assert_eq!(unmap(host, 0, done.handle, 100), GNTST_OKAY, "another domain of that number is left alone");
        assert_ne!(frame::state(mfn).unwrap().kind, frame::Kind::Guest);
    });
}

#[test]
fn a_domain_may_use_its_own_grants() {
    with_domains(|_, host| {
        grant(host, 1, GTF_PERMIT_ACCESS, 1, PAGE);
        let done = map(host, 1, 1, HOST, 100);
        assert_eq!(done.status, GNTST_OKAY);
        assert_eq!(unmap(host, 1, done.handle, 100), GNTST_OKAY);
        assert_eq!(flags(host, 1), GTF_PERMIT_ACCESS);
    });
}
