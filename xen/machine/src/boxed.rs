//! One value on the heap, or the news that there is no memory.
//!
//! The standard `Box::new` ends the program when memory is out, and a guest could make that happen; this one says so.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// A value of its own on the heap.
#[derive(Debug)]
pub struct Boxed<T>(Vec<T>);

/// There was no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl<T> Boxed<T> {
    /// Moves `value` to the heap.
    ///
    /// # Errors
    /// [`OutOfMemory`]; the value is dropped.
    pub fn try_new(value: T) -> Result<Self, OutOfMemory> {
        let mut one = Vec::new();
        one.try_reserve_exact(1).map_err(|_| OutOfMemory)?;
        one.push(value);
        Ok(Self(one))
    }

    /// Gives the value up to live for ever.
    pub fn leak(self) -> &'static mut T
    where
        T: 'static,
    {
        let all = self.0.leak();
        // SAFETY: as in `deref`.
        unsafe { all.get_unchecked_mut(0) }
    }
}

impl<T> Deref for Boxed<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `try_new` put exactly one element in, and nothing takes it out before drop.
        unsafe { self.0.get_unchecked(0) }
    }
}

impl<T> DerefMut for Boxed<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { self.0.get_unchecked_mut(0) }
    }
}
