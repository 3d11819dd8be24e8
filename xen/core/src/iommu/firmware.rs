//! What the firmware's tables say of IOMMUs, whoever made them: which units there are, and which memory devices need at all times.
//!
//! Before this: `ivrs` and `dmar`, which read the tables. After it: `iommu`, which sets units up, and `dom0`, which reserves memory.

use crate::pci::access::Place;
use alloc::vec::Vec;
use machine::PAGE_SHIFT;
use machine::boxed::OutOfMemory;
use machine::iommu::{Maker, Settings};

/// A unit (a hardware definition block of AMD's, IVHD, or of Intel's, DRHD).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Its own PCI function, which Intel's have not: bus in bits 15:8, device in 7:3, function in 2:0.
    pub place: Option<u16>,
    /// Where its registers are.
    pub registers: u64,
    /// How many bytes they take: whole pages.
    pub bytes: u64,
    /// What it needs to be told at its start.
    pub flags: u8,
    /// What devices behind it want: first, last, and what.
    pub settings: Vec<(u16, u16, Settings)>,
    /// The type of the block: there may be several for one unit, of which the highest type says the most.
    pub(super) kind: u8,
}

impl core::fmt::Display for Unit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.place {
            Some(place) => write!(f, "{}", Place(place)),
            None => write!(f, "the unit at {:#x}", self.registers),
        }
    }
}

/// Memory that devices need at all times (a memory definition block, IVMD, or a reserved memory region, RMRR).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// The devices: first and last.
    pub devices: (u16, u16),
    /// The first page.
    pub start: u64,
    /// Pages; at least one.
    pub pages: u64,
    /// What they do with it. A region that is excluded from translation is both read and written.
    pub rights: (bool, bool),
}

impl Region {
    /// The bytes, first and end.
    pub const fn bytes(&self) -> (u64, u64) {
        (self.start << PAGE_SHIFT, self.start.saturating_add(self.pages) << PAGE_SHIFT)
    }
}

/// Something in the table that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Which table.
    pub table: &'static str,
    /// Where in the table.
    pub at: usize,
    /// Why.
    pub reason: &'static str,
}

impl core::fmt::Display for Complaint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the ACPI table {} at offset {:#x}: {}", self.table, self.at, self.reason)
    }
}

/// All that the table says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Firmware {
    /// Whose units they are.
    pub maker: Maker,
    /// Units of segment 0.
    pub units: Vec<Unit>,
    /// Memory that devices need.
    pub regions: Vec<Region>,
}

/// Adds to a list, if there is memory.
pub(super) fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), OutOfMemory> {
    list.try_reserve(1).map_err(|_| OutOfMemory)?;
    list.push(item);
    Ok(())
}
