//! gdbsx_guestmemio: copying between the control domain's memory and a guest's.

use super::support::{GUEST, NOBODY, World, error, put_bytes, read_arena, room, with_world};
use crate::guest_mem::PhysicalMemory;
use crate::memory::populate;
use crate::outcome::{Reply, Stop};
use machine::{DomId, Gfn, Gpa};
use public_abi::Errno;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domctl_debug::GdbsxMemio;
use public_abi::domctl_domain::MaxMem;
use std::vec;
use std::vec::Vec;

/// Where the guest has RAM.
const RAM: u64 = 0x40_0000;
/// So many pages: more than are copied at a time.
const PAGES: u64 = 40;

fn with_ram(test: impl FnOnce(&World)) {
    with_world(|world| {
        world.domctl(DomctlOp::MaxMem, GUEST.0, MaxMem { max_memkb: 1 << 20 }).unwrap();
        let guest = world.host.domains.get(GUEST).unwrap();
        for page in 0..PAGES {
            populate(&world.host, &guest, Gfn::new((RAM >> 12) + page), 0).unwrap();
        }
        test(world);
    });
}

fn copy(world: &World, id: u16, request: GdbsxMemio) -> (Reply, GdbsxMemio) {
    let request = Domctl::with(DomctlOp::GdbsxGuestMemio, id, &request).unwrap();
    let (reply, request) = world.domctl_raw(DomId::CONTROL, &request);
    (reply, request.get().unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[test]
fn bytes_go_into_a_guest_and_come_back() {
    with_ram(|world| {
        let bytes = pattern(2 * 4096 + 77);
        let uva = put_bytes(&bytes);
        let there = GdbsxMemio { gva: RAM + 4090, uva, len: 2 * 4096 + 77, gwr: 1, remain: 9, ..GdbsxMemio::default() };
        let (reply, after) = copy(world, GUEST.0, there);
        assert_eq!((reply, after.remain), (Ok(0), 0));
        let guest = world.host.domains.get(GUEST).unwrap();
        let mut seen = vec![0; bytes.len()];
        PhysicalMemory::new(&guest).read_bytes(Gpa::new(RAM + 4090), &mut seen).unwrap();
        assert_eq!(seen, bytes);
        let back = room::<u8>(bytes.len(), 0xee).address();
        assert_eq!(copy(world, GUEST.0, GdbsxMemio { uva: back, gwr: 0, ..there }).0, Ok(0));
        read_arena(back, &mut seen);
        assert_eq!(seen, bytes);
        assert_eq!(copy(world, GUEST.0, GdbsxMemio { gva: 0, len: 0, ..there }).0, Ok(0), "nothing is always there");
    });
}

#[test]
fn long_copies_fit_whatever_their_places_in_pages() {
    for (length, place, shift) in
        [(30 * 4096 + 5, 0, 0), (33 * 4096, 4090, 1), (17 * 4096 - 1, 1, 4095), (100, 4095, 9)]
    {
        with_ram(|world| {
            let bytes = pattern(length + shift);
            let uva = put_bytes(&bytes) + u64::try_from(shift).unwrap();
            let len = u32::try_from(length).unwrap();
            let request = GdbsxMemio { gva: RAM + place, uva, len, gwr: 1, ..GdbsxMemio::default() };
            assert_eq!(copy(world, GUEST.0, request).0, Ok(0));
            let mut seen = vec![0; length];
            let guest = world.host.domains.get(GUEST).unwrap();
            PhysicalMemory::new(&guest).read_bytes(Gpa::new(RAM + place), &mut seen).unwrap();
            assert_eq!(seen, bytes[shift..], "{length} bytes from {shift} to {place}");
        });
    }
}

#[test]
fn what_lies_before_a_fault_has_come() {
    with_ram(|world| {
        let (gva, uva) = (RAM + (PAGES - 18) * 4096, put_bytes(&vec![0x77; 20 * 4096]));
        let request = GdbsxMemio { gva, uva, len: 20 * 4096, gwr: 1, ..GdbsxMemio::default() };
        assert_eq!(copy(world, GUEST.0, request).0, error(Errno::EFAULT));
        let mut seen = vec![0; 18 * 4096];
        let guest = world.host.domains.get(GUEST).unwrap();
        PhysicalMemory::new(&guest).read_bytes(Gpa::new(gva), &mut seen).unwrap();
        assert!(seen.iter().all(|byte| *byte == 0x77));
    });
}

#[test]
fn what_is_not_the_guests_own_ram_is_a_fault() {
    with_ram(|world| {
        let uva = put_bytes(&[7; 64]);
        let there = GdbsxMemio { gva: RAM + PAGES * 4096 - 32, uva, len: 64, gwr: 1, ..GdbsxMemio::default() };
        for gwr in [0, 1] {
            assert_eq!(copy(world, GUEST.0, GdbsxMemio { gwr, ..there }).0, error(Errno::EFAULT), "leaves RAM");
            let foreign = GdbsxMemio { gva: uva, gwr, ..there };
            assert_eq!(copy(world, GUEST.0, foreign).0, error(Errno::EFAULT), "another domain's page");
            let nowhere = GdbsxMemio { gva: RAM, uva: 0x1000, gwr, ..there };
            assert_eq!(copy(world, GUEST.0, nowhere).0, error(Errno::EFAULT), "no buffer");
        }
        assert_eq!(copy(world, 0, there).0, error(Errno::EINVAL), "the caller itself");
        assert_eq!(copy(world, NOBODY, there).0, error(Errno::ESRCH));
        let request = Domctl::with(DomctlOp::GdbsxGuestMemio, GUEST.0, &there).unwrap();
        assert_eq!(world.domctl_raw(GUEST, &request).0, error(Errno::EPERM), "not for guests");
    });
}

#[test]
fn others_run_between_pages() {
    with_ram(|world| {
        const LENGTH: u32 = 36 * 4096;
        let uva = put_bytes(&pattern(LENGTH as usize));
        world.machine.note_work(0, machine::cpu::Work::KICK);
        let there = GdbsxMemio { gva: RAM + 4000, uva, len: LENGTH, gwr: 1, ..GdbsxMemio::default() };
        let (reply, rest) = copy(world, GUEST.0, there);
        assert_eq!(reply, Err(Stop::Restart(None)));
        assert_eq!(rest.gva - there.gva, rest.uva - uva);
        assert_eq!(u64::from(rest.len), u64::from(LENGTH) - (rest.uva - uva));
        assert!(rest.len < LENGTH, "something was done");
    });
}
