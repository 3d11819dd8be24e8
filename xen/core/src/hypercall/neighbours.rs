//! What the control hypercalls ask of modules that are written elsewhere: one function per question.
//!
//! Each function here is one line once its owner's module is merged; the doc comment names the owner and the call. Until
//! then it says honestly that the thing is not there (`EOPNOTSUPP`, `None`), or does the part that the skeleton allows.

use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::Reply;
use crate::p2m::Kind;
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

/// The APIC identifier of a CPU. Owner lead: `host::Cpu` should note `machine::platform::apic_id()` as each CPU starts.
#[must_use]
pub fn apic_id(_host: &Host, cpu: CpuId) -> u32 {
    if cpu == machine::cpu::current() { machine::platform::apic_id() } else { u32::from(cpu.0) }
}

// ---- scheduler (lead) --------------------------------------------------------------------------------------------

/// Makes room in all schedules for the vCPUs of a new domain. Owner lead: `sched::reserve`.
///
/// # Errors
/// `ENOMEM`.
pub fn reserve_schedule(_host: &Host, _vcpus: usize) -> Result<(), Errno> {
    Ok(())
}

/// Gives that room back. Owner lead: `sched::release`.
pub fn release_schedule(_host: &Host, _vcpus: usize) {}

/// Queues what vCPUs of a domain want to run, after a pause has ended. Owner lead: `sched::resume_domain`.
pub fn resume(_host: &Host, _domain: &Domain) {}

/// Whether a vCPU is on a CPU now. Owner lead: `vcpu.sched.place()`.
#[must_use]
pub fn is_running(vcpu: &Vcpu) -> bool {
    vcpu.sched.queued.load(Ordering::Acquire) != 0
}

/// Waits until no CPU runs a vCPU of a stopped domain. Owner lead: `sched::wait_until_off`.
pub fn wait_until_off(host: &Host, domain: &Domain) {
    for vcpu in domain.vcpus() {
        while is_running(vcpu) {
            crate::sched::kick(host, vcpu);
            machine::cpu::relax();
        }
    }
}

/// The CPU that a vCPU is or was on. Owner lead: `vcpu.sched.cpu()`.
#[must_use]
pub fn cpu_of(vcpu: &Vcpu) -> u16 {
    vcpu.sched.cpu.load(Ordering::Acquire)
}

/// Ticks that a vCPU has run. Owner lead: `vcpu.sched.run_time()`.
#[must_use]
pub fn run_time(vcpu: &Vcpu) -> u64 {
    vcpu.sched.run_time.load(Ordering::Acquire)
}

/// Ticks that a CPU has idled. Owner lead: `host.cpus[n].idle_time`.
#[must_use]
pub fn idle_time(_host: &Host, _cpu: usize) -> u64 {
    0
}

/// Where a vCPU may run and where it would rather run. Owner lead: `affinity`, `soft_affinity`.
#[must_use]
pub fn affinity(vcpu: &Vcpu) -> (u64, u64) {
    (vcpu.sched.affinity.load(Ordering::Acquire), u64::MAX)
}

/// Sets where a vCPU may run, and sees that it moves. Owner lead: `set_affinity`.
pub fn set_hard_affinity(host: &Host, vcpu: &Vcpu, cpus: u64) {
    vcpu.sched.affinity.store(cpus, Ordering::Release);
    crate::sched::kick(host, vcpu);
}

/// Sets where a vCPU would rather run. Owner lead: `set_soft_affinity`.
pub fn set_soft_affinity(_vcpu: &Vcpu, _cpus: u64) {}

/// Sets the share of a vCPU against others. Owner lead: `set_weight`.
pub fn set_weight(_vcpu: &Vcpu, _weight: u16) {}

/// What tests do to others' state.
#[cfg(test)]
pub mod tests {
    use super::Vcpu;
    use core::sync::atomic::Ordering;

    /// Makes a vCPU have run for so many ticks.
    pub fn set_run_time(vcpu: &Vcpu, ticks: u64) {
        vcpu.sched.run_time.store(ticks, Ordering::Release);
    }
}
