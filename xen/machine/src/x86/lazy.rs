//! State that is exchanged when a CPU turns to another vCPU: vector registers, debug address registers, TSC_AUX.
//!
//! All components that the processor has are exchanged, whatever the guest has enabled: what a guest enables later must
//! not show it what somebody else left in the registers.

use super::svm::{read_msr, write_msr};
use crate::codec::registers::{cr4, msr};
use crate::vcpu::LazyState;
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// All components of the processor, for XCR0.
static COMPONENTS: AtomicU64 = AtomicU64::new(1);
static HAS_TSC_AUX: AtomicBool = AtomicBool::new(false);
/// XRSTOR always restores the x87 error pointers (CPUID 80000008 EBX bit 2).
static RESTORES_POINTERS: AtomicBool = AtomicBool::new(false);

/// Enables XSAVE on this CPU and notes what it has.
pub(super) fn enable() {
    let mut bits = cr4::OSFXSR | cr4::OSXMMEXCPT;
    let has_xsave = __cpuid(1).ecx & 1 << 26 != 0;
    if has_xsave {
        bits |= cr4::OSXSAVE;
    }
    // SAFETY: enables instructions only; the hypervisor itself uses no vector registers.
    unsafe { asm!("mov {s}, cr4", "or {s}, {bits}", "mov cr4, {s}", s = out(reg) _, bits = in(reg) bits) };
    if has_xsave {
        let leaf = __cpuid_count(0xd, 0);
        COMPONENTS.store(u64::from(leaf.edx) << 32 | u64::from(leaf.eax), Ordering::Relaxed);
    }
    HAS_TSC_AUX.store(__cpuid(0x8000_0001).edx & 1 << 27 != 0, Ordering::Relaxed);
    let leaf = __cpuid(0x8000_0000).eax >= 0x8000_0008;
    RESTORES_POINTERS.store(leaf && __cpuid(0x8000_0008).ebx & 1 << 2 != 0, Ordering::Relaxed);
}

/// Whether this processor has XSAVE, without which guests cannot be kept apart here.
pub(super) fn has_xsave() -> bool {
    __cpuid(1).ecx & 1 << 26 != 0
}

/// Bytes of a whole XSAVE area (CPUID 0xd ECX: all components the processor has).
pub fn extended_state_bytes() -> usize {
    __cpuid_count(0xd, 0).ecx as usize
}

/// Components that guests may enable in XCR0.
pub fn supported_xcr0() -> u64 {
    COMPONENTS.load(Ordering::Relaxed)
}

pub fn set_xcr0(value: u64) {
    // SAFETY: XSETBV with a value that the caller has checked against the processor's components.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack)) };
}

pub fn set_tsc_aux(value: u64) {
    if HAS_TSC_AUX.load(Ordering::Relaxed) {
        write_msr(msr::TSC_AUX, value);
    }
}

pub fn load_lazy(state: &LazyState) {
    set_xcr0(COMPONENTS.load(Ordering::Relaxed));
    let area = state.extended.as_ptr();
    if !RESTORES_POINTERS.load(Ordering::Relaxed) && !state.has_pending_error() {
        clear_error_pointers();
    }
    // SAFETY: the area is aligned to 64 bytes and as large as all components need; it holds what XSAVE or a checked
    // restore wrote.
    unsafe { asm!("xrstor64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack, readonly)) };
    set_xcr0(state.xcr0);
    set_tsc_aux(state.tsc_aux);
}

/// Where the last x87 instruction was, and its operand, is state that older AMD processors restore only while an error is
/// pending: otherwise XRSTOR leaves what the registers hold, which would be another vCPU's addresses (APM volume 2, 11.4.4).
/// An instruction of the hypervisor's own overwrites them.
fn clear_error_pointers() {
    static ZERO: u32 = 0;
    // SAFETY: no vCPU's x87 state is in the registers now: it was saved, and the next is about to be restored. First the errors
    // that would make FILD trap go, then a place on the register stack is made free for it.
    unsafe {
        asm!("fnclex", "ffree st(7)", "fild dword ptr [{}]", in(reg) &raw const ZERO, options(nostack, readonly))
    };
}

pub fn save_lazy(state: &mut LazyState) {
    set_xcr0(COMPONENTS.load(Ordering::Relaxed));
    let area = state.extended.as_mut_ptr();
    // SAFETY: as in `load_lazy`; the area is borrowed mutably.
    unsafe { asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack)) };
    if HAS_TSC_AUX.load(Ordering::Relaxed) {
        state.tsc_aux = read_msr(msr::TSC_AUX);
    }
}

pub fn load_debug_registers(values: &[u64; 4]) {
    let [a, b, c, d] = *values;
    // SAFETY: breakpoints of a guest do not fire in the hypervisor: DR7 is exchanged by VMRUN.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) a, in(reg) b, in(reg) c, in(reg) d, options(nomem, nostack));
    }
}

pub fn save_debug_registers(values: &mut [u64; 4]) {
    let (a, b, c, d): (u64, u64, u64, u64);
    // SAFETY: reads only.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) a, out(reg) b, out(reg) c, out(reg) d, options(nomem, nostack));
    }
    *values = [a, b, c, d];
}
