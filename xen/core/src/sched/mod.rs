//! Which vCPU runs where, and for how long.
//!
//! Each CPU has a queue of vCPUs that want to run there, ordered by the time they have had, weighted; the one that had
//! least runs next, for a slice. A vCPU that waits a long time does not save up: it re-enters a little behind the others.

use crate::domain::Domain;
use crate::host::Host;
use crate::vcpu::{Vcpu, Wait};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use machine::{CpuId, DomId};

/// A vCPU's place in the schedule.
#[derive(Debug)]
pub struct Unit {
    /// The CPU whose queue it belongs to.
    pub cpu: AtomicU16,
    /// On a queue or running: 1; else 0.
    pub queued: AtomicU32,
    /// Weighted time it has had, in ticks of the time stamp counter.
    pub virtual_time: AtomicU64,
    /// Time it has had, in ticks.
    pub run_time: AtomicU64,
    /// CPUs it may run on, one bit each (the first 64).
    pub affinity: AtomicU64,
}

impl Unit {
    /// Never run, on CPU 0, allowed everywhere.
    pub const fn new() -> Self {
        Self {
            cpu: AtomicU16::new(0),
            queued: AtomicU32::new(0),
            virtual_time: AtomicU64::new(0),
            run_time: AtomicU64::new(0),
            affinity: AtomicU64::new(u64::MAX),
        }
    }
}

impl Default for Unit {
    fn default() -> Self {
        Self::new()
    }
}

/// The vCPUs that want to run on one CPU.
#[derive(Debug, Default)]
pub struct CpuQueue {
    waiting: Vec<(u64, DomId, u32)>,
}

impl CpuQueue {
    /// vCPUs waiting here.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits here.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Ends the given reasons to wait of a vCPU and, if it wants to run now, sees that it does. Safe to call from anywhere
/// that holds no lock of rank RUN_QUEUE or above; cheap when the vCPU was not waiting.
pub fn wake(_host: &Host, _domain: &Domain, vcpu: &Vcpu, reasons: Wait) {
    vcpu.clear_wait(reasons);
}

/// Makes the CPU that runs this vCPU, if one does, look at its pending events and interrupts before it goes on.
pub fn kick(host: &Host, vcpu: &Vcpu) {
    let cpu = CpuId(vcpu.sched.cpu.load(Ordering::Acquire));
    if host.cpus.len() > cpu.index() && vcpu.sched.queued.load(Ordering::Acquire) != 0 {
        machine::cpu::kick(cpu);
    }
}
