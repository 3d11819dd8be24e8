//! Table pages: what may be installed, and how the fake hardware walks it.

use crate::exit::AccessKind;
use crate::fake::FakeMachine;
use crate::frame::{self, Fill, Kind, Pin};
use crate::table::{Format, Table, Target, WrongTarget};
use crate::{DomId, Gpa, Mfn};

const FORMAT: Format = Format::NPT;
const RW: u64 = 0b111;
const OWNER: DomId = DomId(3);

fn page() -> Mfn {
    frame::allocate(0, Kind::Guest, OWNER, Fill::Zero).unwrap()
}

/// Tables down to level 1 for the lowest 2 MiB.
fn tree() -> Table {
    let [root, level_3, level_2, level_1] = [(); 4].map(|()| Table::allocate(OWNER).unwrap());
    level_2.borrow().set_table(0, level_1, 0, RW, &FORMAT);
    level_3.borrow().set_table(0, level_2, 1, RW, &FORMAT);
    root.borrow().set_table(0, level_3, 2, RW, &FORMAT);
    root
}

#[test]
fn leaves_point_to_what_they_claim_only() {
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        let table = Table::allocate(OWNER).unwrap();
        let entries = table.borrow();
        let (ram, own) = (page(), table.mfn());
        assert_eq!(entries.set_leaf(1, Target::Ram(ram), 0, RW, &FORMAT), Ok(0));
        assert_eq!(entries.get(1), ram.address().number() | RW);
        assert_eq!(entries.set_leaf(1, Target::Ram(own), 0, RW, &FORMAT), Err(WrongTarget(own)));
        assert_eq!(entries.set_leaf(1, Target::Device(ram), 0, RW, &FORMAT), Err(WrongTarget(ram)));
        assert_eq!(entries.get(1), ram.address().number() | RW, "a refused leaf changes nothing");
        let device = Mfn::new(0xfee00);
        assert!(entries.set_leaf(2, Target::Device(device), 0, RW, &FORMAT).is_ok());
        assert_eq!(entries.set_leaf(2, Target::Ram(device), 0, RW, &FORMAT), Err(WrongTarget(device)));
        // A block of which one page is somebody else's.
        let block = frame::allocate(1, Kind::Guest, OWNER, Fill::Zero).unwrap();
        assert!(entries.set_leaf(3, Target::Ram(block), 1, RW, &FORMAT).is_ok());
        drop(Pin::from_entry(block.saturating_add(1)));
        assert!(entries.set_leaf(3, Target::Ram(block), 1, RW, &FORMAT).is_err());
        assert!(entries.child(1, &FORMAT).is_none(), "a guest's page is never taken for a table");
    });
}

#[test]
fn a_table_knows_when_it_is_empty() {
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        // A page whose record held something else before.
        let old = page();
        frame::set_gfn(old, crate::Gfn::new(77));
        drop(Pin::from_entry(old));
        let (table, child) = (Table::allocate(OWNER).unwrap(), Table::allocate(OWNER).unwrap());
        let entries = table.borrow();
        assert!(entries.is_empty());
        let ram = page();
        entries.set_leaf(3, Target::Ram(ram), 0, RW, &FORMAT).unwrap();
        entries.set_leaf(3, Target::Ram(ram), 0, 1, &FORMAT).unwrap();
        entries.set_absent(4, 1 << 52, &FORMAT);
        entries.set_table(5, child, 0, RW, &FORMAT);
        for place in [3, 4] {
            entries.set_absent(place, 0, &FORMAT);
            entries.set_absent(place, 1, &FORMAT);
            assert!(!entries.is_empty());
        }
        let child = entries.take_table(5, 0, &FORMAT).unwrap();
        assert!(entries.is_empty());
        child.free();
        assert!(Target::Ram(ram).is_valid(0) && !Target::Ram(table.mfn()).is_valid(0));
        assert!(!Target::Ram(Mfn::new(ram.number() | 1)).is_valid(1), "not aligned");
    });
}

#[test]
fn attributes_cannot_smuggle_an_address() {
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        let table = Table::allocate(OWNER).unwrap();
        let (entries, ram) = (table.borrow(), page());
        entries.set_leaf(0, Target::Ram(ram), 0, RW | 0x7000, &FORMAT).unwrap();
        entries.change(0, 0, 0x3f000, &FORMAT);
        assert_eq!(entries.get(0) & 0x000f_ffff_ffff_f000, ram.address().number());
        entries.set_absent(1, 0x5001, &FORMAT);
        assert_eq!(entries.get(1), 0x5000, "an absent entry stays absent");
        entries.change(1, 0, 1, &FORMAT);
        assert_eq!(entries.get(1), 0x5000, "and cannot be made present by a change of attributes");
        // What marks tables is nobody's to set.
        entries.set_leaf(2, Target::Ram(ram), 0, u64::MAX, &FORMAT).unwrap();
        entries.change(2, 0, u64::MAX, &FORMAT);
        entries.set_absent(3, u64::MAX, &FORMAT);
        for index in 0..4 {
            assert!(entries.child(index, &FORMAT).is_none(), "entry {index} is taken for a table");
        }
    });
}

#[test]
fn the_walker_finds_pages_and_sets_accessed_and_dirty() {
    let machine = FakeMachine::builder().pages(64).build();
    machine.on_cpu(0, || {
        let (root, ram) = (tree(), page());
        let level_1 = (0..3).fold(root.borrow(), |table, _| table.child(0, &FORMAT).unwrap());
        level_1.set_leaf(5, Target::Ram(ram), 0, RW, &FORMAT).unwrap();
        let gpa = Gpa::new(0x5123);
        assert_eq!(machine.translate(root.mfn(), gpa, AccessKind::Read), Some(ram));
        assert_eq!(level_1.get(5) & 0x60, 0x20, "accessed, not dirty");
        assert_eq!(machine.translate(root.mfn(), gpa, AccessKind::Write), Some(ram));
        assert_eq!(level_1.get(5) & 0x60, 0x60);
        level_1.change(5, 1 << 1, 1 << 63, &FORMAT);
        assert_eq!(machine.translate(root.mfn(), gpa, AccessKind::Write), None);
        assert_eq!(machine.translate(root.mfn(), gpa, AccessKind::Execute), None);
        assert_eq!(machine.translate(root.mfn(), gpa, AccessKind::Read), Some(ram));
        assert_eq!(machine.translate(root.mfn(), Gpa::new(0x6000), AccessKind::Read), None);
    });
}

#[test]
fn a_subtree_comes_out_whole_and_is_freed() {
    FakeMachine::builder().pages(64).build().on_cpu(0, || {
        let root = tree();
        assert_eq!(frame::free_pages(), 60);
        let level_3 = root.borrow().take_table(0, 0, &FORMAT).unwrap();
        assert!(root.borrow().take_table(0, 0, &FORMAT).is_none());
        let level_2 = level_3.borrow().take_table(0, 0, &FORMAT).unwrap();
        let level_1 = level_2.borrow().take_table(0, 0, &FORMAT).unwrap();
        for table in [root, level_3, level_2, level_1] {
            table.free();
        }
        assert_eq!(frame::free_pages(), 64);
    });
}
