//! Guest memory by linear address: where hypercall pointers lead.
//!
//! A value lives for one hypercall. It remembers the two pages that it used last, kept by a pin: a hypercall reads a
//! structure, then an array, then writes the structure, and one walk each is enough. Remembering is sound because a guest
//! that changes its tables in the middle of its own hypercall gets either page, and the pin keeps both from being freed; a
//! page is written only if the guest frame map has taken nothing away since the page was found writable.

use super::physical::{bytes_left, read_page, write_page};
use super::walk::{Mode, Registers};
use crate::domain::Domain;
use crate::p2m::{Access, PinError};
use core::cell::RefCell;
use machine::frame::Pin;
use machine::{Gpa, PAGE_SHIFT};
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A page used before.
struct Known {
    /// Linear page number.
    page: u64,
    /// Where it begins in guest physical memory.
    gpa: Gpa,
    /// Whether it was found writable, by the guest's tables and the p2m.
    writable: bool,
    /// The p2m's epoch then.
    epoch: u64,
    pin: Pin,
}

impl Known {
    /// Whether it serves an access to a page.
    #[inline]
    fn serves(&self, page: u64, access: Access, domain: &Domain) -> bool {
        self.page == page && (access == Access::Read || self.writable && self.epoch == domain.p2m.epoch())
    }
}

/// The pages used last. (Not a list: setting up an empty one must cost next to nothing.)
struct Remembered {
    newer: Option<Known>,
    older: Option<Known>,
}

/// A guest's memory as its own page tables show it at this moment: where hypercall pointers lead.
pub struct LinearMemory<'a> {
    /// Whose memory.
    pub domain: &'a Domain,
    registers: Registers,
    remembered: RefCell<Remembered>,
}

impl<'a> LinearMemory<'a> {
    /// The memory that a vCPU sees which has just left its guest.
    #[inline]
    pub fn new(domain: &'a Domain, hardware: &machine::vcpu::Vcpu) -> Self {
        Self {
            domain,
            registers: Registers::of(hardware.vmcb()),
            remembered: RefCell::new(Remembered { newer: None, older: None }),
        }
    }

    /// Fills `out` from a guest linear address.
    ///
    /// # Errors
    /// `EFAULT`, when any byte cannot be read; `out` may be partly filled.
    #[inline]
    pub fn read_bytes(&self, address: u64, out: &mut [u8]) -> Result<(), Errno> {
        let mut at = address;
        let mut rest = out;
        while !rest.is_empty() {
            let length = rest.len().min(left_in_page(at));
            let (part, later) = rest.split_at_mut(length);
            self.with_page(at, Access::Read, |pin, gpa| read_page(pin, gpa.offset(), part))?;
            at = advance(at, length)?;
            rest = later;
        }
        Ok(())
    }

