//! The arithmetic of instructions on device memory: results and flags. (AMD APM volume 3, chapter 3.)

use super::decode::{Arithmetic, BitChange};

/// Flags in RFLAGS.
mod flag {
    pub(super) const CARRY: u64 = 1 << 0;
    pub(super) const PARITY: u64 = 1 << 2;
    pub(super) const AUXILIARY: u64 = 1 << 4;
    pub(super) const ZERO: u64 = 1 << 6;
    pub(super) const SIGN: u64 = 1 << 7;
    pub(super) const OVERFLOW: u64 = 1 << 11;
    pub(super) const ALL: u64 = CARRY | PARITY | AUXILIARY | ZERO | SIGN | OVERFLOW;
}
/// RFLAGS.ZF.
pub(super) const ZERO: u64 = flag::ZERO;

/// The bits of a value of this many bytes.
pub const fn mask(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (size as u32 * 8)) - 1 }
}

/// A value of this many bytes with its sign extended.
pub const fn sign_extend(value: u64, size: u8) -> u64 {
    let unused = 64 - if size >= 8 { 64 } else { size as u32 * 8 };
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}

/// `rflags` with the flags of a result.
fn with_flags(rflags: u64, size: u8, result: u64, others: u64) -> u64 {
    let result = result & mask(size);
    let sign = 1u64 << (u32::from(size.min(8)) * 8 - 1);
    let mut flags = others;
    if result == 0 {
        flags |= flag::ZERO;
    }
    if result & sign != 0 {
        flags |= flag::SIGN;
    }
    if (result & 0xff).count_ones().is_multiple_of(2) {
        flags |= flag::PARITY;
    }
    rflags & !flag::ALL | flags
}

/// Result and RFLAGS of `left op right`. For CMP and TEST the result is `left`: nothing is stored.
pub fn arithmetic(operation: Arithmetic, size: u8, left: u64, right: u64, rflags: u64) -> (u64, u64) {
    let (left, right) = (left & mask(size), right & mask(size));
    let carry_in = u64::from(rflags & flag::CARRY != 0);
    match operation {
        Arithmetic::Add => add(size, left, right, 0, rflags),
        Arithmetic::Adc => add(size, left, right, carry_in, rflags),
        Arithmetic::Sub => subtract(size, left, right, 0, rflags),
        Arithmetic::Sbb => subtract(size, left, right, carry_in, rflags),
        Arithmetic::Cmp => (left, subtract(size, left, right, 0, rflags).1),
        Arithmetic::And => (left & right, with_flags(rflags, size, left & right, 0)),
        Arithmetic::Or => (left | right, with_flags(rflags, size, left | right, 0)),
        Arithmetic::Xor => (left ^ right, with_flags(rflags, size, left ^ right, 0)),
        Arithmetic::Test => (left, with_flags(rflags, size, left & right, 0)),
    }
}

fn add(size: u8, left: u64, right: u64, carry: u64, rflags: u64) -> (u64, u64) {
    let wide = u128::from(left) + u128::from(right) + u128::from(carry);
    let result = left.wrapping_add(right).wrapping_add(carry) & mask(size);
    let carried = wide > u128::from(mask(size));
    let overflow = (left ^ result) & (right ^ result);
    finish(size, left, right, result, carried, overflow, rflags)
}

fn subtract(size: u8, left: u64, right: u64, borrow: u64, rflags: u64) -> (u64, u64) {
    let result = left.wrapping_sub(right).wrapping_sub(borrow) & mask(size);
    let borrowed = u128::from(left) < u128::from(right) + u128::from(borrow);
    let overflow = (left ^ right) & (left ^ result);
    finish(size, left, right, result, borrowed, overflow, rflags)
}

fn finish(size: u8, left: u64, right: u64, result: u64, carried: bool, overflow: u64, rflags: u64) -> (u64, u64) {
    let sign = 1u64 << (u32::from(size.min(8)) * 8 - 1);
    let mut flags = if carried { flag::CARRY } else { 0 };
    if overflow & sign != 0 {
        flags |= flag::OVERFLOW;
    }
    if (left ^ right ^ result) & 0x10 != 0 {
        flags |= flag::AUXILIARY;
    }
    (result, with_flags(rflags, size, result, flags))
}

/// INC and DEC: as adding or subtracting one, but the carry flag stays.
pub fn increment(size: u8, value: u64, down: bool, rflags: u64) -> (u64, u64) {
    let value = value & mask(size);
    let (result, flags) = if down { subtract(size, value, 1, 0, rflags) } else { add(size, value, 1, 0, rflags) };
    (result, flags & !flag::CARRY | rflags & flag::CARRY)
}

