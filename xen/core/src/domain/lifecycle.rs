//! Whether a domain runs: pause counts, shutdown, the steps of dying. All of it in one order for all CPUs, like the reasons of
//! a vCPU not to run (see `vcpu`).

use super::shutdown::Watchdogs;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// Why a domain stopped (public/sched.h, SHUTDOWN_*).
pub type ShutdownReason = u8;

/// Not shut down.
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

/// The flags and counts; all of them atomics, read on every schedule.
#[derive(Debug)]
pub struct Lifecycle {
    /// Pauses by the system (creation, destruction, suspension), each to be undone by the same.
    system_pauses: AtomicU32,
    /// Pauses by the toolstack.
    toolstack_pauses: AtomicU32,
    shutdown: AtomicU32,
    /// Nothing of it runs any more since it was shut down, and those who want to know have been told.
    is_at_rest: AtomicBool,
    /// The reason that the guest announced for its next shutdown (SCHEDOP_shutdown_code).
    announced: AtomicU32,
    /// The guest's watchdog timers.
    pub watchdogs: Watchdogs,
    stage: AtomicU8,
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
            system_pauses: AtomicU32::new(0),
            toolstack_pauses: AtomicU32::new(1),
            shutdown: AtomicU32::new(RUNNING),
            is_at_rest: AtomicBool::new(false),
            announced: AtomicU32::new(RUNNING),
            watchdogs: Watchdogs::new(),
            stage: AtomicU8::new(Stage::Alive as u8),
            teardown: AtomicBool::new(false),
        }
    }

    /// Whether its vCPUs may not run.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.system_pauses.load(Ordering::SeqCst) != 0
            || self.toolstack_pauses.load(Ordering::SeqCst) != 0
            || self.shutdown.load(Ordering::SeqCst) != RUNNING
            || self.stage.load(Ordering::SeqCst) != Stage::Alive as u8
    }

    /// Pauses for the system.
    pub fn pause_by_system(&self) {
        self.system_pauses.fetch_add(1, Ordering::SeqCst);
    }

    /// Undoes one pause of the system.
    pub fn unpause_by_system(&self) {
        self.system_pauses.try_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).ok();
    }

    /// Pauses for the toolstack; false when it has paused too often (Xen allows 255).
    #[must_use]
    pub fn pause_by_toolstack(&self) -> bool {
        let change = |count: u32| (count < 255).then_some(count.saturating_add(1));
        self.toolstack_pauses.try_update(Ordering::SeqCst, Ordering::SeqCst, change).is_ok()
    }

    /// Undoes one pause of the toolstack; false if there was none.
    #[must_use]
    pub fn unpause_by_toolstack(&self) -> bool {
        self.toolstack_pauses.try_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
    }

    /// Whether the toolstack has paused it.
    pub fn is_paused_by_toolstack(&self) -> bool {
        self.toolstack_pauses.load(Ordering::SeqCst) != 0
    }

    /// Shuts down with a reason. False if it was shut down already: the first reason stays.
    #[must_use]
    pub fn shut_down(&self, reason: ShutdownReason) -> bool {
        self.shutdown.compare_exchange(RUNNING, u32::from(reason), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The reason of the shutdown, if it is shut down and nothing of it runs any more: its memory stays as it is.
    pub fn shutdown_reason(&self) -> Option<ShutdownReason> {
        self.is_at_rest.load(Ordering::SeqCst).then(|| self.wanted_shutdown()).flatten()
    }

    /// The reason of the shutdown, if it is shut down, even if a CPU is still in the guest.
    pub fn wanted_shutdown(&self) -> Option<ShutdownReason> {
        u8::try_from(self.shutdown.load(Ordering::SeqCst)).ok()
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
        self.shutdown.store(RUNNING, Ordering::SeqCst);
    }

    /// How far the end has come.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
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
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
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
    }
}
