//! Model-specific registers as a guest sees them: one list of what there is; everything else is #GP, as on a processor that
//! does not have it. (Xen 4.17's list for AMD processors, `msr_relaxed` off; AMD APM volume 2, appendix A.)
//!
//! Before this: `exits`. FS and GS bases, SYSCALL and SYSENTER registers are exchanged by hardware and never come here.

pub mod hypercall_page;
pub mod mtrr;

#[cfg(test)]
mod tests;

use super::control::{self, Refused};
use super::cpuid::CpuPolicy;
use super::vlapic::registers as lapic;
use crate::domain::Domain;
use crate::host::Host;
use crate::vcpu::Vcpu;
use machine::codec::registers::msr;
use machine::vcpu::Vcpu as Hardware;
use mtrr::Mtrr;
use public_abi::cpu_features::CpuFeature;
use public_abi::x86::cpuid::MSR_HYPERCALL_PAGE;

/// Registers that are only stored, for one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredMsrs {
    /// Memory types.
    pub mtrr: Mtrr,
    /// `MCG_STATUS`.
    pub machine_check_status: u64,
}

impl StoredMsrs {
    /// As after power-on.
    pub const RESET: Self = Self { mtrr: Mtrr::RESET, machine_check_status: 0 };
}

/// Numbers that `machine` has no use for.
mod number {
    pub(super) const P5_MACHINE_CHECK_TYPE: u32 = 0x1;
    pub(super) const EBC_FREQUENCY_ID: u32 = 0x2c;
    pub(super) const PATCH_LEVEL: u32 = 0x8b;
    pub(super) const PLATFORM_INFO: u32 = 0xce;
    pub(super) const MISC_FEATURES: u32 = 0x140;
    pub(super) const MCG_CTL: u32 = 0x17b;
    pub(super) const LAST_BRANCH_FROM: u32 = 0x1db;
    pub(super) const LAST_INTERRUPT_TO: u32 = 0x1de;
    pub(super) const MC_CTL2_FIRST: u32 = 0x280;
    pub(super) const MC_CTL2_LAST: u32 = 0x29f;
    pub(super) const MC_FIRST: u32 = 0x400;
    pub(super) const MC_LAST: u32 = 0x47f;
    pub(super) const K7_PERFORMANCE_FIRST: u32 = 0xc001_0000;
    pub(super) const K7_PERFORMANCE_LAST: u32 = 0xc001_0007;
    pub(super) const SYSCFG: u32 = 0xc001_0010;
    pub(super) const HWCR: u32 = 0xc001_0015;
    pub(super) const TOP_MEM: u32 = 0xc001_001a;
    pub(super) const TOP_MEM2: u32 = 0xc001_001d;
    pub(super) const NB_CFG: u32 = 0xc001_001f;
    pub(super) const PATCH_LOADER: u32 = 0xc001_0020;
    pub(super) const INTERRUPT_PENDING: u32 = 0xc001_0055;
    pub(super) const F15_PERFORMANCE_FIRST: u32 = 0xc001_0200;
    pub(super) const F15_PERFORMANCE_LAST: u32 = 0xc001_020b;
    pub(super) const DE_CFG: u32 = 0xc001_1029;
    pub(super) const EX_CFG: u32 = 0xc001_102c;
    pub(super) const MC4_MISC_FIRST: u32 = 0xc000_0408;
    pub(super) const MC4_MISC_LAST: u32 = 0xc000_040a;
}
use number as n;

/// `MCG_CAP`: two banks, nothing else.
pub const MACHINE_CHECK_CAPABILITIES: u64 = 2;
/// `DE_CFG`: LFENCE serialises.
const LFENCE_SERIALISES: u64 = 1 << 1;
/// `MC4_MISC`: the threshold registers are the firmware's.
const THRESHOLD_LOCKED: u64 = 1 << 61;

/// Reads a register.
///
/// # Errors
/// [`Refused`].
pub fn read(domain: &Domain, vcpu: &Vcpu, hardware: &Hardware, number: u32) -> Result<u64, Refused> {
    match number {
        msr::EFER => Ok(hardware.guest().efer()),
        msr::PAT => Ok(hardware.guest().g_pat),
        msr::TSC => Ok(machine::cpu::timestamp().wrapping_add(hardware.control().tsc_offset)),
        msr::APIC_BASE => Ok(vcpu.x86.lapic.base()),
        msr::X2APIC_FIRST..=msr::X2APIC_LAST => lapic::read_msr(vcpu, number),
        msr::TSC_AUX if has_tsc_aux(&domain.x86.policy()) => Ok(hardware.lazy().tsc_aux),
        msr::DEBUGCTL => Ok(hardware.guest().debugctl),
        msr::MCG_CAP => Ok(MACHINE_CHECK_CAPABILITIES),
        msr::MCG_STATUS => Ok(vcpu.x86.stored.lock().machine_check_status),
        _ if Mtrr::owns(number) => vcpu.x86.stored.lock().mtrr.read(number),
        _ => read_constant(number),
    }
}

