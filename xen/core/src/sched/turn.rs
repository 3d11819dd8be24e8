//! A vCPU's turn on a CPU: how long it may last, and what ends it.
//!
//! `vcpu::run` begins one before it enters the guest and looks at it again whenever there is a reason to: the end of the slice
//! or of the budget, somebody who has woken, a new affinity. After it comes `put`. A turn is a slice at the most. Somebody who
//! wakes must wait until it has lasted the rate limit; the end of the budget comes when it comes.

use super::budget::{Part, Quota};
use super::{SLICE_MICROSECONDS, balance, go_on, should_switch, ticks, wake};
use crate::domain::Domain;
use crate::host::Host;
use crate::timer::{self, TimerKind};
use crate::vcpu::{Vcpu, Wait};
use core::sync::atomic::Ordering;
use machine::{CpuId, cpu};

/// A turn that goes on.
#[derive(Debug)]
pub struct Turn {
    /// The time stamp at which it began.
    start: u64,
    /// What it has taken of the domain's budget, if there is a cap.
    part: Option<Part>,
}

impl Turn {
    /// Begins a turn at time stamp `now`. `None` if the domain has nothing left to run: the vCPU then waits.
    #[inline]
    pub fn begin(host: &Host, me: CpuId, domain: &Domain, vcpu: &Vcpu, now: u64) -> Option<Self> {
        let part = if domain.budget.is_capped() { take(host, domain, vcpu, now)? } else { None };
        let turn = Self { start: now, part };
        turn.set_end(host, me, ticks(SLICE_MICROSECONDS));
        Some(turn)
    }

    /// Looks at the turn again, for whatever reason, at time stamp `now`: whether the vCPU may stay. Then the turn goes on, or
    /// another one begins.
    #[cold]
    pub fn may_stay(&mut self, host: &Host, me: CpuId, domain: &Domain, vcpu: &Vcpu, now: u64) -> bool {
        let ran = now.saturating_sub(self.start);
        // A cap that was set meanwhile counts from now on.
        let is_spent = self.part.map_or(domain.budget.is_capped(), |part| ran >= part.ticks);
        if !is_spent && vcpu.sched.may_run_on(me) {
            let limit = ticks(u64::from(host.rate_limit.load(Ordering::Relaxed))).min(ticks(SLICE_MICROSECONDS));
            if ran < limit {
                self.set_end(host, me, limit);
                return true;
            }
        }
        if ran >= ticks(SLICE_MICROSECONDS)
            && let Some(other) = balance::take_neediest(host, me, vcpu, ran)
            && balance::send_away(host, me, vcpu, ran, other)
        {
            self.settle(domain, ran);
            // What it ran is charged.
            self.start = now;
            return false;
        }
        if should_switch(host, me, vcpu, ran) {
            return false;
        }
        self.settle(domain, ran);
        match Self::begin(host, me, domain, vcpu, now) {
            Some(next) => {
                go_on(host, me, vcpu, ran);
                *self = next;
                true
            }
            None => false,
        }
    }

    /// Ends the turn at time stamp `now`: how many ticks it lasted.
    #[inline]
    pub fn end(mut self, host: &Host, me: CpuId, domain: &Domain, now: u64) -> u64 {
        timer::set_slice_end(host, me, None);
        let ran = now.saturating_sub(self.start);
        self.settle(domain, ran);
        ran
    }

    /// Gives what is left of the budget back after the turn has lasted `ran` ticks; from then on it has none.
    #[inline]
    fn settle(&mut self, domain: &Domain, ran: u64) {
        if let Some(part) = self.part.take() {
            domain.budget.settle(part, ran);
        }
    }

    /// Sets the time to look at the turn again: when it has lasted `most` ticks, or its part of the budget.
    fn set_end(&self, host: &Host, me: CpuId, most: u64) {
        let length = self.part.map_or(most, |part| part.ticks.min(most));
        timer::set_slice_end(host, me, Some(self.start.saturating_add(length)));
    }
}

/// Takes a part of a budget; `None` if there is nothing left. Then the vCPU waits for the next period.
#[cold]
fn take(host: &Host, domain: &Domain, vcpu: &Vcpu, now: u64) -> Option<Option<Part>> {
    match domain.budget.take(now) {
        Quota::Unlimited => Some(None),
        Quota::Part(part) => Some(Some(part)),
        Quota::NothingUntil(end) => {
            vcpu.add_wait(Wait::PARKED);
            // Also if the cap goes this moment, which wakes those that wait already.
            timer::set(host, vcpu, TimerKind::Budget, Some(end));
            None
        }
    }
}

/// The period that a vCPU waited for has begun.
pub fn next_period(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    wake(host, domain, vcpu, Wait::PARKED);
}

/// A domain's cap is another one: those that wait look again, and those that run count from now on.
pub fn cap_changed(host: &Host, domain: &Domain) {
    for vcpu in domain.vcpus() {
        wake(host, domain, vcpu, Wait::PARKED);
        if vcpu.sched.is_running() {
            host.request_switch(vcpu.sched.cpu());
            cpu::kick(vcpu.sched.cpu());
        }
    }
}
