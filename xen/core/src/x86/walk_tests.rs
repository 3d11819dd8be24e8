//! Tests of the page-table walker on hand-made tables, and the memory that other tests of `x86` share.

use super::*;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use machine::Gfn;
use std::collections::BTreeMap;

type Content = Rc<RefCell<[u8; 4096]>>;

/// RAM in pages that come into being when they are written.
#[derive(Default)]
pub struct TestMemory {
    pages: RefCell<BTreeMap<u64, Content>>,
    pub epoch: Cell<u64>,
    /// How many pages have been asked for.
    pub lookups: Cell<u32>,
}

impl TestMemory {
    pub fn write(&self, address: u64, bytes: &[u8]) {
        for (byte, at) in bytes.iter().zip(address..) {
            let mut pages = self.pages.borrow_mut();
            let page = pages.entry(at >> 12).or_insert_with(|| Rc::new(RefCell::new([0; 4096])));
            page.borrow_mut()[at as usize & 0xfff] = *byte;
        }
    }

    pub fn write_entry(&self, address: u64, entry: u64) {
        self.write(address, &entry.to_le_bytes());
    }

    /// Takes a page away, as ballooning would.
    pub fn remove(&self, gfn: u64) {
        self.epoch.set(self.epoch.get() + 1);
        self.pages.borrow_mut().remove(&gfn);
    }
}

impl PhysicalMemory for TestMemory {
    type Page = Content;
    type Word = (Content, usize);
    fn page(&self, gfn: Gfn) -> Option<Content> {
        self.lookups.set(self.lookups.get() + 1);
        self.pages.borrow().get(&gfn.number()).cloned()
    }
    fn read(page: &Content, offset: usize, out: &mut [u8]) -> bool {
        let page = page.borrow();
        let Some(bytes) = page.get(offset..offset + out.len()) else { return false };
        out.copy_from_slice(bytes);
        true
    }
    fn word(page: Content, offset: usize) -> Option<Self::Word> {
        (offset.is_multiple_of(8) && offset < 4096).then_some((page, offset))
    }
    fn load((page, offset): &Self::Word) -> u64 {
        let mut bytes = [0; 8];
        assert!(Self::read(page, *offset, &mut bytes));
        u64::from_le_bytes(bytes)
    }
    fn page_for_writing(&self, gfn: Gfn) -> Option<Content> {
        self.page(gfn)
    }
    fn write(page: &Content, offset: usize, bytes: &[u8]) -> bool {
        let mut page = page.borrow_mut();
        let Some(place) = page.get_mut(offset..offset + bytes.len()) else { return false };
        place.copy_from_slice(bytes);
        true
    }
    fn set_bits(page: &Content, offset: usize, bits: u8) {
        page.borrow_mut()[offset] |= bits;
    }
    fn epoch(&self) -> u64 {
        self.epoch.get()
    }
}

/// Registers of a guest in long mode whose tables start at `root`.
pub fn long_mode(root: u64) -> GuestState {
    changed(GuestState::ZERO, |state| {
        state.cr0 = cr0::PG | cr0::PE | cr0::WP;
        state.cr3 = root;
        state.cr4 = cr4::PAE | cr4::SMEP | cr4::SMAP;
        state.set_efer(efer::LMA | efer::LME | efer::NXE);
        state.cs = machine::codec::vmcb::Segment { attributes: 0x29b, limit: u32::MAX, ..Default::default() };
    })
}

/// A control block with some registers changed.
pub fn changed(mut state: GuestState, change: impl FnOnce(&mut GuestState)) -> GuestState {
    change(&mut state);
    state
}

const READ: Intent = Intent { write: false, fetch: false, user: false, ignore_smap: false };
const USER_READ: Intent = Intent { user: true, ..READ };
const WRITE: Intent = Intent { write: true, ..READ };

