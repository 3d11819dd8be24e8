//! How a domain stops: it asks to, its watchdog expires, its last vCPU goes down, or the toolstack says so.
//!
//! The control domain's end is the machine's: `power` powers it off. Any other domain stops where it is, and the control domain hears of it by
//! VIRQ_DOM_EXC (or, for a suspension, by the port that it subscribed); the toolstack then looks at the reason.

use super::Domain;
use crate::boot::options::AfterCrash;
use crate::event::{channel, send_global_virq};
use crate::host::Host;
use crate::sched;
use crate::timer::{self, TimerKind};
use crate::vcpu::{Vcpu, Wait};
use crate::x86::Startup;
use core::sync::atomic::{AtomicU64, Ordering};
use machine::log;
use public_abi::Errno;
use public_abi::sched::ShutdownReason;
use public_abi::virq::Virq;

/// Watchdog timers of a domain (Xen has two).
const WATCHDOGS: usize = 2;
/// A watchdog that is not in use.
const UNUSED: u64 = u64::MAX;

/// Deadlines of the watchdogs, in nanoseconds of system time.
#[derive(Debug)]
pub struct Watchdogs([AtomicU64; WATCHDOGS]);

impl Watchdogs {
    /// None in use.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(UNUSED) }; WATCHDOGS])
    }

    /// The next deadline, if one is in use.
    fn earliest(&self) -> Option<u64> {
        self.0.iter().map(|deadline| deadline.load(Ordering::Acquire)).min().filter(|deadline| *deadline != UNUSED)
    }
}

impl Default for Watchdogs {
    fn default() -> Self {
        Self::new()
    }
}

/// Stops a domain for a reason (public/sched.h, SHUTDOWN_*), unless it has stopped already. An announced reason
/// (SCHEDOP_shutdown_code) goes before. Does not return if it is the control domain that stops.
pub fn shutdown(host: &Host, domain: &Domain, reason: u8) {
    let reason = domain.lifecycle.announce(reason);
    if !domain.lifecycle.shut_down(reason) {
        return;
    }
    for vcpu in domain.vcpus() {
        sched::kick(host, vcpu);
    }
    if domain.is_control() {
        end_machine(host, reason);
    }
    tell_when_at_rest(host, domain);
}

/// Tells those who want to know that a domain that was shut down has come to rest, once none of its vCPUs is on a CPU: from
/// then on its memory stays as it is. Whoever shuts a domain down asks, and each vCPU that leaves its CPU.
pub fn tell_when_at_rest(host: &Host, domain: &Domain) {
    let Some(reason) = domain.lifecycle.wanted_shutdown() else { return };
    if domain.vcpus().iter().any(|vcpu| vcpu.sched.is_running()) || !domain.lifecycle.come_to_rest() {
        return;
    }
    let is_suspension = reason == number(ShutdownReason::Suspend);
    match domain.events.suspend_port().filter(|_| is_suspension) {
        // The guest may have closed the port since; then nobody waits for it either.
        Some(port) => {
            channel::send(host, domain, port).ok();
        }
        None => send_global_virq(host, Virq::DomExc),
    }
}

/// A reason as the domain keeps it.
fn number(reason: ShutdownReason) -> u8 {
    u8::try_from(reason.number()).unwrap_or(u8::MAX)
}

/// Ends the machine, as the control domain's shutdown means. The words are Xen's (common/shutdown.c), because scripts wait
/// for them; what they promise is Xen's too, but for one thing: where Xen halts the machine, it is powered off if it can be.
fn end_machine(host: &Host, reason: u8) -> ! {
    match ShutdownReason::try_from(u32::from(reason)) {
        Ok(ShutdownReason::Poweroff) => {
            log!(Warning, "Hardware Dom0 halted: powering off the machine");
            host.platform.power.off();
            log!(Warning, "Halting the machine");
            machine::cpu::stop()
        }
        Ok(ShutdownReason::Reboot) => log!(Warning, "Hardware Dom0 shutdown: rebooting machine"),
        Ok(ShutdownReason::Watchdog) => log!(Warning, "Hardware Dom0 shutdown: watchdog rebooting machine"),
        Ok(ShutdownReason::SoftReset) => log!(Warning, "Hardware Dom0 did unsupported soft reset, rebooting"),
        Ok(ShutdownReason::Crash) => after_crash(host, format_args!("Hardware Dom0 crashed")),
        _ => after_crash(host, format_args!("Hardware Dom0 shutdown (unknown reason {reason})")),
    }
    machine::cpu::restart()
}

