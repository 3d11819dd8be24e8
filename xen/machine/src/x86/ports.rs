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
    match size {
        1 => u32::from(input_8(port)),
        2 => {
            let value: u16;
            // SAFETY: as in `input_8`; which ports a domain may reach is the core's decision.
            unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
            u32::from(value)
        }
        _ => {
            let value: u32;
            // SAFETY: as above.
            unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
            value
        }
    }
}

/// Writes `size` bytes (1, 2 or 4) to a port, for a hardware domain that may.
pub fn port_write(port: u16, size: u8, value: u32) {
    match size {
        1 => output_8(port, value as u8),
        // SAFETY: as in `port_read`.
        2 => unsafe {
            asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nomem, nostack, preserves_flags))
        },
        // SAFETY: as in `port_read`.
        _ => unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) },
    }
}

/// Reads `size` bytes (1, 2 or 4) of a device's register. `None` if it cannot be mapped. The caller knows that it is no RAM.
pub fn device_read(maddr: Maddr, size: u8) -> Option<u32> {
    let place = paging::try_device(maddr, u64::from(size))?;
    Some(match size {
        // SAFETY: mapped by the line above; no Rust value lives in device registers.
        1 => u32::from(unsafe { place.read_volatile() }),
        // SAFETY: as above, and aligned by the caller.
        2 => u32::from(unsafe { place.cast::<u16>().read_volatile() }),
        // SAFETY: as above.
        _ => unsafe { place.cast::<u32>().read_volatile() },
    })
}

/// Writes `size` bytes (1, 2 or 4) of a device's register. False if it cannot be mapped. The caller knows that it is no RAM.
pub fn device_write(maddr: Maddr, size: u8, value: u32) -> bool {
    let Some(place) = paging::try_device(maddr, u64::from(size)) else { return false };
    match size {
        // SAFETY: as in `device_read`; what the register does is the caller's wish.
        1 => unsafe { place.write_volatile(value as u8) },
        // SAFETY: as above, and aligned by the caller.
        2 => unsafe { place.cast::<u16>().write_volatile(value as u16) },
        // SAFETY: as above.
        _ => unsafe { place.cast::<u32>().write_volatile(value) },
    }
    true
}
