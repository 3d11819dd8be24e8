//! The scheduler under a simulated load: real queues and real decisions, with vCPUs that spin, or run and sleep, and time
//! that goes in steps. Nobody may starve, shares follow weights, nobody runs where it must not, and no CPU idles while
//! somebody waits that it could run.

extern crate std;

use super::turn::{Turn, cap_changed, next_period};
use super::{DEFAULT_WEIGHT, Place, SLICE_MICROSECONDS, begin, pick, put, set_affinity, ticks, wake};
use crate::event::fixture;
use crate::host::{Host, testing};
use crate::time::Clock;
use crate::timer::TimerKind;
use crate::vcpu::{Vcpu, Wait};
use core::sync::atomic::Ordering;
use machine::fake::FakeMachine;
use machine::{CpuId, DomId};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// A step of the simulation in microseconds; a slice is twenty of them.
pub(super) const STEP: u64 = 500;
/// Steps in a second.
pub(super) const SECOND: u64 = 1_000_000 / STEP;

/// What a vCPU does when it has a CPU.
#[derive(Clone, Copy, Debug)]
pub(super) enum Habit {
    /// Runs for ever.
    Spin,
    /// Runs for so many steps, then sleeps for so many.
    Sleep { run: u64, sleep: u64 },
    /// Does not want to run.
    Nothing,
}

/// A simulated vCPU: the only one of the domain with its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    habit: Habit,
    /// Steps that it will still run before it sleeps.
    burst: u64,
    /// The step at which it wakes.
    alarm: u64,
    /// Steps that it has run, those of the period that [`Simulation::run_periods`] looks at, and the last of them, or when
    /// it began to want to run.
    pub(super) ran: u64,
    pub(super) ran_in_period: u64,
    last: u64,
    /// The longest that it waited while it wanted to run.
    waited: u64,
}

/// What a simulated CPU does.
#[derive(Debug)]
struct Running {
    guest: usize,
    turn: Turn,
}

pub(super) struct Simulation {
    pub(super) host: Host,
    pub(super) guests: Vec<Guest>,
    cpus: Vec<Option<Running>>,
    now: u64,
}

impl Simulation {
    /// To be called on a CPU of the fake machine.
    fn new(cpus: u32, guests: u16) -> Self {
        let host = testing::host(cpus, 64, Clock::new(0, 1_000_000, 0));
        for id in 0..guests {
            fixture::add_domain(&host, id, 1);
            assert!(fixture::domain(&host, id).lifecycle.unpause_by_toolstack());
        }
        let guest = Guest { habit: Habit::Nothing, burst: 0, alarm: 0, ran: 0, ran_in_period: 0, last: 0, waited: 0 };
        let cpus = (0..cpus).map(|_| None).collect();
        Self { host, guests: vec![guest; usize::from(guests)], cpus, now: 0 }
    }

    pub(super) fn with_vcpu<R>(&self, guest: usize, work: impl FnOnce(&crate::domain::Domain, &Vcpu) -> R) -> R {
        let domain = fixture::domain(&self.host, u16::try_from(guest).unwrap());
        work(&domain, domain.vcpu(0).unwrap())
    }

    /// Gives a guest a habit, and lets it begin.
    pub(super) fn begin(&mut self, guest: usize, habit: Habit) {
        let run = if let Habit::Sleep { run, .. } = habit { run } else { u64::MAX };
        self.guests[guest].habit = habit;
        self.guests[guest].burst = run;
        self.wake(guest);
    }

    fn wake(&mut self, guest: usize) {
        if self.with_vcpu(guest, |_, vcpu| !vcpu.is_runnable()) {
            self.guests[guest].last = self.now;
        }
        self.with_vcpu(guest, |domain, vcpu| wake(&self.host, domain, vcpu, Wait::DOWN | Wait::BLOCKED));
    }

    pub(super) fn set_affinity(&self, guest: usize, cpus: u64) {
        self.with_vcpu(guest, |_, vcpu| set_affinity(&self.host, vcpu, cpus).unwrap());
    }

    /// Now, as the time stamp counter has it.
    fn timestamp(&self) -> u64 {
        ticks(self.now * STEP)
    }

    pub(super) fn set_cap(&self, guest: usize, cap: u16) {
        self.with_vcpu(guest, |domain, _| {
            domain.budget.set(cap, 1, self.timestamp(), ticks).unwrap();
            cap_changed(&self.host, domain);
        });
    }

    pub(super) fn set_weight(&self, guest: usize, weight: u16) {
        self.with_vcpu(guest, |_, vcpu| vcpu.sched.set_weight(weight));
    }

