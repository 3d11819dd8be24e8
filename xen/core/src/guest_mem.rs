//! The only door to guest memory.

use crate::domain::Domain;
use crate::p2m::Access;
use machine::boxed::OutOfMemory;
use machine::frame::{self, Fill, Kind, Pin};
use machine::{DomId, Gpa, Mfn, memory};
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A page that the hypervisor shares with a guest.
#[derive(Debug)]
pub struct SharedPage(Pin);

impl SharedPage {
    /// A zeroed page of `owner`.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(owner: DomId) -> Result<Self, OutOfMemory> {
        frame::allocate(0, Kind::Shared, owner, Fill::Zero).map(|mfn| Self(Pin::from_entry(mfn))).ok_or(OutOfMemory)
    }

    /// Where it is.
    pub fn mfn(&self) -> Mfn {
        self.0.mfn()
    }

    /// Access to its content.
    pub fn pin(&self) -> &Pin {
        &self.0
    }
}

/// A guest's memory as its own page tables show it at this moment: where hypercall pointers lead.
pub struct LinearMemory<'a> {
    /// Whose memory.
    pub domain: &'a Domain,
}

impl LinearMemory<'_> {
    /// A pin of the page at a linear address, and the place in it.
    ///
    /// # Errors
    /// EFAULT.
    pub fn pin_for_writing(&self, address: u64) -> Result<(Pin, usize), Errno> {
        let gpa = Gpa::new(address);
        self.domain.p2m.pin(gpa.frame(), Access::Write).map(|pin| (pin, gpa.offset())).map_err(|_| Errno::EFAULT)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// EFAULT.
    pub fn read<T: FromBytes + IntoBytes>(&self, pointer: GuestPtr<T>) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        let (pin, offset) = self.pin_for_writing(pointer.address())?;
        if memory::read(&pin, offset, value.as_mut_bytes()) { Ok(value) } else { Err(Errno::EFAULT) }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write<T: IntoBytes + Immutable>(&self, pointer: GuestPtr<T>, value: &T) -> Result<(), Errno> {
        let (pin, offset) = self.pin_for_writing(pointer.address())?;
        if memory::write(&pin, offset, value.as_bytes()) { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Reads an element of an array.
    ///
    /// # Errors
    /// EFAULT.
    pub fn read_at<T: FromBytes + IntoBytes>(&self, pointer: GuestPtr<T>, index: u64) -> Result<T, Errno> {
        self.read(pointer.element(index).ok_or(Errno::EFAULT)?)
    }

    /// Writes an element of an array.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write_at<T: IntoBytes + Immutable>(&self, pointer: GuestPtr<T>, index: u64, value: &T) -> Result<(), Errno> {
        self.write(pointer.element(index).ok_or(Errno::EFAULT)?, value)
    }
}
