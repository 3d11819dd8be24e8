//! What the toolstack is told about a domain and its vCPUs.
//!
//! Before: domctl getdomaininfo and getvcpuinfo, sysctl getdomaininfolist, and the debug keys. Nothing here changes anything.

use super::Domain;
use super::lifecycle::Stage;
use crate::host::Host;
use crate::hypercall::access::is_xenstore;
use crate::time;
use crate::vcpu::{Vcpu, Wait};
use core::sync::atomic::Ordering;
use machine::Gfn;
use public_abi::domctl_domain::{
    ArchDomainConfig, CreateDomainFlags, DomainInfoFlags, GetDomainInfo, INVALID_MAX_VCPU_ID,
};
use public_abi::domctl_vcpu::GetVcpuInfo;

/// Bits of guest physical addresses when CPUID does not tell: what four levels of page tables can address.
const MAX_ADDRESS_BITS: u32 = 48;

/// Everything about a domain that `xl list` and xenstored want (public/domctl.h, getdomaininfo).
#[must_use]
pub fn domain(host: &Host, domain: &Domain) -> GetDomainInfo {
    let mut info = GetDomainInfo { domain: domain.id.0, max_vcpu_id: INVALID_MAX_VCPU_ID, ..GetDomainInfo::default() };
    let (mut blocked, mut running) = (true, false);
    for vcpu in domain.vcpus() {
        info.max_vcpu_id = vcpu.index;
        info.cpu_time = info.cpu_time.saturating_add(cpu_time(host, vcpu));
        if vcpu.wait().contains(Wait::DOWN) {
            continue;
        }
        info.nr_online_vcpus = info.nr_online_vcpus.saturating_add(1);
        blocked &= is_blocked(vcpu);
        running |= vcpu.sched.is_running();
    }
    let mut flags = lifecycle_flags(domain);
    flags.set(DomainInfoFlags::BLOCKED, info.nr_online_vcpus != 0 && blocked);
    flags.set(DomainInfoFlags::RUNNING, running);
    info.tot_pages = domain.accounting.pages();
    info.max_pages = domain.accounting.max_pages.load(Ordering::Relaxed);
    info.shared_info_frame = domain.events.shared_info_gfn().map_or(u64::MAX, Gfn::number);
    info.gpaddr_bits = address_bits();
    info.arch_config = ArchDomainConfig { emulation_flags: domain.settings.emulation, misc_flags: 0 };
    info.outstanding_pages = domain.accounting.claimed.load(Ordering::Relaxed);
    info.handle = domain.control.lock().handle;
    info.flags = flags.bits() | shutdown_bits(domain);
    info
}

fn lifecycle_flags(domain: &Domain) -> DomainInfoFlags {
    let created = CreateDomainFlags::from_bits_retain(domain.settings.flags);
    let mut flags = DomainInfoFlags::empty();
    flags.set(DomainInfoFlags::DYING, domain.lifecycle.stage() == Stage::Dead);
    flags.set(DomainInfoFlags::SHUTDOWN, domain.lifecycle.shutdown_reason().is_some());
    flags.set(DomainInfoFlags::PAUSED, domain.lifecycle.is_paused_by_toolstack());
    flags.set(DomainInfoFlags::XS_DOMAIN, is_xenstore(domain));
    flags.set(DomainInfoFlags::HVM_GUEST, created.contains(CreateDomainFlags::HVM));
    flags.set(DomainInfoFlags::HAP, created.contains(CreateDomainFlags::HAP));
    flags
}

/// The reason in the upper half; all ones while there is none, as Xen has it.
fn shutdown_bits(domain: &Domain) -> u32 {
    domain.lifecycle.shutdown_reason().map_or(u32::MAX, u32::from) << DomainInfoFlags::SHUTDOWN_SHIFT
}

/// Everything about a vCPU that `xl vcpu-list` wants (public/domctl.h, getvcpuinfo).
#[must_use]
pub fn vcpu(host: &Host, vcpu: &Vcpu) -> GetVcpuInfo {
    GetVcpuInfo {
        vcpu: vcpu.index,
        online: u8::from(!vcpu.wait().contains(Wait::DOWN)),
        blocked: u8::from(is_blocked(vcpu)),
        running: u8::from(vcpu.sched.is_running()),
        cpu_time: cpu_time(host, vcpu),
        cpu: u32::from(vcpu.sched.cpu().0),
        ..GetVcpuInfo::default()
    }
}

/// Whether a vCPU waits for an event; waiting for the next period of a cap is no such thing. Xen counts SCHEDOP_poll as blocking, too.
fn is_blocked(vcpu: &Vcpu) -> bool {
    vcpu.wait().intersects(Wait::BLOCKED | Wait::POLLING)
}

/// Nanoseconds that a vCPU has run, up to now.
fn cpu_time(host: &Host, vcpu: &Vcpu) -> u64 {
    let [running, ..] = time::runstate(host, vcpu).time;
    running
}

/// Bits of guest physical addresses: CPUID 80000008 EAX bits 16-23, or if those are 0, bits 0-7.
fn address_bits() -> u8 {
    let [eax, ..] = machine::platform::cpuid(0x8000_0008, 0);
    let [host, _, guest, _] = eax.to_le_bytes();
    let bits = if guest == 0 { host } else { guest };
    u8::try_from(u32::from(bits).min(MAX_ADDRESS_BITS)).unwrap_or(bits)
}