    /// Lets so many steps go by.
    pub(super) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += 1;
        for guest in 0..self.guests.len() {
            let Guest { habit, alarm, .. } = self.guests[guest];
            if let Habit::Sleep { run, .. } = habit
                && alarm == self.now
            {
                self.guests[guest].burst = run;
                self.wake(guest);
            }
            // What the timers of a CPU do.
            self.with_vcpu(guest, |domain, vcpu| {
                let due = vcpu.timers.deadline(TimerKind::Budget).is_some_and(|deadline| deadline <= self.timestamp());
                if due && vcpu.wait().contains(Wait::PARKED) {
                    next_period(&self.host, domain, vcpu);
                }
            });
        }
        for cpu in 0..self.cpus.len() {
            self.step_cpu(cpu);
        }
        self.check();
    }

    fn step_cpu(&mut self, number: usize) {
        let me = CpuId(u16::try_from(number).unwrap());
        if let Some(mut running) = self.cpus[number].take() {
            let index = running.guest;
            let guest = &mut self.guests[index];
            guest.ran += 1;
            guest.ran_in_period += 1;
            guest.waited = guest.waited.max(self.now - guest.last - 1);
            guest.last = self.now;
            guest.burst = guest.burst.saturating_sub(1);
            if guest.burst == 0
                && let Habit::Sleep { sleep, .. } = guest.habit
            {
                guest.alarm = self.now + sleep;
                self.with_vcpu(index, |_, vcpu| vcpu.add_wait(Wait::BLOCKED));
                self.put(number, running);
            } else {
                let is_over = self.host.cpus[number].timers.lock().slice_end() <= self.timestamp();
                let stays = !self.host.cpus[number].wants_switch() && !is_over
                    || self.with_vcpu(index, |domain, vcpu| {
                        running.turn.may_stay(&self.host, me, domain, vcpu, self.timestamp())
                    });
                if stays { self.cpus[number] = Some(running) } else { self.put(number, running) }
            }
        }
        if self.cpus[number].is_none() {
            self.pick(number);
        }
    }

    fn put(&self, number: usize, Running { guest, turn }: Running) {
        let me = CpuId(u16::try_from(number).unwrap());
        self.with_vcpu(guest, |domain, vcpu| {
            let ran = turn.end(&self.host, me, domain, self.timestamp());
            put(&self.host, me, domain, vcpu, ran);
        });
    }

    /// As the run loop: a vCPU that was sent elsewhere, or whose domain has no budget left, is put back.
    fn pick(&mut self, number: usize) {
        let me = CpuId(u16::try_from(number).unwrap());
        self.host.idle.fetch_and(!(1 << number), Ordering::AcqRel);
        while let Some((DomId(id), _)) = pick(&self.host, me) {
            let guest = usize::from(id);
            let turn = self.with_vcpu(guest, |domain, vcpu| {
                begin(&self.host, me, vcpu);
                let may_run = vcpu.sched.may_run_on(me);
                let turn = if may_run { Turn::begin(&self.host, me, domain, vcpu, self.timestamp()) } else { None };
                if turn.is_none() {
                    put(&self.host, me, domain, vcpu, 0);
                }
                turn
            });
            if let Some(turn) = turn {
                self.cpus[number] = Some(Running { guest, turn });
                return;
            }
        }
        self.host.idle.fetch_or(1 << number, Ordering::AcqRel);
    }

    /// What holds after every step.
    fn check(&self) {
        let queued: Vec<Vec<usize>> =
            self.host.cpus.iter().map(|cpu| cpu.queue.lock().members().map(|id| usize::from(id.0)).collect()).collect();
        for guest in 0..self.guests.len() {
            let runs = self.cpus.iter().flatten().filter(|running| running.guest == guest).count();
            let waits = queued.iter().flatten().filter(|other| **other == guest).count();
            let place = self.with_vcpu(guest, |_, vcpu| vcpu.sched.place());
            let expected = match place {
                Place::Off => (0, 0),
                Place::Queued => (0, 1),
                Place::Running => (1, 0),
            };
            assert_eq!((runs, waits), expected, "guest {guest} is {place:?}");
            let wants = self.with_vcpu(guest, |_, vcpu| vcpu.is_runnable());
            let is_parked = self.with_vcpu(guest, |domain, vcpu| {
                assert!(domain.budget.is_capped() || !vcpu.wait().contains(Wait::PARKED), "guest {guest} is forgotten");
                vcpu.wait().contains(Wait::PARKED)
            });
            assert!(!(wants && is_parked));
            assert_eq!(wants, place != Place::Off, "guest {guest} is lost");
        }
        for (number, running) in self.cpus.iter().enumerate() {
            let may_run = |guest: usize| {
                self.with_vcpu(guest, |_, vcpu| vcpu.sched.may_run_on(CpuId(u16::try_from(number).unwrap())))
            };
            match running {
                Some(running) => assert!(may_run(running.guest), "guest {} runs on CPU {number}", running.guest),
                // A CPU that came before in this step may have queued somebody: in the next one it is looked at.
                None => {
                    let waits = queued.iter().flatten().copied().filter(|guest| may_run(*guest)).count();
                    let newly = self.guests.iter().filter(|guest| guest.last + 1 >= self.now).count();
                    assert!(waits <= newly, "CPU {number} idles while {waits} vCPUs wait that it could run");
                }
            }
        }
    }

    /// The longest wait of a guest, one that still goes on included.
    pub(super) fn waited(&self, guest: usize) -> u64 {
        let waits = self.with_vcpu(guest, |_, vcpu| vcpu.sched.place() == Place::Queued);
        let Guest { waited, last, .. } = self.guests[guest];
        if waits { waited.max(self.now - last) } else { waited }
    }

    /// Begins to measure anew.
    pub(super) fn forget(&mut self) {
        let now = self.now;
        for guest in &mut self.guests {
            (guest.ran, guest.waited, guest.last) = (0, 0, now);
        }
    }
}

