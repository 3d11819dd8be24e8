//! The state machine of `state` under a model checker: all orders in which a few CPUs can take its steps, with all that
//! their store buffers may do.
//!
//! `state.rs` is compiled here a second time with the checker's atomics. The checker knows no sequentially consistent
//! accesses, only fences; so a change that asks for `SeqCst`, and only that, gets a fence on both sides, and a load that asks
//! for it is an ordinary one: what compilers make of them on x86. An ordering in `state.rs` that is too weak fails here.

extern crate std;

#[path = "state.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled a second time on purpose, see above")]
mod state;

use atomic::{AtomicU8, Ordering};
use loom::sync::Arc;
use loom::thread;
use state::{Place, RunState};
use std::sync::atomic::{AtomicUsize, Ordering as PlainOrdering};

/// Atomics with real `SeqCst` accesses.
mod atomic {
    pub use loom::sync::atomic::Ordering;
    use loom::sync::atomic::fence;

    /// A change, with fences if it asks for `SeqCst`.
    fn change<R>(order: Ordering, access: impl FnOnce(Ordering) -> R) -> R {
        if order != Ordering::SeqCst {
            return access(order);
        }
        fence(Ordering::SeqCst);
        let result = access(Ordering::AcqRel);
        fence(Ordering::SeqCst);
        result
    }

    macro_rules! atomics {
        ($($name:ident $plain:ty;)*) => {$(
            #[derive(Debug)]
            pub struct $name(loom::sync::atomic::$name);

            #[allow(dead_code, reason = "each is used by one of the two files")]
            impl $name {
                pub fn new(value: $plain) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $plain {
                    self.0.load(if order == Ordering::SeqCst { Ordering::Acquire } else { order })
                }

                pub fn store(&self, value: $plain, order: Ordering) {
                    change(order, |order| self.0.store(value, if order == Ordering::AcqRel { Ordering::Release } else { order }))
                }

                pub fn swap(&self, value: $plain, order: Ordering) -> $plain {
                    change(order, |order| self.0.swap(value, order))
                }

                pub fn fetch_or(&self, value: $plain, order: Ordering) -> $plain {
                    change(order, |order| self.0.fetch_or(value, order))
                }

                pub fn fetch_and(&self, value: $plain, order: Ordering) -> $plain {
                    change(order, |order| self.0.fetch_and(value, order))
                }

                pub fn fetch_add(&self, value: $plain, order: Ordering) -> $plain {
                    change(order, |order| self.0.fetch_add(value, order))
                }

                pub fn compare_exchange(
                    &self,
                    old: $plain,
                    new: $plain,
                    good: Ordering,
                    bad: Ordering,
                ) -> Result<$plain, $plain> {
                    let bad = if bad == Ordering::SeqCst { Ordering::Acquire } else { bad };
                    change(good, |good| self.0.compare_exchange(old, new, good, bad))
                }
            }
        )*};
    }
    atomics! { AtomicU8 u8; AtomicU32 u32; }
}

const BLOCKED: u32 = 1 << 1;

/// A vCPU, what could end its sleep, and the queue that it may be on, as a count.
struct World {
    state: RunState,
    pending: AtomicU8,
    paused: AtomicU8,
    queued: AtomicU8,
    inside: AtomicU8,
}

impl World {
    /// A vCPU that runs.
    fn running() -> Self {
        let world = Self {
            state: RunState::new(0),
            pending: AtomicU8::new(0),
            paused: AtomicU8::new(0),
            queued: AtomicU8::new(0),
            inside: AtomicU8::new(0),
        };
        assert!(world.state.claim(|| true));
        world.state.enter();
        world
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst) != 0
    }

    /// As `sched::resume`.
    fn resume(&self) {
        if self.state.claim(|| !self.is_paused()) {
            assert_eq!(self.queued.swap(1, Ordering::AcqRel), 0, "on the queue twice");
        }
    }

    /// As SCHEDOP_block and what follows in the run loop: true if the vCPU has left its CPU.
    fn block(&self) -> bool {
        self.state.add(BLOCKED);
        if self.pending.load(Ordering::Acquire) != 0 {
            self.state.clear(BLOCKED);
            return false;
        }
        self.state.leave();
        self.resume();
        true
    }

    /// As the end of whatever makes something pending.
    fn wake(&self) {
        self.pending.swap(1, Ordering::SeqCst);
        if self.state.end(BLOCKED) {
            self.resume();
        }
    }

    /// As the run loop with a picked vCPU: true if it has been in its guest.
    fn run(&self) -> bool {
        if self.queued.swap(0, Ordering::AcqRel) == 0 {
            return false;
        }
        self.state.enter();
        let may_run = !self.is_paused() && self.state.wants_to_run();
        if may_run {
            self.inside.store(1, Ordering::Relaxed);
            self.inside.store(0, Ordering::Release);
        }
        self.state.leave();
        self.resume();
        may_run
    }

    /// As `sched::wait_until_off`.
    fn wait_until_off(&self) {
        loop {
            match self.state.place() {
                Place::Off => return,
                Place::Queued if self.queued.swap(0, Ordering::AcqRel) != 0 => self.state.leave(),
                Place::Queued | Place::Running => thread::yield_now(),
            }
        }
    }

    /// Nobody has it, so it is either on a queue, or off for a reason.
    fn check_at_rest(&self) {
        let is_queued = self.queued.load(Ordering::Acquire) != 0;
        match self.state.place() {
            Place::Off => assert!(!is_queued && (!self.state.wants_to_run() || self.is_paused()), "it is lost"),
            Place::Queued => assert!(is_queued, "it is queued, but on no queue"),
            Place::Running => panic!("nobody runs it"),
        }
    }
}

