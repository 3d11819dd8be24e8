//! Linear pages one after the other, for hypercalls that read long arrays: a walk costs a thousand instructions, and pages that
//! are neighbours have their entries in the same table of the lowest level.
//!
//! That table is pinned and kept. As with `pages`, a guest that changes its upper tables in the middle of its own hypercall gets
//! either page.

use super::pages::Steps;
use super::walk::{ADDRESS, Mode, PRESENT, Registers};
use crate::domain::Domain;
use crate::p2m::Access;
use core::sync::atomic::Ordering;
use machine::codec::vmcb::GuestState;
use machine::frame::Pin;
use machine::{Gpa, memory};
use public_abi::Errno;

/// Addresses that have their entries in one table: 2 MiB.
const REGION_SHIFT: u32 = 21;

/// Consecutive pages of a guest, as its own page tables show them.
pub struct Run<'a> {
    domain: &'a Domain,
    registers: Registers,
    /// The region of the last walk, and its table.
    table: Option<(u64, Pin)>,
}

impl<'a> Run<'a> {
    pub(super) fn new(domain: &'a Domain, guest: &GuestState) -> Self {
        Self { domain, registers: Registers::of(guest), table: None }
    }

    /// The page behind an address, for reading, and the address's place in it.
    ///
    /// # Errors
    /// `EFAULT`, when the guest cannot read there.
    pub fn page(&mut self, address: u64) -> Result<(Pin, usize), Errno> {
        let address = self.registers.effective(address)?;
        let map = self.domain.p2m.reader();
        let gpa = match &self.table {
            Some((region, table)) if *region == address >> REGION_SHIFT => beside(table, address)?,
            _ => {
                let mut steps = Steps::new();
                let found = Mode::of(&self.registers).translate(&map, address, &mut steps)?;
                self.table = steps.lowest_table().map(|table| (address >> REGION_SHIFT, table));
                found.gpa
            }
        };
        let pin = map.pin(gpa.frame(), Access::Read).map_err(|_| Errno::EFAULT)?;
        Ok((pin, gpa.offset()))
    }
}

/// Where an address leads by its entry in a table of the lowest level.
fn beside(table: &Pin, address: u64) -> Result<Gpa, Errno> {
    let index = usize::try_from(address >> 12 & 511).map_err(|_| Errno::EFAULT)?;
    let entry = memory::atomic::<u64>(table, index.saturating_mul(8)).ok_or(Errno::EFAULT)?.load(Ordering::Relaxed);
    if entry & PRESENT == 0 { Err(Errno::EFAULT) } else { Ok(Gpa::new(entry & ADDRESS | address & 0xfff)) }
}
