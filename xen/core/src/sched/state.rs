//! Whether a vCPU wants to run, and where it is in the schedule: the two words that everybody may change at any time, and the
//! steps that change them.
//!
//! Each step changes its own word first and looks at the other one afterwards, all in one order that all CPUs agree on
//! (`SeqCst`). So of two that meet, one sees the other: who goes to sleep sees that it was woken, or is seen asleep; who
//! is paused is seen on its CPU, or sees the pause. `state_model` compiles this very file with the atomics of a model
//! checker and tries all orders.

use super::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};

/// Where a vCPU is in the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Place {
    /// On no queue: it does not want to run, or may not.
    Off = 0,
    /// Waiting on the queue of its CPU, or on the way to it or from it.
    Queued = 1,
    /// Running on its CPU.
    Running = 2,
}

/// One pause, above the bits of reasons to wait.
const PAUSE: u32 = 1 << 8;
/// Reasons to wait: the meaning of their bits is the vCPU's business.
const REASONS: u32 = PAUSE - 1;

/// A vCPU's reasons not to run, and its place.
#[derive(Debug)]
pub struct RunState {
    /// Reasons to wait, and above them the number of pauses.
    reasons: AtomicU32,
    place: AtomicU8,
}

impl RunState {
    /// Off, and waiting for some reasons.
    pub fn new(reasons: u32) -> Self {
        Self { reasons: AtomicU32::new(reasons & REASONS), place: AtomicU8::new(Place::Off as u8) }
    }

    /// The reasons to wait.
    #[inline]
    pub fn reasons(&self) -> u32 {
        self.reasons.load(SeqCst) & REASONS
    }

    /// Adds reasons to wait; gives those before. Whoever waits must now look once more for what ends its waiting.
    #[inline]
    pub fn add(&self, reasons: u32) -> u32 {
        self.reasons.fetch_or(reasons & REASONS, SeqCst) & REASONS
    }

    /// Takes reasons to wait away; gives those before. If that was the last one, somebody must [`RunState::claim`].
    #[inline]
    pub fn clear(&self, reasons: u32) -> u32 {
        self.reasons.fetch_and(!(reasons & REASONS), SeqCst) & REASONS
    }

    /// Takes reasons away whose end has just come, if it waits for one of them: whether somebody must [`RunState::claim`]. What
    /// the waiting vCPU looks at must have been changed in the same order as the words here: by a locked instruction or a
    /// `SeqCst` store, which the look below cannot overtake.
    #[inline]
    pub fn end(&self, reasons: u32) -> bool {
        // Most often it does not wait, and a look is cheaper than a locked instruction.
        self.reasons() & reasons != 0 && self.clear(reasons) & reasons != 0
    }

    /// Pauses this vCPU alone; counts.
    pub fn pause(&self) {
        self.reasons.fetch_add(PAUSE, SeqCst);
    }

    /// Undoes one pause.
    pub fn unpause(&self) {
        let mut now = self.reasons.load(SeqCst);
        while let Some(less) = now.checked_sub(PAUSE) {
            match self.reasons.compare_exchange(now, less, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    /// Whether it wants to run, as far as it alone decides.
    #[inline]
    pub fn wants_to_run(&self) -> bool {
        self.reasons.load(SeqCst) == 0
    }

    /// Where it is.
    #[inline]
    pub fn place(&self) -> Place {
        match self.place.load(SeqCst) {
            0 => Place::Off,
            1 => Place::Queued,
            _ => Place::Running,
        }
    }

    /// Takes it from `Off` to `Queued`, if it wants to run and `may_run`: then the caller, and nobody else, must put it on a
    /// queue.
    #[must_use]
    pub fn claim(&self, may_run: impl Fn() -> bool) -> bool {
        while self.wants_to_run() && may_run() {
            if self.place.compare_exchange(Place::Off as u8, Place::Queued as u8, SeqCst, SeqCst).is_err() {
                // Whoever has it looks at its reasons when it lets go.
                return false;
            }
            // Whoever has stopped it since it was looked at, and found it off, must find it off from then on.
            if self.wants_to_run() && may_run() {
                return true;
            }
            self.leave();
        }
        false
    }

    /// Takes it from a queue onto a CPU. Whoever does must look at its reasons before it runs.
    #[inline]
    pub fn enter(&self) {
        self.place.swap(Place::Running as u8, SeqCst);
    }

    /// Takes it off a CPU or a queue. Whoever does must [`RunState::claim`] afterwards, for what came in between.
    #[inline]
    pub fn leave(&self) {
        self.place.swap(Place::Off as u8, SeqCst);
    }
}