/// Seconds between the last message and the restart, as in Xen.
const SECONDS_TO_READ: u64 = 5;

/// What `noreboot` decides: halts, or waits a little before the caller restarts.
fn after_crash(host: &Host, what: core::fmt::Arguments<'_>) {
    match host.platform.after_crash {
        AfterCrash::Halt => {
            log!(Warning, "{what}: 'noreboot' set - not rebooting.");
            machine::cpu::stop()
        }
        AfterCrash::Restart => {
            log!(Warning, "{what}: rebooting machine in {SECONDS_TO_READ} seconds.");
            machine::cpu::pass(machine::cpu::timestamp_khz().saturating_mul(1000 * SECONDS_TO_READ));
        }
    }
}

/// Takes a vCPU down (VCPUOP_down, or halted with interrupts off). When all are down, the domain has powered off.
pub fn vcpu_down(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    vcpu.add_wait(Wait::DOWN);
    // Who has sent a start-up message before this saw a vCPU that was up, and has not woken it: it goes on, and starts.
    if vcpu.x86.startup.has(Startup::SIPI) {
        vcpu.clear_wait(Wait::DOWN);
    }
    let is_down = |vcpu: &Vcpu| vcpu.wait().contains(Wait::DOWN) && !vcpu.x86.startup.has(Startup::SIPI);
    if domain.vcpus().iter().all(is_down) {
        shutdown(host, domain, number(ShutdownReason::Poweroff));
    } else {
        sched::kick(host, vcpu);
    }
}

/// SCHEDOP_watchdog: with id 0 takes a watchdog and gives its id; else sets or, for 0 seconds, stops one.
///
/// # Errors
/// EINVAL for an id that is not in use, ENOSPC when all are in use.
pub fn set_watchdog(host: &Host, domain: &Domain, id: u32, seconds: u32) -> Result<u64, Errno> {
    let watchdogs = &domain.lifecycle.watchdogs;
    let deadline = host.clock.now().saturating_add(u64::from(seconds).saturating_mul(1_000_000_000)).min(UNUSED - 1);
    let id = usize::try_from(id).unwrap_or(usize::MAX);
    let answer = if id == 0 {
        let take =
            |place: &AtomicU64| place.compare_exchange(UNUSED, deadline, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let taken = watchdogs.0.iter().position(take).ok_or(Errno::ENOSPC)?;
        u64::try_from(taken).unwrap_or(0).saturating_add(1)
    } else {
        let place = watchdogs.0.get(id.saturating_sub(1)).ok_or(Errno::EINVAL)?;
        let wanted = if seconds == 0 { UNUSED } else { deadline };
        let change = |before| (before != UNUSED).then_some(wanted);
        place.try_update(Ordering::AcqRel, Ordering::Acquire, change).map_err(|_| Errno::EINVAL)?;
        0
    };
    arm(host, domain);
    Ok(answer)
}

/// Sets vCPU 0's watchdog timer to the earliest deadline.
fn arm(host: &Host, domain: &Domain) {
    if let Some(vcpu) = domain.vcpu(0) {
        let deadline = domain.lifecycle.watchdogs.earliest().map(|deadline| host.clock.timestamp_at(deadline));
        timer::set(host, vcpu, TimerKind::Watchdog, deadline);
    }
}

/// The watchdog timer has come: stops the domain, unless the guest has set the watchdog anew meanwhile.
pub fn watchdog_expired(host: &Host, domain: &Domain) {
    match domain.lifecycle.watchdogs.earliest() {
        Some(deadline) if deadline <= host.clock.now() => {
            log!(Info, "{} has not served its watchdog", domain.id);
            shutdown(host, domain, number(ShutdownReason::Watchdog));
        }
        Some(_) => arm(host, domain),
        None => {}
    }
}

#[cfg(test)]
#[path = "shutdown_tests.rs"]
mod tests;
