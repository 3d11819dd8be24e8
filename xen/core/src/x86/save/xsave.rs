//! The `CPU_XSAVE` record, and the legacy part of the XSAVE area that the CPU record carries too.
//!
//! The hypervisor itself executes XRSTOR on the area: a header or an MXCSR that the instruction refuses must never get in.
//! (APM volume 1, 11.5.2, volume 4, XRSTOR.)

use crate::domain::Domain;
use crate::x86::control::is_valid_xcr0;
use machine::vcpu::{LazyState, StateBlock, Vcpu as Hardware};
use public_abi::Errno;
use public_abi::arch_hvm_save::{FPU_INITIALISED, HvmHwCpu, HvmHwCpuXsave};
use public_abi::cpu_features::CpuFeature;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of the legacy area.
const LEGACY: usize = 512;
/// Bytes of a block of the area.
const BLOCK: usize = 64;
/// Bytes of a record before the area.
const PREFIX: usize = 24;
const MXCSR: usize = 24;
/// MXCSR bits that all processors with SSE2 have, and the misaligned-exception mask of AMD's.
const MXCSR_BITS: u32 = 0xffff;
const MXCSR_MISALIGNED: u32 = 1 << 17;
/// x87 and SSE, which the legacy area holds.
const LEGACY_STATES: u64 = 0b11;

/// Bytes that a record has at the most.
pub(super) fn room(domain: &Domain) -> usize {
    let policy = domain.x86.policy();
    match policy.extended_states() {
        0 => 0,
        states => record_size(policy.standard_size(states)),
    }
}

fn record_size(area: u32) -> usize {
    usize::try_from(area).unwrap_or(usize::MAX).saturating_add(PREFIX)
}

fn copy_out(lazy: &LazyState, start: usize, out: &mut [u8]) {
    let bytes = lazy.extended().iter().flat_map(|StateBlock(block)| block).skip(start);
    out.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
}

fn copy_in(lazy: &mut LazyState, bytes: &[u8]) {
    let places = lazy.extended_mut().iter_mut().flat_map(|StateBlock(block)| block.iter_mut());
    places.zip(bytes).for_each(|(place, byte)| *place = *byte);
}

/// The components that the area holds.
fn present(lazy: &LazyState) -> u64 {
    let mut bytes = [0; 8];
    copy_out(lazy, LEGACY, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// The legacy area, for the CPU record.
pub(super) fn copy_legacy(lazy: &LazyState, out: &mut [u8; LEGACY]) {
    copy_out(lazy, 0, out);
}

fn is_good_mxcsr(domain: &Domain, area: &[u8]) -> bool {
    let known =
        if domain.x86.policy().has(CpuFeature::Misalignsse) { MXCSR_BITS | MXCSR_MISALIGNED } else { MXCSR_BITS };
    area.get(MXCSR..).and_then(<[u8]>::first_chunk).is_some_and(|bytes| u32::from_le_bytes(*bytes) & !known == 0)
}

/// Checks the legacy area of a CPU record.
pub(super) fn check_legacy(domain: &Domain, record: &HvmHwCpu) -> Result<(), Errno> {
    let is_used = record.flags & FPU_INITIALISED != 0;
    if is_used && !is_good_mxcsr(domain, &record.fpu_regs) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Takes the legacy area of a CPU record; without one, the state after reset. A `CPU_XSAVE` record may follow and replace it.
pub(super) fn load_legacy(lazy: &mut LazyState, record: &HvmHwCpu) {
    lazy.extended_mut().fill(StateBlock([0; BLOCK]));
    if record.flags & FPU_INITIALISED != 0 {
        copy_in(lazy, &record.fpu_regs);
    } else {
        const CONTROL_WORD: [u8; 2] = 0x037fu16.to_le_bytes();
        const MXCSR_RESET: [u8; 4] = 0x1f80u32.to_le_bytes();
        if let Some(StateBlock(block)) = lazy.extended_mut().first_mut() {
            block.iter_mut().zip(CONTROL_WORD).for_each(|(place, byte)| *place = byte);
            block.iter_mut().skip(MXCSR).zip(MXCSR_RESET).for_each(|(place, byte)| *place = byte);
        }
    }
    set_present(lazy, LEGACY_STATES);
}

fn set_present(lazy: &mut LazyState, states: u64) {
    if let Some(StateBlock(header)) = lazy.extended_mut().get_mut(LEGACY / BLOCK) {
        *header = [0; BLOCK];
        header.iter_mut().zip(states.to_le_bytes()).for_each(|(place, byte)| *place = byte);
    }
}

/// Writes the record; `None` if the guest has no XSAVE.
pub(super) fn save(domain: &Domain, hardware: &Hardware, out: &mut [u8]) -> Result<Option<usize>, Errno> {
    let policy = domain.x86.policy();
    let allowed = policy.extended_states();
    if allowed == 0 {
        return Ok(None);
    }
    let lazy = hardware.lazy();
    let (xcr0, states) = (lazy.xcr0 & allowed, present(lazy) & allowed);
    let ever = xcr0 | states;
    let size = record_size(policy.standard_size(ever));
    let out = out.get_mut(..size).ok_or(Errno::ENOBUFS)?;
    let mut record = HvmHwCpuXsave { xfeature_mask: allowed, xcr0, xcr0_accum: ever, ..HvmHwCpuXsave::default() };
    copy_legacy(lazy, &mut record.fpu_sse);
    record.xstate_bv = states;
    record.write_to_prefix(out).map_err(|_| Errno::ENOBUFS)?;
    if let Some(rest) = out.get_mut(size_of::<HvmHwCpuXsave>()..) {
        copy_out(lazy, size_of::<HvmHwCpuXsave>() - PREFIX, rest);
    }
    Ok(Some(size))
}

/// Checks and takes a record. Its area is as long as the components that were ever enabled need, or longer with zeroes.
pub(super) fn load(domain: &Domain, hardware: &mut Hardware, contents: &[u8]) -> Result<(), Errno> {
    let (record, _) = HvmHwCpuXsave::read_from_prefix(contents).map_err(|_| Errno::EINVAL)?;
    let policy = domain.x86.policy();
    let allowed = policy.extended_states();
    if allowed == 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let area = contents.get(PREFIX..).ok_or(Errno::EINVAL)?;
    let needed = usize::try_from(policy.standard_size(record.xcr0_accum)).map_err(|_| Errno::EINVAL)?;
    let lazy = hardware.lazy_mut();
    let room = lazy.extended().len().saturating_mul(BLOCK);
    let (area, surplus) = area.split_at_checked(needed).ok_or(Errno::EINVAL)?;
    let good = record.xcr0_accum & !allowed == 0
        && is_valid_xcr0(record.xcr0, allowed)
        && record.xcr0 & !record.xcr0_accum == 0
        && record.xstate_bv & !record.xcr0_accum == 0
        && record.xcomp_bv == 0
        && record.xsave_reserved == [0; 6]
        && needed <= room
        && surplus.iter().all(|byte| *byte == 0)
        && is_good_mxcsr(domain, area);
    drop(policy);
    if !good {
        return Err(Errno::EINVAL);
    }
    lazy.extended_mut().fill(StateBlock([0; BLOCK]));
    copy_in(lazy, area);
    set_present(lazy, record.xstate_bv);
    lazy.xcr0 = record.xcr0;
    Ok(())
}
