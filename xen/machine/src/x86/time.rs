//! How fast the time stamp counter and the APIC timer run, measured against the 8254; and the battery-backed clock.

use super::{apic, cpu, ports};
use core::sync::atomic::{AtomicU64, Ordering};

static TSC_KHZ: AtomicU64 = AtomicU64::new(0);
/// APIC timer ticks per time stamp tick, as a 32.32 fixed-point number.
static APIC_RATIO: AtomicU64 = AtomicU64::new(0);

/// Frequency of the 8254 in Hz.
const PIT_HZ: u64 = 1_193_182;
/// How long to measure, in 8254 ticks: about 20 ms.
const PIT_TICKS: u16 = 23_864;

/// Measures both clocks.
pub(super) fn calibrate() {
    // Channel 2, one shot, its gate opened by port 0x61 with the speaker off; its output shows in bit 5 there.
    let gate = ports::input_8(0x61) & !0b10 | 1;
    ports::output_8(0x61, gate & !1);
    ports::output_8(0x43, 0b1011_0000);
    ports::output_8(0x42, PIT_TICKS as u8);
    ports::output_8(0x42, (PIT_TICKS >> 8) as u8);
    apic::start_counting();
    ports::output_8(0x61, gate);
    let start = cpu::read_tsc();
    while ports::input_8(0x61) & 1 << 5 == 0 {
        cpu::relax();
    }
    let ticks = cpu::read_tsc() - start;
    let apic_ticks = u64::from(u32::MAX - apic::remaining_count());
    TSC_KHZ.store(ticks * PIT_HZ / (u64::from(PIT_TICKS) * 1000), Ordering::Relaxed);
    let ratio = (u128::from(apic_ticks) << 32) / u128::from(ticks.max(1));
    APIC_RATIO.store(u64::try_from(ratio).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// APIC timer ticks that last as long as `ticks` of the time stamp counter.
pub(super) fn apic_count(ticks: u64) -> u64 {
    let count = (u128::from(ticks) * u128::from(APIC_RATIO.load(Ordering::Relaxed))) >> 32;
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[inline]
pub fn timestamp() -> u64 {
    cpu::read_tsc()
}

pub fn timestamp_khz() -> u64 {
    TSC_KHZ.load(Ordering::Relaxed)
}

fn cmos(index: u8) -> u8 {
    ports::output_8(0x70, index);
    ports::input_8(0x71)
}

/// Year, month, day, hour, minute, second as they stand in the clock's registers now.
fn read_clock() -> [u8; 6] {
    while cmos(0x0a) & 0x80 != 0 {
        cpu::relax();
    }
    [cmos(9), cmos(8), cmos(7), cmos(4), cmos(2), cmos(0)]
}

pub fn wall_clock_seconds() -> u64 {
    // Two equal readings in a row cannot straddle an update.
    let mut fields = read_clock();
    loop {
        let again = read_clock();
        if again == fields {
            break;
        }
        fields = again;
    }
    let status = cmos(0x0b);
    crate::codec::clock::seconds_since_1970(fields, status)
}
