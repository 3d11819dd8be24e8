//! Time limits by the TSC, whose frequency CPUID tells.

use public_abi::x86::cpuid::LEAF_TIME;

use rt::apic;

use crate::{call, environment};

/// Assumed where the hypervisor does not tell: long limits do no harm.
const FALLBACK_KHZ: u64 = 4_000_000;

/// TSC ticks in a millisecond.
#[must_use]
pub fn khz() -> u64 {
    match environment::xen_leaves().map(|base| rt::cpuid(base + LEAF_TIME, 0)) {
        Some([_, _, khz, _]) if khz != 0 => u64::from(khz),
        _ => FALLBACK_KHZ,
    }
}

/// Waits until `done` says so; false if it did not within `milliseconds`. Lets other vCPUs run meanwhile.
pub fn within(milliseconds: u64, done: impl FnMut() -> bool) -> bool {
    wait(milliseconds, done, true)
}

/// As [`within`], but without any hypercall while waiting.
pub fn spin_within(milliseconds: u64, done: impl FnMut() -> bool) -> bool {
    wait(milliseconds, done, false)
}

fn wait(milliseconds: u64, mut done: impl FnMut() -> bool, give_way: bool) -> bool {
    if done() {
        return true;
    }
    let ticks = milliseconds.saturating_mul(khz());
    let begin = rt::timestamp();
    loop {
        if done() {
            return true;
        }
        if rt::timestamp().wrapping_sub(begin) > ticks {
            return false;
        }
        if give_way {
            call::yield_cpu();
        }
        rt::pause();
    }
}

/// The interrupt that ends a [`halt`] that nothing else ends.
const RESCUE: u8 = 0xee;
/// Counts of the APIC timer with divider 16 in a millisecond, at most: Xen's APIC bus runs at 100 MHz.
const APIC_COUNTS_PER_MS: u32 = 6250;

/// Sleeps until an interrupt comes, `milliseconds` at most; false if none came. Interrupts are off afterwards.
pub fn halt(milliseconds: u32) -> bool {
    let before = rt::trap::interrupts(rt::cpu_index(), RESCUE);
    apic::write(apic::TIMER_DIVIDE, 0b0011);
    apic::write(apic::LVT_TIMER, u32::from(RESCUE));
    apic::write(apic::TIMER_INITIAL, milliseconds.saturating_mul(APIC_COUNTS_PER_MS));
    rt::wait_for_interrupt();
    apic::write(apic::TIMER_INITIAL, 0);
    apic::write(apic::LVT_TIMER, apic::LVT_MASKED);
    rt::trap::interrupts(rt::cpu_index(), RESCUE) == before
}

/// Lets time pass.
pub fn delay(milliseconds: u64) {
    spin_within(milliseconds, || false);
}
