//! Guest memory by every kind of address: all paging modes, page edges, what is refused, and what is marked dirty.

use super::{LinearMemory, Pages, PhysicalMemory, SharedPage};
use crate::domain::Domain;
use crate::memory::testing::{domain, host, settings};
use crate::memory::{decrease, populate};
use crate::p2m::{Access, Kind};
use machine::codec::registers::{cr0, cr4, efer};
use machine::fake::FakeMachine;
use machine::vcpu::Vcpu;
use machine::{Gfn, Gpa, frame};
use public_abi::memory::RemoveFromPhysmap;
use public_abi::{Errno, GuestPtr};
use std::vec::Vec;

const PAGE: u64 = 4096;
/// Where tests keep page tables; data is from page 32 on.
const TABLES: u64 = 16;
const P: u64 = 1;
const W: u64 = 2;
const LARGE: u64 = 1 << 7;

/// A domain with RAM at pages 0 to 63, and a vCPU of it.
fn with_guest(work: impl FnOnce(&Domain, &mut Vcpu)) {
    FakeMachine::builder().pages(2048).build().on_cpu(0, || {
        let host = host();
        let guest = domain(1, settings(), 1000);
        for page in 0..64 {
            populate(&host, &guest, Gfn::new(page), 0).unwrap();
        }
        let mut hardware = Vcpu::try_new(guest.id, guest.p2m.root()).unwrap();
        work(&guest, &mut hardware);
    });
}

fn put(guest: &Domain, gpa: u64, entry: u64) {
    PhysicalMemory::new(guest).write(Gpa::new(gpa), &entry).unwrap();
}

fn put_32(guest: &Domain, gpa: u64, entry: u64) {
    PhysicalMemory::new(guest).write(Gpa::new(gpa), &u32::try_from(entry).unwrap()).unwrap();
}

/// Long mode with `levels`; maps linear page 0 to page 33, page 1 to page 32 read-only, and nothing else at 4 KiB.
fn long_mode(guest: &Domain, hardware: &mut Vcpu, levels: u64) {
    for level in 0..levels - 1 {
        put(guest, (TABLES + level) * PAGE, (TABLES + level + 1) * PAGE + (P | W));
    }
    let lowest = (TABLES + levels - 1) * PAGE;
    put(guest, lowest, 33 * PAGE + (P | W));
    put(guest, lowest + 8, 32 * PAGE + P);
    let state = hardware.guest_mut();
    state.cr0 = cr0::PE | cr0::PG | cr0::WP;
    state.cr4 = cr4::PAE | if levels == 5 { cr4::LA57 } else { 0 };
    state.set_efer(state.efer() | efer::LME | efer::LMA);
    state.cr3 = TABLES * PAGE + 0x18;
}

#[test]
fn without_paging_linear_is_physical() {
    with_guest(|guest, hardware| {
        let memory = LinearMemory::new(guest, hardware);
        memory.write_bytes(40 * PAGE - 3, b"across a page").unwrap();
        let mut bytes = [0; 13];
        PhysicalMemory::new(guest).read_bytes(Gpa::new(40 * PAGE - 3), &mut bytes).unwrap();
        assert_eq!(&bytes, b"across a page");
        assert_eq!(memory.read_bytes(63 * PAGE + 4090, &mut bytes), Err(Errno::EFAULT), "leaves RAM");
        assert_eq!(memory.read_bytes(0x1_0000_0000 + 40 * PAGE - 3, &mut bytes), Ok(()), "32 bits count");
        memory.read_bytes(u64::MAX, &mut []).unwrap();
    });
}

#[test]
fn long_mode_walks_four_and_five_levels() {
    for levels in [4, 5] {
        with_guest(|guest, hardware| {
            long_mode(guest, hardware, levels);
            let memory = LinearMemory::new(guest, hardware);
            memory.write(GuestPtr::<u64>::from_address(0x10), &77).unwrap();
            assert_eq!(PhysicalMemory::new(guest).read(Gpa::new(33 * PAGE + 0x10)), Ok(77u64));
            // Across pages that are not neighbours, with the second one read-only.
            put(guest, 32 * PAGE, 0x1122_3344_5566_7788);
            let value: u64 = memory.read(GuestPtr::from_address(PAGE - 4)).unwrap();
            assert_eq!(value >> 32, 0x5566_7788);
            assert_eq!(memory.write(GuestPtr::from_address(PAGE), &1u64), Err(Errno::EFAULT));
            assert_eq!(memory.write(GuestPtr::from_address(PAGE - 4), &u64::MAX), Err(Errno::EFAULT));
            assert_eq!(PhysicalMemory::new(guest).read(Gpa::new(32 * PAGE)), Ok(0x1122_3344_5566_7788u64));
            assert_eq!(memory.read::<u64>(GuestPtr::from_address(2 * PAGE)), Err(Errno::EFAULT), "not present");
            assert_eq!(memory.translate(0x123, Access::Write), Ok(Gpa::new(33 * PAGE + 0x123)));
            let limit = 1u64 << (levels * 9 + 11);
            assert_eq!(memory.read::<u8>(GuestPtr::from_address(limit)), Err(Errno::EFAULT), "not canonical");
            assert_eq!(memory.translate(limit, Access::Read), Err(Errno::EFAULT));
        });
    }
}