pub(super) fn simulate<R>(cpus: u32, guests: u16, work: impl FnOnce(&mut Simulation) -> R) -> R {
    FakeMachine::builder().pages(2048).cpus(4).build().on_cpu(0, || work(&mut Simulation::new(cpus, guests)))
}

/// Steps of a slice.
pub(super) const SLICE: u64 = SLICE_MICROSECONDS / STEP;

#[test]
fn who_was_alone_for_long_does_not_starve_when_somebody_comes() {
    simulate(1, 2, |world| {
        world.begin(0, Habit::Spin);
        world.run(5 * SECOND);
        world.begin(1, Habit::Spin);
        world.forget();
        world.run(SECOND);
        for guest in [0, 1] {
            assert!(world.waited(guest) <= 3 * SLICE, "guest {guest} waited for {} steps", world.waited(guest));
            assert!((SECOND * 4 / 10..SECOND * 6 / 10).contains(&world.guests[guest].ran), "{:?}", world.guests);
        }
    });
}

#[test]
fn who_comes_from_another_cpu_brings_no_more_than_a_slice() {
    // CPU 0 was busy for seconds, CPU 1 nearly idle: their clocks are far apart. Guest 0 goes from one to the other.
    for (busy, quiet) in [(0, 1), (1, 0)] {
        simulate(2, 3, |world| {
            world.set_affinity(0, 1 << busy);
            world.set_affinity(1, 1 << quiet);
            world.set_affinity(2, 1 << busy);
            world.begin(0, Habit::Spin);
            world.begin(2, Habit::Spin);
            world.begin(1, Habit::Sleep { run: 1, sleep: 100 });
            world.run(5 * SECOND);
            world.guests[1].habit = Habit::Spin;
            world.guests[1].burst = u64::MAX;
            world.wake(1);
            world.run(SLICE);
            // There the newcomer seems to have had too much, and on the way back the others have had too much.
            for target in [quiet, busy] {
                world.set_affinity(0, 1 << target);
                world.run(SLICE);
                world.forget();
                world.run(SECOND);
                for guest in 0..3 {
                    assert!(world.waited(guest) <= 3 * SLICE, "guest {guest} waited for {} steps", world.waited(guest));
                }
                assert!(world.guests[0].ran > SECOND * 4 / 10, "{:?}", world.guests);
            }
        });
    }
}

#[test]
fn an_idle_cpu_that_takes_over_does_not_favour_whom_it_took() {
    simulate(2, 4, |world| {
        // CPU 1's clock goes ahead.
        world.set_affinity(2, 0b10);
        world.set_affinity(3, 0b10);
        world.begin(2, Habit::Spin);
        world.run(5 * SECOND);
        world.begin(2, Habit::Sleep { run: 10, sleep: 10 });
        world.guests[2].burst = 10;
        // CPU 0 gets two that may run anywhere: CPU 1 takes one over now and then, from a clock that is far behind.
        world.begin(0, Habit::Spin);
        world.begin(1, Habit::Spin);
        world.run(SECOND);
        world.begin(3, Habit::Spin);
        world.forget();
        world.run(SECOND);
        for guest in 0..4 {
            assert!(world.waited(guest) <= 4 * SLICE, "guest {guest} waited for {} steps", world.waited(guest));
        }
    });
}

