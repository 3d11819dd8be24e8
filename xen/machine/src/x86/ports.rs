//! Port input and output, and the same for device registers in memory.

use super::paging;
use crate::units::Maddr;
use core::arch::asm;

/// Reads a port of one byte.
pub(super) fn input_8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: port access has no effect on memory; callers know the device.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a port of one byte.
pub(super) fn output_8(port: u16, value: u8) {
    // SAFETY: as in `input_8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads `size` bytes (1, 2 or 4) from a port, for a hardware domain that may.
pub fn port_read(port: u16, size: u8) -> u32 {
    let value: u32;
    // SAFETY: as in `input_8`; which ports a domain may reach is the core's decision.
    unsafe {
        match size {
            1 => asm!("xor eax, eax", "in al, dx", in("dx") port, out("eax") value, options(nomem, nostack)),
            2 => asm!("xor eax, eax", "in ax, dx", in("dx") port, out("eax") value, options(nomem, nostack)),
            _ => asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)),
        }
    }
    value
}

/// Writes `size` bytes (1, 2 or 4) to a port, for a hardware domain that may.
pub fn port_write(port: u16, size: u8, value: u32) {
    // SAFETY: as in `port_read`.
    unsafe {
        match size {
            1 => asm!("out dx, al", in("dx") port, in("eax") value, options(nomem, nostack)),
            2 => asm!("out dx, ax", in("dx") port, in("eax") value, options(nomem, nostack)),
            _ => asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)),
        }
    }
}

/// Reads `size` bytes (1, 2 or 4) of a device's register. `None` if it cannot be mapped. The caller knows that it is no RAM.
pub fn device_read(maddr: Maddr, size: u8) -> Option<u32> {
    let place = paging::try_device(maddr, u64::from(size))?;
    // SAFETY: mapped by the line above, aligned by the caller; no Rust value lives in device registers.
    Some(unsafe {
        match size {
            1 => u32::from(place.read_volatile()),
            2 => u32::from(place.cast::<u16>().read_volatile()),
            _ => place.cast::<u32>().read_volatile(),
        }
    })
}

/// Writes `size` bytes (1, 2 or 4) of a device's register. False if it cannot be mapped. The caller knows that it is no RAM.
pub fn device_write(maddr: Maddr, size: u8, value: u32) -> bool {
    let Some(place) = paging::try_device(maddr, u64::from(size)) else { return false };
    // SAFETY: as in `device_read`; what the register does is the caller's wish.
    unsafe {
        match size {
            1 => place.write_volatile(value as u8),
            2 => place.cast::<u16>().write_volatile(value as u16),
            _ => place.cast::<u32>().write_volatile(value),
        }
    }
    true
}
