//! What the control hypercalls ask of modules that are written elsewhere: one function per question.
//!
//! Each function here is one line once its owner's module is merged; the doc comment names the owner and the call. Until
//! then it says honestly that the thing is not there (`EOPNOTSUPP`, `None`), or does the part that the skeleton allows.

use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::Reply;
use crate::vcpu::Vcpu;
use core::sync::atomic::Ordering;
use machine::CpuId;
use public_abi::Errno;
use public_abi::cpu_policy::{CpuidLeaf, MsrEntry};
use public_abi::hvm_op::MemType;
use public_abi::hvm_params::CallbackVia;
use public_abi::hvm_save::SaveCode;
use public_abi::sysctl::CpuPolicyIndex;
use public_abi::virq::Virq;

// ---- time (event) ------------------------------------------------------------------------------------------------

/// Ticks of the time stamp counter in nanoseconds.
#[must_use]
pub fn nanoseconds(ticks: u64) -> u64 {
    let khz = u128::from(machine::cpu::timestamp_khz().max(1));
    u64::try_from(u128::from(ticks).saturating_mul(1_000_000) / khz).unwrap_or(u64::MAX)
}

/// System time: nanoseconds since the host's start. Owner event: `time::system_time()`.
#[must_use]
pub fn system_time() -> u64 {
    nanoseconds(machine::cpu::timestamp())
}

/// Sets the wall clock of the host: UTC at a system time. Owner event: `time::set_wall_clock`.
///
/// # Errors
/// `EOPNOTSUPP` until merged.
pub fn set_wall_clock(_host: &Host, _seconds: u64, _nanoseconds: u32, _system_time: u64) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Shows a domain its wall clock anew after `control.time_offset_seconds` changed. Owner event.
pub fn refresh_wall_clock(_host: &Host, _domain: &Domain) {}

// ---- events (event) ----------------------------------------------------------------------------------------------

/// Raises a global virtual interrupt in the domain that handles it. Owner event: `event::raise_global`.
pub fn raise_global(_host: &Host, _virq: Virq) {}

/// Where a domain sees its shared_info page. Owner event.
#[must_use]
pub fn shared_info_gfn(_domain: &Domain) -> Option<u64> {
    None
}

/// Sets the vector by which events reach one vCPU, and delivers what is pending. Owner event.
///
/// # Errors
/// `EOPNOTSUPP` until merged.
pub fn set_upcall_vector(_host: &Host, _domain: &Domain, _vcpu: &Vcpu, _vector: u8) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Sets how events reach a domain's vCPUs that have no vector of their own, and delivers what is pending. Owner event.
///
/// # Errors
/// `EOPNOTSUPP` until merged.
pub fn set_callback(_host: &Host, _domain: &Domain, _via: CallbackVia) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Prints the event channels of a domain (debug key `e`). Owner event.
pub fn print_events(domain: &Domain) {
    machine::log!(Info, "    {}: event channels cannot be listed yet", domain.id);
}

// ---- the steps of a domain's end ---------------------------------------------------------------------------------

/// Gives back grants that others gave. Owner grant: `domain.grants.relinquish(host, domain)`.
///
/// # Errors
/// `Stop::Restart` when there is more to do.
pub fn relinquish_grants(_host: &Host, _domain: &Domain) -> Reply {
    Ok(0)
}

/// Closes event channels. Owner event: `domain.events.relinquish(host, domain)`.
///
/// # Errors
/// `Stop::Restart` when there is more to do.
pub fn relinquish_events(_host: &Host, _domain: &Domain) -> Reply {
    Ok(0)
}

/// Frees memory. Owner mem: `domain.p2m.relinquish(host, domain)`.
///
/// # Errors
/// `Stop::Restart` when there is more to do.
pub fn relinquish_memory(_host: &Host, _domain: &Domain) -> Reply {
    Ok(0)
}

// ---- memory (mem) ------------------------------------------------------------------------------------------------

