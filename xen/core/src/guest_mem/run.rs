//! Linear pages one after the other, for hypercalls that read long arrays: a walk costs a thousand instructions, and pages that
//! are neighbours have their entries in the same table of the lowest level.
//!
//! That table is pinned and kept. As with `pages`, a guest that changes its upper tables in the middle of its own hypercall gets
//! either page.

use super::pages::Steps;
use super::walk::{ADDRESS, Mode, PRESENT, Registers};
use crate::domain::Domain;
use crate::p2m::Neighbours;
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
        let pin = self.pin(&mut map.neighbours(), address)?;
        Ok((pin, Gpa::new(address).offset()))
    }

    /// The pages that `length` bytes from an address on lie in, for reading, as many as `pins` has room for; fewer if one that is
    /// not the first cannot be read.
    ///
    /// # Errors
    /// `EFAULT`, when the guest cannot read the first.
    pub fn pages<const N: usize>(
        &mut self,
        address: u64,
        length: usize,
        pins: &mut heapless::Vec<Pin, N>,
    ) -> Result<(), Errno> {
        let domain = self.domain;
        let map = domain.p2m.reader();
        let mut near = map.neighbours();
        let count = length.saturating_add(Gpa::new(address).offset()).div_ceil(PAGE_SIZE).min(N);
        let mut at = address;
        while pins.len() < count {
            let pin = match self.pin(&mut near, at) {
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

    #[inline]
    fn pin(&mut self, near: &mut Neighbours<'_>, address: u64) -> Result<Pin, Errno> {
        let address = self.registers.effective(address)?;
        let gpa = match &self.table {
            Some((region, table)) if *region == address >> REGION_SHIFT => beside(table, address)?,
            _ => self.walk(near, address)?,
        };
        near.pin(gpa.frame()).map_err(|_| Errno::EFAULT)
    }

    /// Walks the guest's tables, and keeps the lowest.
    #[inline(never)]
    fn walk(&mut self, near: &Neighbours<'_>, address: u64) -> Result<Gpa, Errno> {
        let mut steps = Steps::new();
        let found = Mode::of(&self.registers).translate(near.map(), address, &mut steps)?;
        self.table = steps.lowest_table().map(|table| (address >> REGION_SHIFT, table));
        Ok(found.gpa)
    }

    /// Copies bytes that begin `start` bytes into the first of these pages to an address, into RAM of the domain's own: `length`, or as
    /// many as the pages have, or up to what cannot be written. Gives how many.
    ///
    /// # Errors
    /// `EFAULT`, when the guest cannot write the first.
    pub fn fill(&self, address: u64, sources: &[Pin], start: usize, length: usize) -> Result<usize, Errno> {
        let mode = Mode::of(&self.registers);
        let map = self.domain.p2m.reader();
        let mut near = map.neighbours();
        let mut done = 0;
        let mut at = address;
        while done < length {
            let (from, to) = (start.saturating_add(done), Gpa::new(at).offset());
            let Some(source) = sources.get(from / PAGE_SIZE) else { break };
            let from = from % PAGE_SIZE;
            let part = length.saturating_sub(done).min(PAGE_SIZE.saturating_sub(from.max(to)));
            let copied = self
                .gpa_for_writing(mode, &near, at)
                .and_then(|gpa| near.copy(gpa.frame(), to, source, from, part).map_err(|_| Errno::EFAULT));
            match copied {
                Ok(()) => {}
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            done = done.saturating_add(part);
            at = at.wrapping_add(u64::try_from(part).unwrap_or(0));
        }
        Ok(done)
    }

    #[inline]
    fn gpa_for_writing(&self, mode: Mode, near: &Neighbours<'_>, address: u64) -> Result<Gpa, Errno> {
        let address = self.registers.effective(address)?;
        if mode == Mode::Unpaged {
            return Ok(Gpa::new(address));
        }
        // Upper levels have a say in writing, so each page is walked for.
        let found = mode.translate(near.map(), address, &mut Steps::new())?;
        if found.writable { Ok(found.gpa) } else { Err(Errno::EFAULT) }
    }
}

/// Where an address leads by its entry in a table of the lowest level.
fn beside(table: &Pin, address: u64) -> Result<Gpa, Errno> {
    let index = usize::try_from(address >> 12 & 511).map_err(|_| Errno::EFAULT)?;
    let entry = memory::atomic::<u64>(table, index.saturating_mul(8)).ok_or(Errno::EFAULT)?.load(Ordering::Relaxed);
    if entry & PRESENT == 0 { Err(Errno::EFAULT) } else { Ok(Gpa::new(entry & ADDRESS | address & 0xfff)) }
}