#[test]
fn a_run_of_pages_reads_what_the_walk_would() {
    for levels in [4, 5] {
        with_guest(|guest, hardware| {
            long_mode(guest, hardware, levels);
            // Linear pages 2 and 4 lead to pages 34 and 36, page 3 nowhere; entry 1 of level 2 is a large page at 0.
            let lowest = (TABLES + levels - 1) * PAGE;
            for page in [2, 4] {
                put(guest, lowest + page * 8, (32 + page) * PAGE + P);
            }
            put(guest, (TABLES + levels - 2) * PAGE + 8, P | W | LARGE);
            let frames: Vec<u64> = (0..5).map(|page| 0x1000 + page).collect();
            for (page, value) in (32..).zip(&frames) {
                put(guest, page * PAGE + 16, *value);
            }
            let memory = LinearMemory::new(guest, hardware);
            let mut run = memory.run();
            let mut at = |address: u64| {
                let (pin, offset) = run.page(address)?;
                assert_eq!(offset, 16);
                let mut bytes = [0; 8];
                assert!(machine::memory::read(&pin, offset, &mut bytes));
                Ok(u64::from_le_bytes(bytes))
            };
            let expected = [Ok(0x1001), Ok(0x1000), Ok(0x1002), Err(Errno::EFAULT), Ok(0x1004)];
            for (page, expected) in (0..).zip(expected) {
                assert_eq!(at(page * PAGE + 16), expected, "page {page}");
            }
            assert_eq!(at((2 << 20) + 35 * PAGE + 16), Ok(0x1003), "in the large page");
            assert_eq!(at(16), Ok(0x1001), "the first region again");
            assert_eq!(at(1 << (levels * 9 + 11)), Err(Errno::EFAULT), "not canonical");
        });
    }
}

#[test]
fn large_pages_and_rights_of_upper_levels_count() {
    with_guest(|guest, hardware| {
        long_mode(guest, hardware, 4);
        // Entry 1 of level 2: a 2 MiB page at 0; entry 1 of level 3: a 1 GiB page at 0, read-only.
        put(guest, (TABLES + 2) * PAGE + 8, P | W | LARGE);
        put(guest, (TABLES + 1) * PAGE + 8, P | LARGE);
        let memory = LinearMemory::new(guest, hardware);
        memory.write(GuestPtr::from_address((2 << 20) + 50 * PAGE), &5u32).unwrap();
        let alias = GuestPtr::<u32>::from_address((1 << 30) + 50 * PAGE);
        assert_eq!(memory.read(alias), Ok(5));
        assert_eq!(memory.write(alias, &6), Err(Errno::EFAULT));
        // The upper level takes the right away.
        put(guest, TABLES * PAGE, (TABLES + 1) * PAGE + P);
        let memory = LinearMemory::new(guest, hardware);
        assert_eq!(memory.write(GuestPtr::from_address(0x10), &1u64), Err(Errno::EFAULT));
        hardware.guest_mut().cr0 &= !cr0::WP;
        let memory = LinearMemory::new(guest, hardware);
        assert_eq!(memory.write(GuestPtr::from_address(0x10), &1u64), Ok(()), "without write protection");
    });
}

#[test]
fn pae_walks_three_levels() {
    with_guest(|guest, hardware| {
        // The four top entries stand anywhere on a 32-byte boundary and have no write bit.
        let top = TABLES * PAGE + 0x60;
        put(guest, top + 3 * 8, (TABLES + 1) * PAGE + P);
        put(guest, (TABLES + 1) * PAGE + 511 * 8, (TABLES + 2) * PAGE + (P | W));
        put(guest, (TABLES + 2) * PAGE + 511 * 8, 40 * PAGE + (P | W));
        let state = hardware.guest_mut();
        (state.cr0, state.cr4, state.cr3) = (cr0::PE | cr0::PG | cr0::WP, cr4::PAE, top);
        let memory = LinearMemory::new(guest, hardware);
        memory.write(GuestPtr::from_address(0xffff_f008), &9u64).unwrap();
        assert_eq!(PhysicalMemory::new(guest).read(Gpa::new(40 * PAGE + 8)), Ok(9u64));
        assert_eq!(memory.read::<u64>(GuestPtr::from_address(0xffff_f008 | 1 << 40)), Ok(9), "32 bits count");
        assert_eq!(memory.read::<u64>(GuestPtr::from_address(0x1000)), Err(Errno::EFAULT));
    });
}

