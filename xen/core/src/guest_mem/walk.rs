//! The walk of a guest's own page tables, in every paging mode of x86 (AMD APM volume 2, chapter 5).
//!
//! As Xen's for hypercall buffers: user and supervisor pages are alike, accessed and dirty bits are left alone, and a write
//! needs the guest's permission to write at every level if CR0.WP is set.

use super::pages::Steps;
use crate::p2m::{Access, Reader};
use machine::Gpa;
use machine::codec::registers::{cr0, cr4, efer};
use machine::codec::vmcb::GuestState;
use machine::memory::PinnedWord;
use public_abi::Errno;

/// What is there can be read.
pub(super) const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// Where an entry says that the next level, or the page, is.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The registers that decide how a vCPU translates linear addresses, at the moment of the exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Registers {
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
}

impl Registers {
    /// Copies them.
    #[inline]
    pub(super) fn of(state: &GuestState) -> Self {
        Self { cr0: state.cr0, cr3: state.cr3, cr4: state.cr4, efer: state.efer() }
    }

    /// The address as they let the vCPU see it: outside of long mode only 32 bits count.
    ///
    /// # Errors
    /// `EFAULT` for an address that is not canonical.
    #[inline]
    pub(super) fn effective(&self, address: u64) -> Result<u64, Errno> {
        if self.cr0 & cr0::PG == 0 || self.efer & efer::LMA == 0 {
            return Ok(address & 0xffff_ffff);
        }
        // The bits above the translated ones, 48 or 57, repeat the highest of them.
        let unused = if self.cr4 & cr4::LA57 == 0 { 64 - 48 } else { 64 - 57 };
        let extended = (address << unused).cast_signed() >> unused;
        if extended.cast_unsigned() == address { Ok(address) } else { Err(Errno::EFAULT) }
    }
}

/// How a vCPU translates linear addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Linear addresses are physical.
    Unpaged,
    /// Two levels of 32-bit entries.
    Legacy {
        /// CR3.
        root: u64,
        /// CR4.PSE: 4 MiB pages.
        large: bool,
        /// CR0.WP.
        protect: bool,
    },
    /// Three levels of 64-bit entries.
    Pae {
        /// CR3.
        root: u64,
        /// CR0.WP.
        protect: bool,
    },
    /// Four or five levels of 64-bit entries.
    Long {
        /// CR3.
        root: u64,
        /// 4 or 5.
        levels: u32,
        /// CR0.WP.
        protect: bool,
    },
}

/// Where a linear address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Translation {
    /// The guest physical address.
    pub(super) gpa: Gpa,
    /// Whether the guest's tables let it be written.
    pub(super) writable: bool,
}

impl Mode {
    /// The mode that a vCPU's registers select.
    #[inline]
    pub(super) fn of(registers: &Registers) -> Self {
        let Registers { cr0, cr3: root, cr4, efer } = *registers;
        let protect = cr0 & cr0::WP != 0;
        if cr0 & cr0::PG == 0 {
            Self::Unpaged
        } else if efer & efer::LMA != 0 {
            Self::Long { root, levels: if cr4 & cr4::LA57 != 0 { 5 } else { 4 }, protect }
        } else if cr4 & cr4::PAE != 0 {
            Self::Pae { root, protect }
        } else {
            Self::Legacy { root, large: cr4 & cr4::PSE != 0, protect }
        }
    }

    /// Walks the guest's tables for an effective address. The entries on the way go into `steps`.
    ///
    /// # Errors
    /// `EFAULT`, when there is no translation, or a table is not in RAM.
    pub(super) fn translate(self, map: &Reader<'_>, address: u64, steps: &mut Steps) -> Result<Translation, Errno> {
        match self {
            Self::Unpaged => Ok(Translation { gpa: Gpa::new(address), writable: true }),
            Self::Legacy { root, large, protect } => {
                // Nobody is in a hurry in this mode.
                steps.skip();
                walk_legacy(map, root, large, protect, address)
            }
            Self::Pae { root, protect } => {
                // The four entries of the highest level have no rights of their own (5.3.4).
                let entry = read_entry(map, (root & 0xffff_ffe0) + (address >> 30 & 3) * 8, steps)?;
                walk_long(map, entry & ADDRESS, 2, protect, address, steps)
            }
            Self::Long { root, levels, protect } => walk_long(map, root & ADDRESS, levels, protect, address, steps),
        }
    }
}

/// Reads an 8-byte entry. Tables are aligned, so it lies in one page.
#[inline]
fn read_entry(map: &Reader<'_>, at: u64, steps: &mut Steps) -> Result<u64, Errno> {
    let at = Gpa::new(at);
    let page = map.pin(at.frame(), Access::Read).map_err(|_| Errno::EFAULT)?;
    let word = PinnedWord::new(page, at.offset()).ok_or(Errno::EFAULT)?;
    let entry = word.load();
    steps.add(word, entry);
    if entry & PRESENT == 0 { Err(Errno::EFAULT) } else { Ok(entry) }
}

/// Walks `levels` levels of 64-bit entries from the table at `table`.
fn walk_long(
    map: &Reader<'_>,
    table: u64,
    levels: u32,
    protect: bool,
    address: u64,
    steps: &mut Steps,
) -> Result<Translation, Errno> {
    let (mut table, mut level) = (table, levels);
    let mut writable = true;
    loop {
        let shift = 3 + 9 * level;
        let entry = read_entry(map, table + (address >> shift & 511) * 8, steps)?;
        writable &= !protect || entry & WRITABLE != 0;
        let is_leaf = level == 1 || level <= 3 && entry & LARGE != 0;
        if is_leaf {
            let inside = (1 << shift) - 1;
            return Ok(Translation { gpa: Gpa::new(entry & ADDRESS & !inside | address & inside), writable });
        }
        table = entry & ADDRESS;
        level = level.saturating_sub(1);
    }
}

/// Walks the two levels of 32-bit entries (5.2).
fn walk_legacy(map: &Reader<'_>, root: u64, large: bool, protect: bool, address: u64) -> Result<Translation, Errno> {
    let directory = read_entry_32(map, (root & 0xffff_f000) + (address >> 22 & 1023) * 4)?;
    let mut writable = !protect || directory & WRITABLE != 0;
    if large && directory & LARGE != 0 {
        // Bits 39:32 of a 4 MiB page's address stand in bits 20:13 (5.2.3).
        let base = directory & 0xffc0_0000 | (directory >> 13 & 0xff) << 32;
        return Ok(Translation { gpa: Gpa::new(base | address & 0x3f_ffff), writable });
    }
    let entry = read_entry_32(map, (directory & 0xffff_f000) + (address >> 12 & 1023) * 4)?;
    writable &= !protect || entry & WRITABLE != 0;
    Ok(Translation { gpa: Gpa::new(entry & 0xffff_f000 | address & 0xfff), writable })
}

fn read_entry_32(map: &Reader<'_>, at: u64) -> Result<u64, Errno> {
    let at = Gpa::new(at);
    let mut bytes = [0; 4];
    map.read(at, &mut bytes).map_err(|_| Errno::EFAULT)?;
    let entry = u64::from(u32::from_le_bytes(bytes));
    if entry & PRESENT == 0 { Err(Errno::EFAULT) } else { Ok(entry) }
}
