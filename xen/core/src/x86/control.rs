//! Writes to control registers, EFER and XCR0: refused where hardware would refuse them, or where they would turn on what
//! the domain's CPUID policy does not show. (AMD APM volume 2, chapter 3 and 14.6; volume 4 for XCR0.)
//!
//! Hardware's registers always equal what the guest has written: reads are not intercepted. The only difference is
//! EFER.SVME, which hardware needs set and the guest sees clear.

use super::cpuid::CpuPolicy;
use super::encoding::ControlForm;
use super::walk::Space;
use machine::codec::registers::{Register, cr0, cr4, efer};
use machine::codec::vmcb::GuestState;
use machine::vcpu::Vcpu as Hardware;
use public_abi::cpu_features::CpuFeature;

/// The guest gets #GP(0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// CR0 bits that exist; others are ignored on writing.
pub const CR0_BITS: u64 =
    cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;

/// Bits of CR4 that each feature allows.
const CR4_FEATURES: [(CpuFeature, u64); 15] = [
    (CpuFeature::Vme, cr4::VME | cr4::PVI),
    (CpuFeature::Tsc, cr4::TSD),
    (CpuFeature::De, cr4::DE),
    (CpuFeature::Pse, cr4::PSE),
    (CpuFeature::Pae, cr4::PAE),
    (CpuFeature::Mce, cr4::MCE),
    (CpuFeature::Pge, cr4::PGE),
    (CpuFeature::Fxsr, cr4::OSFXSR),
    (CpuFeature::Sse, cr4::OSXMMEXCPT),
    (CpuFeature::Umip, cr4::UMIP),
    (CpuFeature::Fsgsbase, cr4::FSGSBASE),
    (CpuFeature::Pcid, cr4::PCIDE),
    (CpuFeature::Xsave, cr4::OSXSAVE),
    (CpuFeature::Smep, cr4::SMEP),
    (CpuFeature::Smap, cr4::SMAP),
];

/// The bits of CR4 that a guest with this policy may set. PCE is always among them: it only decides who gets #GP.
pub fn cr4_bits(policy: &CpuPolicy) -> u64 {
    let known = CR4_FEATURES.iter().filter(|(feature, _)| policy.has(*feature)).map(|(_, bits)| bits);
    let keys = if policy.has(CpuFeature::Pku) { cr4::PKE } else { 0 };
    known.fold(cr4::PCE | keys, |all, bits| all | bits)
}

/// The bits of EFER that a guest with this policy may set, LMA aside.
pub fn efer_bits(policy: &CpuPolicy) -> u64 {
    let when = |feature, bits| if policy.has(feature) { bits } else { 0 };
    when(CpuFeature::Syscall, efer::SCE)
        | when(CpuFeature::Lm, efer::LME)
        | when(CpuFeature::Nx, efer::NXE)
        | when(CpuFeature::Ffxsr, efer::FFXSR)
}

/// Sets CR0 as MOV to CR0 does.
///
/// # Errors
/// [`Refused`].
pub fn write_cr0(state: &mut GuestState, value: u64) -> Result<(), Refused> {
    let old = state.cr0;
    let has = |bits: u64| value & bits != 0;
    let is_long = state.efer() & efer::LME != 0;
    if value >> 32 != 0 || has(cr0::PG) && !has(cr0::PE) || has(cr0::NW) && !has(cr0::CD) {
        return Err(Refused);
    }
    let new = value & CR0_BITS | cr0::ET;
    if new & cr0::PG & !old != 0 && is_long {
        // Long mode begins with a code segment that is not 64-bit, and with PAE.
        if state.cr4 & cr4::PAE == 0 || state.cs.attributes & 1 << 9 != 0 {
            return Err(Refused);
        }
        state.set_efer(state.efer() | efer::LMA);
    } else if old & cr0::PG & !new != 0 {
        let in_64_bit_code = state.is_64_bit();
        if in_64_bit_code || state.cr4 & cr4::PCIDE != 0 {
            return Err(Refused);
        }
        state.set_efer(state.efer() & !efer::LMA);
    }
    state.cr0 = new;
    Ok(())
}

/// Sets CR4 as MOV to CR4 does. `allowed` is [`cr4_bits`].
///
/// # Errors
/// [`Refused`].
pub fn write_cr4(state: &mut GuestState, value: u64, allowed: u64) -> Result<(), Refused> {
    let old = state.cr4;
    let is_active = state.efer() & efer::LMA != 0;
    let turned_on = value & !old;
    let turned_off = old & !value;
    if value & !allowed != 0
        || is_active && value & cr4::PAE == 0
        || is_active && (turned_on | turned_off) & cr4::LA57 != 0
        || turned_on & cr4::PCIDE != 0 && (!is_active || state.cr3 & 0xfff != 0)
    {
        return Err(Refused);
    }
    state.cr4 = value;
    Ok(())
}

