//! As `iommus`, for Intel's: units that firmware has left on, that see memory past the caches, and that lack something.

use crate::boxed::OutOfMemory;
use crate::fake::{FakeMachine, Refused};
use crate::frame::{self, Fill, Kind};
use crate::iommu::{EventKind, Forget, Iommu, Maker, Refusal, Stuck, UnitFlags};
use crate::table::{Format, Table, TableRef, Target};
use crate::units::{DomId, Gfn, Maddr, Mfn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::Vec;

const FORMAT: Format = Format::INTEL_IO;
const READ: u64 = 1;
const RW: u64 = 3;
const LARGE: u64 = 1 << 7;
const BASE: u64 = 0xfed9_0000;
const DEVICE: u16 = 0x0118;

/// A tree of four levels with one table of each.
struct Tree(Table);

impl Tree {
    fn new() -> Self {
        let table = || Table::allocate(DomId(0)).unwrap();
        let (root, level_2, level_1, level_0) = (table(), table(), table(), table());
        level_1.borrow().set_table(0, level_0, 0, RW, &FORMAT);
        level_2.borrow().set_table(0, level_1, 1, RW, &FORMAT);
        root.borrow().set_table(0, level_2, 2, RW, &FORMAT);
        Self(root)
    }

    fn at(&self, level: usize) -> TableRef<'_> {
        (level..3).fold(self.0.borrow(), |table, _| table.child(0, &FORMAT).unwrap())
    }
}

fn guest_page(order: u32) -> Mfn {
    frame::allocate(order, Kind::Guest, DomId(0), Fill::Zero).unwrap()
}

fn with_iommu(work: impl FnOnce(&FakeMachine, &Iommu, &Tree)) {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.add_intel_iommu(BASE);
    machine.on_cpu(0, || {
        let mut iommu = Iommu::try_new(Maker::Intel, Vec::new()).unwrap();
        assert!(machine.is_memory_protected());
        iommu.add(Maddr::new(BASE), UnitFlags::default()).unwrap();
        assert!(!machine.is_memory_protected(), "what firmware protects from devices would be protected for ever");
        let tree = Tree::new();
        work(&machine, &iommu, &tree);
    });
}

fn read(machine: &FakeMachine, address: u64) -> Result<u64, Refused> {
    let mut word = [0; 8];
    machine.dma_read(DEVICE, address, &mut word)?;
    Ok(u64::from_le_bytes(word))
}

#[test]
fn devices_pass_then_are_blocked_then_translated() {
    with_iommu(|machine, iommu, tree| {
        let page = guest_page(0);
        let address = page.address().number();
        assert_eq!(machine.dma_write(DEVICE, address, &7u64.to_le_bytes()), Ok(()), "it is off");
        iommu.forget(Forget::All).unwrap();
        iommu.enable().unwrap();
        assert_eq!(read(machine, address), Err(Refused));
        tree.at(0).set_leaf(5, Target::Ram(page), 0, RW, &FORMAT).unwrap();
        iommu.translate(tree.0.as_io_root()).unwrap();
        assert_eq!(read(machine, 0x5000), Ok(7));
        assert_eq!(read(machine, 0x4000), Err(Refused));
        assert_eq!(read(machine, 1 << 48), Err(Refused), "beyond what the tables translate");
        for device in [0, 0x28, u16::MAX] {
            assert_eq!(machine.dma_read(device, 0x5000, &mut [0; 8]), Ok(()), "all devices go through the same tables");
        }
        iommu.block().unwrap();
        assert_eq!(read(machine, 0x5000), Err(Refused));
    });
}

#[test]
fn blocks_of_all_sizes_and_rights() {
    with_iommu(|machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.0.as_io_root()).unwrap();
        let block = guest_page(9);
        tree.at(1).set_leaf(3, Target::Ram(block), 9, READ | LARGE, &FORMAT).unwrap();
        assert_eq!(read(machine, (3 << 21) + (511 << 12) + 8), Ok(0));
        assert_eq!(machine.dma_write(DEVICE, 3 << 21, &[1]), Err(Refused), "it may be read only");
        // The fake machine has no memory at that address, but the unit lets the access through.
        tree.at(2).set_leaf(1, Target::Device(Mfn::new(1 << 18)), 18, RW | LARGE, &FORMAT).unwrap();
        assert_eq!(read(machine, 1 << 30), Err(Refused));
        assert_eq!(machine.iommu_events(), 1, "only the write was refused by the unit");
    });
}

