//! What the control hypercalls ask of modules that are written elsewhere: one function per question.
//!
//! Each function here is one line once its owner's module is merged; the doc comment names the owner and the call. Until
//! then it says honestly that the thing is not there (`EOPNOTSUPP`, `None`), or does the part that the skeleton allows.

use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::Reply;
use crate::vcpu::Vcpu;
use crate::{event, memory, sched, time};
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

/// System time: nanoseconds since the host's start.
#[must_use]
pub fn system_time(host: &Host) -> u64 {
    host.clock.now()
}

/// Sets the wall clock of the host: UTC at a system time.
pub fn set_wall_clock(host: &Host, seconds: u64, nanoseconds: u32, system_time: u64) {
    time::set_wall_clock(host, seconds, u64::from(nanoseconds), system_time);
}

/// Shows a domain its wall clock anew after `control.time_offset_seconds` changed.
pub fn refresh_wall_clock(host: &Host, domain: &Domain) {
    time::update_wall_clock(host, domain);
}

// ---- events (event) ----------------------------------------------------------------------------------------------

/// Raises a global virtual interrupt in the domain that handles it.
pub fn raise_global(host: &Host, virq: Virq) {
    event::send_global_virq(host, virq);
}

/// Where a domain sees its shared_info page. Owner event.
#[must_use]
pub fn shared_info_gfn(_domain: &Domain) -> Option<u64> {
    None
}

/// Sets the vector by which events reach one vCPU, and delivers what is pending.
///
/// # Errors
/// Those of `event::upcall::set_vector`.
pub fn set_upcall_vector(host: &Host, domain: &Domain, vcpu: &Vcpu, vector: u8) -> Result<(), Errno> {
    event::upcall::set_vector(host, domain, vcpu.index, vector)
}

/// Sets how events reach a domain's vCPUs that have no vector of their own, and delivers what is pending. Owner event.
///
/// # Errors
/// None today.
pub fn set_callback(host: &Host, domain: &Domain, via: CallbackVia) -> Result<(), Errno> {
    event::upcall::set_callback(host, domain, via.to_value());
    Ok(())
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
pub fn relinquish_grants(host: &Host, domain: &Domain) -> Reply {
    crate::grant::relinquish(host, domain).map(|()| 0)
}

/// Closes event channels.
///
/// # Errors
/// `Stop::Restart` when there is more to do.
pub fn relinquish_events(host: &Host, domain: &Domain) -> Reply {
    event::channel::relinquish(host, domain).map(|()| 0)
}

/// Frees memory.
///
/// # Errors
/// `Stop::Restart` when there is more to do.
pub fn relinquish_memory(host: &Host, domain: &Domain) -> Reply {
    memory::relinquish(host, domain)
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
/// None today.
pub fn flush_translations(_host: &Host, domain: &Domain) -> Result<(), Errno> {
    domain.p2m.flush_all();
    Ok(())
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
/// None today.
pub fn inject_nmi(host: &Host, domain: &Domain, vcpu: &Vcpu) -> Result<(), Errno> {
    crate::x86::vlapic::ipi::send_nmi(host, domain, vcpu);
    Ok(())
}

/// Fills a page with the code that makes hypercalls. Owner x86, who fills the same page for MSR 0x40000000.
///
/// # Errors
/// None today.
pub fn fill_hypercall_page(page: &mut [u8; machine::PAGE_SIZE]) -> Result<(), Errno> {
    *page = crate::x86::msr::hypercall_page::content();
    Ok(())
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
pub fn set_hard_affinity(host: &Host, vcpu: &Vcpu, cpus: u64) {
    vcpu.sched.set_affinity(cpus);
    host.request_switch(vcpu.sched.cpu());
    sched::kick(host, vcpu);
}

/// Sets where a vCPU would rather run.
pub fn set_soft_affinity(vcpu: &Vcpu, cpus: u64) {
    vcpu.sched.set_soft_affinity(cpus);
}

/// Sets the share of a vCPU against others.
pub fn set_weight(vcpu: &Vcpu, weight: u16) {
    vcpu.sched.set_weight(weight);
}
