//! Linear pages one after the other, for hypercalls that read long arrays: a walk costs a thousand instructions, and pages that
//! are neighbours have their entries in the same table of the lowest level.
//!
//! That table is pinned and kept. As with `pages`, a guest that changes its upper tables in the middle of its own hypercall gets
//! either page.

use super::pages::Steps;
use super::walk::{ADDRESS, Mode, PRESENT, Registers};
use crate::domain::Domain;
use crate::p2m::{Access, Neighbours};
use core::sync::atomic::Ordering;
use machine::codec::vmcb::GuestState;
use machine::frame::Pin;
use machine::{Gpa, PAGE_SIZE, PAGE_SIZE_U64, memory};
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
        let map = self.domain.p2m.reader();
        let pin = self.pin(&mut map.neighbours(), address, Access::Read)?;
        Ok((pin, Gpa::new(address).offset()))
    }

    /// The pages that `length` bytes from an address on lie in, as many as `pins` has room for; fewer if one cannot be accessed
    /// that is not the first. Those to be written are marked as written.
    ///
    /// # Errors
    /// `EFAULT`, when the guest cannot access the first.
    pub fn pages<const N: usize>(
        &mut self,
        address: u64,
        length: usize,
        access: Access,
        pins: &mut heapless::Vec<Pin, N>,
    ) -> Result<(), Errno> {
        let domain = self.domain;
        let map = domain.p2m.reader();
        let mut near = map.neighbours();
        let count = length.saturating_add(Gpa::new(address).offset()).div_ceil(PAGE_SIZE);
        let mut at = address;
        while pins.len() < count.min(N) {
            let pin = match self.pin(&mut near, at, access) {
                Ok(pin) => pin,
                Err(error) if pins.is_empty() => return Err(error),
                Err(_) => break,
            };
            if pins.push(pin).is_err() {
                break;
            }
            at = at.wrapping_add(PAGE_SIZE_U64);
        }
        Ok(())
    }

    fn pin(&mut self, near: &mut Neighbours<'_>, address: u64, access: Access) -> Result<Pin, Errno> {
        let address = self.registers.effective(address)?;
        let gpa = match &self.table {
            Some((region, table)) if *region == address >> REGION_SHIFT && access == Access::Read => {
                beside(table, address)?
            }
            _ => self.walk(near, address, access)?,
        };
        let pin = near.pin(gpa.frame(), access).map_err(|_| Errno::EFAULT)?;
        if access == Access::Write {
            // Before it is written: who harvests the mark afterwards sees the bytes or marks again.
            self.domain.p2m.mark_dirty(gpa.frame());
        }
        Ok(pin)
    }

    /// Walks the guest's tables, and keeps the lowest.
    fn walk(&mut self, near: &Neighbours<'_>, address: u64, access: Access) -> Result<Gpa, Errno> {
        let mut steps = Steps::new();
        let found = Mode::of(&self.registers).translate(near.map(), address, &mut steps)?;
        if access == Access::Write && !found.writable {
            return Err(Errno::EFAULT);
        }
        self.table = steps.lowest_table().map(|table| (address >> REGION_SHIFT, table));
        Ok(found.gpa)
    }
}

/// Where an address leads by its entry in a table of the lowest level.
fn beside(table: &Pin, address: u64) -> Result<Gpa, Errno> {
    let index = usize::try_from(address >> 12 & 511).map_err(|_| Errno::EFAULT)?;
    let entry = memory::atomic::<u64>(table, index.saturating_mul(8)).ok_or(Errno::EFAULT)?.load(Ordering::Relaxed);
    if entry & PRESENT == 0 { Err(Errno::EFAULT) } else { Ok(Gpa::new(entry & ADDRESS | address & 0xfff)) }
}
