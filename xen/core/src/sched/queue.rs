//! One CPU's queue: pure, so that its fairness is tested with numbers.

use alloc::vec::Vec;
use machine::DomId;
use machine::boxed::OutOfMemory;

/// A vCPU that waits for a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Weighted time that it has had.
    pub virtual_time: u64,
    /// Weighted time that it has had anywhere.
    pub service: u64,
    /// Whose it is.
    pub domain: DomId,
    /// Its number.
    pub vcpu: u32,
}

/// The vCPUs that want to run on one CPU. Small: a scan beats a heap.
#[derive(Debug, Default)]
pub struct CpuQueue {
    waiting: Vec<Waiting>,
    reserved: usize,
    /// Weighted time of the vCPU that runs, if one does.
    running: Option<u64>,
    /// The largest weighted time at which a vCPU began or went on to run: newcomers enter near it.
    clock: u64,
}

impl CpuQueue {
    /// An empty queue without room.
    pub const fn new() -> Self {
        Self { waiting: Vec::new(), reserved: 0, running: None, clock: 0 }
    }

    /// Makes room for `count` more vCPUs.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing is changed.
    pub fn reserve(&mut self, count: usize) -> Result<(), OutOfMemory> {
        let total = self.reserved.checked_add(count).ok_or(OutOfMemory)?;
        let missing = total.saturating_sub(self.waiting.len());
        self.waiting.try_reserve_exact(missing).map_err(|_| OutOfMemory)?;
        self.reserved = total;
        Ok(())
    }

    /// Gives room back.
    pub fn release(&mut self, count: usize) {
        self.reserved = self.reserved.saturating_sub(count);
    }

    /// Adds a vCPU. Room for it was reserved when it was created.
    pub fn add(&mut self, waiting: Waiting) {
        debug_assert!(self.waiting.len() < self.waiting.capacity(), "no room was reserved for {waiting:?}");
        self.waiting.push(waiting);
    }

    /// The weighted time at which a vCPU that had `had` enters: at most one `slice` ahead of the others.
    pub fn entry_time(&self, had: u64, slice: u64) -> u64 {
        had.max(self.clock.saturating_sub(slice))
    }

    /// The largest weighted time at which a vCPU began or went on to run.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// What a weighted time of another CPU, whose clock is at `from`, is here: as much ahead of the clock, but `ahead` at the
    /// most, or as much behind it, but `behind` at the most.
    pub fn translate(&self, time: u64, from: u64, ahead: u64, behind: u64) -> u64 {
        match time.checked_sub(from) {
            Some(late) => self.clock.saturating_add(late.min(behind)),
            None => self.clock.saturating_sub(from.saturating_sub(time).min(ahead)),
        }
    }

    /// Whether a vCPU that enters with `time` should interrupt the one that runs: if none runs, or that one has had more
    /// by at least `margin`.
    pub fn should_preempt(&self, time: u64, margin: u64) -> bool {
        self.running.is_none_or(|running| time.saturating_add(margin) <= running)
    }