#[test]
fn what_is_forgotten_is_forgotten_when_the_call_returns() {
    with_iommu(|machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.0.as_io_root()).unwrap();
        let pages = [guest_page(0), guest_page(0)];
        for (what, at) in [(Forget::Page(Gfn::new(5)), 5), (Forget::All, 6)] {
            let place = usize::try_from(at).unwrap();
            tree.at(0).set_leaf(place, Target::Ram(pages[0]), 0, RW, &FORMAT).unwrap();
            machine.dma_write(DEVICE, at << 12, &1u64.to_le_bytes()).unwrap();
            tree.at(0).set_leaf(place, Target::Ram(pages[1]), 0, RW, &FORMAT).unwrap();
            assert_eq!(read(machine, at << 12), Ok(1), "the unit remembers");
            iommu.forget(what).unwrap();
            assert_eq!(read(machine, at << 12), Ok(0));
        }
        tree.at(0).set_absent(5, 0, &FORMAT);
        iommu.forget(Forget::Page(Gfn::new(5))).unwrap();
        assert_eq!(read(machine, 5 << 12), Err(Refused));
    });
}

/// A table whose page held something else before: the unit must see its zeros, which it does not see in the caches.
#[test]
fn new_tables_reach_memory_before_they_are_walked() {
    with_iommu(|machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.0.as_io_root()).unwrap();
        let fresh = Table::allocate(DomId(0)).unwrap();
        tree.at(1).set_table(7, fresh, 0, RW, &FORMAT);
        assert_eq!(read(machine, 7 << 21), Err(Refused));
        let table = tree.at(1).take_table(7, 0, &FORMAT).unwrap();
        iommu.forget(Forget::All).unwrap();
        table.free();
        assert_eq!(read(machine, 7 << 21), Err(Refused), "or the walk of what is no table would end this test");
    });
}

#[test]
fn descriptors_wrap_around_and_say_what_the_unit_can_do() {
    with_iommu(|machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.0.as_io_root()).unwrap();
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
fn a_unit_that_does_not_answer_is_given_up() {
    with_iommu(|machine, iommu, _| {
        iommu.enable().unwrap();
        machine.set_iommu_stuck(true);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    machine.advance(100_000_000);
                    std::thread::yield_now();
                }
            });
            assert_eq!(iommu.forget(Forget::All), Err(Stuck));
            // A new one that does not do what it is told is not taken, and nothing is lost.
            let before = frame::free_pages();
            let mut other = Iommu::try_new(Maker::Intel, Vec::new()).unwrap();
            assert_eq!(other.add(Maddr::new(BASE), UnitFlags::default()), Err(Refusal::Stuck));
            drop(other);
            assert_eq!(frame::free_pages(), before);
            machine.set_iommu_stuck(false);
            // It is not asked a second time: nobody knows what it remembers.
            assert_eq!(iommu.forget(Forget::All), Err(Stuck));
            is_over.store(true, Ordering::Release);
        });
    });
}

#[test]
fn refused_accesses_are_recorded_and_an_overflow_is_survived() {
    with_iommu(|machine, iommu, tree| {
        iommu.enable().unwrap();
        assert!(!iommu.give_message(1, 0, 0), "there is one");
        let take = || {
            let mut events = Vec::new();
            iommu.take_events(|event| events.push((event.device, event.address, event.kind)));
            events
        };
        let fault = |is_write| EventKind::PageFault { is_write };
        assert_eq!(read(machine, 0x9000), Err(Refused));
        assert_eq!(take(), [(DEVICE, 0x9000, fault(false))], "no entry of its own");
        iommu.translate(tree.0.as_io_root()).unwrap();
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
        let mut iommu = Iommu::try_new(Maker::Intel, Vec::new()).unwrap();
        for registers in [0, 0x100, BASE + 0x800, 0x4000, BASE + 0x1_0000] {
            assert_eq!(
                iommu.add(Maddr::new(registers), UnitFlags::default()),
                Err(Refusal::Registers),
                "{registers:#x}"
            );
        }
        let lacking = |clear: u64, set: u64, extended: u64| {
            machine.set_intel_capabilities(|usual, _| (usual & !clear | set, extended));
            let mut iommu = Iommu::try_new(Maker::Intel, Vec::new()).unwrap();
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
