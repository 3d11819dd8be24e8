//! One vCPU's state as records of an HVM save stream, and back (public/arch-x86/hvm/save.h).
//!
//! `XEN_DOMCTL_gethvmcontext` and `sethvmcontext` come here, record by record; the frame around them is theirs. What comes in
//! is hostile: each record is checked whole before anything of it is taken, above all what the processor would refuse in the
//! hypervisor itself (the XSAVE header, MXCSR) and what would stop the vCPU (illegal control registers).

mod cpu;
mod lapic;
mod xsave;

#[cfg(test)]
mod tests;

use super::msr::mtrr::{CAPABILITIES, FIXED, Mtrr, VARIABLE, is_valid_pat};
use super::msr::{MACHINE_CHECK_CAPABILITIES, mtrr};
use crate::domain::Domain;
use crate::host::Host;
use crate::vcpu::{Vcpu, Wait};
use core::sync::atomic::Ordering;
use machine::vcpu::Vcpu as Hardware;
use public_abi::Errno;
use public_abi::arch_hvm_save::{
    HvmHwCpu, HvmHwLapic, HvmHwLapicRegs, HvmHwMtrr, HvmHwVioapic, HvmMsrHeader, HvmOneMsr, HvmTscAdjust, HvmVmceVcpu,
};
use public_abi::hvm_save::SaveCode;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes that a record of this kind has at the most; 0 if domains here have no such record.
#[must_use]
pub fn record_room(domain: &Domain, code: SaveCode) -> usize {
    match code {
        SaveCode::Cpu => size_of::<HvmHwCpu>(),
        SaveCode::CpuXsave => xsave::room(domain),
        SaveCode::Lapic => size_of::<HvmHwLapic>(),
        SaveCode::LapicRegs => size_of::<HvmHwLapicRegs>(),
        SaveCode::Mtrr => size_of::<HvmHwMtrr>(),
        SaveCode::VmceVcpu => size_of::<HvmVmceVcpu>(),
        SaveCode::TscAdjust => size_of::<HvmTscAdjust>(),
        SaveCode::Ioapic if domain.x86.vioapic.is_some() => size_of::<HvmHwVioapic>(),
        _ => 0,
    }
}

