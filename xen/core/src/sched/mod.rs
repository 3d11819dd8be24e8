//! Which vCPU runs where, and for how long.
//!
//! Each CPU has a queue of vCPUs that want to run there, ordered by the weighted time they have had (`queue`); the one that
//! had least runs next, for a slice. A vCPU that waited a long time does not save up: it re-enters a little ahead of the
//! others, no more. An idle CPU takes waiting vCPUs from busy ones, and those that wait on busy ones change places (`balance`). A domain with a
//! cap runs while its `budget` lasts. `vcpu::run` is the only caller of `pick` and `put`; what is between them is a `turn`.

mod balance;
pub mod budget;
#[cfg(test)]
mod model_tests;
pub mod queue;
#[cfg(test)]
mod share_tests;
mod state;
#[cfg(test)]
mod state_model;
#[cfg(test)]
mod tests;
pub mod turn;

use crate::domain::{Domain, shutdown};
use crate::host::{Cpu, Host};
use crate::time;
use crate::vcpu::{Vcpu, Wait};
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use machine::boxed::OutOfMemory;
use machine::{CpuId, DomId, cpu, frame};
use public_abi::Errno;
use public_abi::sched_params::{RATELIMIT_MAX_US, RATELIMIT_MIN_US};
use public_abi::vcpu::Runstate;
pub use queue::{CpuQueue, Waiting};
pub use state::{Place, RunState};

/// The atomics of `state`, which its model test replaces.
mod atomic {
    pub(super) use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
}

/// How long a vCPU runs while others wait, in microseconds.
pub const SLICE_MICROSECONDS: u64 = 10_000;
/// How much less time a woken vCPU must have had to interrupt the running one, in microseconds.
const PREEMPTION_MICROSECONDS: u64 = 500;
/// The weight of a vCPU that nobody set one for (credit2's default).
pub const DEFAULT_WEIGHT: u16 = 256;
/// The rate limit that nobody has set, in microseconds (XEN_SYSCTL_SCHED_RATELIMIT's default in Xen 4.17).
pub const DEFAULT_RATE_LIMIT: u32 = 1_000;

/// Whether it is a rate limit that can be set, in microseconds; 0 is none.
pub fn is_rate_limit(microseconds: u32) -> bool {
    microseconds == 0 || (RATELIMIT_MIN_US..=RATELIMIT_MAX_US).contains(&microseconds)
}

