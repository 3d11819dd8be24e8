//! Physical processors: who am I, wait, wake others, what work came by interrupt.
//!
//! The hypervisor runs with interrupts off. They are taken only in windows: when a guest is interrupted, while idle, and
//! where the core asks for one. Their handlers do nothing but note work here; the core takes the notes and acts.

use crate::arch;
use crate::platform::DeviceVector;
use crate::units::{CpuId, DomId};

bitflags::bitflags! {
    /// Work that an interrupt has noted for a CPU.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Work: u32 {
        /// The deadline given to [`set_timer`] has passed.
        const TIMER = 1 << 0;
        /// Another CPU wants this one to look again: at its run queue, or at a vCPU's pending events.
        const KICK = 1 << 1;
        /// The console has received something.
        const CONSOLE = 1 << 2;
        /// Devices have interrupted: [`take_device_vectors`] says by which vectors.
        const DEVICE = 1 << 3;
    }
}

/// The CPU this runs on.
#[inline]
pub fn current() -> CpuId {
    arch::current_cpu()
}

/// How many CPUs run.
pub fn count() -> usize {
    arch::cpu_count()
}

/// Takes this CPU's noted work.
#[inline]
pub fn take_work() -> Work {
    Work::from_bits_retain(arch::take_work())
}

/// The vectors of devices that have interrupted this CPU since this was last called. Each must be ended with [`end_interrupt`]:
/// until then the CPU takes none of the same or a lower priority class.
pub fn take_device_vectors() -> impl Iterator<Item = DeviceVector> {
    let sets = arch::take_device_vectors();
    (DeviceVector::FIRST..=DeviceVector::LAST)
        .filter(move |vector| sets.get(usize::from(vector >> 6)).is_some_and(|set| set >> (vector & 63) & 1 != 0))
        .filter_map(DeviceVector::new)
}

/// Ends one device's interrupt on this CPU.
pub fn end_interrupt() {
    arch::end_interrupt();
}

/// Whether work is noted, without taking it.
#[inline]
pub fn has_work() -> bool {
    arch::has_work()
}

/// Whether something that takes long should stop here and go on later: takes what interrupts are pending, since nothing is
/// noted while they are off, and says whether there is work. Their handlers take no lock, so any may be held.
#[inline]
pub fn must_yield() -> bool {
    arch::interrupt_window();
    arch::has_work()
}

/// Interrupts a CPU so that it leaves a guest or its idle loop and finds [`Work::KICK`].
pub fn kick(cpu: CpuId) {
    arch::kick(cpu);
}

/// Lets one round of a spin loop pass.
#[inline]
pub fn relax() {
    arch::relax();
}

/// Does nothing until `ticks` of the time stamp counter have passed. For the machine's last seconds: nobody else's work is done.
pub fn pass(ticks: u64) {
    arch::pass(ticks);
}

/// Takes what interrupts are pending, then goes on with interrupts off.
pub fn interrupt_window() {
    arch::interrupt_window();
}

/// Waits with interrupts on until one comes, unless work is noted already.
pub fn idle() {
    arch::idle();
}

/// The time stamp counter: ticks since start, equal on all CPUs.
#[inline]
pub fn timestamp() -> u64 {
    arch::timestamp()
}

/// Ticks of the time stamp counter a second, in kHz.
pub fn timestamp_khz() -> u64 {
    arch::timestamp_khz()
}

/// Interrupts this CPU once the time stamp counter reaches `deadline`, noting [`Work::TIMER`]; replaces the deadline before.
/// `None` turns the timer off.
pub fn set_timer(deadline: Option<u64>) {
    arch::set_timer(deadline);
}

/// Seconds since 1970-01-01 00:00 UTC, by the battery-backed clock, rounded down.
pub fn wall_clock_seconds() -> u64 {
    arch::wall_clock_seconds()
}

/// Tells the machine which domain and vCPU this CPU works for, for the epitaph of a panic.
#[inline]
pub fn set_working_for(domain: DomId, vcpu: u16) {
    arch::set_working_for(domain, vcpu);
}

/// Restarts the machine.
pub fn restart() -> ! {
    arch::restart()
}

/// Stops for good with all CPUs halted.
pub fn stop() -> ! {
    arch::stop()
}

pub(crate) fn held_ranks() -> u64 {
    arch::held_ranks()
}

pub(crate) fn set_held_ranks(ranks: u64) {
    arch::set_held_ranks(ranks);
}
