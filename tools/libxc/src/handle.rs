//! A handle on the hypervisor: hypercalls with typed arguments, over any trap.
//!
//! The verbs (`verbs/`) are written with two methods: [`Handle::call`] for calls whose arguments fit in registers, and
//! [`Handle::exchange`] for those that pass a structure and perhaps an array by address. Both go through one scratch
//! buffer, so that a call costs no allocation.

use std::cell::RefCell;

use public_abi::{GuestPtr, Request};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{Error, Result};
use crate::fault::{self, Fault, Kind};
use crate::trap::{Buf, Trap};

/// Bytes of the scratch buffer; calls with more get a buffer of their own.
const SCRATCH: usize = 64 << 10;
/// Where the array starts; no structure is longer, except those of [`Handle::exchange`] whose array is empty.
const ARRAY: usize = 512;

/// An array that goes with a structure.
pub enum Array<'a> {
    /// None.
    None,
    /// Read by the hypervisor.
    In(&'a [u8]),
    /// Written by the hypervisor.
    Out(&'a mut [u8]),
    /// Both.
    InOut(&'a mut [u8]),
}

impl Array<'_> {
    fn len(&self) -> usize {
        match self {
            Array::None => 0,
            Array::In(bytes) => bytes.len(),
            Array::Out(bytes) | Array::InOut(bytes) => bytes.len(),
        }
    }
}

/// A handle on the hypervisor.
pub struct Handle<T: Trap> {
    trap: T,
    scratch: RefCell<T::Buf>,
    /// The buffer of long copies, between two of them.
    pub(crate) spare: RefCell<Option<T::Buf>>,
}

impl<T: Trap> Handle<T> {
    /// A handle over a trap.
    pub fn new(trap: T) -> Result<Handle<T>> {
        let scratch = RefCell::new(trap.alloc(SCRATCH)?);
        Ok(Handle { trap, scratch, spare: RefCell::new(None) })
    }

    /// The trap, for mappings and events.
    pub fn trap(&self) -> &T {
        &self.trap
    }

    /// Makes a call whose pointers, if it has any, are in order already. `operation` says which, for messages.
    pub fn call(&self, operation: &'static str, request: &Request) -> Result<u64> {
        let (number, [a, b, c, d, e, _]) = request.encode();
        let family = request.call().name();
        let made = match fault::check(Kind::Hypercall, || format!("{family} {operation}")) {
            Ok(()) => self.trap.hypercall(number, [a, b, c, d, e]),
            Err(fault) => Err(Fault::errno(fault)),
        };
        made.map_err(|errno| Error::Hypercall { family, operation, errno })
    }

    /// Makes a call that takes the address of a structure, which is copied in and out.
    ///
    /// `link` is told the array's address and puts it into the structure; `request` makes the call from the structure's.
    pub fn exchange<S: FromBytes + IntoBytes + Immutable>(
        &self,
        operation: &'static str,
        value: &mut S,
        array: Array<'_>,
        link: impl FnOnce(&mut S, u64),
        request: impl FnOnce(GuestPtr<()>) -> Request,
    ) -> Result<u64> {
        debug_assert!(array.len() == 0 || size_of::<S>() <= ARRAY, "the structure would overlap its array");
        let needed = if array.len() == 0 { size_of::<S>() } else { ARRAY + array.len() };
        let mut own;
        let mut shared;
        let buffer: &mut T::Buf = if needed <= SCRATCH {
            shared = self.scratch.borrow_mut();
            &mut shared
        } else {
            own = self.trap.alloc(needed)?;
            &mut own
        };
        link(value, buffer.address() + ARRAY as u64);
        buffer.write_at(0, value.as_bytes());
        if let Array::In(bytes) = &array {
            buffer.write_at(ARRAY, bytes);
        } else if let Array::InOut(bytes) = &array {
            buffer.write_at(ARRAY, bytes);
        }
        let result = self.call(operation, &request(GuestPtr::from_address(buffer.address())));
        let mut answer = vec![0; size_of::<S>()];
        buffer.read_at(0, &mut answer);
        *value = S::read_from_bytes(&answer).unwrap_or_else(|_| S::new_zeroed());
        if let Array::Out(bytes) | Array::InOut(bytes) = array {
            buffer.read_at(ARRAY, bytes);
        }
        result
    }
}
