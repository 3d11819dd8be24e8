//! A domain's cap: how much CPU time its vCPUs have together in each period, however many CPUs they run on.
//!
//! Time goes in periods of a fixed grid. At the start of each the domain has its whole share again, and never more: what it
//! did not use is lost. A vCPU takes a part of it before it runs (`turn`), gives back what it did not need, and owes what it
//! ran too long, because a timer came late. No part reaches beyond the end of its period, so that a period's share is used in
//! that period. Who finds nothing left waits for the next one (`Wait::PARKED`).

use core::sync::atomic::{AtomicU16, Ordering};
use machine::lock::{Lock, rank};
use public_abi::Errno;

/// A period, in microseconds: that of Xen 4.17's credit2 (CSCHED2_BDGT_REPL_PERIOD).
pub const PERIOD_MICROSECONDS: u64 = 10_000;
/// The least that is worth entering a guest for, in microseconds.
const LEAST_MICROSECONDS: u64 = 20;
/// A cap of a whole CPU.
const WHOLE_CPU: u64 = 100;

/// A domain's cap and what is left of it.
#[derive(Debug)]
pub struct Budget {
    /// Percent of one CPU; 0: no cap.
    cap: AtomicU16,
    account: Lock<Account, { rank::RUN_QUEUE }>,
}

/// What the domain has in a period. All numbers are ticks of the time stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Account {
    /// A period.
    period: u64,
    /// What the domain has in each period.
    whole: u64,
    /// The most that a vCPU takes at once, so that each has a chance in every period.
    part: u64,
    /// What is not worth a turn.
    least: u64,
    /// What nobody has taken yet in this period.
    left: u64,
    /// What was run beyond what was taken; comes off the following periods.
    owed: u64,
    /// When the next period begins.
    end: u64,
}

/// A part of a period's budget that a vCPU has taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// How long it may run.
    pub ticks: u64,
    /// When the period ends: what is left of the part is worth nothing then.
    end: u64,
}

/// What a vCPU may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quota {
    /// As long as it likes: there is no cap.
    Unlimited,
    /// So long, which is taken off the budget until it is given back.
    Part(Part),
    /// Nothing before this time stamp.
    NothingUntil(u64),
}

impl Budget {
    /// No cap.
    pub const fn new() -> Self {
        let account = Account { period: 0, whole: 0, part: 0, least: 0, left: 0, owed: 0, end: 0 };
        Self { cap: AtomicU16::new(0), account: Lock::new(account) }
    }

    /// Percent of one CPU; 0: no cap.
    #[inline]
    pub fn cap(&self) -> u16 {
        self.cap.load(Ordering::Relaxed)
    }

    /// Whether there is a cap.
    #[inline]
    pub fn is_capped(&self) -> bool {
        self.cap() != 0
    }

