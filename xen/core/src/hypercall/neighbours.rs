//! What the control hypercalls ask of modules that are written elsewhere: one function per question.
//!
//! Each function here is one line once its owner's module is merged; the doc comment names the owner and the call. Until
//! then it says honestly that the thing is not there (`EOPNOTSUPP`, `None`), or does the part that the skeleton allows.

use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::Reply;
use crate::p2m::Kind;
use crate::sched;
use crate::vcpu::Vcpu;
use crate::x86::msr::hypercall_page;
use crate::x86::vlapic::ipi;
use core::sync::atomic::Ordering;
use machine::{CpuId, Gfn};
use public_abi::Errno;
use public_abi::domctl_domain::{PFINFO_BROKEN, PFINFO_XTAB};
use public_abi::hvm_op::MemType;

// ---- time --------------------------------------------------------------------------------------------------------

/// Ticks of the time stamp counter in nanoseconds.
#[must_use]
pub fn nanoseconds(ticks: u64) -> u64 {
    let khz = u128::from(machine::cpu::timestamp_khz().max(1));
    u64::try_from(u128::from(ticks).saturating_mul(1_000_000) / khz).unwrap_or(u64::MAX)
}

// ---- events ------------------------------------------------------------------------------------------------------

/// Where a domain sees its shared_info page. Owner mem: `memory::map_shared` could record it with `frame::set_gfn`; PV tools
/// want it, nobody else.
#[must_use]
pub fn shared_info_gfn(_domain: &Domain) -> Option<u64> {
    None
}

// ---- the steps of a domain's end ---------------------------------------------------------------------------------

/// Gives back grants that others gave.
///
/// # Errors
/// `Stop::Restart` when there is more to do.
pub fn relinquish_grants(host: &Host, domain: &Domain) -> Reply {
    crate::grant::relinquish(host, domain)?;
    Ok(0)
}

/// Closes event channels.
///
/// # Errors
/// `Stop::Restart` when there is more to do.
pub fn relinquish_events(host: &Host, domain: &Domain) -> Reply {
    crate::event::channel::relinquish(host, domain)?;
    Ok(0)
}

/// Frees memory.
///
/// # Errors
/// `Stop::Restart` when there is more to do.
pub fn relinquish_memory(host: &Host, domain: &Domain) -> Reply {
    crate::memory::relinquish(host, domain)
}

// ---- memory ------------------------------------------------------------------------------------------------------

/// What a guest frame is, for HVMOP_get_mem_type (arch/x86/hvm/hvm.c of 4.17 has the same classes).
#[must_use]
pub fn memory_type(domain: &Domain, gfn: u64) -> MemType {
    match domain.p2m.lookup(Gfn::new(gfn)).kind {
        Kind::RamRw
        | Kind::PagingOut
        | Kind::Paged
        | Kind::PagingIn
        | Kind::PopulateOnDemand
        | Kind::GrantRw
        | Kind::SharedPage => MemType::RamRw,
        Kind::RamLogDirty | Kind::RamRo | Kind::CopyOnWrite | Kind::GrantRo => MemType::RamRo,
        _ => MemType::MmioDm,
    }
}

/// What a toolstack that saves a domain does with a frame: 0 to save it, or one of `PFINFO_*`.
#[must_use]
pub fn frame_type(domain: &Domain, gfn: u64) -> u32 {
    match domain.p2m.lookup(Gfn::new(gfn)).kind {
        Kind::Broken => PFINFO_BROKEN,
        kind if kind.is_own_ram() => 0,
        _ => PFINFO_XTAB,
    }
}

/// Fills a frame with the code that makes hypercalls.
///
/// # Errors
/// `EINVAL` if the frame is no RAM, `EPERM` if it cannot be written.
pub fn write_hypercall_page(domain: &Domain, gfn: u64) -> Result<(), Errno> {
    let kind = domain.p2m.lookup(Gfn::new(gfn)).kind;
    if !kind.is_readable_ram() {
        return Err(Errno::EINVAL);
    }
    let address = gfn.checked_mul(machine::PAGE_SIZE_U64).ok_or(Errno::EINVAL)?;
    hypercall_page::install(domain, address).map_err(|_| Errno::EPERM)
}

/// Forgets all translations of a domain on all CPUs.
pub fn flush_translations(domain: &Domain) {
    domain.p2m.flush_all();
}

// ---- x86 ---------------------------------------------------------------------------------------------------------

/// Makes an NMI pending and sees that it is delivered.
pub fn inject_nmi(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    ipi::send_nmi(host, domain, vcpu);
}

/// The APIC identifier of a CPU.
#[must_use]
pub fn apic_id(host: &Host, cpu: CpuId) -> u32 {
    host.cpus.get(cpu.index()).map_or(0, |cpu| cpu.apic_id)
}

// ---- scheduler ---------------------------------------------------------------------------------------------------

/// Makes room in all schedules for the vCPUs of a new domain.
///
/// # Errors
/// `ENOMEM`.
pub fn reserve_schedule(host: &Host, vcpus: usize) -> Result<(), Errno> {
    sched::reserve(host, vcpus).map_err(|_| Errno::ENOMEM)
}

/// Gives that room back.
pub fn release_schedule(host: &Host, vcpus: usize) {
    sched::release(host, vcpus);
}

/// Queues what vCPUs of a domain want to run, after a pause has ended.
pub fn resume(host: &Host, domain: &Domain) {
    sched::resume_domain(host, domain);
}

/// Whether a vCPU is on a CPU now.
#[must_use]
pub fn is_running(vcpu: &Vcpu) -> bool {
    vcpu.sched.place() == sched::Place::Running
}

/// Waits until no CPU runs a vCPU of a stopped domain.
pub fn wait_until_off(_host: &Host, domain: &Domain) {
    sched::wait_until_off(domain);
}

/// The CPU that a vCPU is or was on.
#[must_use]
pub fn cpu_of(vcpu: &Vcpu) -> u16 {
    vcpu.sched.cpu().0
}

/// Ticks that a vCPU has run.
#[must_use]
pub fn run_time(vcpu: &Vcpu) -> u64 {
    vcpu.sched.run_time()
}

/// Ticks that a CPU has idled.
#[must_use]
pub fn idle_time(host: &Host, cpu: usize) -> u64 {
    host.cpus.get(cpu).map_or(0, |cpu| cpu.idle_time.load(Ordering::Acquire))
}

/// Where a vCPU may run and where it would rather run.
#[must_use]
pub fn affinity(vcpu: &Vcpu) -> (u64, u64) {
    (vcpu.sched.affinity(), vcpu.sched.soft_affinity())
}

/// Sets where a vCPU may run, and sees that it moves.
///
/// # Errors
/// `EBUSY` while it is bound to one CPU (SCHEDOP_pin_override).
pub fn set_hard_affinity(host: &Host, vcpu: &Vcpu, cpus: u64) -> Result<(), Errno> {
    vcpu.sched.set_affinity(cpus).map_err(|sched::Overridden| Errno::EBUSY)?;
    host.request_switch(vcpu.sched.cpu());
    sched::kick(host, vcpu);
    Ok(())
}

/// Sets where a vCPU would rather run.
pub fn set_soft_affinity(vcpu: &Vcpu, cpus: u64) {
    vcpu.sched.set_soft_affinity(cpus);
}

/// Sets the share of a vCPU against others.
pub fn set_weight(vcpu: &Vcpu, weight: u16) {
    vcpu.sched.set_weight(weight);
}
