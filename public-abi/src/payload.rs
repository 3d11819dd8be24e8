//! Which structure may occupy which union.
//!
//! Several requests (domctl, sysctl, platform_op, dm_op, altp2m) are a command number followed by a union. A union
//! in safe Rust is an array of integers; the traits here say which structures may be read from or written to it, so
//! that neither the toolstack nor the hypervisor can pair a command with another command's parameters. The macros of
//! `layout.rs` implement them; `domctl.rs`, `sysctl.rs`, … use them.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A request that begins with a command number and carries a union.
pub trait Commanded {
    /// The enum of its commands.
    type Command: 'static + Copy + PartialEq + TryFrom<u32> + Into<u32>;
}

/// A structure that is the parameter of some commands of `U`.
pub trait Payload<U: Commanded>: FromBytes + IntoBytes + Immutable {
    /// The commands that carry this structure.
    const COMMANDS: &'static [U::Command];
}

/// A structure that is a member of the union in `U`.
pub trait MemberOf<U>: FromBytes + IntoBytes + Immutable {}

/// A union was accessed as the parameter structure of another command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongPayload {
    /// The command number in the request.
    pub command: u32,
    /// The type that was asked for.
    pub payload: &'static str,
}

impl fmt::Display for WrongPayload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "command {} does not carry a {}", self.command, self.payload)
    }
}

impl core::error::Error for WrongPayload {}

/// Succeeds if `command` is one of those that carry `T`.
pub(crate) fn check<U: Commanded, T: Payload<U>>(command: u32) -> Result<(), WrongPayload> {
    let known = U::Command::try_from(command).ok();
    if known.is_some_and(|command| T::COMMANDS.contains(&command)) {
        Ok(())
    } else {
        Err(WrongPayload { command, payload: core::any::type_name::<T>() })
    }
}

/// Reads a `T` from the beginning of a union. The caller's macro has asserted that it fits.
pub(crate) fn read<T: FromBytes>(union: &[u8]) -> T {
    match T::read_from_prefix(union) {
        Ok((value, _)) => value,
        // Cannot happen: the sizes are compared at compile time. Zero is the honest value of nothing.
        Err(_) => T::new_zeroed(),
    }
}

/// Writes `value` to the beginning of a union and zeroes what follows, so that no stale bytes leave.
pub(crate) fn write<T: IntoBytes + Immutable>(union: &mut [u8], value: &T) {
    let bytes = value.as_bytes();
    union.fill(0);
    for (to, from) in union.iter_mut().zip(bytes) {
        *to = *from;
    }
}