    /// Sets a cap in percent of one CPU, or takes it away with 0. The period that begins is a new one, except that debts
    /// stay. Whoever runs or waits must be told afterwards (`turn::cap_changed`).
    ///
    /// # Errors
    /// `EINVAL` if it is more than all of the domain's vCPUs can run; nothing is changed.
    pub fn set(&self, cap: u16, vcpus: usize, now: u64, ticks: impl Fn(u64) -> u64) -> Result<(), Errno> {
        let vcpus = u64::try_from(vcpus).unwrap_or(u64::MAX);
        if u64::from(cap) > vcpus.saturating_mul(WHOLE_CPU) {
            return Err(Errno::EINVAL);
        }
        let period = ticks(PERIOD_MICROSECONDS).max(1);
        let whole = (period.saturating_mul(u64::from(cap)) / WHOLE_CPU).max(1);
        let least = ticks(LEAST_MICROSECONDS).clamp(1, whole);
        let part = (whole / vcpus.max(1)).max(least);
        let mut account = self.account.lock();
        let owed = if self.is_capped() { account.owed } else { 0 };
        *account = Account { period, whole, part, least, left: 0, owed, end: now.saturating_add(period) };
        account.fill(1);
        self.cap.store(cap, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a part of what is left at `now`.
    pub fn take(&self, now: u64) -> Quota {
        if !self.is_capped() {
            return Quota::Unlimited;
        }
        let mut account = self.account.lock();
        account.advance(now);
        account.take(now)
    }

    /// Gives a part back, of which `ran` ticks were run: what is left of it, unless its period is over, or what is owed.
    pub fn settle(&self, part: Part, ran: u64) {
        if !self.is_capped() {
            return;
        }
        let mut account = self.account.lock();
        if ran > part.ticks {
            account.owe(ran.saturating_sub(part.ticks));
        } else if part.end == account.end {
            account.left = account.left.saturating_add(part.ticks.saturating_sub(ran));
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Account {
    /// Begins the period in which `now` is, if that is a later one.
    fn advance(&mut self, now: u64) {
        if let Some(late) = now.checked_sub(self.end) {
            let periods = (late / self.period.max(1)).saturating_add(1);
            self.end = self.end.saturating_add(periods.saturating_mul(self.period));
            self.fill(periods);
        }
    }

    /// The budget of a new period, after so many have begun. Each of them had its whole share to pay debts with; the last one
    /// leaves what is not needed for that.
    fn fill(&mut self, periods: u64) {
        let before = self.whole.saturating_mul(periods.saturating_sub(1));
        self.owed = self.owed.saturating_sub(before);
        self.left = self.whole;
        let owed = core::mem::take(&mut self.owed);
        self.owe(owed);
    }

    /// Pays what was run too long from what is left, and remembers the rest.
    fn owe(&mut self, ticks: u64) {
        let paid = ticks.min(self.left);
        self.left = self.left.saturating_sub(paid);
        self.owed = self.owed.saturating_add(ticks.saturating_sub(paid));
    }

    fn take(&mut self, now: u64) -> Quota {
        if self.left < self.least {
            return Quota::NothingUntil(self.end);
        }
        let ticks = self.part.min(self.left).min(self.end.saturating_sub(now).max(1));
        self.left = self.left.saturating_sub(ticks);
        Quota::Part(Part { ticks, end: self.end })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use machine::fake::FakeMachine;
    use proptest::prelude::*;
    use std::vec;

    /// One tick is a microsecond here.
    const PERIOD: u64 = PERIOD_MICROSECONDS;

    fn budget(cap: u16, vcpus: usize, now: u64) -> Budget {
        let budget = Budget::new();
        budget.set(cap, vcpus, now, |microseconds| microseconds).unwrap();
        budget
    }

    fn on_cpu<R>(work: impl FnOnce() -> R) -> R {
        FakeMachine::builder().pages(64).cpus(1).build().on_cpu(0, work)
    }

    /// Takes a part that there must be.
    fn take(budget: &Budget, now: u64) -> Part {
        let Quota::Part(part) = budget.take(now) else { panic!("nothing is left at {now}") };
        part
    }

    #[test]
    fn without_a_cap_nothing_is_counted() {
        on_cpu(|| {
            let budget = Budget::new();
            assert_eq!((budget.cap(), budget.take(5)), (0, Quota::Unlimited));
            budget.set(50, 1, 0, |it| it).unwrap();
            let part = take(&budget, 0);
            budget.set(0, 1, 10, |it| it).unwrap();
            assert_eq!((budget.cap(), budget.take(11)), (0, Quota::Unlimited));
            budget.settle(part, 9_000);
            assert_eq!(budget.take(9_012), Quota::Unlimited);
        });
    }

    #[test]
    fn the_range_is_that_of_the_vcpus() {
        on_cpu(|| {
            let budget = budget(200, 2, 0);
            assert_eq!(budget.set(201, 2, 0, |it| it), Err(Errno::EINVAL));
            assert_eq!(budget.set(1, 0, 0, |it| it), Err(Errno::EINVAL), "there are no vCPUs yet");
            assert_eq!(budget.set(u16::MAX, 655, 0, |it| it), Err(Errno::EINVAL));
            assert_eq!(budget.cap(), 200);
        });
    }

    #[test]
    fn a_period_has_its_share_and_no_more() {
        on_cpu(|| {
            let budget = budget(30, 1, 1_000);
            let part = take(&budget, 1_000);
            assert_eq!(part.ticks, 3_000);
            assert_eq!(budget.take(1_001), Quota::NothingUntil(11_000));
            budget.settle(part, 3_000);
            assert_eq!(budget.take(10_999), Quota::NothingUntil(11_000));
            // What is not used is lost, also over many periods.
            let part = take(&budget, 901_000);
            assert_eq!(part.ticks, 3_000);
            // What is given back can be taken again, but in its own period only.
            budget.settle(part, 500);
            let part = take(&budget, 901_500);
            assert_eq!(part.ticks, 2_500);
            let next = take(&budget, 911_000);
            assert_eq!(next.ticks, 3_000);
            budget.settle(part, 100);
            assert_eq!(budget.take(911_001), Quota::NothingUntil(921_000));
        });
    }

    #[test]
    fn no_part_reaches_into_the_next_period_and_each_vcpu_has_one() {
        on_cpu(|| {
            let budget = budget(50, 4, 0);
            for _ in 0..4 {
                assert_eq!(take(&budget, 0).ticks, 1_250);
            }
            assert_eq!(budget.take(0), Quota::NothingUntil(PERIOD));
            assert_eq!(take(&budget, 2 * PERIOD - 7).ticks, 7);
        });
    }

    #[test]
    fn what_was_run_too_long_comes_off_the_next_periods() {
        on_cpu(|| {
            let budget = budget(10, 1, 0);
            budget.settle(take(&budget, 0), 3_400);
            assert_eq!(budget.take(PERIOD), Quota::NothingUntil(2 * PERIOD));
            assert_eq!(budget.take(2 * PERIOD), Quota::NothingUntil(3 * PERIOD));
            assert_eq!(take(&budget, 3 * PERIOD).ticks, 600);
        });
    }

    /// vCPUs of the simulated domain, each on a CPU of its own.
    const VCPUS: usize = 4;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Several vCPUs run at the same time, each as long as it may or shorter, some a little too long. In no period do they
        /// have more than the cap, but for timers that came late; and over all periods not even that.
        #[test]
        fn a_cap_is_never_exceeded(
            cap in 1u16..=400,
            late in 0u64..40,
            turns in prop::collection::vec((1u64..6_000, 0u64..3_000), 200..400),
        ) {
            on_cpu(|| {
                let budget = budget(cap, VCPUS, 0);
                let whole = PERIOD * u64::from(cap) / 100;
                let mut ran_in = vec![0u64; 8_000];
                let mut late_in = vec![0u64; 8_000];
                // When each vCPU does something next: it stops, if it has a part, or wants to run.
                let mut next = [(0u64, None::<(Part, u64, u64)>); VCPUS];
                for (wish, pause) in turns {
                    // One of them stops and another begins, in the order of time.
                    for _ in 0..2 {
                        let (now, running) = next.iter_mut().min_by_key(|(at, _)| *at).unwrap();
                        if let Some((part, ran, pause)) = running.take() {
                            budget.settle(part, ran);
                            *now += pause;
                            continue;
                        }
                        match budget.take(*now) {
                            Quota::Part(part) => {
                                let over = if wish >= part.ticks { late } else { 0 };
                                let ran = wish.min(part.ticks) + over;
                                (*now..*now + ran).for_each(|at| ran_in[usize::try_from(at / PERIOD).unwrap()] += 1);
                                for period in [*now, *now + ran] {
                                    late_in[usize::try_from(period / PERIOD).unwrap()] += over;
                                }
                                *running = Some((part, ran, pause));
                                *now += ran;
                            }
                            Quota::NothingUntil(end) => {
                                prop_assert!(end > *now && end <= *now + PERIOD);
                                *now = end;
                            }
                            Quota::Unlimited => prop_assert!(false, "there is a cap"),
                        }
                    }
                }
                let all: u64 = ran_in.iter().sum();
                let periods = u64::try_from(ran_in.iter().rposition(|ran| *ran != 0).unwrap_or(0)).unwrap() + 1;
                let vcpus = u64::try_from(VCPUS).unwrap();
                prop_assert!(all <= periods * whole + 2 * vcpus * late, "{all} in {periods} periods of {whole}");
                for (ran, late) in ran_in.iter().zip(&late_in) {
                    prop_assert!(*ran <= whole + late, "{ran} of {whole} in a period, timers late by {late}");
                }
                Ok(())
            })?;
        }
    }
}
