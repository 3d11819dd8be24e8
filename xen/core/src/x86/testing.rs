//! A host with one domain on a fake machine, for the tests of this module.

use crate::domain::{Domain, Role, Settings};
use crate::guest_mem::PhysicalMemory;
use crate::host::Host;
use crate::memory;
use crate::vcpu::Vcpu;
use crate::x86::walk::tests::long_mode;
use core::sync::atomic::Ordering;
use machine::codec::registers::cr4;
use machine::fake::FakeMachine;
use machine::vcpu::Vcpu as Hardware;
use machine::{DomId, Gfn, Gpa};
use std::vec::Vec;

/// What a domain of the test has.
pub fn settings(role: Role, max_vcpus: u32) -> Settings {
    Settings {
        role,
        max_vcpus,
        max_port: 1023,
        max_grant_frames: 4,
        max_maptrack_frames: 4,
        max_grant_version: 1,
        flags: 0,
        emulation: 1,
        identity_mapped: false,
    }
}

/// Runs `work` on CPU 0 of a new machine, with a host and a domain of this role that has this many vCPUs.
pub fn with_domain(role: Role, vcpus: u32, work: impl FnOnce(&FakeMachine, &Host, &Domain)) {
    let machine = FakeMachine::builder().build();
    machine.on_cpu(0, || {
        let host = crate::host::testing::host(1, 64, crate::time::Clock::start());
        let domain = Domain::try_new(DomId(3), settings(role, vcpus)).unwrap();
        let root = domain.p2m.root();
        domain
            .vcpus
            .call_once(|| (0..vcpus).map(|index| Vcpu::try_new(domain.id, index, root).unwrap()).collect::<Vec<_>>());
        domain.accounting.max_pages.store(256, Ordering::Release);
        work(&machine, &host, &domain);
    });
}

/// Where guests of [`with_guest`] have their code.
pub const CODE: u64 = 0x1_0000;
/// Pages of RAM from 0 on.
const PAGES: u64 = 32;

/// As [`with_domain`] with one vCPU that is in 64-bit mode with `code` to execute at [`CODE`]. Linear addresses are guest
/// physical ones: 32 pages of RAM from 0 on, and 4 MiB of devices from 0xfec00000 on.
pub fn with_guest(role: Role, code: &[u8], work: impl FnOnce(&FakeMachine, &Host, &Domain, &Vcpu, &mut Hardware)) {
    with_domain(role, 1, |machine, host, domain| {
        for gfn in 0..PAGES {
            memory::populate(host, domain, Gfn::new(gfn), 0).unwrap();
        }
        let entry = |at: u64, bits: u64| write(domain, at, &bits.to_le_bytes());
        entry(0x1000, 0x2007);
        entry(0x2000, 0x3007);
        entry(0x2000 + 8 * 3, 0x5007);
        entry(0x3000, 0x4007);
        for gfn in 0..PAGES {
            entry(0x4000 + 8 * gfn, gfn << 12 | 0x63);
        }
        entry(0x5000 + 8 * 0x1f6, 0xfec0_0083);
        entry(0x5000 + 8 * 0x1f7, 0xfee0_0083);
        write(domain, CODE, code);
        let vcpu = domain.vcpu(0).unwrap();
        vcpu.clear_wait(crate::vcpu::Wait::DOWN);
        vcpu.is_initialised.store(true, Ordering::Release);
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        let (long, state) = (long_mode(0x1000), hardware.guest_mut());
        (state.cr0, state.cr3, state.cr4) = (long.cr0, long.cr3, cr4::PAE);
        state.set_efer(long.efer());
        (state.cs, state.rip) = (long.cs, CODE);
        work(machine, host, domain, vcpu, &mut hardware);
    });
}

/// Writes a domain's memory.
pub fn write(domain: &Domain, address: u64, bytes: &[u8]) {
    PhysicalMemory::new(domain).write_bytes(Gpa::new(address), bytes).unwrap();
}

/// Reads a domain's memory.
pub fn read<const N: usize>(domain: &Domain, address: u64) -> [u8; N] {
    let mut bytes = [0; N];
    PhysicalMemory::new(domain).read_bytes(Gpa::new(address), &mut bytes).unwrap();
    bytes
}
