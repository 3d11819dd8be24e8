//! Memory type range registers: stored and checked, without effect. With nested paging the processor takes a guest's memory
//! types from its PAT alone. (AMD APM volume 2, 7.7.)

use crate::x86::control::Refused;

/// Variable ranges, as `HvmHwMtrr` has them.
pub const VARIABLE: usize = 8;
/// Fixed-range registers.
pub const FIXED: usize = 11;
/// What MTRRcap says: write-combining, fixed ranges, eight variable ones.
pub const CAPABILITIES: u64 = 1 << 10 | 1 << 8 | VARIABLE as u64;

/// Numbers of the registers.
const CAP: u32 = 0xfe;
const PHYSICAL_FIRST: u32 = 0x200;
const PHYSICAL_LAST: u32 = PHYSICAL_FIRST + 2 * VARIABLE as u32 - 1;
const FIXED_64K: u32 = 0x250;
const FIXED_16K: u32 = 0x258;
const FIXED_4K: u32 = 0x268;
const DEFAULT_TYPE: u32 = 0x2ff;

/// Bits of the default-type register.
const ENABLE: u64 = 1 << 11;
const FIXED_ENABLE: u64 = 1 << 10;
/// A variable range is used.
const VALID: u64 = 1 << 11;
/// Memory types.
const UNCACHEABLE: u64 = 0;
const WRITE_PROTECT: u64 = 5;
const WRITE_BACK: u64 = 6;

/// The registers of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mtrr {
    /// Base and mask of each variable range.
    pub variable: [u64; 2 * VARIABLE],
    /// 64 KiB from 0, 16 KiB from 0x80000, 4 KiB from 0xc0000; a byte each.
    pub fixed: [u64; FIXED],
    /// The default type and the enable bits.
    pub default_type: u64,
}

impl Mtrr {
    /// As after power-on: off.
    pub const RESET: Self = Self { variable: [0; 2 * VARIABLE], fixed: [0; FIXED], default_type: 0 };

    /// As firmware leaves them: on; write-back but for the legacy video window and the BIOS area.
    pub const FIRMWARE: Self = {
        let mut fixed = [all_of(WRITE_PROTECT); FIXED];
        // Up to 0x9ffff RAM, then 128 KiB of video memory.
        fixed[0] = all_of(WRITE_BACK);
        fixed[1] = all_of(WRITE_BACK);
        fixed[2] = all_of(UNCACHEABLE);
        Self { variable: [0; 2 * VARIABLE], fixed, default_type: ENABLE | FIXED_ENABLE | WRITE_BACK }
    };

    fn fixed_index(number: u32) -> Option<usize> {
        let index = match number {
            FIXED_64K => 0,
            FIXED_16K..=0x259 => number.checked_sub(FIXED_16K)?.checked_add(1)?,
            FIXED_4K..=0x26f => number.checked_sub(FIXED_4K)?.checked_add(3)?,
            _ => return None,
        };
        usize::try_from(index).ok()
    }

    fn variable_index(number: u32) -> Option<usize> {
        let index = number.checked_sub(PHYSICAL_FIRST)?;
        (number <= PHYSICAL_LAST).then(|| usize::try_from(index).ok())?
    }

    /// Whether a number is one of these registers.
    pub fn owns(number: u32) -> bool {
        matches!(number, CAP | DEFAULT_TYPE)
            || Self::fixed_index(number).is_some()
            || Self::variable_index(number).is_some()
    }

    /// Reads a register.
    ///
    /// # Errors
    /// [`Refused`] for other numbers.
    pub fn read(&self, number: u32) -> Result<u64, Refused> {
        match (number, Self::fixed_index(number), Self::variable_index(number)) {
            (CAP, ..) => Ok(CAPABILITIES),
            (DEFAULT_TYPE, ..) => Ok(self.default_type),
            (_, Some(index), _) => self.fixed.get(index).copied().ok_or(Refused),
            (_, _, Some(index)) => self.variable.get(index).copied().ok_or(Refused),
            _ => Err(Refused),
        }
    }

    /// Writes a register. `address_bits` is the width of guest physical addresses.
    ///
    /// # Errors
    /// [`Refused`] for other numbers, reserved bits and types that do not exist.
    pub fn write(&mut self, number: u32, value: u64, address_bits: u32) -> Result<(), Refused> {
        let place = match (number, Self::fixed_index(number), Self::variable_index(number)) {
            (DEFAULT_TYPE, ..) => {
                let known = 0xff | ENABLE | FIXED_ENABLE;
                (value & !known == 0 && is_type(value & 0xff)).then_some(&mut self.default_type)
            }
            (_, Some(index), _) => {
                let good = value.to_le_bytes().into_iter().all(|kind| is_type(u64::from(kind)));
                self.fixed.get_mut(index).filter(|_| good)
            }
            (_, _, Some(index)) => {
                let address = 1u64.checked_shl(address_bits).unwrap_or(0).wrapping_sub(1) & !0xfff;
                let is_base = index % 2 == 0;
                let low = if is_base { 0xff } else { VALID };
                let good = value & !(address | low) == 0 && (!is_base || is_type(value & 0xff));
                self.variable.get_mut(index).filter(|_| good)
            }
            _ => None,
        };
        *place.ok_or(Refused)? = value;
        Ok(())
    }
}

const fn all_of(kind: u64) -> u64 {
    kind * 0x0101_0101_0101_0101
}

/// Uncacheable, write-combining, write-through, write-protected, write-back.
const fn is_type(kind: u64) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}

/// Whether the PAT register may have this value: the same types, and UC-.
pub fn is_valid_pat(value: u64) -> bool {
    value.to_le_bytes().into_iter().all(|kind| is_type(u64::from(kind)) || kind == 7)
}