/// A vCPU's place in the schedule.
#[derive(Debug)]
pub struct Unit {
    /// Whether it wants to run, and where it is.
    pub(crate) state: RunState,
    cpu: AtomicU16,
    virtual_time: AtomicU64,
    run_time: AtomicU64,
    service: AtomicU64,
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
    /// Never run, on CPU 0, allowed everywhere, and down.
    pub fn new() -> Self {
        Self {
            state: RunState::new(Wait::DOWN.bits()),
            cpu: AtomicU16::new(0),
            virtual_time: AtomicU64::new(0),
            run_time: AtomicU64::new(0),
            service: AtomicU64::new(0),
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

    /// Says which CPU it waits for.
    fn set_cpu(&self, cpu: CpuId) {
        self.cpu.store(cpu.0, Ordering::Release);
    }

    /// Where it is.
    #[inline]
    pub fn place(&self) -> Place {
        self.state.place()
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

    /// Charges `ticks` of running.
    pub(crate) fn charge(&self, ticks: u64) {
        let weighted = self.weighted(ticks);
        self.run_time.fetch_add(ticks, Ordering::AcqRel);
        self.virtual_time.fetch_add(weighted, Ordering::AcqRel);
        self.service.fetch_add(weighted, Ordering::AcqRel);
    }

    /// Weighted time that it has had on all CPUs.
    fn service(&self) -> u64 {
        self.service.load(Ordering::Acquire)
    }

    /// Lets it have had so much at least; how much it has had then.
    fn raise_service(&self, least: u64) -> u64 {
        self.service.fetch_max(least, Ordering::AcqRel).max(least)
    }

    /// What `ticks` of running cost it.
    fn weighted(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(u64::from(DEFAULT_WEIGHT)) / u64::from(self.weight())
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
            host.cpus.iter().take(number).for_each(|cpu| release_on(cpu, count));
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

fn release_on(cpu: &Cpu, count: usize) {
    cpu.queue.lock().release(count);
    cpu.timers.lock().release(count);
}

/// Gives the room of a domain's `count` vCPUs back. The domain is in the table no more; what is left of it on queues and
/// among deadlines, which may be far away, goes.
pub fn release(host: &Host, domain: DomId, count: usize) {
    for cpu in &host.cpus {
        cpu.queue.lock().forget(domain);
        cpu.timers.lock().forget(domain);
        release_on(cpu, count);
    }
}

/// Ends the given reasons to wait of a vCPU and, if it wants to run now, sees that it does. May be called from anywhere
/// that holds no lock of rank `RUN_QUEUE` or above; cheap when the vCPU was not waiting for that.
#[inline]
pub fn wake(host: &Host, domain: &Domain, vcpu: &Vcpu, reasons: Wait) {
    if vcpu.sched.state.end(reasons.bits()) {
        resume(host, domain, vcpu);
    }
}

/// Queues a vCPU if it wants and may run: after an unpause, or whatever else may have ended its waiting.
pub fn resume(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    if vcpu.sched.state.claim(|| !domain.lifecycle.is_stopped()) {
        time::runstate_changed(domain, vcpu, Runstate::Runnable, host.clock.now());
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
    let from = clock_of_other(host, vcpu.sched.cpu(), target);
    vcpu.sched.set_cpu(target);
    // The next one that wakes shall find another idle CPU, if there is one.
    host.idle.fetch_and(!bit(target), Ordering::AcqRel);
    let Some(cpu) = host.cpus.get(target.index()) else { return };
    let preempt = {
        let mut queue = cpu.queue.lock();
        let time = entry_time(&queue, vcpu, from);
        let service = vcpu.sched.service();
        queue.add(Waiting { virtual_time: time, service, domain: vcpu.domain, vcpu: vcpu.index });
        queue.should_preempt(time, ticks(PREEMPTION_MICROSECONDS))
    };
    if preempt {
        host.request_switch(target);
        cpu::kick(target);
    }
}

/// The clock of a CPU that a vCPU comes from, if that is another one than where it goes.
fn clock_of_other(host: &Host, from: CpuId, to: CpuId) -> Option<u64> {
    host.cpus.get(from.index()).filter(|_| from != to).map(|cpu| cpu.queue.lock().clock())
}

/// Sets a vCPU's weighted time to that at which it enters a queue. Each CPU's time goes at its own pace: a vCPU that comes
/// from another one brings what it was ahead or behind there, and no more than a slice of it.
fn entry_time(queue: &CpuQueue, vcpu: &Vcpu, from: Option<u64>) -> u64 {
    let slice = ticks(SLICE_MICROSECONDS);
    let had = vcpu.sched.virtual_time.load(Ordering::Acquire);
    let had = from.map_or(had, |clock| queue.translate(had, clock, slice, vcpu.sched.weighted(slice)));
    let time = queue.entry_time(had, slice);
    vcpu.sched.virtual_time.store(time, Ordering::Release);
    time
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

/// The vCPU to run next on this CPU; takes one from another CPU if none waits here. [`begin`] must follow.
pub fn pick(host: &Host, me: CpuId) -> Option<(DomId, u32)> {
    let own = host.cpus.get(me.index())?.queue.lock().take_first();
    let next = own.or_else(|| steal(host, me))?;
    Some((next.domain, next.vcpu))
}

fn steal(host: &Host, me: CpuId) -> Option<Waiting> {
    for (number, cpu) in host.cpus.iter().enumerate().filter(|(number, _)| *number != me.index()) {
        let mut queue = cpu.queue.lock();
        let allowed = |waiting: &Waiting| {
            host.domains
                .get(waiting.domain)
                .is_some_and(|domain| domain.vcpu(waiting.vcpu).is_some_and(|vcpu| vcpu.sched.may_run_on(me)))
        };
        if number < host.cpus.len()
            && let Some(found) = queue.take_first_that(allowed)
        {
            let from = queue.clock();
            drop(queue);
            if let Some(domain) = host.domains.get(found.domain)
                && let Some(vcpu) = domain.vcpu(found.vcpu)
                && let Some(cpu) = host.cpus.get(me.index())
            {
                entry_time(&cpu.queue.lock(), vcpu, Some(from));
            }
            return Some(found);
        }
    }
    None
}

/// Marks a picked vCPU as running here. Whether it still may run is to be looked at after this.
pub fn begin(host: &Host, me: CpuId, vcpu: &Vcpu) {
    vcpu.sched.set_cpu(me);
    vcpu.sched.state.enter();
    if let Some(cpu) = host.cpus.get(me.index()) {
        cpu.queue.lock().set_running(vcpu.sched.virtual_time.load(Ordering::Acquire));
    }
}

/// Charges a vCPU that goes on running here for the `ran` ticks of its slice: the CPU's clock goes on with it, so that
/// whoever comes next does not find itself with all the time that this one had before.
pub fn go_on(host: &Host, me: CpuId, vcpu: &Vcpu, ran: u64) {
    vcpu.sched.charge(ran);
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
    vcpu.sched.state.leave();
    if domain.lifecycle.is_stopped() {
        shutdown::tell_when_at_rest(host, domain);
    }
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

/// Waits until no CPU has, or will take, one of the domain's vCPUs. The domain must be paused already, and be another one
/// than the caller's.
pub fn wait_until_off(host: &Host, domain: &Domain) {
    for vcpu in domain.vcpus() {
        loop {
            match vcpu.sched.place() {
                Place::Off => break,
                // On its queue it would stay until its turn came. Who is not there is on the way.
                Place::Queued if dequeue(host, vcpu) => vcpu.sched.state.leave(),
                Place::Queued => {}
                Place::Running => cpu::kick(vcpu.sched.cpu()),
            }
            for _ in 0..1000 {
                if vcpu.sched.place() == Place::Off {
                    break;
                }
                cpu::relax();
            }
        }
    }
}

/// Takes a vCPU off whatever queue it is on; false if it is on none.
fn dequeue(host: &Host, vcpu: &Vcpu) -> bool {
    host.cpus.iter().any(|cpu| cpu.queue.lock().remove(vcpu.domain, vcpu.index))
}

/// Waits for an interrupt on a CPU that has nothing to run.
pub fn idle(host: &Host, me: CpuId) {
    host.idle.fetch_or(bit(me), Ordering::AcqRel);
    // Whoever queued a vCPU before the flag was set did not see an idle CPU: look again.
    if !others_wait(host, me) {
        let start = cpu::timestamp();
        // Memory of domains that have ended, while nobody waits for it.
        while !cpu::must_yield() && frame::scrub_free() {}
        cpu::idle();
        if let Some(cpu) = host.cpus.get(me.index()) {
            cpu.idle_time.fetch_add(cpu::timestamp().saturating_sub(start), Ordering::AcqRel);
        }
    }
    host.idle.fetch_and(!bit(me), Ordering::AcqRel);
}
