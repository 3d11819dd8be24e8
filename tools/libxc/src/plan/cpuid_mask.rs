//! Single bits of a guest's CPUID policy, as `cpuid=` of xl.cfg changes them.
//!
//! `cpuid` makes the policy that a guest has by default; the masks of its configuration go over that, register by register.

use public_abi::cpu_policy::{CPUID_NO_SUBLEAF, CpuidLeaf as Leaf};
use std::fmt;

/// What becomes of one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Bit {
    /// What it is without the mask (`x`).
    #[default]
    Default,
    /// 0.
    Clear,
    /// 1, if the hypervisor can give it.
    Set,
    /// What the host has (`k`).
    Host,
    /// The same (`s`; once it meant "and never changes").
    Sticky,
}

impl Bit {
    /// The letter for it in xl.cfg and in libxl's descriptions.
    pub const fn letter(self) -> char {
        match self {
            Self::Default => 'x',
            Self::Clear => '0',
            Self::Set => '1',
            Self::Host => 'k',
            Self::Sticky => 's',
        }
    }

    /// The bit for a letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        [Self::Default, Self::Clear, Self::Set, Self::Host, Self::Sticky].into_iter().find(|bit| bit.letter() == letter)
    }
}

/// What becomes of a register's bits, bit 0 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RegisterMask(pub [Bit; 32]);

impl RegisterMask {
    fn apply(&self, value: u32, host: u32) -> u32 {
        self.0.iter().zip(0..).fold(value, |value, (bit, place)| match bit {
            Bit::Default => value,
            Bit::Clear => value & !(1 << place),
            Bit::Set => value | 1 << place,
            Bit::Host | Bit::Sticky => value & !(1 << place) | host & 1 << place,
        })
    }
}

impl fmt::Display for RegisterMask {
    /// 32 letters, bit 31 first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|bit| write!(f, "{}", bit.letter()))
    }
}

/// The masks of one leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafMask {
    /// EAX of the instruction.
    pub leaf: u32,
    /// ECX of the instruction, if it was named.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX and EDX of the answer.
    pub registers: [Option<RegisterMask>; 4],
}

impl LeafMask {
    /// A mask without effect.
    pub const fn new(leaf: u32, subleaf: Option<u32>) -> Self {
        Self { leaf, subleaf, registers: [None; 4] }
    }

    /// Whether it asks what the host has.
    pub fn wants_host(&self) -> bool {
        let wants = |mask: &RegisterMask| mask.0.iter().any(|bit| matches!(bit, Bit::Host | Bit::Sticky));
        self.registers.iter().flatten().any(wants)
    }

    /// A leaf without sub-leaves, or the first of several, is meant where none is named.
    fn is_for(&self, leaf: &Leaf) -> bool {
        let subleaf = self.subleaf.unwrap_or(0);
        self.leaf == leaf.leaf
            && (leaf.subleaf == subleaf || leaf.subleaf == CPUID_NO_SUBLEAF && self.subleaf.is_none_or(|it| it == 0))
    }
}

impl fmt::Display for LeafMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leaf {:#x}", self.leaf)?;
        self.subleaf.map_or(Ok(()), |subleaf| write!(f, ", sub-leaf {subleaf}"))
    }
}

/// Changes a policy by the masks; `host` is the host's own.
///
/// # Errors
/// The first mask for a leaf that the policy does not have; nothing is changed then.
pub fn apply<'a>(leaves: &mut [Leaf], host: &[Leaf], masks: &'a [LeafMask]) -> Result<(), &'a LeafMask> {
    if let Some(mask) = masks.iter().find(|mask| !leaves.iter().any(|leaf| mask.is_for(leaf))) {
        return Err(mask);
    }
    for mask in masks {
        let here = host.iter().find(|leaf| mask.is_for(leaf)).copied().unwrap_or_default();
        for leaf in leaves.iter_mut().filter(|leaf| mask.is_for(leaf)) {
            let values = [&mut leaf.a, &mut leaf.b, &mut leaf.c, &mut leaf.d];
            for ((value, host), mask) in values.into_iter().zip([here.a, here.b, here.c, here.d]).zip(&mask.registers) {
                *value = mask.map_or(*value, |mask| mask.apply(*value, host));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(leaf: u32, subleaf: Option<u32>, register: usize, bits: &[(usize, Bit)]) -> LeafMask {
        let mut mask = LeafMask::new(leaf, subleaf);
        let mut all = RegisterMask::default();
        bits.iter().for_each(|&(place, bit)| all.0[place] = bit);
        mask.registers[register] = Some(all);
        mask
    }

    #[test]
    fn each_kind_of_bit_does_what_it_says() {
        let mut leaves = [Leaf { leaf: 1, subleaf: CPUID_NO_SUBLEAF, c: 0b0110, d: 7, ..Leaf::default() }];
        let host = [Leaf { leaf: 1, subleaf: CPUID_NO_SUBLEAF, c: 0b1000, ..Leaf::default() }];
        let bits = [(0, Bit::Set), (1, Bit::Clear), (2, Bit::Host), (3, Bit::Sticky)];
        apply(&mut leaves, &host, &[mask(1, None, 2, &bits)]).unwrap();
        assert_eq!((leaves[0].c, leaves[0].d), (0b1001, 7));
    }

    #[test]
    fn the_first_sub_leaf_is_meant_where_none_is_named() {
        let leaf = |subleaf| Leaf { leaf: 7, subleaf, ..Leaf::default() };
        let mut leaves = [leaf(0), leaf(1)];
        apply(&mut leaves, &[], &[mask(7, None, 1, &[(3, Bit::Set)]), mask(7, Some(1), 0, &[(4, Bit::Set)])]).unwrap();
        assert_eq!((leaves[0].b, leaves[1].b, leaves[1].a), (8, 0, 16));
    }

    #[test]
    fn a_leaf_that_is_not_there_changes_nothing() {
        let mut leaves = [Leaf { leaf: 1, subleaf: CPUID_NO_SUBLEAF, ..Leaf::default() }];
        let masks = [mask(1, None, 0, &[(0, Bit::Set)]), mask(1, Some(3), 0, &[(0, Bit::Set)])];
        assert_eq!(apply(&mut leaves, &[], &masks), Err(&masks[1]));
        assert_eq!(leaves[0].a, 0);
        assert_eq!(masks[1].to_string(), "leaf 0x1, sub-leaf 3");
    }

    #[test]
    fn letters_go_both_ways() {
        for letter in ['x', '0', '1', 'k', 's'] {
            assert_eq!(Bit::from_letter(letter).map(Bit::letter), Some(letter));
        }
        assert_eq!(Bit::from_letter('y'), None);
        let mut register = RegisterMask::default();
        register.0[31] = Bit::Set;
        register.0[0] = Bit::Clear;
        assert_eq!(register.to_string(), "1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0");
    }
}
