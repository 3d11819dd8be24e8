//! The classification of every kind under every access, and the faults that are cured.

use super::{Cause, classify};
use crate::memory::populate;
use crate::memory::testing::{GuestCpu, domain, host, settings};
use crate::p2m::entry::MemoryAccess;
use crate::p2m::{Entry, Kind};
use machine::exit::AccessKind;
use machine::fake::{FakeMachine, with_failing_allocation};
use machine::{Gfn, Mfn};

use AccessKind::{Execute, Read, Write};

#[test]
fn every_kind_under_every_access() {
    use Cause::{Broken, CopyOnWrite, Dirty, DiscardedWrite, Emulated, Forbidden, Hole, Paged, Populate, Spurious};
    let table = [
        (Kind::Hole, [Hole, Hole, Hole]),
        (Kind::RamRw, [Spurious, Spurious, Spurious]),
        (Kind::RamLogDirty, [Spurious, Dirty, Spurious]),
        (Kind::RamRo, [Spurious, DiscardedWrite, Spurious]),
        (Kind::PagingOut, [Spurious, Paged, Spurious]),
        (Kind::Paged, [Paged, Paged, Paged]),
        (Kind::PagingIn, [Paged, Paged, Paged]),
        (Kind::PopulateOnDemand, [Populate, Populate, Populate]),
        (Kind::CopyOnWrite, [Spurious, CopyOnWrite, Spurious]),
        (Kind::Foreign, [Spurious, Spurious, Forbidden]),
        (Kind::GrantRw, [Spurious, Spurious, Forbidden]),
        (Kind::GrantRo, [Spurious, DiscardedWrite, Forbidden]),
        (Kind::MmioDirect, [Spurious, Spurious, Spurious]),
        (Kind::IdentityRdm, [Spurious, Spurious, Forbidden]),
        (Kind::RdmHole, [Emulated, Emulated, Emulated]),
        (Kind::Broken, [Broken, Broken, Broken]),
        (Kind::Reserved, [Hole, Hole, Hole]),
        (Kind::MmioDm, [Emulated, Emulated, Emulated]),
        (Kind::SharedPage, [Spurious, Spurious, Forbidden]),
        (Kind::ForeignRo, [Spurious, DiscardedWrite, Forbidden]),
    ];
    assert_eq!(table.map(|(kind, _)| kind), Kind::ALL, "every kind, once");
    for (kind, causes) in table {
        let entry = Entry::with_frame(kind, 0, Mfn::new(1));
        assert_eq!([Read, Write, Execute].map(|access| classify(&entry, access)), causes, "{kind:?}");
    }
}

#[test]
fn a_narrowed_right_is_told_from_one_that_was_never_given() {
    let narrowed = |kind, access| Entry { access, ..Entry::with_frame(kind, 0, Mfn::new(1)) };
    assert_eq!(classify(&narrowed(Kind::RamRw, MemoryAccess::Rx), Write), Cause::Access);
    assert_eq!(classify(&narrowed(Kind::RamRw, MemoryAccess::Rx), Read), Cause::Spurious);
    assert_eq!(classify(&narrowed(Kind::RamLogDirty, MemoryAccess::Rx), Write), Cause::Dirty);
    assert_eq!(classify(&narrowed(Kind::RamLogDirty, MemoryAccess::N), Read), Cause::Access);
    assert_eq!(classify(&narrowed(Kind::GrantRo, MemoryAccess::R), Write), Cause::DiscardedWrite);
}

#[test]
fn a_write_to_a_watched_block_splits_it_and_marks_one_frame() {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 1000);
        populate(&host, &guest, Gfn::new(512), 9).unwrap();
        let mut cpu = GuestCpu::new(&machine, &guest);
        cpu.access(&guest, 600 << 12, Some(1)).unwrap();
        let mut txn = guest.p2m.begin().unwrap();
        txn.retype(Gfn::new(512), 9, Kind::RamLogDirty).unwrap();
        txn.finish();
        let marked = guest.p2m.marked();
        assert_eq!(cpu.access(&guest, 600 << 12, None), Ok(1), "reading is free");
        assert_eq!(guest.p2m.marked(), marked);
        cpu.access(&guest, 600 << 12, Some(2)).unwrap();
        cpu.access(&guest, 600 << 12, Some(3)).unwrap();
        assert_eq!(guest.p2m.marked(), marked + 1, "the first write only");
        assert_eq!(guest.p2m.lookup(Gfn::new(600)).kind, Kind::RamRw);
        assert_eq!(guest.p2m.lookup(Gfn::new(601)).kind, Kind::RamLogDirty);
        guest.p2m.check().unwrap();
    });
}

#[test]
fn without_memory_to_split_the_whole_block_is_dirty() {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 1000);
        populate(&host, &guest, Gfn::new(512), 9).unwrap();
        let mut txn = guest.p2m.begin().unwrap();
        txn.retype(Gfn::new(512), 9, Kind::RamLogDirty).unwrap();
        txn.finish();
        // Use the reserve up, so that the split needs an allocation.
        let mut txn = guest.p2m.begin_removal();
        txn.set(Gfn::new(1 << 27), Entry::without_frame(Kind::MmioDm, 0)).unwrap();
        txn.finish();
        let marked = guest.p2m.marked();
        let (handled, failed) = with_failing_allocation(0, || super::dirty::handle(&guest, Gfn::new(600)));
        assert!(failed);
        assert_eq!(handled, super::Handled::Resume);
        assert_eq!(guest.p2m.marked(), marked + 1 + 512);
        assert_eq!(guest.p2m.lookup(Gfn::new(601)), Entry { kind: Kind::RamRw, ..guest.p2m.lookup(Gfn::new(600)) });
        assert_eq!(guest.p2m.lookup(Gfn::new(601)).order, 9);
        guest.p2m.check().unwrap();
    });
}
