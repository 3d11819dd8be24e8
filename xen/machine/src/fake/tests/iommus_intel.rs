//! What `iommus` does not show of Intel's units: what firmware has left on, memory seen past the caches, records of faults, what is
//! refused, and pages that a unit may reach yet.

use super::iommus::{BASE, DEVICE, INTEL, read, take_events, while_time_passes, with_iommu};
use crate::boxed::OutOfMemory;
use crate::fake::{FakeMachine, Refused};
use crate::frame::{self, Fill, Kind};
use crate::iommu::{EventKind, Forget, Iommu, Maker, Refusal, UnitFlags};
use crate::table::Table;
use crate::units::{DomId, Gfn, Maddr};
use std::vec::Vec;

fn new() -> Iommu {
    Iommu::try_new(Maker::Intel, Vec::new()).unwrap()
}

#[test]
fn memory_that_firmware_protects_is_opened() {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.add_intel_iommu(BASE);
    machine.on_cpu(0, || {
        let mut iommu = new();
        assert!(machine.is_memory_protected());
        iommu.add(Maddr::new(BASE), UnitFlags::default()).unwrap();
        assert!(!machine.is_memory_protected(), "what firmware protects from devices would be protected for ever");
    });
}

/// INV-2: a unit that was told of pages and does not turn itself off may reach them yet.
#[test]
fn a_unit_that_does_not_turn_itself_off_keeps_its_pages() {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.add_intel_iommu(BASE);
    machine.on_cpu(0, || {
        let before = frame::free_pages();
        // It never took a page.
        machine.set_iommu_stuck(true);
        let mut iommu = new();
        let refused = while_time_passes(&machine, || iommu.add(Maddr::new(BASE), UnitFlags::default()));
        assert_eq!(refused, Err(Refusal::Stuck));
        while_time_passes(&machine, || drop(iommu));
        assert_eq!(frame::free_pages(), before);
        // It has: the root table, the contexts, the queue and the word for its answers.
        machine.set_iommu_stuck(false);
        let mut iommu = new();
        iommu.add(Maddr::new(BASE), UnitFlags::default()).unwrap();
        machine.set_iommu_stuck(true);
        while_time_passes(&machine, || drop(iommu));
        assert_eq!(frame::free_pages(), before - 4);
    });
}

/// A table whose page held something else before: the unit must see its zeros, which it does not see in the caches.
#[test]
fn new_tables_reach_memory_before_they_are_walked() {
    with_iommu(INTEL, |machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.root().as_io_root()).unwrap();
        let fresh = Table::allocate(DomId(0)).unwrap();
        tree.at(1).set_table(7, fresh, 0, tree.bits.read_write, &tree.bits.format);
        assert_eq!(read(machine, 7 << 21), Err(Refused));
        let table = tree.at(1).take_table(7, 0, &tree.bits.format).unwrap();
        iommu.forget(Forget::All).unwrap();
        table.free();
        assert_eq!(read(machine, 7 << 21), Err(Refused), "or the walk of what is no table would end this test");
    });
}

#[test]
fn descriptors_wrap_around_and_say_what_the_unit_can_do() {
    with_iommu(INTEL, |machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.root().as_io_root()).unwrap();
        for _ in 0..300 {
            iommu.forget(Forget::Page(Gfn::new(0x77))).unwrap();
        }
        let descriptors = machine.intel_descriptors();
        let [.., forget, wait] = descriptors.as_slice() else { panic!("no descriptors") };
        assert_eq!(*forget, [0x1_00f2, 0x7_7000]);
        assert_eq!(wait[0] & 0xff, 0x25);
    });
}

#[test]
fn refused_accesses_are_recorded_and_an_overflow_is_survived() {
    with_iommu(INTEL, |machine, iommu, tree| {
        iommu.enable().unwrap();
        assert!(!iommu.give_message(1, 0, 0), "there is one");
        let take = || take_events(iommu);
        let fault = |is_write| EventKind::PageFault { is_write };
        assert_eq!(read(machine, 0x9000), Err(Refused));
        assert_eq!(take(), [(DEVICE, 0x9000, fault(false))], "no entry of its own");
        iommu.translate(tree.root().as_io_root()).unwrap();
        assert_eq!(machine.dma_write(DEVICE, 0x1234_5678, &[1]), Err(Refused));
        assert_eq!(take(), [(DEVICE, 0x1234_5000, fault(true))]);
        assert_eq!(take(), []);
        for _ in 0..3 {
            assert_eq!(read(machine, 0x9000), Err(Refused));
        }
        assert_eq!(take().len(), 1, "as many as there is room for");
        assert_eq!(read(machine, 0xa000), Err(Refused));
        assert_eq!(take(), [(DEVICE, 0xa000, fault(false))], "it goes on");
    });
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_lost() {
    let machine = FakeMachine::builder().pages(2048).build();
    machine.add_intel_iommu(BASE);
    machine.on_cpu(0, || {
        let before = frame::free_pages();
        let mut iommu = new();
        for registers in [0, 0x100, BASE + 0x800, 0x4000, BASE + 0x1_0000] {
            assert_eq!(
                iommu.add(Maddr::new(registers), UnitFlags::default()),
                Err(Refusal::Registers),
                "{registers:#x}"
            );
        }
        let lacking = |clear: u64, set: u64, extended: u64| {
            machine.set_intel_capabilities(|usual, _| (usual & !clear | set, extended));
            let mut iommu = new();
            let result = iommu.add(Maddr::new(BASE), UnitFlags::default());
            machine.set_intel_capabilities(|_, _| (0x00c0_008c_2200_0460, 0xf002));
            result
        };
        assert_eq!(lacking(1 << 10, 1 << 9, 0xf002), Err(Refusal::Lacks("tables of four levels")));
        assert_eq!(lacking(1 << 35, 0, 0xf002), Err(Refusal::Lacks("pages of 2 MiB and 1 GiB")));
        assert_eq!(lacking(0, 0, 0xf000), Err(Refusal::Lacks("a queue of invalidations")));
        assert!(matches!(lacking(0, 1 << 4, 0xf002), Err(Refusal::Lacks(_))), "a buffer to be flushed by hand");
        assert!(matches!(lacking(0, 0xff << 40, 0x2), Err(Refusal::Lacks(_))), "records beyond the first page");
        assert_eq!(lacking(0, 0, 0xf002), Ok(()));
        drop(iommu);
        assert_eq!(frame::free_pages(), before);
    });
    FakeMachine::builder().pages(16).build().on_cpu(0, || {
        let mut taken = Vec::new();
        while let Some(page) = frame::allocate(0, Kind::Hypervisor, DomId(0), Fill::Zero) {
            taken.push(page);
        }
        let mut free = 0;
        while Iommu::try_new(Maker::Intel, Vec::new()).map(drop) == Err(OutOfMemory) {
            assert_eq!(frame::free_pages(), free, "what is not made is given back");
            frame::free(taken.pop().unwrap(), 0);
            free += 1;
        }
        assert_eq!(frame::free_pages(), free);
    });
}
