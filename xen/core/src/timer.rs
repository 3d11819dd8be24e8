//! What must happen at a certain time: guests' timers and the end of time slices.

use crate::host::Host;
use crate::vcpu::Vcpu;
use core::sync::atomic::{AtomicU64, Ordering};

/// Timers of a vCPU. Each has one deadline at the most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum TimerKind {
    /// VCPUOP_set_singleshot_timer and set_timer_op: sends VIRQ_TIMER.
    Singleshot = 0,
    /// The local APIC's timer.
    Lapic = 1,
    /// SCHEDOP_poll's time-out.
    Poll = 2,
    /// VCPUOP_set_periodic_timer: sends VIRQ_TIMER again and again.
    Periodic = 3,
    /// SCHEDOP_watchdog, the domain's earliest; on vCPU 0 only.
    Watchdog = 4,
}

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A vCPU's deadlines, in ticks of the time stamp counter.
#[derive(Debug)]
pub struct VcpuTimers {
    deadlines: [AtomicU64; 5],
}

impl VcpuTimers {
    /// None set.
    pub const fn new() -> Self {
        Self { deadlines: [const { AtomicU64::new(NEVER) }; 5] }
    }

    /// The deadline of a timer, if it is set.
    pub fn deadline(&self, kind: TimerKind) -> Option<u64> {
        let [singleshot, lapic, poll, periodic, watchdog] = &self.deadlines;
        let place = match kind {
            TimerKind::Singleshot => singleshot,
            TimerKind::Lapic => lapic,
            TimerKind::Poll => poll,
            TimerKind::Periodic => periodic,
            TimerKind::Watchdog => watchdog,
        };
        Some(place.load(Ordering::Acquire)).filter(|deadline| *deadline != NEVER)
    }
}

impl Default for VcpuTimers {
    fn default() -> Self {
        Self::new()
    }
}

/// What one CPU waits for.
#[derive(Debug, Default)]
pub struct CpuTimers {}

/// Sets a timer of a vCPU to a time stamp, or clears it. When the time comes, `vcpu::expire` runs on the vCPU's CPU.
pub fn set(_host: &Host, _vcpu: &Vcpu, _kind: TimerKind, _deadline: Option<u64>) {}