#[test]
fn shares_follow_weights() {
    for weights in [[256, 256, 256], [128, 256, 512], [1024, 64, 256]] {
        simulate(1, 3, |world| {
            for (guest, weight) in weights.into_iter().enumerate() {
                world.set_weight(guest, weight);
                world.begin(guest, Habit::Spin);
            }
            world.run(2 * SECOND);
            world.forget();
            world.run(10 * SECOND);
            let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (guest, weight) in weights.into_iter().enumerate() {
                let fair = 10 * SECOND * u64::from(weight) / all;
                let ran = world.guests[guest].ran;
                assert!(ran.abs_diff(fair) <= fair / 10, "{weights:?}: guest {guest} ran {ran}, fair is {fair}");
            }
        });
    }
}

#[test]
fn who_sleeps_is_served_at_once() {
    simulate(1, 3, |world| {
        world.begin(0, Habit::Spin);
        world.begin(1, Habit::Spin);
        world.begin(2, Habit::Sleep { run: 1, sleep: 19 });
        world.run(SECOND);
        world.forget();
        world.run(10 * SECOND);
        // The rate limit is two steps.
        assert!(world.waited(2) <= 4, "an I/O-bound guest waited for {} steps", world.waited(2));
        assert!(world.guests[2].ran >= 10 * SECOND / 22, "{:?}", world.guests[2]);
    });
}

/// What happens in a random run.
#[derive(Clone, Copy, Debug)]
enum Change {
    Spin(usize),
    Sleep(usize, u64, u64),
    Affinity(usize, u64),
    Weight(usize, u16),
    Cap(usize, u16),
    Run(u64),
}

const GUESTS: u16 = 6;
const CPUS: u32 = 3;

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let guest = 0..usize::from(GUESTS);
    let change = prop_oneof![
        2 => guest.clone().prop_map(Change::Spin),
        2 => (guest.clone(), 1u64..60, 1u64..60).prop_map(|(guest, run, sleep)| Change::Sleep(guest, run, sleep)),
        2 => (guest.clone(), 1u64..1 << CPUS).prop_map(|(guest, cpus)| Change::Affinity(guest, cpus)),
        1 => (guest.clone(), prop::sample::select([64u16, 128, 256, 512, 1024].to_vec()))
            .prop_map(|(guest, weight)| Change::Weight(guest, weight)),
        1 => (guest, 0u16..=100).prop_map(|(guest, cap)| Change::Cap(guest, cap)),
        3 => (1u64..600).prop_map(Change::Run),
    ];
    prop::collection::vec(change, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_starves_whatever_happens(changes in changes()) {
        simulate(CPUS, GUESTS, |world| {
            for change in changes {
                match change {
                    Change::Spin(guest) => world.begin(guest, Habit::Spin),
                    Change::Sleep(guest, run, sleep) => world.begin(guest, Habit::Sleep { run, sleep }),
                    Change::Affinity(guest, cpus) => world.set_affinity(guest, cpus),
                    Change::Weight(guest, weight) => world.set_weight(guest, weight),
                    Change::Cap(guest, cap) => world.set_cap(guest, cap),
                    Change::Run(steps) => world.run(steps),
                }
            }
            // What was decided under other weights and elsewhere is over soon.
            world.run(SECOND);
            world.forget();
            world.run(2 * SECOND);
            for guest in 0..usize::from(GUESTS) {
                // The others may all be on its CPU, and have so much more weight.
                let weight = |guest: usize| world.with_vcpu(guest, |_, vcpu| u64::from(vcpu.sched.weight()));
                let others = (0..usize::from(GUESTS)).filter(|other| *other != guest);
                let bound: u64 = others.map(|other| SLICE * (weight(other).div_ceil(weight(guest)) + 1)).sum();
                // With a cap of 1 %, a step is paid for in five periods, each of which is as long as a slice.
                let is_capped = world.with_vcpu(guest, |domain, _| domain.budget.is_capped());
                let bound = bound + if is_capped { 7 * SLICE } else { 0 };
                prop_assert!(world.waited(guest) <= bound + SLICE, "guest {guest} waited for {} steps", world.waited(guest));
            }
            Ok(())
        })?;
    }
}

#[test]
fn the_default_weight_costs_what_it_takes() {
    simulate(1, 1, |world| {
        world.with_vcpu(0, |_, vcpu| {
            assert_eq!(vcpu.sched.weight(), DEFAULT_WEIGHT);
            assert_eq!(vcpu.sched.weighted(1000), 1000);
            vcpu.sched.set_weight(0);
            assert_eq!(vcpu.sched.weighted(1000), 256_000, "no weight at all counts as 1");
        });
    });
}
