//! Which vCPU runs where, and for how long.
//!
//! Each CPU has a queue of vCPUs that want to run there, ordered by the weighted time they have had (`queue`); the one that
//! had least runs next, for a slice. A vCPU that waited a long time does not save up: it re-enters a little ahead of the
//! others, no more. An idle CPU takes waiting vCPUs from busy ones. `vcpu::run` is the only caller of `pick` and `put`.

pub mod queue;

use crate::domain::Domain;
use crate::host::{Cpu, Host};
use crate::vcpu::{Vcpu, Wait};
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use machine::boxed::OutOfMemory;
use machine::{CpuId, DomId, cpu};
use public_abi::Errno;
pub use queue::{CpuQueue, Waiting};

/// How long a vCPU runs while others wait, in microseconds.
pub const SLICE_MICROSECONDS: u64 = 10_000;
/// How much less time a woken vCPU must have had to interrupt the running one, in microseconds.
const PREEMPTION_MICROSECONDS: u64 = 500;
/// The weight of a vCPU that nobody set one for (credit2's default).
pub const DEFAULT_WEIGHT: u16 = 256;

/// Where a vCPU is in the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Place {
    /// On no queue: it does not want to run, or may not.
    Off = 0,
    /// Waiting on the queue of its CPU.
    Queued = 1,
    /// Running on its CPU.
    Running = 2,
}

/// A vCPU's place in the schedule.
#[derive(Debug)]
pub struct Unit {
    cpu: AtomicU16,
    place: AtomicU8,
    virtual_time: AtomicU64,
    run_time: AtomicU64,
    affinity: AtomicU64,
    /// The one CPU that it may run on for now, or [`NOWHERE`].
    override_cpu: AtomicU16,
    soft_affinity: AtomicU64,
    weight: AtomicU16,
}

/// No CPU has this number.
const NOWHERE: u16 = u16::MAX;

/// The vCPU is bound to a CPU already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overridden;

impl Unit {
    /// Never run, on CPU 0, allowed everywhere.
    pub const fn new() -> Self {
        Self {
            cpu: AtomicU16::new(0),
            place: AtomicU8::new(Place::Off as u8),
            virtual_time: AtomicU64::new(0),
            run_time: AtomicU64::new(0),
            affinity: AtomicU64::new(u64::MAX),
            override_cpu: AtomicU16::new(NOWHERE),
            soft_affinity: AtomicU64::new(u64::MAX),
            weight: AtomicU16::new(DEFAULT_WEIGHT),
        }
    }

