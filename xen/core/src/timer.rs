//! What must happen at a certain time: guests' timers and the end of time slices.
//!
//! Each CPU keeps a list of deadlines of vCPUs that were set on it. An entry is only a hint: the truth is the vCPU's own
//! deadline, and an entry that no longer equals it is dropped when its time comes. So a vCPU may move between CPUs, and
//! nothing needs to be taken off other CPUs' lists.

use crate::host::Host;
use crate::vcpu::Vcpu;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use machine::boxed::OutOfMemory;
use machine::{CpuId, DomId, cpu};

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
    /// VCPUOP_set_periodic_timer.
    Periodic = 3,
    /// The domain's watchdogs (on vCPU 0).
    Watchdog = 4,
    /// The next period of the domain's cap.
    Budget = 5,
}

/// How many kinds there are.
const KINDS: usize = 6;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A vCPU's deadlines, in ticks of the time stamp counter.
#[derive(Debug)]
pub struct VcpuTimers {
    deadlines: [AtomicU64; KINDS],
}

impl VcpuTimers {
    /// None set.
    pub const fn new() -> Self {
        Self { deadlines: [const { AtomicU64::new(NEVER) }; KINDS] }
    }

    fn place(&self, kind: TimerKind) -> &AtomicU64 {
        let [singleshot, lapic, poll, periodic, watchdog, budget] = &self.deadlines;
        match kind {
            TimerKind::Singleshot => singleshot,
            TimerKind::Lapic => lapic,
            TimerKind::Poll => poll,
            TimerKind::Periodic => periodic,
            TimerKind::Watchdog => watchdog,
            TimerKind::Budget => budget,
        }
    }

    /// The deadline of a timer, if it is set.
    pub fn deadline(&self, kind: TimerKind) -> Option<u64> {
        Some(self.place(kind).load(Ordering::Acquire)).filter(|deadline| *deadline != NEVER)
    }