/// Sets EFER as WRMSR does. LMA is hardware's: what the guest writes there is ignored.
///
/// # Errors
/// [`Refused`].
pub fn write_efer(state: &mut GuestState, value: u64, allowed: u64) -> Result<(), Refused> {
    let value = value & !efer::LMA;
    let changes_mode = (value ^ state.efer()) & efer::LME != 0;
    if value & !allowed != 0 || changes_mode && state.cr0 & cr0::PG != 0 {
        return Err(Refused);
    }
    if changes_mode && value & efer::LME != 0 {
        // A code segment loaded with L set outside of long mode must not turn into 64-bit code by CR0.PG alone.
        state.cs.attributes &= !(1 << 9);
    }
    state.set_efer(value | state.efer() & efer::LMA);
    Ok(())
}

/// Components of XCR0 that only make sense together.
mod xcr0 {
    pub(super) const X87: u64 = 1 << 0;
    pub(super) const SSE: u64 = 1 << 1;
    pub(super) const AVX: u64 = 1 << 2;
    pub(super) const AVX512: u64 = 0b111 << 5;
}

/// Whether XCR0 may have this value, `allowed` being the components that the guest may use.
pub const fn is_valid_xcr0(value: u64, allowed: u64) -> bool {
    value & !allowed == 0
        && value & xcr0::X87 != 0
        && (value & xcr0::AVX == 0 || value & xcr0::SSE != 0)
        && (value & xcr0::AVX512 == 0 || value & xcr0::AVX512 == xcr0::AVX512 && value & xcr0::AVX != 0)
}

/// Carries out XSETBV.
///
/// # Errors
/// [`Refused`].
pub fn set_extended_control(hardware: &mut Hardware, allowed: u64) -> Result<(), Refused> {
    let low_half = |register| hardware.register(register) & 0xffff_ffff;
    let value = low_half(Register::Rdx) << 32 | low_half(Register::Rax);
    let number = low_half(Register::Rcx);
    let state = hardware.guest();
    if state.cpl != 0 || state.cr4 & cr4::OSXSAVE == 0 || number != 0 || !is_valid_xcr0(value, allowed) {
        return Err(Refused);
    }
    hardware.set_xcr0(value);
    Ok(())
}

/// Carries out the instruction that wanted to write control register `number`.
///
/// # Errors
/// [`Refused`].
pub fn write(hardware: &mut Hardware, policy: &CpuPolicy, number: u8, form: ControlForm) -> Result<(), Refused> {
    let before = Space::of(hardware.guest());
    let old = (hardware.guest().cr0, hardware.guest().cr4);
    let value = value_of(hardware, form);
    match (number, form) {
        (8, ControlForm::Move { .. }) => {
            if value >> 4 != 0 {
                return Err(Refused);
            }
            hardware.set_task_priority(value);
        }
        (4, ControlForm::Move { .. }) => write_cr4(hardware.guest_mut(), value, cr4_bits(policy))?,
        _ => write_cr0(hardware.guest_mut(), value)?,
    }
    // What such a write flushes on real hardware must not survive here either: any change of how addresses translate,
    // and every change of the global bit or of the paging extensions.
    const FLUSHING_CR4: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::SMAP | cr4::PKE;
    let state = hardware.guest();
    let changed_cr4 = (old.1 ^ state.cr4) & FLUSHING_CR4 != 0;
    if changed_cr4 || (old.0 ^ state.cr0) & (cr0::PG | cr0::WP) != 0 || before.paging != Space::of(state).paging {
        hardware.flush_translations();
    }
    Ok(())
}

/// What the instruction wants to write. LMSW changes the low four bits only, and cannot clear PE.
fn value_of(hardware: &Hardware, form: ControlForm) -> u64 {
    let general = |number| {
        let value = hardware.register(Register::from_encoding(number));
        if hardware.is_64_bit() { value } else { value & 0xffff_ffff }
    };
    let old = hardware.guest().cr0;
    match form {
        ControlForm::Move { general: number, .. } => general(number),
        ControlForm::Clts => old & !cr0::TS,
        ControlForm::LmswRegister { general: number } => old & !0xe | general(number) & 0xf,
        // `exits` has turned this form away.
        ControlForm::LmswMemory => old,
    }
}
