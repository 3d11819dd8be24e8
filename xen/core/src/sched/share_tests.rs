//! Shares over several CPUs, caps and the rate limit, with the simulated load of `model_tests`.

use super::model_tests::{Habit, SECOND, SLICE, STEP, Simulation, simulate};
use core::sync::atomic::Ordering;

/// On two and three CPUs equal vCPUs get equal shares, and unequal ones what their weights say, as far as one vCPU cannot run on
/// two CPUs: within a tenth over ten seconds.
#[test]
fn shares_follow_weights_across_cpus() {
    let cases: [(u32, &[u16]); 7] = [
        (2, &[256, 256, 256]),
        (2, &[256; 5]),
        (3, &[256; 7]),
        (2, &[512, 256, 256]),
        (2, &[512, 512, 256, 256, 256]),
        (3, &[1024, 512, 512, 512, 256, 256]),
        (3, &[1024, 1024, 64, 64, 128, 256, 256, 1024, 256, 1024, 256]),
    ];
    for (cpus, weights) in cases {
        simulate(cpus, u16::try_from(weights.len()).unwrap(), |world| {
            for (guest, weight) in weights.iter().enumerate() {
                world.set_weight(guest, *weight);
                world.begin(guest, Habit::Spin);
            }
            world.run(2 * SECOND);
            world.forget();
            world.run(10 * SECOND);
            let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (guest, weight) in weights.iter().enumerate() {
                let fair = 10 * SECOND * u64::from(cpus) * u64::from(*weight) / all;
                let ran = world.guests[guest].ran;
                assert!(ran.abs_diff(fair) <= fair / 10, "{weights:?}: guest {guest} ran {ran}, fair is {fair}");
            }
        });
    }
}

/// A vCPU of small weight that is alone on its CPU has much more weighted time than all others: that is no business of theirs.
#[test]
fn shares_are_even_beside_one_that_is_alone() {
    simulate(3, 4, |world| {
        world.set_weight(0, 16);
        world.set_affinity(0, 0b100);
        (1..4).for_each(|guest| world.set_affinity(guest, 0b011));
        (0..4).for_each(|guest| world.begin(guest, Habit::Spin));
        world.run(5 * SECOND);
        world.forget();
        world.run(10 * SECOND);
        for guest in 1..4 {
            let (ran, fair) = (world.guests[guest].ran, 10 * SECOND * 2 / 3);
            assert!(ran.abs_diff(fair) <= fair / 10, "guest {guest} ran {ran}, fair is {fair}");
        }
    });
}

#[test]
fn who_would_rather_not_be_here_is_not_pulled() {
    simulate(2, 3, |world| {
        (0..2).for_each(|guest| world.with_vcpu(guest, |_, vcpu| vcpu.sched.set_soft_affinity(0b01)));
        world.set_affinity(2, 0b10);
        (0..3).for_each(|guest| world.begin(guest, Habit::Spin));
        world.run(SECOND);
        world.forget();
        world.run(SECOND);
        let ran = world.guests[2].ran;
        assert!(ran >= SECOND - 2 * SLICE, "its CPU was taken by those who prefer the other one: {ran}");
    });
}

/// Steps of a period of a cap.
const PERIOD: u64 = super::budget::PERIOD_MICROSECONDS / STEP;

impl Simulation {
    /// Lets periods go by, each of which begins now or when the one before ends: the most steps that a guest ran in one.
    fn run_periods(&mut self, guest: usize, periods: u64) -> u64 {
        let mut most = 0;
        for _ in 0..periods {
            self.guests[guest].ran_in_period = 0;
            self.run(PERIOD);
            most = most.max(self.guests[guest].ran_in_period);
        }
        most
    }
}

#[test]
fn a_cap_holds_in_each_period_and_is_used() {
    for cap in [5, 20, 50, 95, 100] {
        simulate(2, 3, |world| {
            // CPU 1 has nothing to do: a cap is not about others.
            world.set_affinity(2, 0b01);
            world.begin(0, Habit::Spin);
            world.begin(2, Habit::Spin);
            world.run(7);
            world.set_cap(0, cap);
            world.run(PERIOD);
            world.forget();
            let most = world.run_periods(0, 200);
            let whole = PERIOD * u64::from(cap) / 100;
            assert!(most <= whole, "{most} steps in a period with a cap of {whole}");
            // A CPU that is idle has nothing else to do.
            assert!(world.guests[0].ran >= 200 * whole * 9 / 10, "{} of {}", world.guests[0].ran, 200 * whole);
            world.set_cap(0, 0);
            world.forget();
            world.run(SECOND);
            assert!(world.guests[0].ran >= SECOND * 9 / 10, "a cap that is gone still counts: {:?}", world.guests[0]);
        });
    }
}

#[test]
fn who_has_slept_has_saved_nothing_of_its_cap() {
    simulate(1, 1, |world| {
        world.set_cap(0, 25);
        world.begin(0, Habit::Sleep { run: 3 * PERIOD, sleep: 400 * PERIOD });
        let most = world.run_periods(0, 600);
        assert!(most <= PERIOD / 4, "{most} steps in a period");
        assert!(world.guests[0].ran >= 3 * PERIOD, "{:?}", world.guests[0]);
    });
}

#[test]
fn who_wakes_waits_for_the_rate_limit_and_no_longer() {
    for (limit, most) in [(0, 1), (1_000, 3), (5_000, 11)] {
        simulate(1, 2, |world| {
            world.host.rate_limit.store(limit, Ordering::Relaxed);
            world.begin(0, Habit::Spin);
            world.begin(1, Habit::Sleep { run: 1, sleep: 37 });
            world.run(SECOND);
            world.forget();
            world.run(5 * SECOND);
            assert!(world.waited(1) <= most, "limit {limit}: waited for {} steps", world.waited(1));
        });
    }
}