#[test]
fn legacy_paging_walks_two_levels_and_large_pages() {
    with_guest(|guest, hardware| {
        put_32(guest, TABLES * PAGE + 4, (TABLES + 1) * PAGE + (P | W));
        put_32(guest, (TABLES + 1) * PAGE + 2 * 4, 41 * PAGE + (P | W));
        put_32(guest, (TABLES + 1) * PAGE + 3 * 4, 42 * PAGE + P);
        put_32(guest, TABLES * PAGE + 2 * 4, P | W | LARGE);
        let state = hardware.guest_mut();
        (state.cr0, state.cr4, state.cr3) = (cr0::PE | cr0::PG | cr0::WP, cr4::PSE, TABLES * PAGE);
        let memory = LinearMemory::new(guest, hardware);
        memory.write(GuestPtr::from_address((4 << 20) + 2 * PAGE + 4), &7u32).unwrap();
        assert_eq!(PhysicalMemory::new(guest).read(Gpa::new(41 * PAGE + 4)), Ok(7u32));
        assert_eq!(memory.write(GuestPtr::from_address((4 << 20) + 3 * PAGE), &7u32), Err(Errno::EFAULT));
        assert_eq!(memory.read(GuestPtr::from_address((8 << 20) + 41 * PAGE + 4)), Ok(7u32), "4 MiB page");
        assert_eq!(memory.translate((8 << 20) + 5, Access::Read), Ok(Gpa::new(5)));
    });
}

#[test]
fn tables_outside_of_ram_are_a_fault_not_a_crash() {
    with_guest(|guest, hardware| {
        long_mode(guest, hardware, 4);
        for root in [0xfee0_0000, 64 * PAGE, 0x000f_ffff_ffff_f000, (1 << 48) - PAGE] {
            hardware.guest_mut().cr3 = root;
            let memory = LinearMemory::new(guest, hardware);
            assert_eq!(memory.read::<u64>(GuestPtr::from_address(0)), Err(Errno::EFAULT));
        }
        // A table that is its own child ends after as many steps as there are levels.
        put(guest, TABLES * PAGE, TABLES * PAGE + (P | W));
        hardware.guest_mut().cr3 = TABLES * PAGE;
        let memory = LinearMemory::new(guest, hardware);
        assert_eq!(memory.translate(0, Access::Read), Ok(Gpa::new(TABLES * PAGE)));
    });
}

#[test]
fn remembered_pages_do_not_outlive_what_was_checked() {
    with_guest(|guest, hardware| {
        long_mode(guest, hardware, 4);
        let memory = LinearMemory::new(guest, hardware);
        // Reading a read-only page remembers it; writing must still be refused.
        assert!(memory.read::<u64>(GuestPtr::from_address(PAGE)).is_ok());
        assert_eq!(memory.write(GuestPtr::from_address(PAGE), &1u64), Err(Errno::EFAULT));
        // What was read may be written without another look, unless the map has taken something away meanwhile.
        assert_eq!(memory.read(GuestPtr::from_address(8)), Ok(0u64));
        memory.write(GuestPtr::from_address(8), &1u64).unwrap();
        // A page that goes away in the middle of the call can still be read, and is freed at the end of it.
        let free = frame::free_pages();
        decrease(guest, Gfn::new(33), 0).unwrap();
        assert_eq!(frame::free_pages(), free);
        assert_eq!(memory.write(GuestPtr::from_address(8), &2u64), Err(Errno::EFAULT));
        assert_eq!(memory.read(GuestPtr::from_address(8)), Ok(1u64));
        drop(memory);
        assert_eq!(frame::free_pages(), free + 1);
    });
}

