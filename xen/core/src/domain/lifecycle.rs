//! Whether a domain runs: pause counts, shutdown, the steps of dying. All of it in one order for all CPUs, like the reasons of
//! a vCPU not to run (see `vcpu`).

use super::shutdown::Watchdogs;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Why a domain stopped (public/sched.h, SHUTDOWN_*).
pub type ShutdownReason = u8;

/// No reason announced.
const RUNNING: u32 = u32::MAX;

/// How far a domain's end has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Stage {
    /// It lives.
    Alive = 0,
    /// It is being taken apart; nothing new may begin.
    Dying = 1,
    /// Only references of others keep it.
    Dead = 2,
}

/// What keeps a domain from running, in one word: it is read before each entry of a guest. Zero means that it runs.
mod word {
    /// Pauses by the system, counted.
    pub(super) const SYSTEM_PAUSE: u64 = 1;
    pub(super) const SYSTEM_PAUSES: u64 = 0xffff;
    /// Pauses by the toolstack, counted.
    pub(super) const TOOLSTACK_PAUSE: u64 = 1 << 16;
    pub(super) const TOOLSTACK_PAUSES: u64 = 0xffff << 16;
    /// Xen allows 255.
    pub(super) const MOST_TOOLSTACK_PAUSES: u64 = 255 << 16;
    /// Shut down; the reason is above.
    pub(super) const SHUT_DOWN: u64 = 1 << 32;
    pub(super) const REASON_SHIFT: u32 = 40;
    /// How far the end has come: a `Stage`.
    pub(super) const STAGE_SHIFT: u32 = 48;
}

/// The flags and counts; all of them atomics.
#[derive(Debug)]
pub struct Lifecycle {
    /// Pauses, shutdown and stage, as `word` says.
    ///
    /// Pauses of either kind are each to be undone by the same: the system's by creation, destruction, suspension.
    word: AtomicU64,
    /// Nothing of it runs any more since it was shut down, and those who want to know have been told.
    is_at_rest: AtomicBool,
    /// The reason that the guest announced for its next shutdown (SCHEDOP_shutdown_code).
    announced: AtomicU32,
    /// The guest's watchdog timers.
    pub watchdogs: Watchdogs,
    /// A CPU is taking the domain apart now.
    teardown: AtomicBool,
}

/// The exclusive right to take a domain apart; given back when dropped, so that the next step may be another CPU's.
#[derive(Debug)]
#[must_use = "another CPU may begin a step as soon as this is dropped"]
pub struct TeardownTurn<'a>(&'a AtomicBool);

impl Drop for TeardownTurn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Lifecycle {
    /// A new domain's: paused by the toolstack once, as after createdomain.
    pub const fn new() -> Self {
        Self {
            word: AtomicU64::new(word::TOOLSTACK_PAUSE),
            is_at_rest: AtomicBool::new(false),
            announced: AtomicU32::new(RUNNING),
            watchdogs: Watchdogs::new(),
            teardown: AtomicBool::new(false),
        }
    }

    #[inline]
    fn word(&self) -> u64 {
        self.word.load(Ordering::SeqCst)
    }

    /// Replaces the word if `change` agrees to what is there.
    fn change(&self, change: impl FnMut(u64) -> Option<u64>) -> bool {
        self.word.try_update(Ordering::SeqCst, Ordering::SeqCst, change).is_ok()
    }

