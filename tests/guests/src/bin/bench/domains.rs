//! Domains made and destroyed, by the control domain. The arguments are those of a PVH guest with one vCPU.

use guests::{Test, call, clock};
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domctl_domain::{ArchDomainConfig, CreateDomain, CreateDomainFlags, EmulationFlags, MaxMem, MaxVcpus};
use public_abi::memory::{MemoryOp, MemoryReservation};
use public_abi::payload::Payload;
use public_abi::sysctl::{PhysInfo, SYSCTL_INTERFACE_VERSION, Sysctl, SysctlOp};
use public_abi::{GuestPtr, Hypercall};

use crate::memory::decrease_and_populate;
use crate::row::{figure, measure, measure_between};

/// The guest whose memory is counted: its size, as extents of 2 MiB.
const GUEST_MIB: u64 = 128;
const LARGE_EXTENT: u32 = 9;
const EXTENTS: usize = GUEST_MIB as usize / 2;

pub(crate) fn run(test: &mut Test) {
    measure_between(test, "createdomain", || Some(()), |()| create(), destroy);
    measure_between(test, "max-vcpus", create, |domain| vcpus(domain).then_some(domain), destroy);
    measure_between(test, "destroydomain", with_vcpu, |domain| destroy(domain).then_some(()), |()| true);
    measure(test, "pvh-create-vcpu-destroy", || with_vcpu().is_some_and(destroy));
    others_memory(test);
    if free_pages().is_some() {
        pages(test);
    }
}

/// Memory of another domain, as a toolstack changes it.
fn others_memory(test: &mut Test) {
    /// A page in the middle of the domain's first 2 MiB, which are there in pages.
    const FRAME: u64 = 0x10;
    let made = create().filter(|domain| {
        let maximum = MaxMem { max_memkb: GUEST_MIB << 10 };
        domctl(DomctlOp::MaxMem, *domain, &maximum).is_some() && populate_pages(*domain, FRAME)
    });
    test.holds("a domain with some pages", made.is_some());
    if let Some(domain) = made {
        measure(test, "foreign-decrease-populate", || decrease_and_populate(domain, FRAME));
        test.holds("destroy", destroy(domain));
    }
}

/// Gives a domain single pages, from 0 up to `last`.
fn populate_pages(domain: u16, last: u64) -> bool {
    (0..=last).all(|frame| {
        let mut frames = [frame];
        let mut request = MemoryReservation {
            extent_start: GuestPtr::from_address(call::address(&mut frames)),
            nr_extents: 1,
            domid: domain,
            ..Default::default()
        };
        call::memory(MemoryOp::PopulatePhysmap, &mut request) == 1
    })
}

fn domctl<T: Payload<Domctl>>(operation: DomctlOp, domain: u16, parameters: &T) -> Option<Domctl> {
    let mut request = Domctl::with(operation, domain, parameters).ok()?;
    (call::raw(Hypercall::Domctl, [call::address(&mut request), 0, 0, 0, 0]) == 0).then_some(request)
}

fn create() -> Option<u16> {
    let parameters = CreateDomain {
        flags: (CreateDomainFlags::HVM | CreateDomainFlags::HAP).bits(),
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 1,
        arch: ArchDomainConfig { emulation_flags: EmulationFlags::LAPIC.bits(), ..Default::default() },
        ..Default::default()
    };
    domctl(DomctlOp::CreateDomain, 0, &parameters).map(|request| request.domain)
}

fn vcpus(domain: u16) -> bool {
    domctl(DomctlOp::MaxVcpus, domain, &MaxVcpus { max: 1 }).is_some()
}

fn with_vcpu() -> Option<u16> {
    create().filter(|domain| vcpus(*domain))
}

fn destroy(domain: u16) -> bool {
    let mut request = Domctl::new(DomctlOp::DestroyDomain, domain);
    call::raw(Hypercall::Domctl, [call::address(&mut request), 0, 0, 0, 0]) == 0
}

fn free_pages() -> Option<u64> {
    let mut request =
        Sysctl { cmd: SysctlOp::PhysInfo.number(), interface_version: SYSCTL_INTERFACE_VERSION, ..Default::default() };
    if call::raw(Hypercall::Sysctl, [call::address(&mut request), 0, 0, 0, 0]) != 0 {
        return None;
    }
    request.get::<PhysInfo>().ok().map(|info| info.free_pages)
}

/// Free pages, once all that earlier domains had are among them: Xen gives some up a while after their end.
fn settled_pages() -> Option<u64> {
    /// Milliseconds for which nothing must come any more, and how often that is tried at the most.
    const QUIET: u64 = 20;
    const TRIES: u32 = 50;
    let mut before = free_pages()?;
    for _ in 0..TRIES {
        clock::delay(QUIET);
        let now = free_pages()?;
        if now == before {
            return Some(now);
        }
        before = now;
    }
    None
}

/// Counts what a domain takes beside its own memory.
fn pages(test: &mut Test) {
    let used = |before: u64| free_pages().map(|now| before.saturating_sub(now));
    let counted = settled_pages().and_then(|before| {
        let domain = with_vcpu()?;
        let empty = used(before);
        let full = populate(domain).then(|| used(before)).flatten();
        destroy(domain).then_some((empty?, full?))
    });
    test.holds("pages of a domain", counted.is_some());
    if let Some((empty, full)) = counted {
        figure("pages-domain-empty", empty);
        figure("pages-domain-populated", full.saturating_sub(GUEST_MIB << 8));
    }
}

/// Fills a domain from address 0 on.
fn populate(domain: u16) -> bool {
    let mut frames = [0_u64; EXTENTS];
    for (index, frame) in (0..).zip(&mut frames) {
        *frame = index << LARGE_EXTENT;
    }
    let mut request = MemoryReservation {
        extent_start: GuestPtr::from_address(call::address(&mut frames)),
        nr_extents: EXTENTS as u64,
        extent_order: LARGE_EXTENT,
        domid: domain,
        ..Default::default()
    };
    domctl(DomctlOp::MaxMem, domain, &MaxMem { max_memkb: GUEST_MIB << 10 }).is_some()
        && call::memory(MemoryOp::PopulatePhysmap, &mut request) == EXTENTS as i64
}