/// Writes the contents of a vCPU's record to the front of `out` and gives their length; `None` if there is nothing to
/// record: the vCPU is down, or the domain has no such thing.
///
/// # Errors
/// `ENODATA` if the vCPU is running, `ENOBUFS` if `out` is too short.
pub fn save_record(domain: &Domain, vcpu: &Vcpu, code: SaveCode, out: &mut [u8]) -> Result<Option<usize>, Errno> {
    let hardware = vcpu.hardware.try_lock().ok_or(Errno::ENODATA)?;
    match code {
        // A vCPU that is down is left down by a restore that finds no record of it.
        SaveCode::Cpu | SaveCode::CpuXsave if vcpu.wait().contains(Wait::DOWN) => Ok(None),
        SaveCode::Cpu => put(out, &cpu::save(&hardware)),
        SaveCode::CpuXsave => xsave::save(domain, &hardware, out),
        SaveCode::Lapic => put(out, &lapic::save(vcpu)),
        SaveCode::LapicRegs => put(out, &lapic::save_registers(vcpu)),
        SaveCode::Mtrr => put(out, &save_mtrr(vcpu, &hardware)),
        SaveCode::VmceVcpu => put(out, &HvmVmceVcpu { caps: MACHINE_CHECK_CAPABILITIES, ..HvmVmceVcpu::default() }),
        SaveCode::TscAdjust => put(out, &HvmTscAdjust::default()),
        SaveCode::Ioapic => match &domain.x86.vioapic {
            Some(vioapic) => put(out, &vioapic.save()),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Checks and takes the contents of a vCPU's record.
///
/// # Errors
/// `EINVAL` for bad contents, `ENODEV` for a record of something that the domain has not, `ENXIO` for an MSR that it has
/// not, `EBUSY` if the vCPU is running.
pub fn load_record(host: &Host, domain: &Domain, vcpu: &Vcpu, code: SaveCode, contents: &[u8]) -> Result<(), Errno> {
    let mut hardware = vcpu.hardware.try_lock().ok_or(Errno::EBUSY)?;
    match code {
        SaveCode::Cpu => {
            let record = get(contents)?;
            cpu::load(domain, &mut hardware, &record)?;
            super::interrupts::settle(host, vcpu, &mut hardware);
            super::msr::set_timestamp(host, domain, vcpu, &mut hardware, record.tsc);
            vcpu.is_initialised.store(true, Ordering::Release);
            vcpu.x86.set_halted(false);
            vcpu.clear_wait(Wait::DOWN);
            Ok(())
        }
        SaveCode::CpuXsave => xsave::load(domain, &mut hardware, contents),
        SaveCode::Lapic => lapic::load(domain, vcpu, &get(contents)?),
        SaveCode::LapicRegs => lapic::load_registers(host, vcpu, &mut hardware, &get(contents)?),
        SaveCode::Mtrr => load_mtrr(domain, vcpu, &mut hardware, &get(contents)?),
        SaveCode::VmceVcpu => check_machine_check(&get(contents)?),
        SaveCode::TscAdjust => match get::<HvmTscAdjust>(contents)?.tsc_adjust {
            0 => Ok(()),
            _ => Err(Errno::EINVAL),
        },
        SaveCode::CpuMsr => check_msrs(contents),
        SaveCode::Ioapic => domain.x86.vioapic.as_ref().ok_or(Errno::ENODEV)?.load(&get(contents)?),
        _ => Err(Errno::ENODEV),
    }
}

/// Writes a structure to the front of `out`.
fn put<T: IntoBytes + Immutable>(out: &mut [u8], record: &T) -> Result<Option<usize>, Errno> {
    record.write_to_prefix(out).map_err(|_| Errno::ENOBUFS)?;
    Ok(Some(size_of::<T>()))
}

/// Reads a structure that is the whole contents.
fn get<T: FromBytes>(contents: &[u8]) -> Result<T, Errno> {
    T::read_from_bytes(contents).map_err(|_| Errno::EINVAL)
}

fn save_mtrr(vcpu: &Vcpu, hardware: &Hardware) -> HvmHwMtrr {
    let mtrr = vcpu.x86.stored.lock().mtrr;
    HvmHwMtrr {
        msr_pat_cr: hardware.guest().g_pat,
        msr_mtrr_var: mtrr.variable,
        msr_mtrr_fixed: mtrr.fixed,
        msr_mtrr_cap: CAPABILITIES,
        msr_mtrr_def_type: mtrr.default_type,
    }
}

fn load_mtrr(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, record: &HvmHwMtrr) -> Result<(), Errno> {
    const RANGES: u64 = 0xff;
    if record.msr_mtrr_cap & RANGES > VARIABLE as u64 || !is_valid_pat(record.msr_pat_cr) {
        return Err(Errno::EINVAL);
    }
    let bits = domain.x86.policy().physical_address_bits();
    let mut mtrr = Mtrr::RESET;
    let fixed = mtrr::FIXED_NUMBERS.iter().zip(record.msr_mtrr_fixed);
    let variable = mtrr::VARIABLE_NUMBERS.zip(record.msr_mtrr_var);
    let all = fixed.map(|(number, value)| (*number, value)).chain(variable);
    for (number, value) in all.chain([(mtrr::DEFAULT_TYPE, record.msr_mtrr_def_type)]) {
        mtrr.write(number, value, bits).map_err(|_| Errno::EINVAL)?;
    }
    const { assert!(mtrr::FIXED_NUMBERS.len() == FIXED) };
    vcpu.x86.stored.lock().mtrr = mtrr;
    hardware.guest_mut().g_pat = record.msr_pat_cr;
    Ok(())
}

/// Machine-check banks hold nothing here, so there is nothing to take; what a guest was promised must be what it gets.
fn check_machine_check(record: &HvmVmceVcpu) -> Result<(), Errno> {
    const BANKS: u64 = 0xff;
    const HAS_CONTROL: u64 = 1 << 8;
    if record.caps & !(BANKS | HAS_CONTROL) == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// MSRs that a stream may carry and that read zero here: `SPEC_CTRL`, `MISC_FEATURES_ENABLES`, XSS, debug address masks.
const ZERO_MSRS: [u32; 7] = [0x48, 0x140, 0xda0, 0xc001_1027, 0xc001_1019, 0xc001_101a, 0xc001_101b];

fn check_msrs(contents: &[u8]) -> Result<(), Errno> {
    let (header, mut rest) = HvmMsrHeader::read_from_prefix(contents).map_err(|_| Errno::EINVAL)?;
    let size = usize::try_from(header.count).ok().and_then(|count| count.checked_mul(size_of::<HvmOneMsr>()));
    if size != Some(rest.len()) {
        return Err(Errno::EINVAL);
    }
    while let Ok((one, more)) = HvmOneMsr::read_from_prefix(rest) {
        match (one.rsvd, ZERO_MSRS.contains(&one.index), one.val) {
            (0, true, 0) => {}
            (0, false, _) => return Err(Errno::ENXIO),
            _ => return Err(Errno::EINVAL),
        }
        rest = more;
    }
    Ok(())
}