    /// The CPU that it runs on, waits for, or ran on last.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        CpuId(self.cpu.load(Ordering::Acquire))
    }

    /// Where it is.
    #[inline]
    pub fn place(&self) -> Place {
        match self.place.load(Ordering::SeqCst) {
            0 => Place::Off,
            1 => Place::Queued,
            _ => Place::Running,
        }
    }

    /// Whether it is on its CPU now.
    pub fn is_running(&self) -> bool {
        self.place() == Place::Running
    }

    /// Time that it has run, in ticks of the time stamp counter, up to its last stop.
    pub fn run_time(&self) -> u64 {
        self.run_time.load(Ordering::Acquire)
    }

    /// CPUs that it may run on, one bit each.
    pub fn affinity(&self) -> u64 {
        match self.override_cpu.load(Ordering::Acquire) {
            NOWHERE => self.affinity.load(Ordering::Acquire),
            cpu => bit(CpuId(cpu)),
        }
    }

    /// Sets where it may run; takes effect when it is placed next.
    ///
    /// # Errors
    /// [`Overridden`]: it is bound to a CPU for now.
    pub fn set_affinity(&self, cpus: u64) -> Result<(), Overridden> {
        if self.override_cpu.load(Ordering::Acquire) != NOWHERE {
            return Err(Overridden);
        }
        self.affinity.store(cpus, Ordering::Release);
        Ok(())
    }

    /// Binds it to one CPU, whatever its affinity says; takes effect when it is placed next.
    ///
    /// # Errors
    /// [`Overridden`], if it is bound already.
    pub fn override_affinity(&self, cpu: CpuId) -> Result<(), Overridden> {
        let result = self.override_cpu.compare_exchange(NOWHERE, cpu.0, Ordering::AcqRel, Ordering::Acquire);
        result.map(drop).map_err(|_| Overridden)
    }

    /// Ends [`Unit::override_affinity`]; `None` if there is nothing to end.
    pub fn end_override(&self) -> Option<()> {
        (self.override_cpu.swap(NOWHERE, Ordering::AcqRel) != NOWHERE).then_some(())
    }

    /// CPUs that it would rather run on.
    pub fn soft_affinity(&self) -> u64 {
        self.soft_affinity.load(Ordering::Acquire)
    }

    /// Sets where it would rather run.
    pub fn set_soft_affinity(&self, cpus: u64) {
        self.soft_affinity.store(cpus, Ordering::Release);
    }

    /// Its share against others.
    pub fn weight(&self) -> u16 {
        self.weight.load(Ordering::Acquire)
    }

    /// Sets its share; 0 counts as 1.
    pub fn set_weight(&self, weight: u16) {
        self.weight.store(weight.max(1), Ordering::Release);
    }

    /// Whether it may run on a CPU.
    pub fn may_run_on(&self, cpu: CpuId) -> bool {
        self.affinity() & bit(cpu) != 0
    }

    /// Sets the place, before anything that comes after this in the program is read: whoever then ends a reason not to run
    /// sees the new place, or is seen.
    fn set_place(&self, place: Place) {
        self.place.swap(place as u8, Ordering::SeqCst);
    }

    /// Charges `ticks` of running.
    pub(crate) fn charge(&self, ticks: u64) {
        self.run_time.fetch_add(ticks, Ordering::AcqRel);
        let weighted = ticks.saturating_mul(u64::from(DEFAULT_WEIGHT)) / u64::from(self.weight());
        self.virtual_time.fetch_add(weighted, Ordering::AcqRel);
    }
}

impl Default for Unit {
    fn default() -> Self {
        Self::new()
    }
}

fn bit(cpu: CpuId) -> u64 {
    1u64.checked_shl(u32::from(cpu.0)).unwrap_or(0)
}

/// Ticks of the time stamp counter in so many microseconds.
pub fn ticks(microseconds: u64) -> u64 {
    microseconds.saturating_mul(cpu::timestamp_khz()) / 1000
}

