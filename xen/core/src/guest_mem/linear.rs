//! Guest memory by linear address: where hypercall pointers lead.
//!
//! A value lives for one hypercall. It remembers the two pages that it used last, kept by a pin: a hypercall reads a
//! structure, then an array, then writes the structure, and one walk each is enough. Remembering is sound because a guest
//! that changes its tables in the middle of its own hypercall gets either page, and the pin keeps both from being freed.
//! Granted pages cannot be pinned, and so cannot be used: as in Xen they are `EFAULT`. Between the calls of a list what is
//! remembered is given up if anything was taken away from the domain's map meanwhile.

use super::physical::{bytes_left, read_page, write_page};
use super::walk::Mode;
use crate::domain::Domain;
use crate::p2m::Access;
use core::cell::{Cell, RefCell};
use machine::frame::Pin;
use machine::{Gpa, PAGE_SHIFT};
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Pages that are remembered.
const REMEMBERED: usize = 2;

/// A page used before.
struct Known {
    /// Linear page number.
    page: u64,
    /// Where it begins in guest physical memory.
    gpa: Gpa,
    /// Whether it was found writable, by the guest's tables and the p2m.
    writable: bool,
    pin: Pin,
}

/// A guest's memory as its own page tables show it at this moment: where hypercall pointers lead.
pub struct LinearMemory<'a> {
    /// Whose memory.
    pub domain: &'a Domain,
    mode: Mode,
    known: RefCell<[Option<Known>; REMEMBERED]>,
    /// The p2m's epoch when remembering began.
    epoch: Cell<u64>,
    /// Which place to forget next.
    oldest: Cell<usize>,
}

impl<'a> LinearMemory<'a> {
    /// The memory that a vCPU sees which has just left its guest.
    #[inline]
    pub fn new(domain: &'a Domain, hardware: &machine::vcpu::Vcpu) -> Self {
        Self {
            domain,
            mode: Mode::of(hardware.vmcb()),
            known: RefCell::new([const { None }; REMEMBERED]),
            epoch: Cell::new(domain.p2m.epoch()),
            oldest: Cell::new(0),
        }
    }

    /// Gives up the pages that are remembered, if anything was taken away from the domain's map since they were found: the
    /// next call of a list sees what there is now.
    #[inline]
    pub fn forget_if_changed(&self) {
        let epoch = self.domain.p2m.epoch();
        if self.epoch.replace(epoch) == epoch {
            return;
        }
        if let Ok(mut places) = self.known.try_borrow_mut() {
            *places = [const { None }; REMEMBERED];
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
        let found = self.mode.translate(&self.domain.p2m.reader(), self.mode.effective(address)?)?;
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
        let address = self.mode.effective(address)?;
        let (page, offset) = (address >> PAGE_SHIFT, address & 0xfff);
        let is_match = |known: &Known| known.page == page && (access == Access::Read || known.writable);
        {
            let places = self.known.try_borrow().map_err(|_| Errno::EFAULT)?;
            for known in places.iter().flatten() {
                if is_match(known) {
                    return work(&known.pin, known.gpa.checked_add(offset).ok_or(Errno::EFAULT)?);
                }
            }
        }
        let known = self.find_page(page, access)?;
        let result = known.gpa.checked_add(offset).ok_or(Errno::EFAULT).and_then(|gpa| work(&known.pin, gpa));
        let place = self.oldest.get();
        self.oldest.set(if place == 0 { REMEMBERED - 1 } else { place.saturating_sub(1) });
        let forgotten = match self.known.try_borrow_mut() {
            Ok(mut places) => places.get_mut(place).and_then(|place| place.replace(known)),
            Err(_) => None,
        };
        drop(forgotten);
        result
    }

    fn find_page(&self, page: u64, access: Access) -> Result<Known, Errno> {
        let map = self.domain.p2m.reader();
        let found = self.mode.translate(&map, page << PAGE_SHIFT)?;
        let writable = access == Access::Write;
        if writable && !found.writable {
            return Err(Errno::EFAULT);
        }
        // Pinned for what is asked: a page that is only read may become read-only in between.
        let pin = map.pin(found.gpa.frame(), access).map_err(|_| Errno::EFAULT)?;
        Ok(Known { page, gpa: found.gpa, writable, pin })
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
