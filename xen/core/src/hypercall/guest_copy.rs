//! Copies between hypercall arguments and the caller's memory, as the control hypercalls use them.
//!
//! `LinearMemory` has methods of the same names; inherent methods win over a trait's, so this trait only matters to a build
//! in which they do not exist yet, and it can be deleted once they do. It comes after `guest_mem` and before the families.

use crate::guest_mem::LinearMemory;
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Reading and writing a caller's memory by value, each byte once.
pub trait GuestCopy {
    /// Fills `out` from a guest linear address.
    ///
    /// # Errors
    /// `EFAULT`, when any byte cannot be read.
    fn read_bytes(&self, address: u64, out: &mut [u8]) -> Result<(), Errno>;

    /// Writes `bytes` to a guest linear address.
    ///
    /// # Errors
    /// `EFAULT`, when any byte cannot be written.
    fn write_bytes(&self, address: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// Reads a structure.
    ///
    /// # Errors
    /// As [`GuestCopy::read_bytes`].
    fn read<T: FromBytes + IntoBytes>(&self, pointer: GuestPtr<T>) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(pointer.address(), value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a structure.
    ///
    /// # Errors
    /// As [`GuestCopy::write_bytes`].
    fn write<T: IntoBytes + Immutable>(&self, pointer: GuestPtr<T>, value: &T) -> Result<(), Errno> {
        self.write_bytes(pointer.address(), value.as_bytes())
    }

    /// Reads an element of an array.
    ///
    /// # Errors
    /// As [`GuestCopy::read_bytes`]; also when the address wraps around.
    fn read_at<T: FromBytes + IntoBytes>(&self, pointer: GuestPtr<T>, index: u64) -> Result<T, Errno> {
        self.read(pointer.element(index).ok_or(Errno::EFAULT)?)
    }

    /// Writes an element of an array.
    ///
    /// # Errors
    /// As [`GuestCopy::write_bytes`]; also when the address wraps around.
    fn write_at<T: IntoBytes + Immutable>(&self, pointer: GuestPtr<T>, index: u64, value: &T) -> Result<(), Errno> {
        self.write(pointer.element(index).ok_or(Errno::EFAULT)?, value)
    }
}

impl GuestCopy for LinearMemory<'_> {
    fn read_bytes(&self, _address: u64, _out: &mut [u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }

    fn write_bytes(&self, _address: u64, _bytes: &[u8]) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }
}
