//! What comes of a request: the one language in which verbs answer the run loop.
//!
//! A verb returns `Reply`; with `?` an error, a restart, a wait or a crash travels up to `vcpu::run`, the one place that
//! writes guest registers. Everything here is `Copy` and small.

use public_abi::Errno;

/// Where a preempted hypercall goes on: the values that one of its argument registers, or two neighbours, get before the
/// guest executes the hypercall instruction again. The same hypercall decodes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    first: u8,
    count: Count,
    values: [u64; 2],
}

/// How many registers change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Count {
    One,
    Two,
}

impl Cursor {
    /// Changes one argument, counted from 0.
    pub const fn one(argument: u8, value: u64) -> Self {
        Self { first: argument, count: Count::One, values: [value, 0] }
    }

    /// Changes an argument and the one after it.
    pub const fn two(argument: u8, value: u64, next: u64) -> Self {
        Self { first: argument, count: Count::Two, values: [value, next] }
    }

    /// The changes: argument and new value.
    pub fn changes(self) -> impl Iterator<Item = (u8, u64)> {
        let count = match self.count {
            Count::One => 1,
            Count::Two => 2,
        };
        (self.first..).zip(self.values).take(count)
    }
}

/// Why a request does not simply have a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It failed.
    Error(Errno),
    /// It is not finished, but others must run: execute the instruction again, with the cursor's register changed.
    Restart(Option<Cursor>),
    /// It is finished with this value, and the vCPU waits in HLT until there is an interrupt that it takes.
    Block(u64),
    /// It is finished with this value, and another vCPU may run first.
    Yield(u64),
    /// The domain has done something that it cannot be run after; the text says what.
    Crash(&'static &'static str),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Error(errno)
    }
}

/// The answer to a request.
pub type Reply = Result<u64, Stop>;

const _: () = assert!(size_of::<Stop>() <= 24);

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn one_argument_changes_or_two() {
        assert_eq!(Cursor::one(3, 7).changes().collect::<Vec<_>>(), [(3, 7)]);
        assert_eq!(Cursor::two(0, 7, 8).changes().collect::<Vec<_>>(), [(0, 7), (1, 8)]);
    }
}