#[test]
fn four_levels_and_all_leaf_sizes() {
    let memory = TestMemory::default();
    memory.write_entry(0x1000 + 8 * 511, 0x2003);
    memory.write_entry(0x2000 + 8 * 510, 0x3003);
    memory.write_entry(0x2000 + 8 * 511, 0x4000_0083);
    memory.write_entry(0x3000 + 8 * 8, 0x4003);
    memory.write_entry(0x3000 + 8 * 9, 0x0120_0083);
    memory.write_entry(0x4000 + 8 * 5, 0x0007_5063);
    let space = Space::of(&long_mode(0x1000));
    let mut steps = std::vec::Vec::new();
    let small = walk_and_keep(&memory, &space, 0xffff_ffff_8100_5123, |_, step| steps.push(step)).unwrap();
    assert_eq!(small.gpa, Gpa::new(0x7_5123));
    assert_eq!(steps.len(), 4);
    assert_eq!(steps[3], Step { gfn: Gfn::new(4), offset: 0x28, entry: 0x7_5063, is_short: false });
    let large = walk(&memory, &space, 0xffff_ffff_8120_5123).unwrap();
    assert_eq!(large.gpa, Gpa::new(0x120_5123));
    let huge = walk(&memory, &space, 0xffff_ffff_c120_5123).unwrap();
    assert_eq!(huge.gpa, Gpa::new(0x4120_5123));
    let absent = walk(&memory, &space, 0xffff_ffff_8100_6000);
    assert!(matches!(absent, Err(WalkError::Fault(PageFault { address: 0xffff_ffff_8100_6000, .. }))));
}

#[test]
fn two_levels_with_four_mebibyte_pages_above_four_gibibytes() {
    let memory = TestMemory::default();
    let state =
        changed(GuestState::ZERO, |state| (state.cr0, state.cr3, state.cr4) = (cr0::PG | cr0::PE, 0x1000, cr4::PSE));
    memory.write(0x1000 + 4 * 3, &(0x0080_0083u32 | 5 << 13).to_le_bytes());
    memory.write(0x1000 + 4 * 4, &0x2003u32.to_le_bytes());
    memory.write(0x2000 + 4 * 7, &0x9003u32.to_le_bytes());
    let space = Space::of(&state);
    assert_eq!(space.paging, Paging::Legacy);
    assert_eq!(walk(&memory, &space, 0x00c1_2345).unwrap().gpa, Gpa::new(0x5_0081_2345));
    assert_eq!(walk(&memory, &space, 0x0100_7abc).unwrap().gpa, Gpa::new(0x9abc));
}

#[test]
fn pae_root_is_aligned_to_32_bytes() {
    let memory = TestMemory::default();
    let state =
        changed(GuestState::ZERO, |state| (state.cr0, state.cr3, state.cr4) = (cr0::PG | cr0::PE, 0x1020, cr4::PAE));
    memory.write_entry(0x1020 + 8 * 3, 0x2001);
    memory.write_entry(0x2008, 0x0060_0083);
    let space = Space::of(&state);
    assert_eq!(walk(&memory, &space, 0xc020_1234).unwrap().gpa, Gpa::new(0x60_1234));
    // The top level's entry has no write bit, and that takes no right away.
    assert_eq!(fault_of(&memory, &space, 0xc020_1234, WRITE).unwrap(), None);
}

#[test]
fn without_paging_addresses_are_32_bits_and_free() {
    let space = Space::of(&GuestState::ZERO);
    let memory = TestMemory::default();
    assert_eq!(walk(&memory, &space, 0x1_0000_1234).unwrap().gpa, Gpa::new(0x1234));
    assert_eq!(fault_of(&memory, &space, 0x1234, Intent { user: true, write: true, ..READ }).unwrap(), None);
}

#[test]
fn faults_carry_the_error_code_that_hardware_gives() {
    let memory = TestMemory::default();
    memory.write_entry(0x1000, 0x2007);
    memory.write_entry(0x2000, 0x3007);
    memory.write_entry(0x3000, 0x4007);
    memory.write_entry(0x4000, 0x5001);
    memory.write_entry(0x4008, 0x6005 | 1 << 63);
    let space = Space::of(&long_mode(0x1000));
    let code = |linear, intent| fault_of(&memory, &space, linear, intent).unwrap().map(|fault| fault.error_code);
    assert_eq!(code(0x0, READ), None);
    assert_eq!(code(0x0, USER_READ), Some(0b101));
    assert_eq!(code(0x0, WRITE), Some(0b011));
    assert_eq!(code(0x1000, USER_READ), None);
    assert_eq!(code(0x1000, READ), Some(0b001), "SMAP");
    assert_eq!(code(0x1000, Intent { ignore_smap: true, ..READ }), None);
    assert_eq!(code(0x1000, Intent { fetch: true, ..USER_READ }), Some(0b10101));
    assert_eq!(code(0x1000, Intent { fetch: true, ..READ }), Some(0b10001), "SMEP");
    assert_eq!(code(0x2000, Intent { user: true, ..WRITE }), Some(0b110));
}

#[test]
fn a_table_outside_of_ram_is_no_page_fault() {
    let space = Space::of(&long_mode(0x1000));
    assert_eq!(walk(&TestMemory::default(), &space, 0).unwrap_err(), WalkError::NoTable);
}
