//! The firmware's table of AMD's IOMMUs, IVRS: which units there are, what devices want, and which memory devices need at all
//! times. Pure, and distrustful: what makes no sense is left out with a reason.
//! (AMD I/O Virtualization Technology Specification 48882, chapter 5.)
//!
//! Before this: `boot::acpi` has read the table. After it: `iommu`, which sets units up, and `dom0`, which reserves memory.

use super::firmware::{Complaint, Firmware, Region, Unit, push};
use crate::boot::acpi::{HEADER_BYTES, u16_in, u64_in};
use alloc::vec::Vec;
use machine::boxed::OutOfMemory;
use machine::codec::amd_iommu::register;
use machine::iommu::{Maker, Settings};
use machine::{PAGE_SHIFT, PAGE_SIZE_U64};

/// Where blocks begin: behind the header, IVinfo and a reserved word.
const FIRST_BLOCK: usize = HEADER_BYTES + 12;
/// Addresses that four levels of tables translate.
const ADDRESS_BITS: u32 = 48;

impl Firmware {
    /// Reads AMD's table, whose length and checksum were found right.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn read_ivrs(table: &[u8], mut complain: impl FnMut(Complaint)) -> Result<Self, OutOfMemory> {
        let mut ivrs = Self { maker: Maker::Amd, ..Self::default() };
        let mut at = FIRST_BLOCK;
        while let Some(length) = u16_in(table, at.saturating_add(2)) {
            let end = at.saturating_add(usize::from(length));
            let Some(block) = table.get(at..end).filter(|_| length >= 4) else {
                complain(Complaint { table: "IVRS", at, reason: "a block does not end inside of it" });
                break;
            };
            let complaint = match block.first() {
                Some(0x10 | 0x11 | 0x40) => ivrs.add_unit(block)?,
                Some(0x20..=0x22) => ivrs.add_region(block)?,
                // Blocks of other types may come with later revisions.
                _ => None,
            };
            if let Some(reason) = complaint {
                complain(Complaint { table: "IVRS", at, reason });
            }
            at = end;
        }
        Ok(ivrs)
    }

    /// Adds a unit's block; gives the reason if it is left out, or a part of it.
    fn add_unit(&mut self, block: &[u8]) -> Result<Option<&'static str>, OutOfMemory> {
        let header = if block.first() == Some(&0x10) { 24 } else { 40 };
        let (Some(entries), &[kind, flags, ..]) = (block.get(header..), block) else {
            return Ok(Some("a unit's block is too short"));
        };
        let (Some(place), Some(registers), Some(segment)) = (u16_in(block, 4), u64_in(block, 8), u16_in(block, 16))
        else {
            return Ok(Some("a unit's block is too short"));
        };
        if segment != 0 {
            return Ok(Some("a unit of another segment than 0 stays off"));
        }
        let is_possible = registers.checked_add(register::BYTES).is_some_and(|end| end <= 1 << ADDRESS_BITS);
        if registers == 0 || !registers.is_multiple_of(register::BYTES) || !is_possible {
            return Ok(Some("a unit's registers cannot be where it says"));
        }
        let (settings, complaint) = device_settings(entries)?;
        let (place, bytes) = (Some(place), register::BYTES);
        let unit = Unit { place, registers, bytes, flags, settings, kind };
        match self.units.iter_mut().find(|other| other.place == place) {
            Some(other) if other.kind < kind => *other = unit,
            Some(_) => {}
            None => push(&mut self.units, unit)?,
        }
        Ok(complaint)
    }

    /// Adds a memory block; gives the reason if it is left out.
    fn add_region(&mut self, block: &[u8]) -> Result<Option<&'static str>, OutOfMemory> {
        const READ: u8 = 1 << 1;
        const WRITE: u8 = 1 << 2;
        const EXCLUDED: u8 = 1 << 3;
        let [kind, flags, ..] = *block else { return Ok(Some("a memory block is too short")) };
        let fields = (u16_in(block, 4), u16_in(block, 6), u64_in(block, 16), u64_in(block, 24));
        let (Some(first), Some(last), Some(start), Some(length)) = fields else {
            return Ok(Some("a memory block is too short"));
        };
        let devices = match kind {
            0x20 => (0, u16::MAX),
            0x21 => (first, first),
            _ => (first, last),
        };
        let end = start.checked_add(length).filter(|end| *end <= 1 << ADDRESS_BITS && length > 0);
        let (Some(end), true) = (end, devices.0 <= devices.1) else {
            return Ok(Some("a memory block is empty, or ends where no memory is"));
        };
        let start = start >> PAGE_SHIFT;
        let pages = end.div_ceil(PAGE_SIZE_U64).saturating_sub(start);
        let is_excluded = flags & EXCLUDED != 0;
        let rights = (is_excluded || flags & READ != 0, is_excluded || flags & WRITE != 0);
        let region = Region { devices, start, pages, rights };
        if rights == (false, false) {
            return Ok(Some("a memory block gives no right"));
        }
        if !self.regions.contains(&region) {
            push(&mut self.regions, region)?;
        }
        Ok(None)
    }
}

/// What devices want, by the entries of a unit's block, and what is wrong with them, if anything is.
#[expect(clippy::type_complexity, reason = "two things that come from one walk")]
fn device_settings(mut entries: &[u8]) -> Result<(Vec<(u16, u16, Settings)>, Option<&'static str>), OutOfMemory> {
    let mut all = Vec::new();
    // A range that has begun, and what its devices want.
    let mut range = None;
    while let [kind, rest @ ..] = entries {
        let length = match kind {
            // With an ACPI name: its unique id ends it (48882, table 95).
            0xf0..=0xff => rest.get(20).map_or(usize::MAX, |id| usize::from(*id).saturating_add(22)),
            0..=0x3f => 4,
            0x40..=0x7f => 8,
            0x80..=0xbf => 16,
            _ => 32,
        };
        let Some((entry, next)) = entries.split_at_checked(length) else {
            return Ok((all, Some("a device entry does not end inside of its block")));
        };
        entries = next;
        let (Some(device), Some(settings)) = (u16_in(entry, 1), entry.get(3).copied().map(Settings)) else { break };
        match kind {
            1 => push(&mut all, (0, u16::MAX, settings))?,
            // One device; also as another's alias, with more settings, or with a name.
            2 | 0x42 | 0x46 | 0xf0 => push(&mut all, (device, device, settings))?,
            3 | 0x43 | 0x47 => range = Some((device, settings)),
            4 => match range.take() {
                Some((first, settings)) if first <= device => push(&mut all, (first, device, settings))?,
                _ => return Ok((all, Some("a range of devices ends before it begins"))),
            },
            // A device that is no PCI function (0x48): an interrupt controller or a timer, under the function that stands for it.
            0x48 => {
                if let Some(stand_in) = u16_in(entry, 5) {
                    push(&mut all, (stand_in, stand_in, settings))?;
                }
            }
            _ => {}
        }
    }
    Ok((all, None))
}

#[cfg(test)]
#[path = "ivrs_tests.rs"]
pub(crate) mod tests;
