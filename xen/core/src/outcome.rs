//! What comes of a request: the one language in which verbs answer the run loop.
//!
//! A verb returns `Reply`; with `?` an error, a restart, a wait or a crash travels up to `vcpu::run`, the one place that
//! writes guest registers. Everything here is `Copy` and small.

use public_abi::Errno;

/// Where a preempted hypercall goes on: the value that one of its argument registers gets before the guest executes the
/// hypercall instruction again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// Which argument, counted from 0.
    pub argument: u8,
    /// Its new value, which the same hypercall decodes.
    pub value: u64,
}

/// Why a request does not simply have a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It failed.
    Error(Errno),
    /// It is not finished, but others must run: execute the instruction again, with the cursor's register changed.
    Restart(Option<Cursor>),
    /// It is finished with this value, and the vCPU waits until an event wakes it.
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
