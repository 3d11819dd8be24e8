//! Port input and output, and the same for device registers in memory. Which of them a domain may reach is the core's decision.

use super::paging;
use crate::units::Maddr;
use core::arch::asm;

macro_rules! access {
    ($input:ident, $output:ident, $value:ty, $bits:literal, $register:tt) => {
        #[doc = concat!("Reads a port of ", $bits, " bits.")]
        pub(super) fn $input(port: u16) -> $value {
            let value: $value;
            // SAFETY: port access has no effect on memory that Rust knows of.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags))
            };
            value
        }

        #[doc = concat!("Writes a port of ", $bits, " bits.")]
        pub(super) fn $output(port: u16, value: $value) {
            // SAFETY: as for reading.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                    options(nomem, nostack, preserves_flags))
            };
        }
    };
}
access!(input_8, output_8, u8, "8", "al");
access!(input_16, output_16, u16, "16", "ax");
access!(input_32, output_32, u32, "32", "eax");

/// Reads `size` bytes (1, 2 or 4) from a port, for a hardware domain that may.
pub fn port_read(port: u16, size: u8) -> u32 {
    match size {
        1 => u32::from(input_8(port)),
        2 => u32::from(input_16(port)),
        _ => input_32(port),
    }
}

/// Writes the low `size` bytes (1, 2 or 4) of a value to a port, for a hardware domain that may.
pub fn port_write(port: u16, size: u8, value: u32) {
    match size {
        1 => output_8(port, value as u8),
        2 => output_16(port, value as u16),
        _ => output_32(port, value),
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
