//! How fast the time stamp counter and the APIC timer run, measured against a clock of known speed. Pure over a way to read the
//! three, so that slow, stuck and disturbed clocks are tested.
//!
//! Reading a clock takes time, and firmware may take the processor away in the middle (system management). So both ends of
//! the interval are bracketed by readings of the counter, and of a few samples the one counts whose brackets are narrowest.

/// The clocks.
pub trait Clocks {
    /// Lets the APIC timer count down from its largest value, and begins the interval of known length.
    fn begin(&mut self);
    /// Whether the interval is over.
    fn is_over(&mut self) -> bool;
    /// The time stamp counter.
    fn timestamp(&mut self) -> u64;
    /// How far the APIC timer has counted since `begin`.
    fn timer(&mut self) -> u32;
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speeds {
    /// The time stamp counter's frequency in kHz; not 0.
    pub khz: u64,
    /// APIC timer ticks per time stamp tick, as a 32.32 fixed-point number; not 0.
    pub timer_ratio: u64,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The interval of known length does not end.
    NoInterval,
    /// The time stamp counter stands still.
    NoTimestamp,
    /// The APIC timer stands still.
    NoTimer,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoInterval => "the interval timer (8254) does not count",
            Self::NoTimestamp => "the time stamp counter does not count",
            Self::NoTimer => "the local APIC's timer does not count",
        })
    }
}

/// Samples that are taken.
const SAMPLES: usize = 5;
/// Looks at the interval before it is given up: a look takes about a microsecond, an interval some 20,000.
const MOST_LOOKS: u32 = 10_000_000;

/// One sample: lengths in time stamp ticks.
#[derive(Clone, Copy)]
struct Sample {
    /// How long the interval was.
    length: u64,
    /// How wrong that may be.
    doubt: u64,
    timer_ticks: u32,
    /// How long the APIC timer counted.
    timer_length: u64,
}

/// Measures. The interval takes `ticks` of a clock of `hz`.
///
/// # Errors
/// [`Failure`].
pub fn measure(clocks: &mut impl Clocks, ticks: u64, hz: u64) -> Result<Speeds, Failure> {
    let mut best: Option<Sample> = None;
    for _ in 0..SAMPLES {
        let sample = take_sample(clocks)?;
        if best.is_none_or(|best| sample.doubt < best.doubt) {
            best = Some(sample);
        }
    }
    let best = best.ok_or(Failure::NoInterval)?;
    let khz = u128::from(best.length) * u128::from(hz) / (u128::from(ticks.max(1)) * 1000);
    let khz = u64::try_from(khz).ok().filter(|khz| *khz > 0).ok_or(Failure::NoTimestamp)?;
    let ratio = (u128::from(best.timer_ticks) << 32) / u128::from(best.timer_length.max(1));
    let timer_ratio = u64::try_from(ratio).ok().filter(|ratio| *ratio > 0).ok_or(Failure::NoTimer)?;
    Ok(Speeds { khz, timer_ratio })
}

fn take_sample(clocks: &mut impl Clocks) -> Result<Sample, Failure> {
    let before = clocks.timestamp();
    clocks.begin();
    let begun = clocks.timestamp();
    let mut not_over = begun;
    let mut looks = 0;
    while !clocks.is_over() {
        looks += 1;
        if looks > MOST_LOOKS {
            return Err(Failure::NoInterval);
        }
        not_over = clocks.timestamp();
    }
    let over = clocks.timestamp();
    let timer_ticks = clocks.timer();
    let after = clocks.timestamp();
    // The interval began between `before` and `begun` and ended between `not_over` and `over`: the middle of both is taken.
    let shortest = not_over.saturating_sub(begun);
    let longest = over.saturating_sub(before);
    Ok(Sample {
        length: shortest.midpoint(longest),
        doubt: longest.saturating_sub(shortest).saturating_add(after.saturating_sub(over)),
        timer_ticks,
        timer_length: over.midpoint(after).saturating_sub(before.midpoint(begun)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 1_193_182;
    const TICKS: u64 = 23_864;
    /// The interval in nanoseconds.
    const INTERVAL: u64 = TICKS * 1_000_000_000 / HZ;

    /// Clocks whose every reading takes time, with disturbances: before which reading, and for how many nanoseconds.
    struct Fake {
        now: u64,
        begun: u64,
        readings: u64,
        disturbances: &'static [(u64, u64)],
        tsc_mhz: u64,
        timer_mhz: u64,
        is_stuck: bool,
    }

    impl Fake {
        fn pass(&mut self) {
            self.readings += 1;
            self.now += 700;
            self.now +=
                self.disturbances.iter().filter(|(at, _)| *at == self.readings).map(|(_, long)| long).sum::<u64>();
        }
    }

    impl Clocks for Fake {
        fn begin(&mut self) {
            self.pass();
            self.begun = self.now;
        }
        fn is_over(&mut self) -> bool {
            self.pass();
            !self.is_stuck && self.now - self.begun >= INTERVAL
        }
        fn timestamp(&mut self) -> u64 {
            self.now += 10;
            self.now * self.tsc_mhz / 1000
        }
        fn timer(&mut self) -> u32 {
            self.pass();
            ((self.now - self.begun) * self.timer_mhz / 1000) as u32
        }
    }

    fn fake(disturbances: &'static [(u64, u64)]) -> Fake {
        Fake { now: 0, begun: 0, readings: 0, disturbances, tsc_mhz: 2_400, timer_mhz: 100, is_stuck: false }
    }

    fn check(speeds: Speeds) {
        assert!(speeds.khz.abs_diff(2_400_000) < 240, "{speeds:?}: within 0.01 %");
        let ratio = (100 << 32) / 2_400;
        assert!(speeds.timer_ratio.abs_diff(ratio) < ratio / 1000, "{speeds:?}: within 0.1 %");
    }

    #[test]
    fn undisturbed_clocks_are_measured() {
        check(measure(&mut fake(&[]), TICKS, HZ).unwrap());
    }

    #[test]
    fn disturbances_of_four_samples_do_no_harm() {
        // A sample takes about 28,170 readings. A millisecond: while it begins, at its end, in its last reading.
        const MILLISECOND: u64 = 1_000_000;
        let samples: &[(u64, u64)] = &[
            (1, MILLISECOND),
            (28_173, MILLISECOND),
            (56_347, MILLISECOND),
            (84_000, MILLISECOND),
            (112_000, 30 * MILLISECOND),
        ];
        check(measure(&mut fake(samples), TICKS, HZ).unwrap());
    }

    #[test]
    fn clocks_that_stand_still_are_found() {
        assert_eq!(measure(&mut Fake { is_stuck: true, ..fake(&[]) }, TICKS, HZ), Err(Failure::NoInterval));
        assert_eq!(measure(&mut Fake { tsc_mhz: 0, ..fake(&[]) }, TICKS, HZ), Err(Failure::NoTimestamp));
        assert_eq!(measure(&mut Fake { timer_mhz: 0, ..fake(&[]) }, TICKS, HZ), Err(Failure::NoTimer));
    }
}
