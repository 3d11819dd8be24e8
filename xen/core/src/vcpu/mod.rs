//! A virtual processor: its registers, why it does not run, its time and its interrupts.
//!
//! The physical CPU that runs a vCPU holds `hardware` for the whole time slice; everybody else only tries to take it (and
//! succeeds when the vCPU is off the CPU). What others must reach at any time is atomic or behind a lock of its own. What
//! decides whether a vCPU runs is read and written in one order that all CPUs agree on (`SeqCst`, in `sched::state` and in
//! `domain::lifecycle`): a vCPU that goes to sleep and the one that wakes it must not both miss the other.

pub mod run;

use crate::event::VcpuEvents;
use crate::sched::Unit;
use crate::timer::VcpuTimers;
use crate::x86::VcpuX86;
use core::sync::atomic::{AtomicBool, AtomicU64};
use machine::DomId;
use machine::boxed::OutOfMemory;
use machine::lock::{Lock, rank};
use machine::table::Root;

bitflags::bitflags! {
    /// Why a vCPU does not want to run.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Wait: u32 {
        /// It was never started, or was taken down.
        const DOWN = 1 << 0;
        /// It waits for an event or an interrupt (HLT, SCHEDOP_block).
        const BLOCKED = 1 << 1;
        /// It waits for one of a few event channels (SCHEDOP_poll).
        const POLLING = 1 << 2;
        /// It waits for a device model's answer.
        const DEVICE = 1 << 3;
        /// Its domain has run as much as its cap allows in this period. It wants to run all the same.
        const PARKED = 1 << 4;
    }
}

/// A vCPU.
pub struct Vcpu {
    /// Whose it is.
    pub domain: DomId,
    /// Its number in the domain.
    pub index: u32,
    /// Registers and control block. Only ever `try_lock`ed.
    pub hardware: Lock<machine::vcpu::Vcpu, { rank::VCPU }>,
    /// Whether its registers were ever set (VCPUOP_initialise, sethvmcontext, a start-up IPI).
    pub is_initialised: AtomicBool,
    /// Whether it wants to run, where it runs and how much it has run.
    pub sched: Unit,
    /// Its vcpu_info, runstate area and upcall vector.
    pub events: VcpuEvents,
    /// The state of the p2m that the processor's translations for this vCPU are as new as.
    pub p2m_epoch: AtomicU64,
    /// Its deadlines.
    pub timers: VcpuTimers,
    /// What only x86 has: local interrupt controller, MSRs.
    pub x86: VcpuX86,
}

impl Vcpu {
    /// vCPU `index` of a domain whose stage-2 table is at `root`: down, as after creation.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(domain: DomId, index: u32, root: Root) -> Result<Self, OutOfMemory> {
        Ok(Self {
            domain,
            index,
            hardware: Lock::new(machine::vcpu::Vcpu::try_new(domain, root)?),
            is_initialised: AtomicBool::new(false),
            sched: Unit::new(),
            events: VcpuEvents::new(),
            p2m_epoch: AtomicU64::new(0),
            timers: VcpuTimers::new(),
            x86: VcpuX86::try_new(index)?,
        })
    }

    /// Why it does not want to run.
    #[inline]
    pub fn wait(&self) -> Wait {
        Wait::from_bits_retain(self.sched.state.reasons())
    }

    /// Adds reasons to wait; gives those before.
    pub fn add_wait(&self, reasons: Wait) -> Wait {
        Wait::from_bits_retain(self.sched.state.add(reasons.bits()))
    }

    /// Takes reasons to wait away; gives those before.
    pub fn clear_wait(&self, reasons: Wait) -> Wait {
        Wait::from_bits_retain(self.sched.state.clear(reasons.bits()))
    }

    /// Whether it wants to run, as far as it alone decides.
    #[inline]
    pub fn is_runnable(&self) -> bool {
        self.sched.state.wants_to_run()
    }

    /// Pauses this vCPU alone; counts.
    pub fn pause(&self) {
        self.sched.state.pause();
    }

    /// Undoes one pause.
    pub fn unpause(&self) {
        self.sched.state.unpause();
    }
}
