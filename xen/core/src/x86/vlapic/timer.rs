//! The local APIC's timer: one-shot and periodic, counting a bus of 100 MHz, as in Xen.
//!
//! A deadline on the host's time stamp counter stands for the counting register; reads compute what it would show.

use super::{FIRST_VECTOR, deliver, lvt};
use crate::domain::Domain;
use crate::host::Host;
use crate::sched::Place;
use crate::timer::{self, TimerKind};
use crate::vcpu::Vcpu;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The shortest time between two periods that are noticed, in microseconds: a guest may count faster, but must not keep the
/// processor from everybody else by it (Xen's vpt.c has the same bound).
const SHORTEST_PERIOD_MICROSECONDS: u64 = 100;
/// Ticks of the bus in a millisecond.
const BUS_KHZ: u64 = 100_000;
/// LVT bits 18:17: one-shot is 0.
const MODE: u32 = 0b11 << 17;
const ONE_SHOT: u32 = 0;
const PERIODIC: u32 = 0b01 << 17;

/// Initial count, divisor, and when the count began.
#[derive(Debug)]
pub struct LapicTimer {
    initial: AtomicU32,
    divide: AtomicU32,
    /// Time stamp at which the count was `initial`, or 0 when it does not run.
    start: AtomicU64,
}

impl LapicTimer {
    pub(super) const fn new() -> Self {
        Self { initial: AtomicU32::new(0), divide: AtomicU32::new(0), start: AtomicU64::new(0) }
    }

    pub(super) fn reset(&self) {
        self.initial.store(0, Ordering::Release);
        self.divide.store(0, Ordering::Release);
        self.start.store(0, Ordering::Release);
    }

    /// The initial-count register.
    pub fn initial(&self) -> u32 {
        self.initial.load(Ordering::Acquire)
    }

    /// The divide-configuration register.
    pub fn divide_configuration(&self) -> u32 {
        self.divide.load(Ordering::Acquire)
    }

    /// By how much the bus is divided: 1 to 128.
    pub fn divisor(&self) -> u64 {
        divisor(self.divide_configuration())
    }

    /// Time stamp ticks from the initial count to zero.
    fn period(&self, khz: u64) -> u64 {
        // At most 2^32 × 2^7 × 2^23.
        let bus = u64::from(self.initial()).saturating_mul(self.divisor());
        bus.saturating_mul(khz).checked_div(BUS_KHZ).unwrap_or(0).max(u64::from(bus != 0))
    }

    /// When the period began that lasts now, if counting began at time stamp `begun`.
    fn last_period(&self, begun: u64) -> u64 {
        let passed = machine::cpu::timestamp().saturating_sub(begun);
        let over = passed.checked_rem(self.period(machine::cpu::timestamp_khz())).unwrap_or(0);
        begun.saturating_add(passed.saturating_sub(over))
    }

    /// The current count at time stamp `now`.
    pub(super) fn current(&self, is_periodic: bool, now: u64, khz: u64) -> u32 {
        let start = self.start.load(Ordering::Acquire);
        let period = self.period(khz);
        if start == 0 || period == 0 {
            return 0;
        }
        let passed = now.saturating_sub(start);
        let passed = match (is_periodic, passed < period) {
            (true, _) => passed.checked_rem(period).unwrap_or(0),
            (false, true) => passed,
            (false, false) => return 0,
        };
        let per_count = khz.saturating_mul(self.divisor());
        let counted = passed.saturating_mul(BUS_KHZ).checked_div(per_count).unwrap_or(0);
        u64::from(self.initial()).saturating_sub(counted).try_into().unwrap_or(u32::MAX)
    }
}

/// What the divide-configuration register means.
fn divisor(register: u32) -> u64 {
    let code = register & 0b11 | register >> 1 & 0b100;
    1 << (code.wrapping_add(1) & 0b111)
}

fn mode(vcpu: &Vcpu) -> u32 {
    entry(vcpu) & MODE
}

fn entry(vcpu: &Vcpu) -> u32 {
    vcpu.x86.lapic.lvt.first().map_or(lvt::MASKED, |entry| entry.load(Ordering::Acquire))
}

/// The current-count register.
pub fn current_count(vcpu: &Vcpu) -> u32 {
    let (now, khz) = (machine::cpu::timestamp(), machine::cpu::timestamp_khz());
    vcpu.x86.lapic.timer.current(mode(vcpu) == PERIODIC, now, khz)
}

/// Sets the initial count: counting begins anew; 0 stops it. Ignored in a mode that does not count.
pub(super) fn set_initial(host: &Host, vcpu: &Vcpu, value: u32) {
    if !matches!(mode(vcpu), ONE_SHOT | PERIODIC) {
        return;
    }
    let state = &vcpu.x86.lapic.timer;
    state.initial.store(value, Ordering::Release);
    start(host, vcpu, machine::cpu::timestamp());
}

/// Lets the count be `initial` at time stamp `from`.
fn start(host: &Host, vcpu: &Vcpu, from: u64) {
    let state = &vcpu.x86.lapic.timer;
    let khz = machine::cpu::timestamp_khz();
    let period = state.period(khz);
    if period == 0 {
        return stop(host, vcpu);
    }
    state.start.store(from.max(1), Ordering::Release);
    let mut deadline = from.saturating_add(period);
    if mode(vcpu) == PERIODIC {
        let soonest = SHORTEST_PERIOD_MICROSECONDS.saturating_mul(khz) / 1000;
        deadline = deadline.max(machine::cpu::timestamp().saturating_add(soonest));
    }
    timer::set(host, vcpu, TimerKind::Lapic, Some(deadline));
}