/// Makes room on every queue for `count` more vCPUs, so that waking one later needs no memory.
///
/// # Errors
/// [`OutOfMemory`]; nothing is reserved then.
pub fn reserve(host: &Host, count: usize) -> Result<(), OutOfMemory> {
    for (number, cpu) in host.cpus.iter().enumerate() {
        if let Err(error) = reserve_on(cpu, count) {
            for cpu in host.cpus.iter().take(number) {
                cpu.queue.lock().release(count);
                cpu.timers.lock().release(count);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn reserve_on(cpu: &Cpu, count: usize) -> Result<(), OutOfMemory> {
    cpu.queue.lock().reserve(count)?;
    let room = cpu.timers.lock().reserve(count);
    if room.is_err() {
        cpu.queue.lock().release(count);
    }
    room
}

/// Gives the room of a domain's `count` vCPUs back. The domain is in the table no more; what is left of it on queues and
/// among deadlines, which may be far away, goes.
pub fn release(host: &Host, domain: DomId, count: usize) {
    for cpu in &host.cpus {
        {
            let mut queue = cpu.queue.lock();
            queue.forget(domain);
            queue.release(count);
        }
        let mut timers = cpu.timers.lock();
        timers.forget(domain);
        timers.release(count);
    }
}

/// Ends the given reasons to wait of a vCPU and, if it wants to run now, sees that it does. May be called from anywhere
/// that holds no lock of rank `RUN_QUEUE` or above; cheap when the vCPU was not waiting for that.
#[inline]
pub fn wake(host: &Host, domain: &Domain, vcpu: &Vcpu, reasons: Wait) {
    if vcpu.wait().intersects(reasons) {
        vcpu.clear_wait(reasons);
        resume(host, domain, vcpu);
    }
}

/// Queues a vCPU if it wants and may run: after an unpause, or whatever else may have ended its waiting.
pub fn resume(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    if domain.lifecycle.is_stopped() || !vcpu.is_runnable() {
        return;
    }
    let (off, queued) = (Place::Off as u8, Place::Queued as u8);
    if vcpu.sched.place.compare_exchange(off, queued, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        enqueue(host, vcpu);
    }
}

/// [`resume`] for all vCPUs of a domain.
pub fn resume_domain(host: &Host, domain: &Domain) {
    for vcpu in domain.vcpus() {
        resume(host, domain, vcpu);
    }
}

/// Puts a vCPU whose place is `Queued` on the queue of the best CPU.
fn enqueue(host: &Host, vcpu: &Vcpu) {
    let target = choose_cpu(host, vcpu);
    vcpu.sched.cpu.store(target.0, Ordering::Release);
    let Some(cpu) = host.cpus.get(target.index()) else { return };
    let preempt = {
        let mut queue = cpu.queue.lock();
        let time = queue.entry_time(vcpu.sched.virtual_time.load(Ordering::Acquire), ticks(SLICE_MICROSECONDS));
        vcpu.sched.virtual_time.store(time, Ordering::Release);
        queue.add(Waiting { virtual_time: time, domain: vcpu.domain, vcpu: vcpu.index });
        queue.should_preempt(time, ticks(PREEMPTION_MICROSECONDS))
    };
    if preempt {
        host.request_switch(target);
        cpu::kick(target);
    }
}

/// The CPU for a vCPU that wakes: the last one if it is idle, else an idle one, else the last one; all if allowed.
fn choose_cpu(host: &Host, vcpu: &Vcpu) -> CpuId {
    let last = vcpu.sched.cpu();
    let online = (0..host.cpus.len()).filter_map(|n| u16::try_from(n).ok()).map(CpuId);
    let allowed = |cpu: &CpuId| vcpu.sched.may_run_on(*cpu);
    let idle = host.idle.load(Ordering::Acquire);
    let is_idle = |cpu: &CpuId| idle & bit(*cpu) != 0;
    let last = Some(last).filter(allowed);
    last.filter(is_idle)
        .or_else(|| {
            online.clone().filter(|cpu| vcpu.sched.soft_affinity() & bit(*cpu) != 0).filter(allowed).find(is_idle)
        })
        .or_else(|| online.clone().filter(allowed).find(is_idle))
        .or(last)
        .or_else(|| online.clone().find(allowed))
        .unwrap_or_default()
}

/// Makes the CPU that runs this vCPU, if one does, look at its pending events and interrupts before it goes on.
#[inline]
pub fn kick(_host: &Host, vcpu: &Vcpu) {
    if vcpu.sched.place() == Place::Running {
        cpu::kick(vcpu.sched.cpu());
    }
}

/// Sets where a vCPU may run, and sees that it moves.
///
/// # Errors
/// `EBUSY` while it is bound to one CPU (SCHEDOP_pin_override).
pub fn set_affinity(host: &Host, vcpu: &Vcpu, cpus: u64) -> Result<(), Errno> {
    vcpu.sched.set_affinity(cpus).map_err(|Overridden| Errno::EBUSY)?;
    host.request_switch(vcpu.sched.cpu());
    kick(host, vcpu);
    Ok(())
}

/// The vCPU to run next on this CPU, now marked as running here; takes one from another CPU if none waits here.
pub fn pick(host: &Host, me: CpuId) -> Option<(DomId, u32)> {
    let own = host.cpus.get(me.index())?.queue.lock().take_first();
    let next = own.or_else(|| steal(host, me))?;
    Some((next.domain, next.vcpu))
}

fn steal(host: &Host, me: CpuId) -> Option<Waiting> {
    for (number, cpu) in host.cpus.iter().enumerate().filter(|(number, _)| *number != me.index()) {
        let Some(mut queue) = cpu.queue.try_lock() else { continue };
        let allowed = |waiting: &Waiting| {
            host.domains
                .get(waiting.domain)
                .is_some_and(|domain| domain.vcpu(waiting.vcpu).is_some_and(|vcpu| vcpu.sched.may_run_on(me)))
        };
        if number < host.cpus.len()
            && let Some(found) = queue.take_first_that(allowed)
        {
            return Some(found);
        }
    }
    None
}

/// Marks a picked vCPU as running here.
pub fn begin(host: &Host, me: CpuId, vcpu: &Vcpu) {
    vcpu.sched.cpu.store(me.0, Ordering::Release);
    vcpu.sched.set_place(Place::Running);
    if let Some(cpu) = host.cpus.get(me.index()) {
        cpu.queue.lock().set_running(vcpu.sched.virtual_time.load(Ordering::Acquire));
    }
}

/// Takes a vCPU off its CPU after it ran for `ran` ticks; queues it again if it still wants to run.
pub fn put(host: &Host, me: CpuId, domain: &Domain, vcpu: &Vcpu, ran: u64) {
    vcpu.sched.charge(ran);
    if let Some(cpu) = host.cpus.get(me.index()) {
        cpu.queue.lock().set_idle();
    }
    // Off first, then look: whoever makes it runnable in between finds it off and queues it, or `resume` here does.
    vcpu.sched.set_place(Place::Off);
    resume(host, domain, vcpu);
}

/// Whether another vCPU should run on this CPU instead of one that has run for `ran` ticks.
pub fn should_switch(host: &Host, me: CpuId, vcpu: &Vcpu, ran: u64) -> bool {
    let Some(cpu) = host.cpus.get(me.index()) else { return false };
    if !vcpu.sched.may_run_on(me) {
        return true;
    }
    let queue = cpu.queue.lock();
    let time = vcpu.sched.virtual_time.load(Ordering::Acquire).saturating_add(ran);
    let ahead = if ran >= ticks(SLICE_MICROSECONDS) { 0 } else { ticks(PREEMPTION_MICROSECONDS) };
    queue.first_time().is_some_and(|first| first.saturating_add(ahead) <= time)
}

/// Whether other vCPUs wait for this CPU.
pub fn others_wait(host: &Host, me: CpuId) -> bool {
    host.cpus.get(me.index()).is_some_and(|cpu| !cpu.queue.lock().is_empty())
}

/// Waits until no CPU runs the domain's vCPUs. The domain must be paused already, and be another one than the caller's.
pub fn wait_until_off(domain: &Domain) {
    for vcpu in domain.vcpus() {
        while vcpu.sched.place() == Place::Running {
            cpu::kick(vcpu.sched.cpu());
            for _ in 0..1000 {
                if vcpu.sched.place() != Place::Running {
                    break;
                }
                cpu::relax();
            }
        }
    }
}

/// Waits for an interrupt on a CPU that has nothing to run.
pub fn idle(host: &Host, me: CpuId) {
    host.idle.fetch_or(bit(me), Ordering::AcqRel);
    // Whoever queued a vCPU before the flag was set did not see an idle CPU: look again.
    if !others_wait(host, me) {
        let start = cpu::timestamp();
        cpu::idle();
        if let Some(cpu) = host.cpus.get(me.index()) {
            cpu.idle_time.fetch_add(cpu::timestamp().saturating_sub(start), Ordering::AcqRel);
        }
    }
    host.idle.fetch_and(!bit(me), Ordering::AcqRel);
}
