//! Further vCPUs: jobs for them.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::{clock, environment};

static STOP: AtomicBool = AtomicBool::new(false);

/// APIC identifier of a vCPU: Xen gives even numbers.
#[must_use]
pub const fn apic_id(vcpu: u32) -> u32 {
    vcpu * 2
}

/// Starts vCPU 1 by INIT-SIPI-SIPI with `job`; false if there is none or it does not come up.
pub fn start_second(job: fn()) -> bool {
    if environment::vcpus() < 2 {
        return false;
    }
    rt::start_cpu(1, apic_id(1), job);
    clock::within(10_000, || rt::progress(1) != 0)
}

/// A job: spins, taking interrupts, until told to stop.
pub fn spin_with_interrupts() {
    rt::apic::enable();
    rt::enable_interrupts();
    while !STOP.load(Ordering::SeqCst) {
        rt::pause();
    }
    rt::disable_interrupts();
}

/// A job: sleeps, taking interrupts, until told to stop. The one who stops it must send it an interrupt, too.
pub fn sleep_with_interrupts() {
    rt::apic::enable();
    while !STOP.load(Ordering::SeqCst) {
        rt::wait_for_interrupt();
    }
}

/// Ends such a job.
pub fn stop() {
    STOP.store(true, Ordering::SeqCst);
}