    /// Whether its vCPUs may not run.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.word() != 0
    }

    /// Pauses for the system.
    pub fn pause_by_system(&self) {
        self.word.fetch_add(word::SYSTEM_PAUSE, Ordering::SeqCst);
    }

    /// Undoes one pause of the system.
    pub fn unpause_by_system(&self) {
        self.change(|word| (word & word::SYSTEM_PAUSES != 0).then(|| word.wrapping_sub(word::SYSTEM_PAUSE)));
    }

    /// Pauses for the toolstack; false when it has paused too often (Xen allows 255).
    #[must_use]
    pub fn pause_by_toolstack(&self) -> bool {
        self.change(|word| {
            let has_room = word & word::TOOLSTACK_PAUSES < word::MOST_TOOLSTACK_PAUSES;
            has_room.then(|| word.wrapping_add(word::TOOLSTACK_PAUSE))
        })
    }

    /// Undoes one pause of the toolstack; false if there was none.
    #[must_use]
    pub fn unpause_by_toolstack(&self) -> bool {
        self.change(|word| (word & word::TOOLSTACK_PAUSES != 0).then(|| word.wrapping_sub(word::TOOLSTACK_PAUSE)))
    }

    /// Whether the toolstack has paused it.
    pub fn is_paused_by_toolstack(&self) -> bool {
        self.word() & word::TOOLSTACK_PAUSES != 0
    }

    /// Shuts down with a reason. False if it was shut down already: the first reason stays.
    #[must_use]
    pub fn shut_down(&self, reason: ShutdownReason) -> bool {
        let set = word::SHUT_DOWN | u64::from(reason) << word::REASON_SHIFT;
        self.change(|word| (word & word::SHUT_DOWN == 0).then_some(word | set))
    }

    /// The reason of the shutdown, if it is shut down and nothing of it runs any more: its memory stays as it is.
    pub fn shutdown_reason(&self) -> Option<ShutdownReason> {
        self.is_at_rest.load(Ordering::SeqCst).then(|| self.wanted_shutdown()).flatten()
    }

    /// The reason of the shutdown, if it is shut down, even if a CPU is still in the guest.
    pub fn wanted_shutdown(&self) -> Option<ShutdownReason> {
        let word = self.word();
        (word & word::SHUT_DOWN != 0).then_some((word >> word::REASON_SHIFT & 0xff) as u8)
    }

    /// Notes that a domain that is shut down has come to rest; true for the first who does.
    #[must_use]
    pub fn come_to_rest(&self) -> bool {
        !self.is_at_rest.swap(true, Ordering::SeqCst)
    }

    /// Announces the reason of the next shutdown; the first announcement stays, and is what any later shutdown reports.
    pub fn announce(&self, reason: ShutdownReason) -> ShutdownReason {
        let reason = u32::from(reason);
        let before = self.announced.compare_exchange(RUNNING, reason, Ordering::AcqRel, Ordering::Acquire);
        u8::try_from(before.err().unwrap_or(reason)).unwrap_or(u8::MAX)
    }

    /// Undoes a shutdown (resume after suspend).
    pub fn clear_shutdown(&self) {
        self.announced.store(RUNNING, Ordering::Release);
        self.is_at_rest.store(false, Ordering::SeqCst);
        self.word.fetch_and(!(word::SHUT_DOWN | 0xff << word::REASON_SHIFT), Ordering::SeqCst);
    }

    /// How far the end has come.
    pub fn stage(&self) -> Stage {
        match self.word() >> word::STAGE_SHIFT {
            0 => Stage::Alive,
            1 => Stage::Dying,
            _ => Stage::Dead,
        }
    }

    /// Begins a step of the end; `None` while another CPU is at it.
    pub fn begin_teardown_step(&self) -> Option<TeardownTurn<'_>> {
        let free = self.teardown.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        free.then(|| TeardownTurn(&self.teardown))
    }

    /// Goes on to a later stage; earlier ones cannot come back.
    pub fn advance(&self, stage: Stage) {
        self.change(|word| {
            let below = word & !(u64::MAX << word::STAGE_SHIFT);
            Some(below | (word >> word::STAGE_SHIFT).max(stage as u64) << word::STAGE_SHIFT)
        });
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_of_both_kinds_add_up() {
        let life = Lifecycle::new();
        assert!(life.is_stopped(), "a new domain is paused");
        assert!(life.unpause_by_toolstack());
        assert!(!life.is_stopped());
        assert!(!life.unpause_by_toolstack(), "an unpause too many is refused");
        life.pause_by_system();
        assert!(life.pause_by_toolstack());
        life.unpause_by_system();
        assert!(life.is_stopped());
    }

    #[test]
    fn pauses_end_at_their_limit_and_touch_nothing_else() {
        let life = Lifecycle::new();
        for _ in 1..255 {
            assert!(life.pause_by_toolstack());
        }
        assert!(!life.pause_by_toolstack());
        assert_eq!((life.shutdown_reason(), life.stage()), (None, Stage::Alive));
        for _ in 0..255 {
            assert!(life.unpause_by_toolstack());
        }
        life.unpause_by_system();
        assert!(!life.is_stopped(), "an unpause too many changes nothing");
    }

    #[test]
    fn the_end_goes_on_only() {
        let life = Lifecycle::new();
        assert!(life.unpause_by_toolstack());
        life.advance(Stage::Dead);
        life.advance(Stage::Dying);
        assert_eq!(life.stage(), Stage::Dead);
        assert!(life.is_stopped());
        life.pause_by_system();
        assert_eq!(life.stage(), Stage::Dead);
    }

    #[test]
    fn one_cpu_at_a_time_takes_a_domain_apart() {
        let life = Lifecycle::new();
        let turn = life.begin_teardown_step();
        assert!(turn.is_some());
        assert!(life.begin_teardown_step().is_none());
        drop(turn);
        assert!(life.begin_teardown_step().is_some());
    }

    #[test]
    fn the_first_shutdown_reason_stays() {
        let life = Lifecycle::new();
        assert!(life.shut_down(3));
        assert!(!life.shut_down(0));
        assert_eq!(life.wanted_shutdown(), Some(3));
        assert_eq!(life.shutdown_reason(), None, "something of it may still run");
        assert!(life.come_to_rest());
        assert!(!life.come_to_rest(), "once");
        assert_eq!(life.shutdown_reason(), Some(3));
        life.clear_shutdown();
        assert_eq!((life.shutdown_reason(), life.wanted_shutdown()), (None, None));
        assert!(life.shut_down(0));
        assert_eq!(life.wanted_shutdown(), Some(0), "reason 0 is a reason, too");
    }
}