/// NEG: zero minus the value.
pub fn negate(size: u8, value: u64, rflags: u64) -> (u64, u64) {
    subtract(size, 0, value & mask(size), 0, rflags)
}

/// BT and its kin: the bit goes to the carry flag.
pub fn bit_test(change: BitChange, size: u8, value: u64, index: u64, rflags: u64) -> (u64, u64) {
    let bit = 1u64 << (index & (u64::from(size.min(8)) * 8 - 1));
    let carry = if value & bit != 0 { flag::CARRY } else { 0 };
    let result = match change {
        BitChange::Keep => value,
        BitChange::Set => value | bit,
        BitChange::Reset => value & !bit,
        BitChange::Complement => value ^ bit,
    };
    (result, rflags & !flag::CARRY | carry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The flags that the processor below this test computes, by its own instruction set's definitions on 8 bits.
    #[test]
    fn all_eight_bit_sums_and_differences() {
        for left in 0u64..256 {
            for right in 0u64..256 {
                let signed = |value: u64| i16::from((value & 0xff) as u8 as i8);
                let (sum, flags) = arithmetic(Arithmetic::Add, 1, left, right, 2);
                assert_eq!(sum, (left + right) & 0xff);
                assert_eq!(flags & flag::CARRY != 0, left + right > 255);
                assert_eq!(flags & flag::OVERFLOW != 0, !(-128..128).contains(&(signed(left) + signed(right))));
                assert_eq!(flags & flag::AUXILIARY != 0, (left & 15) + (right & 15) > 15);
                let (difference, flags) = arithmetic(Arithmetic::Sub, 1, left, right, 2);
                assert_eq!(difference, left.wrapping_sub(right) & 0xff);
                assert_eq!(flags & flag::CARRY != 0, left < right);
                assert_eq!(flags & flag::OVERFLOW != 0, !(-128..128).contains(&(signed(left) - signed(right))));
                assert_eq!(flags & flag::ZERO != 0, left == right);
                assert_eq!(flags & flag::SIGN != 0, signed(difference) < 0);
                assert_eq!(flags & flag::PARITY != 0, difference.count_ones() % 2 == 0);
                let (kept, compared) = arithmetic(Arithmetic::Cmp, 1, left, right, 2);
                assert_eq!((kept, compared), (left, flags));
            }
        }
    }

    #[test]
    fn carries_go_in_and_stay() {
        let top = mask(4);
        assert_eq!(arithmetic(Arithmetic::Adc, 4, top, 0, flag::CARRY).0, 0);
        assert_eq!(
            arithmetic(Arithmetic::Sbb, 8, 0, u64::MAX, flag::CARRY),
            (0, flag::CARRY | flag::ZERO | flag::PARITY | flag::AUXILIARY)
        );
        assert_eq!(increment(4, top, false, flag::CARRY).1 & flag::CARRY, flag::CARRY);
        assert_eq!(increment(4, top, false, 0), (0, flag::ZERO | flag::PARITY | flag::AUXILIARY));
        assert_eq!(increment(2, 0, true, 0).0, 0xffff);
        assert_eq!(negate(1, 0x80, 0).0, 0x80);
        assert_eq!(negate(1, 0x80, 0).1 & (flag::CARRY | flag::OVERFLOW), flag::CARRY | flag::OVERFLOW);
        assert_eq!(bit_test(BitChange::Complement, 4, 0b100, 34, 0), (0, flag::CARRY));
        assert_eq!(bit_test(BitChange::Set, 2, 0, 15, flag::CARRY), (0x8000, 0));
        assert_eq!(sign_extend(0x80, 1), 0xffff_ffff_ffff_ff80);
    }

    proptest! {
        #[test]
        fn logic_clears_carry_and_overflow(left: u64, right: u64, flags: u64, which in 0usize..3) {
            let sizes = [1, 2, 4, 8];
            for size in sizes {
                let operation = [Arithmetic::And, Arithmetic::Or, Arithmetic::Xor][which];
                let (result, after) = arithmetic(operation, size, left, right, flags);
                let wanted = [left & right, left | right, left ^ right][which] & mask(size);
                prop_assert_eq!(result, wanted);
                prop_assert_eq!(after & (flag::CARRY | flag::OVERFLOW), 0);
                prop_assert_eq!(after & !flag::ALL, flags & !flag::ALL);
            }
        }
    }
}