/// A vCPU begins to run: a periodic timer that nobody watched while the vCPU did not run is watched again.
#[inline]
pub fn watch(host: &Host, vcpu: &Vcpu) {
    let begun = vcpu.x86.lapic.timer.start.load(Ordering::Acquire);
    let entry = entry(vcpu);
    if begun != 0 && entry & (MODE | lvt::MASKED) == PERIODIC && vcpu.timers.deadline(TimerKind::Lapic).is_none() {
        start(host, vcpu, vcpu.x86.lapic.timer.last_period(begun));
    }
}

/// Runs `change`, which changes the mode or the divisor, without losing the count: what was left to count is left after.
pub(super) fn change(host: &Host, vcpu: &Vcpu, change: impl FnOnce()) {
    let state = &vcpu.x86.lapic.timer;
    let left = current_count(vcpu);
    let was_counting = state.start.load(Ordering::Acquire) != 0;
    change();
    if !was_counting || left == 0 || !matches!(mode(vcpu), ONE_SHOT | PERIODIC) {
        state.start.store(0, Ordering::Release);
        timer::set(host, vcpu, TimerKind::Lapic, None);
        return;
    }
    let counted = state.initial().saturating_sub(left);
    let khz = machine::cpu::timestamp_khz();
    let passed = u64::from(counted).saturating_mul(state.divisor()).saturating_mul(khz).checked_div(BUS_KHZ);
    start(host, vcpu, machine::cpu::timestamp().saturating_sub(passed.unwrap_or(0)));
}

pub(super) fn set_divide(host: &Host, vcpu: &Vcpu, value: u32) {
    change(host, vcpu, || vcpu.x86.lapic.timer.divide.store(value & 0b1011, Ordering::Release));
}

/// Stops counting (reset).
pub fn stop(host: &Host, vcpu: &Vcpu) {
    vcpu.x86.lapic.timer.start.store(0, Ordering::Release);
    timer::set(host, vcpu, TimerKind::Lapic, None);
}

/// Starts counting what a restored state says: a whole initial count, since when it began is not saved.
pub fn restore(host: &Host, vcpu: &Vcpu, initial: u32, divide: u32) {
    let state = &vcpu.x86.lapic.timer;
    state.divide.store(divide & 0b1011, Ordering::Release);
    state.initial.store(initial, Ordering::Release);
    if matches!(mode(vcpu), ONE_SHOT | PERIODIC) {
        start(host, vcpu, machine::cpu::timestamp());
    }
}

/// The deadline has come (`timer` calls this on the vCPU's CPU): raises the interrupt, and counts on if it is periodic.
/// Periods that nobody was there for are skipped. While the vCPU waits for a CPU, its domain is stopped, or the interrupt is
/// masked, nobody watches: [`watch`] and [`change`] do so again when it runs and when it is no longer masked.
pub fn expired(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    let state = &vcpu.x86.lapic.timer;
    let entry = entry(vcpu);
    let vector = (entry & lvt::VECTOR) as u8;
    let begun = state.start.load(Ordering::Acquire);
    let is_watched = entry & lvt::MASKED == 0 && !domain.lifecycle.is_stopped() && vcpu.sched.place() != Place::Queued;
    if entry & MODE == PERIODIC && begun != 0 && is_watched {
        start(host, vcpu, state.last_period(begun));
    }
    if entry & lvt::MASKED == 0 && vector >= FIRST_VECTOR {
        deliver(host, domain, vcpu, vector, super::Trigger::Edge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors() {
        let all = [0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010, 0b1011].map(divisor);
        assert_eq!(all, [2, 4, 8, 16, 32, 64, 128, 1]);
    }

    #[test]
    fn counts_down_and_around() {
        let timer = LapicTimer::new();
        timer.divide.store(0b1011, Ordering::Release);
        timer.initial.store(1000, Ordering::Release);
        timer.start.store(5000, Ordering::Release);
        // 2 GHz: a bus tick is 20 ticks.
        let khz = 2_000_000;
        assert_eq!(timer.period(khz), 20_000);
        assert_eq!(timer.current(false, 5000, khz), 1000);
        assert_eq!(timer.current(false, 5000 + 20 * 400, khz), 600);
        assert_eq!(timer.current(false, 5000 + 20_000, khz), 0);
        assert_eq!(timer.current(true, 5000 + 20_000, khz), 1000);
        assert_eq!(timer.current(true, 5000 + 20_000 * 1_000_000 + 20, khz), 999);
        timer.start.store(0, Ordering::Release);
        assert_eq!(timer.current(true, 1, khz), 0);
        // The largest values do not overflow.
        timer.initial.store(u32::MAX, Ordering::Release);
        timer.divide.store(0b1010, Ordering::Release);
        timer.start.store(1, Ordering::Release);
        let period = timer.period(8_000_000);
        assert_eq!(period, (u64::from(u32::MAX) * 128) * 80);
        assert_eq!(timer.current(false, 1 + period / 2, 8_000_000), u32::MAX / 2 + 1);
    }
}
