//! The IOMMU's driver against units of both makers that forget nothing by themselves: entries of devices, tables of all sizes,
//! invalidations that are waited for, units that do not answer. What only one maker's units have: `iommus_amd`, `iommus_intel`.

use crate::fake::{FakeMachine, Refused};
use crate::frame::{self, Fill, Kind};
use crate::iommu::{Event, EventKind, Forget, Iommu, Maker, Settings, Stuck, UnitFlags};
use crate::table::{Format, Table, TableRef, Target};
use crate::units::{DomId, Gfn, Maddr, Mfn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::Vec;

pub(super) const BASE: u64 = 0xfed8_0000;
const PLACE: u16 = 0x10;
pub(super) const DEVICE: u16 = 0x0118;

/// A maker's tables: the format, and bits of its entries.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    pub(super) maker: Maker,
    pub(super) format: Format,
    pub(super) read: u64,
    pub(super) read_write: u64,
    /// Of an entry above the lowest level that is no table.
    pub(super) large: u64,
}

pub(super) const AMD: Bits =
    Bits { maker: Maker::Amd, format: Format::AMD_IO, read: 1 | 1 << 61, read_write: 1 | 3 << 61, large: 0 };
pub(super) const INTEL: Bits =
    Bits { maker: Maker::Intel, format: Format::INTEL_IO, read: 1, read_write: 3, large: 1 << 7 };

/// A tree of four levels with one table of each.
pub(super) struct Tree {
    root: Table,
    pub(super) bits: Bits,
}

impl Tree {
    fn new(bits: Bits) -> Self {
        let table = || Table::allocate(DomId(0)).unwrap();
        let (root, level_2, level_1, level_0) = (table(), table(), table(), table());
        level_1.borrow().set_table(0, level_0, 0, bits.read_write, &bits.format);
        level_2.borrow().set_table(0, level_1, 1, bits.read_write, &bits.format);
        root.borrow().set_table(0, level_2, 2, bits.read_write, &bits.format);
        Self { root, bits }
    }

    pub(super) fn root(&self) -> &Table {
        &self.root
    }

    pub(super) fn at(&self, level: usize) -> TableRef<'_> {
        (level..3).fold(self.root.borrow(), |table, _| table.child(0, &self.bits.format).unwrap())
    }

    /// Lets a page of the lowest table lead to RAM, with all rights.
    fn map(&self, place: usize, page: Mfn) {
        self.at(0).set_leaf(place, Target::Ram(page), 0, self.bits.read_write, &self.bits.format).unwrap();
    }
}

pub(super) fn guest_page(order: u32) -> Mfn {
    frame::allocate(order, Kind::Guest, DomId(0), Fill::Zero).unwrap()
}

/// Works with a unit of a maker's that is set up and off.
pub(super) fn with_iommu(bits: Bits, work: impl FnOnce(&FakeMachine, &Iommu, &Tree)) {
    let machine = FakeMachine::builder().pages(8192).build();
    match bits.maker {
        Maker::Amd => machine.add_iommu(BASE, PLACE),
        Maker::Intel => machine.add_intel_iommu(BASE),
    }
    machine.on_cpu(0, || {
        let mut iommu = Iommu::try_new(bits.maker, Vec::from([(0x20, 0x2f, Settings(0xff))])).unwrap();
        iommu.add(Maddr::new(BASE), UnitFlags(1)).unwrap();
        let tree = Tree::new(bits);
        work(&machine, &iommu, &tree);
    });
}

fn with_both(work: impl Fn(&FakeMachine, &Iommu, &Tree)) {
    [AMD, INTEL].into_iter().for_each(|bits| with_iommu(bits, &work));
}

pub(super) fn read(machine: &FakeMachine, address: u64) -> Result<u64, Refused> {
    let mut word = [0; 8];
    machine.dma_read(DEVICE, address, &mut word)?;
    Ok(u64::from_le_bytes(word))
}

/// What was logged since the last call: device, address, and what it was.
pub(super) fn take_events(iommu: &Iommu) -> Vec<(u16, u64, EventKind)> {
    let mut events = Vec::new();
    iommu.take_events(|Event { device, address, kind }| events.push((device, address, kind)));
    events
}

/// Works while the machine's time passes quickly.
pub(super) fn while_time_passes<R>(machine: &FakeMachine, work: impl FnOnce() -> R) -> R {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                machine.advance(100_000_000);
                std::thread::yield_now();
            }
        });
        let result = work();
        is_over.store(true, Ordering::Release);
        result
    })
}

#[test]
fn devices_pass_until_it_is_on_and_are_blocked_until_there_are_tables() {
    with_both(|machine, iommu, tree| {
        let page = guest_page(0);
        let address = page.address().number();
        machine.dma_write(DEVICE, address, &7u64.to_le_bytes()).unwrap();
        iommu.forget(Forget::All).unwrap();
        iommu.enable().unwrap();
        assert_eq!(read(machine, address), Err(Refused));
        tree.map(5, page);
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
    with_both(|machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.root().as_io_root()).unwrap();
        let Bits { format, read: may_read, read_write, large, .. } = tree.bits;
        let block = guest_page(9);
        tree.at(1).set_leaf(3, Target::Ram(block), 9, may_read | large, &format).unwrap();
        let last = block.saturating_add(511);
        crate::memory::write(&crate::frame::Pin::take(last, DomId(0)).unwrap(), 8, &9u64.to_le_bytes())
            .then_some(())
            .unwrap();
        assert_eq!(read(machine, (3 << 21) + (511 << 12) + 8), Ok(9));
        assert_eq!(machine.dma_write(DEVICE, 3 << 21, &[1]), Err(Refused), "it may be read only");
        // Device memory is no RAM here, but the translation is there: the fake machine has nothing at that address.
        tree.at(2).set_leaf(1, Target::Device(Mfn::new(1 << 18)), 18, read_write | large, &format).unwrap();
        assert_eq!(read(machine, 1 << 30), Err(Refused));
        assert_eq!(machine.iommu_events(), 1, "only the write was refused by the unit");
    });
}

#[test]
fn what_is_forgotten_is_forgotten_when_the_call_returns() {
    with_both(|machine, iommu, tree| {
        iommu.enable().unwrap();
        iommu.translate(tree.root().as_io_root()).unwrap();
        let pages = [guest_page(0), guest_page(0)];
        for (what, at) in [(Forget::Page(Gfn::new(5)), 5), (Forget::All, 6)] {
            let place = usize::try_from(at).unwrap();
            tree.map(place, pages[0]);
            machine.dma_write(DEVICE, at << 12, &1u64.to_le_bytes()).unwrap();
            tree.map(place, pages[1]);
            assert_eq!(read(machine, at << 12), Ok(1), "the unit remembers");
            iommu.forget(what).unwrap();
            assert_eq!(read(machine, at << 12), Ok(0));
        }
        tree.at(0).set_absent(5, 0, &tree.bits.format);
        iommu.forget(Forget::Page(Gfn::new(5))).unwrap();
        assert_eq!(read(machine, 5 << 12), Err(Refused));
    });
}

#[test]
fn a_unit_that_does_not_answer_is_given_up() {
    with_both(|machine, iommu, _| {
        iommu.enable().unwrap();
        machine.set_iommu_stuck(true);
        assert_eq!(while_time_passes(machine, || iommu.forget(Forget::All)), Err(Stuck));
        // It is not asked a second time: nobody knows what it remembers.
        machine.set_iommu_stuck(false);
        assert_eq!(iommu.forget(Forget::All), Err(Stuck));
    });
}
