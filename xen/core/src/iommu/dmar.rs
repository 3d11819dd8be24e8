//! The firmware's table of Intel's IOMMUs, DMAR: which units there are, and which memory devices need at all times. Pure, and
//! distrustful: what makes no sense is left out with a reason.
//! (Intel VT-d, revision 4.1, chapter 8.)
//!
//! Which devices are behind which unit is not looked at: all units lead all devices through the same tables (docs/design/0009).
//!
//! Before this: `boot::acpi` has read the table. After it: `firmware`.

use super::firmware::{Complaint, Firmware, Region, Unit, push};
use crate::boot::acpi::{HEADER_BYTES, u16_in, u64_in};
use alloc::vec::Vec;
use machine::boxed::OutOfMemory;
use machine::codec::intel_iommu::register;
use machine::iommu::Maker;
use machine::{PAGE_SHIFT, PAGE_SIZE_U64};

/// Where structures begin: behind the header, the address width, flags, and what is reserved.
const FIRST_STRUCTURE: usize = HEADER_BYTES + 12;
/// Addresses that four levels of tables translate.
const ADDRESS_BITS: u32 = 48;

impl Firmware {
    /// Reads Intel's table, whose length and checksum were found right.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn read_dmar(table: &[u8], mut complain: impl FnMut(Complaint)) -> Result<Self, OutOfMemory> {
        let mut dmar = Self { maker: Maker::Intel, ..Self::default() };
        let mut at = FIRST_STRUCTURE;
        while let (Some(kind), Some(length)) = (u16_in(table, at), u16_in(table, at.saturating_add(2))) {
            let end = at.saturating_add(usize::from(length));
            let Some(structure) = table.get(at..end).filter(|_| length >= 4) else {
                complain(Complaint { table: "DMAR", at, reason: "a structure does not end inside of it" });
                break;
            };
            let complaint = match kind {
                0 => dmar.add_drhd(structure)?,
                1 => dmar.add_rmrr(structure)?,
                // Translations in devices, distances of memory, names, and what later revisions may bring.
                _ => None,
            };
            if let Some(reason) = complaint {
                complain(Complaint { table: "DMAR", at, reason });
            }
            at = end;
        }
        Ok(dmar)
    }

    /// Adds a unit (8.4); gives the reason if it is left out.
    fn add_drhd(&mut self, structure: &[u8]) -> Result<Option<&'static str>, OutOfMemory> {
        let (Some(size), Some(segment), Some(registers)) =
            (structure.get(5), u16_in(structure, 6), u64_in(structure, 8))
        else {
            return Ok(Some("a unit's structure is too short"));
        };
        if segment != 0 {
            return Ok(Some("a unit of another segment than 0 stays off"));
        }
        let bytes = PAGE_SIZE_U64 << (size & 0xf);
        let is_possible = registers.checked_add(bytes).is_some_and(|end| end <= 1 << ADDRESS_BITS);
        if registers == 0 || !registers.is_multiple_of(register::BYTES) || !is_possible {
            return Ok(Some("a unit's registers cannot be where it says"));
        }
        if self.units.iter().any(|other| other.registers == registers) {
            return Ok(Some("a unit is there twice"));
        }
        push(&mut self.units, Unit { place: None, registers, bytes, flags: 0, settings: Vec::new(), kind: 0 })?;
        Ok(None)
    }

    /// Adds memory that devices need (8.5); gives the reason if it is left out. Its last byte is named, not its end.
    fn add_rmrr(&mut self, structure: &[u8]) -> Result<Option<&'static str>, OutOfMemory> {
        let (Some(segment), Some(first), Some(last)) =
            (u16_in(structure, 6), u64_in(structure, 8), u64_in(structure, 16))
        else {
            return Ok(Some("a memory structure is too short"));
        };
        if segment != 0 {
            return Ok(Some("memory for devices of another segment than 0"));
        }
        if first > last || last >> ADDRESS_BITS != 0 {
            return Ok(Some("memory is empty, or ends where no memory is"));
        }
        let start = first >> PAGE_SHIFT;
        let pages = (last >> PAGE_SHIFT).saturating_sub(start).saturating_add(1);
        let devices = devices_of(structure.get(24..).unwrap_or_default());
        let region = Region { devices, start, pages, rights: (true, true) };
        if !self.regions.contains(&region) {
            push(&mut self.regions, region)?;
        }
        Ok(None)
    }
}

/// The first and the last of the devices of a scope (8.3), as far as they can be named without going through bridges; else all.
fn devices_of(mut scope: &[u8]) -> (u16, u16) {
    let mut range: Option<(u16, u16)> = None;
    while let [_, length, rest @ ..] = scope {
        let Some((entry, next)) = scope.split_at_checked(usize::from((*length).max(2))) else { break };
        let &[_, _, _, bus, device, function] = rest.get(..entry.len().saturating_sub(2)).unwrap_or_default() else {
            return (0, u16::MAX);
        };
        let place = u16::from_be_bytes([bus, device << 3 | function & 7]);
        range = Some(range.map_or((place, place), |(first, last)| (first.min(place), last.max(place))));
        scope = next;
    }
    range.unwrap_or((0, u16::MAX))
}

#[cfg(test)]
#[path = "dmar_tests.rs"]
pub(crate) mod tests;
