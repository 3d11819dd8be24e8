//! Model-specific registers, with the fault that a bad access raises as an error.

use core::arch::asm;

use crate::trap::{self, Fault};

/// Reads a register that exists; a fault is a panic.
#[must_use]
pub fn read(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading changes no memory; a fault ends in `rt_trap`'s panic.
    unsafe {
        asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a register that exists; a fault is a panic.
pub fn write(index: u32, value: u64) {
    // SAFETY: the caller is the test that wants the effect; registers that would move code or data from under Rust are
    // written with `execute` or by this crate only.
    unsafe {
        asm!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// Reads a register that may not exist.
///
/// # Errors
/// The fault, usually #GP(0).
pub fn try_read(index: u32) -> Result<u64, Fault> {
    let (low, high): (u32, u32);
    trap::arm();
    // SAFETY: as in `read`; a fault continues at the label 2, with EAX and EDX as they were.
    unsafe {
        asm!("lea {resume}, [rip + 2f]", "mov gs:[8], {resume}", "rdmsr", "2:", "mov qword ptr gs:[8], 0",
            resume = out(reg) _, in("ecx") index, inout("eax") 0x5a5a_5a5a_u32 => low, inout("edx") 0 => high,
            options(nostack));
    }
    trap::outcome().map(|()| u64::from(high) << 32 | u64::from(low))
}

/// Writes a register that may not exist or may refuse the value.
///
/// # Errors
/// The fault, usually #GP(0).
pub fn try_write(index: u32, value: u64) -> Result<(), Fault> {
    trap::arm();
    // SAFETY: as in `write`; a fault continues at the label 2.
    unsafe {
        asm!("lea {resume}, [rip + 2f]", "mov gs:[8], {resume}", "wrmsr", "2:", "mov qword ptr gs:[8], 0",
            resume = out(reg) _, in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack));
    }
    trap::outcome()
}
