//! Guests' own timers: they end in VIRQ_TIMER, or in the end of a wait.
//!
//! Deadlines are system time in nanoseconds at the ABI and time stamps in `timer`. When one comes, `timer` calls [`expired`]
//! on the vCPU's CPU.

use crate::domain::{Domain, shutdown};
use crate::event::{poll, send_virq};
use crate::host::Host;
use crate::sched;
use crate::timer::{self, TimerKind};
use crate::vcpu::Vcpu;
use core::sync::atomic::Ordering;
use public_abi::Errno;
use public_abi::vcpu::VCPU_SSHOTTMR_FUTURE;
use public_abi::virq::Virq;

/// The shortest period, in nanoseconds (VCPUOP_set_periodic_timer).
const SHORTEST_PERIOD: u64 = 1_000_000;
/// The longest, which keeps sums of times below 2^63.
const LONGEST_PERIOD: u64 = u64::MAX >> 2;
/// A deadline of set_timer_op that is further away than this, in nanoseconds, is a mistake of an old guest.
const FAR_FUTURE: u64 = 1 << 50;
/// Such a guest gets its timer after this time instead: at once would burn the CPU of one that has nothing to do.
const SOON: u64 = 100_000_000;

/// Sets a timer of a vCPU to a system time.
pub fn set(host: &Host, vcpu: &Vcpu, kind: TimerKind, nanoseconds: u64) {
    timer::set(host, vcpu, kind, Some(host.clock.timestamp_at(nanoseconds)));
}

/// Stops a timer of a vCPU.
pub fn stop(host: &Host, vcpu: &Vcpu, kind: TimerKind) {
    timer::set(host, vcpu, kind, None);
}

/// VCPUOP_set_singleshot_timer. A time that has passed raises the event at once.
///
/// # Errors
/// ETIME if the time has passed and `flags` ask for one to come.
pub fn set_singleshot(host: &Host, domain: &Domain, vcpu: &Vcpu, nanoseconds: u64, flags: u32) -> Result<(), Errno> {
    if nanoseconds < host.clock.now() {
        if flags & VCPU_SSHOTTMR_FUTURE != 0 {
            return Err(Errno::ETIME);
        }
        stop(host, vcpu, TimerKind::Singleshot);
        send_virq(host, domain, vcpu, Virq::Timer);
        return Ok(());
    }
    set(host, vcpu, TimerKind::Singleshot, nanoseconds);
    Ok(())
}

/// set_timer_op: 0 stops the timer.
pub fn set_timer_op(host: &Host, vcpu: &Vcpu, nanoseconds: i64) {
    let now = host.clock.now();
    match u64::try_from(nanoseconds) {
        Ok(0) => stop(host, vcpu, TimerKind::Singleshot),
        Ok(time) if time.saturating_sub(now) < FAR_FUTURE => set(host, vcpu, TimerKind::Singleshot, time),
        _ => set(host, vcpu, TimerKind::Singleshot, now.saturating_add(SOON)),
    }
}

/// VCPUOP_set_periodic_timer: the first event comes after one period.
///
/// # Errors
/// EINVAL for a period shorter than a millisecond or longer than 146 years.
pub fn set_periodic(host: &Host, vcpu: &Vcpu, period: u64) -> Result<(), Errno> {
    if !(SHORTEST_PERIOD..=LONGEST_PERIOD).contains(&period) {
        return Err(Errno::EINVAL);
    }
    vcpu.events.time.period.store(period, Ordering::Release);
    set(host, vcpu, TimerKind::Periodic, host.clock.now().saturating_add(period));
    Ok(())
}

/// VCPUOP_stop_periodic_timer.
pub fn stop_periodic(host: &Host, vcpu: &Vcpu) {
    vcpu.events.time.period.store(0, Ordering::Release);
    stop(host, vcpu, TimerKind::Periodic);
}

/// A timer of a vCPU has reached its deadline and is off again.
pub fn expired(host: &Host, domain: &Domain, vcpu: &Vcpu, kind: TimerKind) {
    match kind {
        TimerKind::Singleshot => send_virq(host, domain, vcpu, Virq::Timer),
        TimerKind::Periodic => {
            let period = vcpu.events.time.period.load(Ordering::Acquire);
            if period != 0 {
                send_virq(host, domain, vcpu, Virq::Timer);
                set(host, vcpu, TimerKind::Periodic, host.clock.now().saturating_add(period));
            }
        }
        TimerKind::Poll => poll::expired(host, domain, vcpu),
        TimerKind::Watchdog => shutdown::watchdog_expired(host, domain),
        TimerKind::Budget => sched::turn::next_period(host, domain, vcpu),
        // The local APIC's own business.
        TimerKind::Lapic => {}
    }
}