/// Registers that always read the same: what they belong to is not there, or not the guest's.
fn read_constant(number: u32) -> Result<u64, Refused> {
    match number {
        n::PLATFORM_INFO
        | n::MISC_FEATURES
        | n::PATCH_LEVEL
        | n::EBC_FREQUENCY_ID
        | 0..=n::P5_MACHINE_CHECK_TYPE
        | n::MCG_CTL
        | n::LAST_BRANCH_FROM..=n::LAST_INTERRUPT_TO
        | n::MC_CTL2_FIRST..=n::MC_CTL2_LAST
        | n::K7_PERFORMANCE_FIRST..=n::K7_PERFORMANCE_LAST
        | n::F15_PERFORMANCE_FIRST..=n::F15_PERFORMANCE_LAST
        | n::SYSCFG
        | n::HWCR
        | n::TOP_MEM
        | n::TOP_MEM2
        | n::NB_CFG
        | n::INTERRUPT_PENDING
        | n::EX_CFG
        | msr::VM_CR
        | msr::VM_HSAVE_PA
        | MSR_HYPERCALL_PAGE => Ok(0),
        // A bank's four registers: control reads all ones, status, address and miscellaneous read zero.
        n::MC_FIRST..=n::MC_LAST => Ok(if number & 3 == 0 { u64::MAX } else { 0 }),
        n::MC4_MISC_FIRST..=n::MC4_MISC_LAST => Ok(THRESHOLD_LOCKED),
        n::DE_CFG => Ok(LFENCE_SERIALISES),
        _ => Err(Refused),
    }
}

/// Writes a register.
///
/// # Errors
/// [`Refused`].
pub fn write(
    host: &Host,
    domain: &Domain,
    vcpu: &Vcpu,
    hardware: &mut Hardware,
    number: u32,
    value: u64,
) -> Result<(), Refused> {
    match number {
        msr::EFER => {
            let allowed = control::efer_bits(&domain.x86.policy());
            control::write_efer(hardware.guest_mut(), value, allowed)?;
            // NXE changes what entries mean.
            hardware.flush_translations();
            Ok(())
        }
        msr::PAT if mtrr::is_valid_pat(value) => {
            hardware.guest_mut().g_pat = value;
            hardware.flush_translations();
            Ok(())
        }
        msr::TSC => {
            set_timestamp(host, domain, vcpu, hardware, value);
            Ok(())
        }
        msr::APIC_BASE => {
            let has_x2apic = domain.x86.policy().has(CpuFeature::X2apic);
            vcpu.x86.lapic.set_base(value, has_x2apic)
        }
        msr::X2APIC_FIRST..=msr::X2APIC_LAST => lapic::write_msr(host, domain, vcpu, hardware, number, value),
        msr::TSC_AUX if has_tsc_aux(&domain.x86.policy()) && value >> 32 == 0 => {
            hardware.set_tsc_aux(value);
            Ok(())
        }
        msr::DEBUGCTL if value & !DEBUG_CONTROL_BITS == 0 => {
            hardware.guest_mut().debugctl = value;
            Ok(())
        }
        msr::MCG_STATUS => {
            vcpu.x86.stored.lock().machine_check_status = value;
            Ok(())
        }
        MSR_HYPERCALL_PAGE => hypercall_page::install(domain, value),
        _ if Mtrr::owns(number) => {
            let bits = domain.x86.policy().physical_address_bits();
            vcpu.x86.stored.lock().mtrr.write(number, value, bits)
        }
        _ => write_constant(number, value),
    }
}

/// Makes a guest's time stamp counter show `value` now. Its clock page is told, so that its system time stays right.
pub fn set_timestamp(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, value: u64) {
    let offset = value.wrapping_sub(machine::cpu::timestamp());
    hardware.set_tsc_offset(offset);
    crate::time::set_tsc_offset(host, domain, vcpu, offset);
}

/// Starts a vCPU's time stamp counter in step with that of its domain's first one, as all processors of a machine are.
pub fn synchronise_timestamp(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) {
    let Some(offset) = domain.vcpu(0).map(|first| first.events.time.tsc_offset()) else { return };
    hardware.set_tsc_offset(offset);
    crate::time::set_tsc_offset(host, domain, vcpu, offset);
}

/// Last branch record and the like: kept, without effect.
const DEBUG_CONTROL_BITS: u64 = 0x3f;

/// Registers that take writes without effect, or only the value that they have.
fn write_constant(number: u32, value: u64) -> Result<(), Refused> {
    let is_ignored = match number {
        n::MCG_CTL
        | n::LAST_BRANCH_FROM..=n::LAST_INTERRUPT_TO
        | n::MC_CTL2_FIRST..=n::MC_CTL2_LAST
        | n::K7_PERFORMANCE_FIRST..=n::K7_PERFORMANCE_LAST
        | n::F15_PERFORMANCE_FIRST..=n::F15_PERFORMANCE_LAST
        | n::SYSCFG
        | n::TOP_MEM
        | n::TOP_MEM2
        | n::NB_CFG
        | n::PATCH_LOADER
        | n::EX_CFG
        | n::DE_CFG
        | n::MC4_MISC_FIRST..=n::MC4_MISC_LAST
        | msr::VM_CR => true,
        n::MISC_FEATURES => value == 0,
        // Control registers of banks take anything; status, address and miscellaneous can be cleared only.
        n::MC_FIRST..=n::MC_LAST => number & 3 == 0 || value == 0,
        _ => false,
    };
    if is_ignored { Ok(()) } else { Err(Refused) }
}

fn has_tsc_aux(policy: &CpuPolicy) -> bool {
    policy.has(CpuFeature::Rdtscp) || policy.has(CpuFeature::Rdpid)
}
