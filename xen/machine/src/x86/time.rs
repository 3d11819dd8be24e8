//! How fast the time stamp counter and the APIC timer run, measured against the 8254; and the battery-backed clock.

use super::{apic, cpu, ports};
use crate::codec::calibration::{self, Clocks, Failure};
use core::sync::atomic::{AtomicU64, Ordering};

static TSC_KHZ: AtomicU64 = AtomicU64::new(0);
/// APIC timer ticks per time stamp tick, as a 32.32 fixed-point number.
static APIC_RATIO: AtomicU64 = AtomicU64::new(0);

/// Frequency of the 8254 in Hz.
const PIT_HZ: u64 = 1_193_182;
/// How long to measure, in 8254 ticks: about 20 ms.
const PIT_TICKS: u16 = 23_864;

/// The 8254's channel 2, the time stamp counter, and the APIC timer.
struct Machine;

impl Clocks for Machine {
    fn begin(&mut self) {
        // Channel 2, one shot, its gate opened by port 0x61 with the speaker off; its output shows in bit 5 there.
        let gate = ports::input_8(0x61) & !0b10 | 1;
        ports::output_8(0x61, gate & !1);
        ports::output_8(0x43, 0b1011_0000);
        ports::output_8(0x42, PIT_TICKS as u8);
        ports::output_8(0x42, (PIT_TICKS >> 8) as u8);
        apic::start_counting();
        ports::output_8(0x61, gate);
    }

    fn is_over(&mut self) -> bool {
        ports::input_8(0x61) & 1 << 5 != 0
    }

    fn timestamp(&mut self) -> u64 {
        cpu::read_tsc()
    }

    fn timer(&mut self) -> u32 {
        u32::MAX - apic::remaining_count()
    }
}

/// Measures both clocks.
///
/// # Errors
/// [`Failure`]: without them nothing would ever be preempted.
pub(super) fn calibrate() -> Result<(), Failure> {
    let speeds = calibration::measure(&mut Machine, u64::from(PIT_TICKS), PIT_HZ)?;
    TSC_KHZ.store(speeds.khz, Ordering::Relaxed);
    APIC_RATIO.store(speeds.timer_ratio, Ordering::Relaxed);
    Ok(())
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

pub fn wall_clock_seconds() -> u64 {
    crate::codec::clock::read(cmos)
}
