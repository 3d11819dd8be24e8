//! Guest memory by linear address: where hypercall pointers lead.
//!
//! A value lives for one hypercall. The pages that it uses are kept (`pages`): a hypercall reads a structure, then an array,
//! then writes the structure, and one walk each is enough; most often the hypercall before has used the same ones.
//! Granted pages cannot be pinned, and so cannot be used: as in Xen they are `EFAULT`.

use super::Run;
use super::pages::{Page, Pages, Steps};
use super::physical::{bytes_left, read_page, write_page};
use super::walk::{Mode, Registers};
use crate::domain::Domain;
use crate::p2m::{Access, PinError};
use machine::codec::vmcb::GuestState;
use machine::frame::Pin;
use machine::{Gpa, PAGE_SHIFT};
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where the pages are kept.
#[expect(clippy::large_enum_variant, reason = "lives on the stack of one call, and a hypercall must not allocate")]
enum Kept<'a> {
    /// By whoever makes one hypercall after the other: the run loop.
    Longer(&'a Pages),
    /// As long as this hypercall.
    Here(Pages),
}

/// A guest's memory as its own page tables show it at this moment: where hypercall pointers lead.
pub struct LinearMemory<'a> {
    /// Whose memory.
    pub domain: &'a Domain,
    /// Its registers decide how addresses are translated; most hypercalls never ask.
    guest: &'a GuestState,
    kept: Kept<'a>,
}

impl<'a> LinearMemory<'a> {
    /// The memory that a vCPU sees which has just left its guest.
    pub fn new(domain: &'a Domain, hardware: &'a machine::vcpu::Vcpu) -> Self {
        Self { domain, guest: hardware.guest(), kept: Kept::Here(Pages::new()) }
    }

    /// The same, where the hypercalls of the vCPU before have left pages, and later ones will find some.
    #[inline]
    pub fn keeping(domain: &'a Domain, hardware: &'a machine::vcpu::Vcpu, pages: &'a Pages) -> Self {
        pages.begin(domain.p2m.epoch());
        Self { domain, guest: hardware.guest(), kept: Kept::Longer(pages) }
    }

    /// The memory of a vCPU whose paging is off, for tests: linear addresses are physical.
    #[cfg(test)]
    pub fn unpaged(domain: &'a Domain) -> Self {
        const REGISTERS: &GuestState = &GuestState::ZERO;
        Self { domain, guest: REGISTERS, kept: Kept::Here(Pages::new()) }
    }

    #[inline]
    fn pages(&self) -> &Pages {
        match &self.kept {
            Kept::Longer(pages) => pages,
            Kept::Here(pages) => pages,
        }
    }

    /// Another hypercall of the same list begins: it sees what the ones before have left of the domain's map.
    #[inline]
    pub fn begin_call(&self) {
        self.pages().begin(self.domain.p2m.epoch());
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

    /// Pages one after the other, for reading many.
    pub fn run(&self) -> Run<'a> {
        Run::new(self.domain, self.guest)
    }

    /// Where a linear address leads in guest physical memory.
    ///
    /// # Errors
    /// `EFAULT`, when the guest's tables have no translation, or none that may be written.
    pub fn translate(&self, address: u64, access: Access) -> Result<Gpa, Errno> {
        let registers = Registers::of(self.guest);
        let address = registers.effective(address)?;
        let found = Mode::of(&registers).translate(&self.domain.p2m.reader(), address, &mut Steps::new())?;
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
        let registers = Registers::of(self.guest);
        let address = registers.effective(address)?;
        let (number, offset) = (address >> PAGE_SHIFT, address & 0xfff);
        let work = |pin: &Pin, page: Gpa| work(pin, page.checked_add(offset).ok_or(Errno::EFAULT)?);
        match self.pages().with(number, access, &registers, self.domain.p2m.epoch(), work) {
            Ok(result) => result,
            Err(work) => {
                let page = self.find_page(number, access)?;
                let result = work(&page.pin, page.gpa);
                self.pages().keep(page);
                result
            }
        }
    }

    #[inline(never)]
    fn find_page(&self, number: u64, access: Access) -> Result<Page, Errno> {
        let map = self.domain.p2m.reader();
        let mut steps = Steps::new();
        let registers = Registers::of(self.guest);
        let found = Mode::of(&registers).translate(&map, number << PAGE_SHIFT, &mut steps)?;
        let (gpa, epoch) = (found.gpa, self.domain.p2m.epoch());
        // What is read is often written next: then it need not be looked up again.
        if found.writable {
            match map.pin(gpa.frame(), Access::Write) {
                Ok(pin) => return Ok(Page { number, registers, epoch, steps, gpa, writable: true, pin }),
                Err(PinError::ReadOnly) => {}
                Err(_) => return Err(Errno::EFAULT),
            }
        }
        if access == Access::Write {
            return Err(Errno::EFAULT);
        }
        let pin = map.pin(gpa.frame(), Access::Read).map_err(|_| Errno::EFAULT)?;
        Ok(Page { number, registers, epoch, steps, gpa, writable: false, pin })
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