/// Runs a model; gives how many orders there were.
fn explore(model: impl Fn() + Sync + Send + 'static) -> usize {
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let count = orders.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        count.fetch_add(1, PlainOrdering::Relaxed);
        model();
    });
    orders.load(PlainOrdering::Relaxed)
}

#[test]
fn a_wake_is_never_lost() {
    let orders = explore(|| {
        let world = Arc::new(World::running());
        let waker = {
            let world = world.clone();
            thread::spawn(move || world.wake())
        };
        let has_left = world.block();
        waker.join().unwrap();
        if has_left {
            world.check_at_rest();
            assert_eq!(world.state.place(), Place::Queued, "it sleeps, and something is pending");
        } else {
            assert_eq!((world.state.place(), world.state.reasons()), (Place::Running, 0));
        }
    });
    assert!(orders > 10, "{orders}");
}

#[test]
fn two_wakes_queue_once() {
    explore(|| {
        let world = Arc::new(World::running());
        let wakers: [_; 2] = core::array::from_fn(|_| {
            let world = world.clone();
            thread::spawn(move || world.wake())
        });
        let has_left = world.block();
        for waker in wakers {
            waker.join().unwrap();
        }
        if has_left {
            world.check_at_rest();
            assert_eq!(world.state.place(), Place::Queued);
        }
    });
}

/// Asleep, and then woken while another CPU pauses it and a third one looks at the queue.
fn pause_while_it_is_woken(pause: impl Fn(&World) + Sync + Send + 'static) {
    explore(move || {
        let world = Arc::new(World::running());
        assert!(world.block());
        let waker = {
            let world = world.clone();
            thread::spawn(move || world.wake())
        };
        let runner = {
            let world = world.clone();
            thread::spawn(move || world.run())
        };
        pause(&world);
        world.wait_until_off();
        assert_eq!(world.inside.load(Ordering::Acquire), 0);
        // What a pauser does now, such as taking the registers, must not meet anybody. Whoever claims it sees the pause before
        // it is on a queue.
        assert_ne!(world.state.place(), Place::Running);
        assert_eq!(world.queued.load(Ordering::Acquire), 0);
        waker.join().unwrap();
        runner.join().unwrap();
        assert_eq!(world.state.place(), Place::Off);
        world.check_at_rest();
    });
}

#[test]
fn nobody_runs_what_was_waited_for() {
    pause_while_it_is_woken(|world| {
        world.paused.swap(1, Ordering::SeqCst);
    });
    pause_while_it_is_woken(|world| world.state.pause());
}

#[test]
fn who_is_not_kicked_has_seen_it() {
    explore(|| {
        let world = Arc::new(World::running());
        assert!(!world.state.claim(|| true));
        world.state.leave();
        world.resume();
        let sender = {
            let world = world.clone();
            // As whatever makes something pending for a vCPU that does not sleep: `sched::kick`.
            thread::spawn(move || {
                world.pending.swap(1, Ordering::SeqCst);
                world.state.place() == Place::Running
            })
        };
        assert_eq!(world.queued.swap(0, Ordering::AcqRel), 1);
        world.state.enter();
        let seen = world.pending.load(Ordering::Acquire) != 0;
        let kicked = sender.join().unwrap();
        assert!(seen || kicked, "it goes into its guest with something pending, and nobody tells it");
    });
}

#[test]
fn an_unpause_brings_back_what_was_woken_meanwhile() {
    explore(|| {
        let world = Arc::new(World::running());
        assert!(world.block());
        world.paused.swap(1, Ordering::SeqCst);
        let waker = {
            let world = world.clone();
            thread::spawn(move || world.wake())
        };
        world.paused.swap(0, Ordering::SeqCst);
        world.resume();
        waker.join().unwrap();
        world.check_at_rest();
        assert_eq!(world.state.place(), Place::Queued);
    });
}

#[test]
fn its_own_pauses_are_like_others() {
    explore(|| {
        let world = Arc::new(World::running());
        assert!(world.block());
        let waker = {
            let world = world.clone();
            thread::spawn(move || world.wake())
        };
        world.state.pause();
        world.wait_until_off();
        world.state.unpause();
        world.resume();
        waker.join().unwrap();
        world.check_at_rest();
        assert_eq!(world.state.place(), Place::Queued);
    });
}