    /// Clears a timer if it is still set to `deadline`.
    fn expire(&self, kind: TimerKind, deadline: u64) -> bool {
        self.place(kind).compare_exchange(deadline, NEVER, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Default for VcpuTimers {
    fn default() -> Self {
        Self::new()
    }
}

/// A deadline on a CPU's list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// When.
    pub deadline: u64,
    /// Whose.
    pub domain: DomId,
    /// Whose vCPU.
    pub vcpu: u32,
    /// Which timer.
    pub kind: TimerKind,
}

/// What one CPU waits for.
#[derive(Debug)]
pub struct CpuTimers {
    list: Vec<Due>,
    reserved: usize,
    /// What the hardware timer is set to.
    armed: u64,
    /// When the running vCPU's slice ends.
    slice_end: u64,
}

impl CpuTimers {
    /// Nothing set and no room.
    pub const fn new() -> Self {
        Self { list: Vec::new(), reserved: 0, armed: NEVER, slice_end: NEVER }
    }

    /// Makes room for the timers of `count` more vCPUs.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is changed.
    pub fn reserve(&mut self, count: usize) -> Result<(), OutOfMemory> {
        let more = count.checked_mul(KINDS).ok_or(OutOfMemory)?;
        let total = self.reserved.checked_add(more).ok_or(OutOfMemory)?;
        self.list.try_reserve_exact(total.saturating_sub(self.list.len())).map_err(|_| OutOfMemory)?;
        self.reserved = total;
        Ok(())
    }

    /// Gives room back.
    pub fn release(&mut self, count: usize) {
        self.reserved = self.reserved.saturating_sub(count.saturating_mul(KINDS));
    }

    /// When the running vCPU's slice ends.
    #[cfg(test)]
    pub fn slice_end(&self) -> u64 {
        self.slice_end
    }

    /// Deadlines on the list, and those that there is room for.
    #[cfg(test)]
    pub fn numbers(&self) -> (usize, usize) {
        (self.list.len(), self.reserved)
    }

    /// Adds a deadline, replacing the one that the same timer has here.
    fn put(&mut self, due: Due) {
        let same = |other: &&mut Due| other.domain == due.domain && other.vcpu == due.vcpu && other.kind == due.kind;
        match self.list.iter_mut().find(same) {
            Some(old) => *old = due,
            None => self.list.push(due),
        }
    }

    /// Removes the deadlines of a domain that is no more: they may be far away, and would take the room of others until then.
    pub fn forget(&mut self, domain: DomId) {
        self.list.retain(|due| due.domain != domain);
    }

    fn earliest(&self) -> u64 {
        self.list.iter().map(|due| due.deadline).min().unwrap_or(NEVER).min(self.slice_end)
    }

    /// Takes a deadline that has passed.
    fn take_due(&mut self, now: u64) -> Option<Due> {
        let index = self.list.iter().position(|due| due.deadline <= now)?;
        Some(self.list.swap_remove(index))
    }

    /// Sets the hardware to the earliest deadline if it is set to another.
    fn arm(&mut self) {
        let earliest = self.earliest();
        if earliest != self.armed {
            self.armed = earliest;
            cpu::set_timer(Some(earliest).filter(|deadline| *deadline != NEVER));
        }
    }
}

impl Default for CpuTimers {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets a timer of a vCPU to a time stamp, or clears it. When the time comes, `expire` below runs, on the CPU that set it.
pub fn set(host: &Host, vcpu: &Vcpu, kind: TimerKind, deadline: Option<u64>) {
    let deadline = deadline.unwrap_or(NEVER);
    vcpu.timers.place(kind).store(deadline, Ordering::Release);
    if deadline == NEVER {
        return;
    }
    if let Some(cpu) = host.cpus.get(cpu::current().index()) {
        let mut timers = cpu.timers.lock();
        timers.put(Due { deadline, domain: vcpu.domain, vcpu: vcpu.index, kind });
        if deadline < timers.armed {
            timers.arm();
        }
    }
}

/// Sets or clears the end of the running vCPU's slice on this CPU.
pub fn set_slice_end(host: &Host, me: CpuId, end: Option<u64>) {
    if let Some(cpu) = host.cpus.get(me.index()) {
        let mut timers = cpu.timers.lock();
        timers.slice_end = end.unwrap_or(NEVER);
        timers.arm();
    }
}

/// Handles everything whose time has come on this CPU, and sets the hardware timer anew.
pub fn run_due(host: &Host, me: CpuId) {
    let Some(cpu) = host.cpus.get(me.index()) else { return };
    let now = cpu::timestamp();
    loop {
        let due = cpu.timers.lock().take_due(now);
        let Some(due) = due else { break };
        let Some(domain) = host.domains.get(due.domain) else { continue };
        let Some(vcpu) = domain.vcpu(due.vcpu) else { continue };
        if vcpu.timers.expire(due.kind, due.deadline) {
            crate::vcpu::run::timer_expired(host, &domain, vcpu, due.kind);
        }
    }
    let mut timers = cpu.timers.lock();
    if timers.slice_end <= now {
        timers.slice_end = NEVER;
        host.request_switch(me);
    }
    // The hardware timer is one-shot and has fired: whatever it was set to is over.
    timers.armed = 0;
    timers.arm();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(deadline: u64, vcpu: u32, kind: TimerKind) -> Due {
        Due { deadline, domain: DomId(1), vcpu, kind }
    }

    #[test]
    fn a_timer_has_one_entry_a_cpu() {
        let mut timers = CpuTimers::new();
        timers.reserve(2).unwrap();
        timers.put(due(100, 0, TimerKind::Lapic));
        timers.put(due(50, 0, TimerKind::Singleshot));
        timers.put(due(200, 0, TimerKind::Lapic));
        assert_eq!(timers.list.len(), 2);
        assert_eq!(timers.earliest(), 50);
        assert_eq!(timers.take_due(49), None);
        assert_eq!(timers.take_due(50), Some(due(50, 0, TimerKind::Singleshot)));
        assert_eq!(timers.take_due(199), None);
        assert_eq!(timers.earliest(), 200);
        timers.slice_end = 10;
        assert_eq!(timers.earliest(), 10);
    }

    #[test]
    fn a_domain_that_is_gone_leaves_no_deadline() {
        let mut timers = CpuTimers::new();
        timers.reserve(2).unwrap();
        let capacity = timers.list.capacity();
        for round in 0..100u16 {
            let domain = DomId(round);
            timers.put(Due { domain, ..due(u64::MAX - 1, 0, TimerKind::Singleshot) });
            timers.forget(domain);
        }
        assert!(timers.list.is_empty());
        assert_eq!(timers.list.capacity(), capacity, "no memory was needed");
    }

    #[test]
    fn an_entry_that_was_replaced_does_not_expire() {
        let timers = VcpuTimers::new();
        timers.place(TimerKind::Poll).store(70, Ordering::Release);
        assert_eq!(timers.deadline(TimerKind::Poll), Some(70));
        assert!(!timers.expire(TimerKind::Poll, 60));
        assert!(timers.expire(TimerKind::Poll, 70));
        assert_eq!(timers.deadline(TimerKind::Poll), None);
    }
}
