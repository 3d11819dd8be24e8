//! A host with a few domains on the fake machine, for tests of events, time and grants.

use crate::domain::{Domain, Role, Settings};
use crate::guest_mem::LinearMemory;
use crate::host::{DomainRef, Host, testing};
use crate::hypercall::Caller;
use crate::p2m::{Entry, Kind as RamKind};
use crate::time::Clock;
use crate::vcpu::Vcpu;
use crate::x86::interrupts::InterruptFlag;
use machine::boxed::Boxed;
use machine::fake::FakeMachine;
use machine::frame::{self, Fill, Kind, Pin};
use machine::{DomId, Gfn, Mfn};

/// The highest port of the fixture's domains.
pub const MAX_PORT: u32 = 70;
/// System time starts at this time stamp; the counter runs at 1 GHz.
pub const BOOT: u64 = 0;
/// The wall clock at boot.
pub const WALL: u64 = 1_700_000_000;

fn settings(id: u16, vcpus: u32) -> Settings {
    Settings {
        role: if id == 0 { Role::Control } else { Role::Guest },
        max_vcpus: vcpus,
        max_port: MAX_PORT,
        max_grant_frames: 4,
        max_maptrack_frames: 2,
        max_grant_version: 1,
        flags: 0,
        emulation: 0,
        identity_mapped: false,
    }
}

/// Runs `work` with a host that has domains 0, 1, … with so many vCPUs each.
pub fn with_host<R>(domains: u16, vcpus: u32, work: impl FnOnce(&FakeMachine, &Host) -> R) -> R {
    let machine = FakeMachine::builder().pages(1024).cpus(3).build();
    machine.on_cpu(0, || {
        let host = testing::host(1, 64, Clock::new(BOOT, 1_000_000, WALL));
        for id in 0..domains {
            add_domain(&host, id, vcpus);
        }
        work(&machine, &host)
    })
}

/// Makes a domain with vCPUs.
pub fn add_domain(host: &Host, id: u16, vcpus: u32) {
    let id = DomId(id);
    let domain = Domain::try_new(id, settings(id.0, vcpus)).unwrap();
    let root = domain.p2m.root();
    domain.vcpus.call_once(|| (0..vcpus).map(|index| Vcpu::try_new(id, index, root).unwrap()).collect());
    let _numbers = host.domains.change.lock();
    assert!(host.domains.insert(Boxed::try_new(domain).unwrap()).is_ok());
}

/// A domain of the fixture.
pub fn domain(host: &Host, id: u16) -> DomainRef<'_> {
    host.domains.get(DomId(id)).unwrap()
}

/// Gives a domain a page of RAM at a guest frame.
pub fn add_page(domain: &Domain, gfn: u64) -> Mfn {
    let mfn = frame::allocate(0, Kind::Guest, domain.id, Fill::Zero).unwrap();
    let mut txn = domain.p2m.begin().unwrap();
    txn.set(Gfn::new(gfn), Entry::with_frame(RamKind::RamRw, 0, mfn)).unwrap();
    txn.finish();
    mfn
}

/// A pin of a domain's page, to play the guest.
pub fn pin(domain: &Domain, mfn: Mfn) -> Pin {
    Pin::take(mfn, domain.id).unwrap()
}

/// A vCPU of a domain as the caller of a hypercall, with interrupts on. Addresses are guest physical addresses.
pub fn caller<'a>(host: &'a Host, domain: &'a Domain, vcpu: u32) -> Caller<'a> {
    caller_with(host, domain, vcpu, InterruptFlag::Set)
}

/// As [`caller`], with interrupts on or off.
pub fn caller_with<'a>(host: &'a Host, domain: &'a Domain, vcpu: u32, interrupts: InterruptFlag) -> Caller<'a> {
    let vcpu = domain.vcpu(vcpu).unwrap();
    let memory = LinearMemory::unpaged(domain);
    Caller { host, domain, vcpu, memory, interrupts }
}