/// What a guest frame is, for HVMOP_get_mem_type. Owner mem: the p2m's look-up.
///
/// # Errors
/// `EOPNOTSUPP` until merged.
pub fn memory_type(_domain: &Domain, _gfn: u64) -> Result<MemType, Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Whether a guest frame is memory of the domain that a toolstack may save. Owner mem: the p2m's look-up.
///
/// # Errors
/// `EOPNOTSUPP` until merged.
pub fn is_saved_memory(_domain: &Domain, _gfn: u64) -> Result<bool, Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Replaces the content of a page of guest memory. Owner mem: pin, write, mark dirty.
///
/// # Errors
/// `EINVAL` if there is no memory, `EPERM` if it is read-only; `EOPNOTSUPP` until merged.
pub fn write_guest_page(_domain: &Domain, _gfn: u64, _content: &[u8; machine::PAGE_SIZE]) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Forgets all translations of a domain on all CPUs. Owner mem.
///
/// # Errors
/// `EOPNOTSUPP` until merged.
pub fn flush_translations(_host: &Host, _domain: &Domain) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

// ---- x86 ---------------------------------------------------------------------------------------------------------

/// Goes through the CPUID leaves and MSRs of one of the host's policies. Owner x86. Raw and host are read from hardware
/// in `sysctl::policy`.
///
/// # Errors
/// Those of `leaf` and `msr`; `EOPNOTSUPP` for a policy that does not exist.
pub fn system_policy(
    _host: &Host,
    _index: CpuPolicyIndex,
    _leaf: &mut dyn FnMut(CpuidLeaf) -> Result<(), Errno>,
    _msr: &mut dyn FnMut(MsrEntry) -> Result<(), Errno>,
) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Goes through the CPUID leaves and MSRs of a domain. Owner x86: `domain.x86.policy_leaves`.
///
/// # Errors
/// Those of `leaf` and `msr`; `EOPNOTSUPP` until merged.
pub fn domain_policy(
    _domain: &Domain,
    _leaf: &mut dyn FnMut(CpuidLeaf) -> Result<(), Errno>,
    _msr: &mut dyn FnMut(MsrEntry) -> Result<(), Errno>,
) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Why a policy was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyRefusal {
    /// The error.
    pub errno: Errno,
    /// The leaf and sub-leaf, if one is the reason.
    pub leaf: Option<(u32, u32)>,
    /// The MSR, if one is the reason.
    pub msr: Option<u32>,
}

/// Merges leaves and MSRs into a domain's policy: all or nothing. Owner x86: `domain.x86.apply_leaves`.
///
/// # Errors
/// [`PolicyRefusal`].
pub fn apply_policy(_domain: &Domain, _leaves: &[CpuidLeaf], _msrs: &[MsrEntry]) -> Result<(), PolicyRefusal> {
    Err(PolicyRefusal { errno: Errno::EOPNOTSUPP, leaf: None, msr: None })
}

/// Leaves that a policy has at the most (as Xen 4.17: CPUID_MAX_SERIALISED_LEAVES).
pub const MAX_LEAVES: u32 = 120;
/// MSRs that a policy has at the most.
pub const MAX_MSRS: u32 = 2;

/// Bytes that a record of this kind has at the most; 0 if a PVH guest has no such record. Owner x86: `x86::save`.
#[must_use]
pub fn record_room(_domain: &Domain, _code: SaveCode) -> usize {
    0
}

/// Writes the contents of a vCPU's record to the front of `out`, which has the room for it, and gives their length; `None`
/// if there is nothing to record. The vCPU is off its CPU. Owner x86: `x86::save`.
///
/// # Errors
/// `ENODATA` if the state cannot be had.
pub fn save_record(_domain: &Domain, _vcpu: &Vcpu, _code: SaveCode, _out: &mut [u8]) -> Result<Option<usize>, Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Checks and takes the contents of a vCPU's record. The vCPU is off its CPU. Owner x86: `x86::save`.
///
/// # Errors
/// `EINVAL` for bad contents.
pub fn load_record(_domain: &Domain, _vcpu: &Vcpu, _code: SaveCode, _contents: &[u8]) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Makes an NMI pending and sees that it is delivered. Owner x86.
///
/// # Errors
/// `EOPNOTSUPP` until merged.
pub fn inject_nmi(_host: &Host, _domain: &Domain, _vcpu: &Vcpu) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

/// Fills a page with the code that makes hypercalls. Owner x86, who fills the same page for MSR 0x40000000.
///
/// # Errors
/// `EOPNOTSUPP` until merged.
pub fn fill_hypercall_page(_page: &mut [u8; machine::PAGE_SIZE]) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
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