    /// The least time of those waiting.
    pub fn first_time(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.virtual_time).min()
    }

    /// Takes the vCPU that has had least.
    pub fn take_first(&mut self) -> Option<Waiting> {
        self.take_first_that(|_| true)
    }

    /// Takes the vCPU that has had least of those that `allowed` accepts; of equals the one that waits longest.
    pub fn take_first_that(&mut self, allowed: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let candidates = self.waiting.iter().enumerate().filter(|(_, waiting)| allowed(waiting));
        let (index, _) = candidates.min_by_key(|(_, waiting)| waiting.virtual_time)?;
        Some(self.waiting.remove(index))
    }

    /// Removes a vCPU wherever it stands. False if it was not here.
    pub fn remove(&mut self, domain: DomId, vcpu: u32) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.domain != domain || waiting.vcpu != vcpu);
        self.waiting.len() != before
    }

    /// Removes all vCPUs of a domain that is no more: they would take the room of others until their turn came.
    pub fn forget(&mut self, domain: DomId) {
        self.waiting.retain(|waiting| waiting.domain != domain);
    }

    /// Those that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter()
    }

    /// Notes that a vCPU with this time runs now.
    pub fn set_running(&mut self, time: u64) {
        self.running = Some(time);
        self.clock = self.clock.max(time);
    }

    /// Whether one runs.
    pub fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Notes that none runs.
    pub fn set_idle(&mut self) {
        self.running = None;
    }

    /// Whose vCPUs wait.
    #[cfg(test)]
    pub fn members(&self) -> impl Iterator<Item = DomId> + '_ {
        self.waiting.iter().map(|waiting| waiting.domain)
    }

    /// How many wait, and how many there is room for.
    #[cfg(test)]
    pub fn numbers(&self) -> (usize, usize) {
        (self.waiting.len(), self.reserved)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(vcpu: u32, virtual_time: u64) -> Waiting {
        Waiting { virtual_time, service: 0, domain: DomId(1), vcpu }
    }

    fn queue() -> CpuQueue {
        let mut queue = CpuQueue::new();
        queue.reserve(8).unwrap();
        queue
    }

    #[test]
    fn least_time_first_and_equals_in_order() {
        let mut queue = queue();
        for (vcpu, time) in [(0, 50), (1, 20), (2, 20), (3, 70)] {
            queue.add(entry(vcpu, time));
        }
        let order: [u32; 4] = core::array::from_fn(|_| queue.take_first().unwrap().vcpu);
        assert_eq!(order, [1, 2, 0, 3]);
        assert_eq!(queue.take_first(), None);
    }

    #[test]
    fn a_long_sleeper_gains_one_slice_at_most() {
        let mut queue = queue();
        queue.set_running(1000);
        assert_eq!(queue.entry_time(0, 100), 900);
        assert_eq!(queue.entry_time(950, 100), 950);
        assert_eq!(queue.entry_time(5000, 100), 5000);
    }

    #[test]
    fn times_of_other_cpus_are_translated_within_limits() {
        let mut queue = queue();
        queue.set_running(1000);
        // Their clock is far ahead, or far behind: what counts is the distance.
        for from in [1_000_000, 500] {
            assert_eq!(queue.translate(from, from, 100, 300), 1000);
            assert_eq!(queue.translate(from - 30, from, 100, 300), 970);
            assert_eq!(queue.translate(from - 400, from, 100, 300), 900);
            assert_eq!(queue.translate(from + 200, from, 100, 300), 1200);
            assert_eq!(queue.translate(from + 4000, from, 100, 300), 1300);
        }
    }

    #[test]
    fn preemption_needs_a_margin() {
        let mut queue = queue();
        assert!(queue.should_preempt(u64::MAX, 10), "an idle CPU is always interrupted");
        queue.set_running(1000);
        assert!(queue.should_preempt(990, 10));
        assert!(!queue.should_preempt(991, 10));
    }

    /// Simulates two spinning vCPUs with weights 1:3 and one that sleeps most of the time.
    #[test]
    fn shares_follow_weights_and_sleepers_are_served_soon() {
        const SLICE: u64 = 10;
        let mut queue = queue();
        let mut time = [0u64; 3];
        let mut ran = [0u64; 3];
        let weight = [1u64, 3, 1];
        queue.add(entry(0, 0));
        queue.add(entry(1, 0));
        for step in 0..10_000u64 {
            if step % 100 == 0 {
                time[2] = queue.entry_time(time[2], SLICE);
                queue.add(entry(2, time[2]));
            }
            let next = queue.take_first().unwrap().vcpu as usize;
            queue.set_running(time[next]);
            let length = if next == 2 { 1 } else { SLICE };
            ran[next] += length;
            time[next] += length * 3 / weight[next];
            if next != 2 {
                queue.add(entry(next as u32, time[next]));
            }
        }
        assert!(ran[2] >= 99, "the sleeper ran every time it woke: {ran:?}");
        let ratio = ran[1] as f64 / ran[0] as f64;
        assert!((2.9..3.1).contains(&ratio), "{ran:?}");
    }

    #[test]
    fn reservations_are_exact() {
        let mut queue = CpuQueue::new();
        queue.reserve(2).unwrap();
        queue.add(entry(0, 0));
        queue.reserve(1).unwrap();
        queue.add(entry(1, 0));
        queue.add(entry(2, 0));
        assert!(queue.remove(DomId(1), 1));
        assert!(!queue.remove(DomId(1), 1));
        queue.forget(DomId(2));
        assert_eq!(queue.len(), 2);
        queue.forget(DomId(1));
        queue.release(3);
        assert_eq!(queue.len(), 0);
    }
}
