//! Ticks of the time stamp counter as nanoseconds, in the arithmetic that guests use.
//!
//! public/xen.h, vcpu_time_info: nanoseconds = ((ticks << shift) * mul) >> 32. The hypervisor computes with the same two
//! numbers that it gives to guests, so that both agree on every deadline to the nanosecond.

/// The two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// Nanoseconds in a shifted tick, as a fraction of 2^32.
    pub mul: u32,
    /// How far ticks are shifted to the left before; negative is to the right.
    pub shift: i8,
}

const NANOSECONDS: u128 = 1_000_000_000;
/// Shifted ticks per second are brought into (10^9, 2 * 10^9], so that `mul` has all of its 32 bits.
const TOP: u64 = 2_000_000_000;

impl Scale {
    /// For a counter of `khz` thousand ticks a second; 0 counts as 1.
    pub fn for_khz(khz: u64) -> Self {
        let frequency = khz.max(1).saturating_mul(1000);
        let mut shift: i8 = 0;
        let mut shifted = frequency;
        while shifted > TOP {
            shifted >>= 1;
            shift = shift.saturating_sub(1);
        }
        while shifted <= TOP / 2 {
            shifted <<= 1;
            shift = shift.saturating_add(1);
        }
        let back = u32::from(shift.unsigned_abs());
        // The frequency itself, not its shifted and rounded form, decides: no precision is lost.
        let mul = if shift < 0 {
            (NANOSECONDS << 32 << back) / u128::from(frequency)
        } else {
            (NANOSECONDS << 32) / (u128::from(frequency) << back)
        };
        Self { mul: u32::try_from(mul).unwrap_or(u32::MAX), shift }
    }

    /// Nanoseconds in so many ticks, rounded down.
    #[inline]
    pub fn nanoseconds(self, ticks: u64) -> u64 {
        let by = u32::from(self.shift.unsigned_abs());
        let shifted = if self.shift < 0 { u128::from(ticks >> by) } else { u128::from(ticks) << by };
        // No overflow: `for_khz` shifts by 20 at the most, and 64 + 20 + 32 bits fit.
        u64::try_from(shifted.wrapping_mul(u128::from(self.mul)) >> 32).unwrap_or(u64::MAX)
    }

    /// The least number of ticks in which so many nanoseconds have passed.
    pub fn ticks(self, nanoseconds: u64) -> u64 {
        let shifted = (u128::from(nanoseconds) << 32).div_ceil(u128::from(self.mul.max(1)));
        let by = u32::from(self.shift.unsigned_abs());
        let ticks = if self.shift < 0 { shifted << by } else { shifted.div_ceil(1 << by) };
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_counter_of_one_gigahertz_is_shifted_once() {
        // (10^9, 2 * 10^9] excludes 10^9 itself.
        assert_eq!(Scale::for_khz(1_000_000), Scale { mul: 1 << 31, shift: 1 });
        assert_eq!(Scale::for_khz(2_000_000), Scale { mul: 1 << 31, shift: 0 });
        assert_eq!(Scale::for_khz(4_000_000), Scale { mul: 1 << 31, shift: -1 });
    }

    #[test]
    fn linux_finds_the_frequency_again() {
        // What Linux does with the two numbers to learn its tsc_khz (arch/x86/kernel/pvclock.c): 10^6 << 32 / mul, shifted back.
        for khz in [1_000_000u64, 1_500_000, 2_095_078, 2_400_000, 3_699_998, 5_000_123] {
            let scale = Scale::for_khz(khz);
            let unshifted = (1_000_000u64 << 32) / u64::from(scale.mul);
            let found = if scale.shift < 0 { unshifted << -scale.shift } else { unshifted >> scale.shift };
            assert!(found.abs_diff(khz) <= 3, "{khz} became {found}");
        }
    }

    proptest! {
        #[test]
        fn deadlines_are_exact(khz in 10_000u64..10_000_000, nanoseconds in 0u64..1 << 60) {
            let scale = Scale::for_khz(khz);
            prop_assert!(scale.mul >= 1 << 31);
            let ticks = scale.ticks(nanoseconds);
            prop_assert!(scale.nanoseconds(ticks) >= nanoseconds);
            if ticks > 0 {
                prop_assert!(scale.nanoseconds(ticks - 1) < nanoseconds);
            }
        }

        #[test]
        fn a_second_is_a_second(khz in 10_000u64..10_000_000, seconds in 0u64..10_000_000) {
            let now = Scale::for_khz(khz).nanoseconds(khz * 1000 * seconds);
            // One part in 2^31 of rounding, and one tick.
            prop_assert!(now.abs_diff(seconds * 1_000_000_000) <= seconds + 200);
        }
    }
}
