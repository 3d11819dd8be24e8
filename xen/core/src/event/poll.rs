//! SCHEDOP_poll: vCPUs that wait for one of a few ports.
//!
//! A polling vCPU is blocked like any other, so that interrupts and upcalls wake it too. Its bit in the domain's set says
//! that it polls, and its `port` for what; raising an event looks at the set once, and it is nearly always empty.

use crate::domain::Domain;
use crate::host::Host;
use crate::sched;
use crate::vcpu::{Vcpu, Wait};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::port::index;

/// The vCPUs of a domain that poll, one bit each.
#[derive(Debug)]
pub(crate) struct Polling([AtomicU64; 2]);

impl Polling {
    /// None.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 2])
    }

    #[inline]
    fn place(&self, vcpu: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get(index(vcpu / 64))?, 1 << (vcpu % 64)))
    }

    /// Takes a vCPU out; whether it was in.
    #[inline]
    fn take(&self, vcpu: u32) -> bool {
        self.place(vcpu).is_some_and(|(word, bit)| {
            // Most often it is not in, and a look is cheaper than a locked instruction.
            word.load(Ordering::SeqCst) & bit != 0 && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
        })
    }
}

/// What one vCPU polls for.
#[derive(Debug)]
pub(crate) struct PollPort(AtomicU32);

/// Any port: port 0 is never bound.
const ANY: u32 = 0;

impl PollPort {
    /// Any port.
    pub const fn new() -> Self {
        Self(AtomicU32::new(ANY))
    }
}

/// Begins to poll, at first for any port: the vCPU counts as blocked from here on, so that whoever raises an event after
/// this wakes it, and the caller must look at the ports after this.
pub fn begin(domain: &Domain, vcpu: &Vcpu) {
    vcpu.events.poll_port.0.store(ANY, Ordering::SeqCst);
    vcpu.add_wait(Wait::BLOCKED);
    if let Some((word, bit)) = domain.events.polling.place(vcpu.index) {
        word.fetch_or(bit, Ordering::SeqCst);
    }
}

/// Polls for one port only.
pub fn narrow(vcpu: &Vcpu, port: u32) {
    vcpu.events.poll_port.0.store(port, Ordering::SeqCst);
}

/// Polls no longer; does not unblock.
#[inline]
pub fn stop(domain: &Domain, vcpu: &Vcpu) {
    domain.events.polling.take(vcpu.index);
}

/// Wakes the vCPUs that poll for a port.
#[inline]
pub fn wake_pollers(host: &Host, domain: &Domain, port: u32) {
    for (word, base) in domain.events.polling.0.iter().zip([0, 64]) {
        let mut waiting = word.load(Ordering::SeqCst);
        while waiting != 0 {
            let number = waiting.trailing_zeros().saturating_add(base);
            waiting &= waiting.wrapping_sub(1);
            if let Some(vcpu) = domain.vcpu(number)
                && [ANY, port].contains(&vcpu.events.poll_port.0.load(Ordering::SeqCst))
                && domain.events.polling.take(number)
            {
                sched::wake(host, domain, vcpu, Wait::BLOCKED);
            }
        }
    }
}

/// The time-out of a poll has come. Nothing happens if the vCPU was woken otherwise before.
pub fn expired(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    if domain.events.polling.take(vcpu.index) {
        sched::wake(host, domain, vcpu, Wait::BLOCKED);
    }
}
