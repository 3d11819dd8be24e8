//! The IOMMU's driver against units that forget nothing by themselves: entries of devices, tables of all sizes, invalidations
//! that are waited for, the log of events, units that are old or do not answer.

use crate::boxed::OutOfMemory;
use crate::codec::amd_iommu::{EventKind, Settings};
use crate::fake::{FakeMachine, Refused};
use crate::frame::{self, Fill, Kind};
use crate::iommu::{Forget, Iommu, Refusal, Stuck, UnitFlags};
use crate::table::{Format, Table, TableRef, Target};
use crate::units::{DomId, Gfn, Maddr, Mfn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::Vec;

const FORMAT: Format = Format::AMD_IO;
const READ: u64 = 1 | 1 << 61;
const RW: u64 = READ | 1 << 62;
const BASE: u64 = 0xfed8_0000;
const PLACE: u16 = 0x10;
const DEVICE: u16 = 0x0118;

/// A tree of four levels with one table of each.
struct Tree([Table; 1]);

impl Tree {
    fn new() -> Self {
        let table = || Table::allocate(DomId(0)).unwrap();
        let (root, level_2, level_1, level_0) = (table(), table(), table(), table());
        level_1.borrow().set_table(0, level_0, 0, RW, &FORMAT);
        level_2.borrow().set_table(0, level_1, 1, RW, &FORMAT);
        root.borrow().set_table(0, level_2, 2, RW, &FORMAT);
        Self([root])
    }

    fn root(&self) -> &Table {
        &self.0[0]
    }

    fn at(&self, level: usize) -> TableRef<'_> {
        (level..3).fold(self.root().borrow(), |table, _| table.child(0, &FORMAT).unwrap())
    }
}

fn guest_page(order: u32) -> Mfn {
    frame::allocate(order, Kind::Guest, DomId(0), Fill::Zero).unwrap()
}

fn with_iommu(work: impl FnOnce(&FakeMachine, &Iommu, &Tree)) {
    let machine = FakeMachine::builder().pages(8192).build();
    machine.add_iommu(BASE, PLACE);
    machine.on_cpu(0, || {
        let mut iommu = Iommu::try_new(Vec::from([(0x20, 0x2f, Settings(0xff))])).unwrap();
        iommu.add(Maddr::new(BASE), UnitFlags(1)).unwrap();
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
fn devices_pass_until_it_is_on_and_are_blocked_until_there_are_tables() {
    with_iommu(|machine, iommu, tree| {
        let page = guest_page(0);
        let address = page.address().number();
        machine.dma_write(DEVICE, address, &7u64.to_le_bytes()).unwrap();
        iommu.forget(Forget::All).unwrap();
        iommu.enable().unwrap();
        assert_eq!(read(machine, address), Err(Refused));
        tree.at(0).set_leaf(5, Target::Ram(page), 0, RW, &FORMAT).unwrap();
        iommu.translate(tree.root().as_io_root()).unwrap();
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
        iommu.translate(tree.root().as_io_root()).unwrap();
        let block = guest_page(9);
        tree.at(1).set_leaf(3, Target::Ram(block), 9, READ, &FORMAT).unwrap();
        let last = block.saturating_add(511);
        crate::memory::write(&crate::frame::Pin::take(last, DomId(0)).unwrap(), 8, &9u64.to_le_bytes())
            .then_some(())
            .unwrap();
        assert_eq!(read(machine, (3 << 21) + (511 << 12) + 8), Ok(9));
        assert_eq!(machine.dma_write(DEVICE, 3 << 21, &[1]), Err(Refused), "it may be read only");
        // Device memory is no RAM here, but the translation is there: the fake machine has nothing at that address.
        tree.at(2).set_leaf(1, Target::Device(Mfn::new(1 << 18)), 18, RW, &FORMAT).unwrap();
        assert_eq!(read(machine, 1 << 30), Err(Refused));
        assert_eq!(machine.iommu_events(), 1, "only the write was refused by the unit");
    });
}

#[test]
fn what_is_forgotten_is_forgotten_when_the_call_returns() {
    with_iommu(|machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.root().as_io_root()).unwrap();
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
    });
}

#[test]
fn many_commands_wrap_around() {
    with_iommu(|machine, iommu, tree| {
        machine.make_iommu_old();
        iommu.enable().unwrap();
        let before = machine.iommu_commands().len();
        assert!(before > 2 * 0x1_0000, "without a command for everything, every device is named: {before}");
        iommu.translate(tree.root().as_io_root()).unwrap();
        for _ in 0..300 {
            iommu.forget(Forget::Page(Gfn::new(0x77))).unwrap();
        }
        let commands = machine.iommu_commands();
        let [.., forget, wait] = commands.as_slice() else { panic!("no commands") };
        assert_eq!(*forget, [0x3000_0001_0000_0000, 0x7_7002]);
        assert_eq!(wait[0] >> 60, 1);
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
            is_over.store(true, Ordering::Release);
        });
        // It is not asked a second time: nobody knows what it remembers.
        machine.set_iommu_stuck(false);
        assert_eq!(iommu.forget(Forget::All), Err(Stuck));
    });
}

#[test]
fn refused_accesses_are_logged_and_an_overflow_is_survived() {
    with_iommu(|machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.root().as_io_root()).unwrap();
        assert_eq!(machine.dma_write(DEVICE, 0x1234_5678, &[1]), Err(Refused));
        assert_eq!(read(machine, 0x9000), Err(Refused));
        let take = || {
            let mut events = Vec::new();
            iommu.take_events(|event| events.push((event.device, event.address, event.kind)));
            events
        };
        let fault = |is_write| EventKind::PageFault { is_write };
        assert_eq!(take(), [(DEVICE, 0x1234_5678, fault(true)), (DEVICE, 0x9000, fault(false))]);
        assert_eq!(take(), []);
        for _ in 0..600 {
            assert_eq!(read(machine, 0x9000), Err(Refused));
        }
        assert_eq!(take().len(), 255, "as many as the log holds");
        assert_eq!(take(), []);
        assert_eq!(read(machine, 0xa000), Err(Refused));
        assert_eq!(take(), [(DEVICE, 0xa000, fault(false))], "it goes on");
    });
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_lost() {
    let machine = FakeMachine::builder().pages(2048).build();
    machine.on_cpu(0, || {
        let before = frame::free_pages();
        let mut iommu = Iommu::try_new(Vec::new()).unwrap();
        for registers in [0, 0x1000, BASE + 0x1000] {
            assert_eq!(iommu.add(Maddr::new(registers), UnitFlags::default()), Err(Refusal::Registers));
        }
        assert_eq!(iommu.add(Maddr::new(0x4000), UnitFlags::default()), Err(Refusal::Registers), "RAM");
        iommu.add(Maddr::new(BASE), UnitFlags::default()).unwrap();
        drop(iommu);
        assert_eq!(frame::free_pages(), before);
    });
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        assert_eq!(Iommu::try_new(Vec::new()).map(drop), Err(OutOfMemory));
    });
}
