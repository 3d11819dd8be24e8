//! Guest memory by guest physical address.

use crate::domain::Domain;
use crate::p2m::{Access, DomainP2m};
use machine::frame::Pin;
use machine::{Gpa, PAGE_SIZE, memory};
use public_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A domain's memory as its processors see it without paging. Ranges may cross pages.
#[derive(Clone, Copy)]
pub struct PhysicalMemory<'a> {
    domain: &'a Domain,
}

impl<'a> PhysicalMemory<'a> {
    /// The memory of a domain.
    pub fn new(domain: &'a Domain) -> Self {
        Self { domain }
    }

    /// Fills `out` from guest physical memory.
    ///
    /// # Errors
    /// `EFAULT`, when any byte is not in readable RAM; `out` may be partly filled.
    pub fn read_bytes(&self, gpa: Gpa, out: &mut [u8]) -> Result<(), Errno> {
        let mut at = gpa;
        let mut rest = out;
        while !rest.is_empty() {
            let (part, later) = split_at_page(at, rest);
            let pin = pin(&self.domain.p2m, at, Access::Read)?;
            read_page(&pin, at.offset(), part)?;
            at = advance(at, part.len())?;
            rest = later;
        }
        Ok(())
    }

    /// Writes bytes to guest physical memory.
    ///
    /// # Errors
    /// `EFAULT`, when any byte is not in writable RAM; the bytes before it have been written.
    pub fn write_bytes(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        let mut at = gpa;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (part, later) = rest.split_at(rest.len().min(bytes_left(at)));
            let pin = pin(&self.domain.p2m, at, Access::Write)?;
            write_page(&self.domain.p2m, &pin, at, part)?;
            at = advance(at, part.len())?;
            rest = later;
        }
        Ok(())
    }

    /// Reads a structure.
    ///
    /// # Errors
    /// As [`PhysicalMemory::read_bytes`].
    pub fn read<T: FromBytes + IntoBytes>(&self, gpa: Gpa) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(gpa, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a structure.
    ///
    /// # Errors
    /// As [`PhysicalMemory::write_bytes`].
    pub fn write<T: IntoBytes + Immutable>(&self, gpa: Gpa, value: &T) -> Result<(), Errno> {
        self.write_bytes(gpa, value.as_bytes())
    }
}

/// Bytes from an address to the end of its page.
#[inline]
pub(super) fn bytes_left(at: Gpa) -> usize {
    PAGE_SIZE.saturating_sub(at.offset())
}

fn split_at_page(at: Gpa, bytes: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    let length = bytes.len().min(bytes_left(at));
    bytes.split_at_mut(length)
}

fn advance(at: Gpa, count: usize) -> Result<Gpa, Errno> {
    at.checked_add(u64::try_from(count).map_err(|_| Errno::EFAULT)?).ok_or(Errno::EFAULT)
}

/// Keeps the page behind an address. Whatever is wrong with it, it cannot be accessed.
#[inline]
fn pin(p2m: &DomainP2m, at: Gpa, access: Access) -> Result<Pin, Errno> {
    p2m.pin(at.frame(), access).map_err(|_| Errno::EFAULT)
}

/// Reads from one page.
#[inline]
pub(super) fn read_page(pin: &Pin, offset: usize, out: &mut [u8]) -> Result<(), Errno> {
    if memory::read(pin, offset, out) { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Writes to one page and marks it dirty: every copy of the hypervisor into guest memory ends here.
#[inline]
pub(super) fn write_page(p2m: &DomainP2m, pin: &Pin, at: Gpa, bytes: &[u8]) -> Result<(), Errno> {
    // Marked first: who harvests the mark afterwards sees the bytes or marks again.
    p2m.mark_dirty(at.frame());
    if memory::write(pin, at.offset(), bytes) { Ok(()) } else { Err(Errno::EFAULT) }
}