#[test]
fn arrays_and_structures_are_read_by_value() {
    with_guest(|guest, hardware| {
        let memory = LinearMemory::new(guest, hardware);
        let list = GuestPtr::<u64>::from_address(32 * PAGE);
        for index in 0..4 {
            memory.write_at(list, index, &(index * 3)).unwrap();
        }
        assert_eq!(memory.read_at(list, 3), Ok(9));
        assert_eq!(memory.read_at(list, u64::MAX), Err(Errno::EFAULT));
        assert_eq!(memory.write_at(list, 1 << 61, &0), Err(Errno::EFAULT));
        let request = RemoveFromPhysmap { domid: 7, gpfn: 0x1234, ..RemoveFromPhysmap::default() };
        memory.write(GuestPtr::from_address(33 * PAGE - 5), &request).unwrap();
        assert_eq!(memory.read(GuestPtr::from_address(33 * PAGE - 5)), Ok(request));
    });
}

#[test]
fn every_write_marks_and_no_read_does() {
    with_guest(|guest, hardware| {
        long_mode(guest, hardware, 4);
        let before = guest.p2m.marked();
        let memory = LinearMemory::new(guest, hardware);
        memory.read::<u64>(GuestPtr::from_address(0)).unwrap();
        assert_eq!(guest.p2m.marked(), before);
        memory.write(GuestPtr::from_address(0), &1u64).unwrap();
        memory.write(GuestPtr::from_address(8), &1u64).unwrap();
        assert_eq!(guest.p2m.marked(), before + 2);
        PhysicalMemory::new(guest).write_bytes(Gpa::new(32 * PAGE - 1), &[1, 2]).unwrap();
        assert_eq!(guest.p2m.marked(), before + 4, "one for each page");
    });
}

#[test]
fn pages_are_kept_until_the_map_loses_what_they_rest_on() {
    // Linear page 0 leads through tables in pages 16 to 19 to page 33; page 40 has nothing to do with it.
    for (gone, stays) in [(40, true), (33, false), (16, false), (19, false)] {
        with_guest(|guest, hardware| {
            long_mode(guest, hardware, 4);
            let (pages, pointer) = (Pages::new(), GuestPtr::<u64>::from_address(8));
            put(guest, 33 * PAGE + 8, 7);
            let before = guest.p2m.epoch();
            assert_eq!(LinearMemory::keeping(guest, hardware, &pages).read(pointer), Ok(7));
            let frame = guest.p2m.lookup(Gfn::new(gone)).mfn;
            decrease(guest, Gfn::new(gone), 0).unwrap();
            let now = guest.p2m.epoch();
            assert_eq!(guest.p2m.only_change(before, now), Some(frame));
            let held = frame::state(frame).unwrap().count;
            assert_eq!(held != 0, !stays, "a kept page is not free");
            pages.forget_frame(frame, before, now);
            assert_eq!(frame::state(frame).unwrap().count, 0, "{gone}: what the domain has lost is free now");
            let kept = guest.p2m.lookup(Gfn::new(33)).mfn;
            if stays {
                assert_eq!(frame::state(kept).unwrap().count, 2, "the map has it, and so have the kept pages");
            }
            let memory = LinearMemory::keeping(guest, hardware, &pages);
            assert_eq!(memory.read(pointer), if stays { Ok(7) } else { Err(Errno::EFAULT) }, "{gone}");
        });
    }
}

#[test]
fn read_only_ram_is_not_written_for_the_guest() {
    with_guest(|guest, hardware| {
        let mut txn = guest.p2m.begin().unwrap();
        txn.retype(Gfn::new(35), 0, Kind::RamRo).unwrap();
        txn.retype(Gfn::new(36), 0, Kind::RamLogDirty).unwrap();
        txn.finish();
        let memory = LinearMemory::new(guest, hardware);
        assert_eq!(memory.read::<u8>(GuestPtr::from_address(35 * PAGE)), Ok(0));
        assert_eq!(memory.write(GuestPtr::from_address(35 * PAGE), &1u8), Err(Errno::EFAULT));
        assert_eq!(memory.write(GuestPtr::from_address(36 * PAGE), &1u8), Ok(()));
    });
}

#[test]
fn a_shared_page_is_zeroed_and_freed_with_its_last_holder() {
    FakeMachine::builder().pages(16).build().on_cpu(0, || {
        let page = SharedPage::try_new(machine::DomId(1)).unwrap();
        assert_eq!(frame::state(page.mfn()).unwrap().kind, frame::Kind::Shared);
        let second = frame::Pin::take(page.mfn(), machine::DomId(1)).unwrap();
        drop(page);
        assert_eq!(frame::free_pages(), 15);
        drop(second);
        assert_eq!(frame::free_pages(), 16);
        let held: heapless::Vec<SharedPage, 17> =
            (0..16).map_while(|_| SharedPage::try_new(machine::DomId(1)).ok()).collect();
        assert_eq!(held.len(), 16);
        assert!(SharedPage::try_new(machine::DomId(1)).is_err());
    });
}