    /// Writes `bytes` to a guest linear address, and marks what it writes as dirty.
    ///
    /// # Errors
    /// `EFAULT`, when any byte cannot be written; the bytes before it have been written.
    #[inline]
    pub fn write_bytes(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut at = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = rest.len().min(left_in_page(at));
            let (part, later) = rest.split_at(length);
            self.with_page(at, Access::Write, |pin, gpa| write_page(&self.domain.p2m, pin, gpa, part))?;
            at = advance(at, length)?;
            rest = later;
        }
        Ok(())
    }

    /// Reads a structure.
    ///
    /// # Errors
    /// As [`LinearMemory::read_bytes`].
    #[inline]
    pub fn read<T: FromBytes + IntoBytes>(&self, pointer: GuestPtr<T>) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(pointer.address(), value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a structure.
    ///
    /// # Errors
    /// As [`LinearMemory::write_bytes`].
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, pointer: GuestPtr<T>, value: &T) -> Result<(), Errno> {
        self.write_bytes(pointer.address(), value.as_bytes())
    }

    /// Reads an element of an array.
    ///
    /// # Errors
    /// As [`LinearMemory::read_bytes`]; also when the address wraps around.
    #[inline]
    pub fn read_at<T: FromBytes + IntoBytes>(&self, pointer: GuestPtr<T>, index: u64) -> Result<T, Errno> {
        self.read(pointer.element(index).ok_or(Errno::EFAULT)?)
    }

    /// Writes an element of an array.
    ///
    /// # Errors
    /// As [`LinearMemory::write_bytes`]; also when the address wraps around.
    #[inline]
    pub fn write_at<T: IntoBytes + Immutable>(&self, pointer: GuestPtr<T>, index: u64, value: &T) -> Result<(), Errno> {
        self.write(pointer.element(index).ok_or(Errno::EFAULT)?, value)
    }

    /// Where a linear address leads in guest physical memory.
    ///
    /// # Errors
    /// `EFAULT`, when the guest's tables have no translation, or none that may be written.
    pub fn translate(&self, address: u64, access: Access) -> Result<Gpa, Errno> {
        let mode = Mode::of(&self.registers);
        let found = mode.translate(&self.domain.p2m.reader(), mode.effective(address)?)?;
        if access == Access::Write && !found.writable { Err(Errno::EFAULT) } else { Ok(found.gpa) }
    }

    /// A writable pin of the page at a linear address, and the address's place in it. The page must be RAM of the domain's
    /// own, because the pin outlives the hypercall.
    ///
    /// # Errors
    /// `EFAULT`, when the guest cannot write there.
    pub fn pin(&self, address: u64) -> Result<(Pin, usize), Errno> {
        let gpa = self.translate(address, Access::Write)?;
        let pin = self.domain.p2m.pin_for_others(gpa.frame(), Access::Write).map_err(|_| Errno::EFAULT)?;
        Ok((pin, gpa.offset()))
    }

    /// Does something with the page behind an address.
    #[inline]
    fn with_page(
        &self,
        address: u64,
        access: Access,
        work: impl FnOnce(&Pin, Gpa) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mode = Mode::of(&self.registers);
        let address = mode.effective(address)?;
        let (page, offset) = (address >> PAGE_SHIFT, address & 0xfff);
        {
            let remembered = self.remembered.try_borrow().map_err(|_| Errno::EFAULT)?;
            let mut places = remembered.newer.iter().chain(&remembered.older);
            if let Some(known) = places.find(|known| known.serves(page, access, self.domain)) {
                return work(&known.pin, known.gpa.checked_add(offset).ok_or(Errno::EFAULT)?);
            }
        }
        let known = self.find_page(mode, page, access)?;
        let result = known.gpa.checked_add(offset).ok_or(Errno::EFAULT).and_then(|gpa| work(&known.pin, gpa));
        if let Ok(mut remembered) = self.remembered.try_borrow_mut() {
            let Remembered { newer, older } = &mut *remembered;
            *older = newer.replace(known);
        }
        result
    }

    fn find_page(&self, mode: Mode, page: u64, access: Access) -> Result<Known, Errno> {
        let map = self.domain.p2m.reader();
        let found = mode.translate(&map, page << PAGE_SHIFT)?;
        let (gpa, epoch) = (found.gpa, self.domain.p2m.epoch());
        // What is read is often written next: then it need not be looked up again.
        if found.writable {
            match map.pin(gpa.frame(), Access::Write) {
                Ok(pin) => return Ok(Known { page, gpa, writable: true, epoch, pin }),
                Err(PinError::ReadOnly) => {}
                Err(_) => return Err(Errno::EFAULT),
            }
        }
        if access == Access::Write {
            return Err(Errno::EFAULT);
        }
        let pin = map.pin(gpa.frame(), Access::Read).map_err(|_| Errno::EFAULT)?;
        Ok(Known { page, gpa, writable: false, epoch, pin })
    }
}

/// Bytes from a linear address to the end of its page.
#[inline]
fn left_in_page(address: u64) -> usize {
    bytes_left(Gpa::new(address))
}

#[inline]
fn advance(address: u64, count: usize) -> Result<u64, Errno> {
    // Wrapping past the end of the address space is not an error of the last byte before it.
    Ok(address.wrapping_add(u64::try_from(count).map_err(|_| Errno::EFAULT)?))
}
