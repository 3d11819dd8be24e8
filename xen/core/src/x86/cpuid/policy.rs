//! A CPU policy: what CPUID answers to one domain, as a table that an exit indexes, and its travelling form, the list of
//! leaves of `XEN_DOMCTL_set_cpu_policy` (public/arch-x86/xen.h).
//!
//! `features` makes policies from the processor's own answers; the parent module answers from them.

use super::features;
use public_abi::Errno;
use public_abi::cpu_features::CpuFeature;
use public_abi::cpu_policy::{CPUID_NO_SUBLEAF, CpuidLeaf, CpuidRegister, FEATURESET_WORDS, MsrEntry, WordSource};

/// EAX, EBX, ECX, EDX.
pub type Answer = [u32; 4];

/// Leaves that Xen 4.17 lets guests see: 0 to 0xd, sub-leaves of 4, 7, 0xb and 0xd, and 0x80000000 to 0x80000021.
pub const BASIC: usize = 0xe;
/// Sub-leaves of leaf 4.
pub const CACHES: usize = 6;
/// Sub-leaves of leaf 7.
pub const FEATURES: usize = 3;
/// Sub-leaves of leaf 0xb.
pub const TOPOLOGY: usize = 2;
/// Sub-leaves of leaf 0xd that can hold something: 0, 1, and components up to PKRU.
pub const EXTENDED_STATES: usize = 10;
/// Sub-leaves of leaf 0xd that a list may name.
const LISTED_STATES: u32 = 63;
/// Leaves from 0x80000000 on.
pub const EXTENDED: usize = 0x22;
/// First extended leaf.
pub const EXTENDED_BASE: u32 = 0x8000_0000;

/// Leaves that a list may hold at the most (Xen 4.17's number).
pub const MAX_LEAVES: usize = BASIC + (FEATURES - 1) + (CACHES - 1) + (TOPOLOGY - 1) + 62 + EXTENDED + 2;
/// MSRs that a list may hold: 0xce and 0x10a.
pub const MAX_MSRS: usize = 2;
/// Words of a featureset.
pub const WORDS: usize = FEATURESET_WORDS.len();
/// A featureset: words in the order of [`FEATURESET_WORDS`].
pub type Featureset = [u32; WORDS];

/// What CPUID answers to a domain, before what depends on the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuPolicy {
    pub(super) basic: [Answer; BASIC],
    pub(super) caches: [Answer; CACHES],
    pub(super) features: [Answer; FEATURES],
    pub(super) topology: [Answer; TOPOLOGY],
    pub(super) states: [Answer; EXTENDED_STATES],
    pub(super) extended: [Answer; EXTENDED],
    /// Last leaf of the hypervisor's own, or 0 for all.
    pub(super) hypervisor_limit: u32,
}

/// A list of leaves was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyError {
    /// Why: ERANGE for a leaf that no policy has, EINVAL for a value that this host cannot give, E2BIG.
    pub errno: Errno,
    /// The leaf, or all ones.
    pub leaf: u32,
    /// Its sub-leaf, or all ones.
    pub subleaf: u32,
}

impl CpuPolicy {
    /// All answers zero.
    pub const EMPTY: Self = Self {
        basic: [[0; 4]; BASIC],
        caches: [[0; 4]; CACHES],
        features: [[0; 4]; FEATURES],
        topology: [[0; 4]; TOPOLOGY],
        states: [[0; 4]; EXTENDED_STATES],
        extended: [[0; 4]; EXTENDED],
        hypervisor_limit: 0,
    };

    /// The processor's own answers, `cpuid` being the instruction.
    pub fn raw(cpuid: impl Fn(u32, u32) -> Answer) -> Self {
        let mut policy = Self::EMPTY;
        let last = |leaf: u32| cpuid(leaf, 0)[0];
        let (basic_limit, extended_limit) = (last(0), last(EXTENDED_BASE));
        for (leaf, place) in (0..=basic_limit).zip(&mut policy.basic) {
            // Leaves with sub-leaves have their own tables.
            if !matches!(leaf, 4 | 7 | 0xb | 0xd) {
                *place = cpuid(leaf, 0);
            }
        }
        let groups: [(u32, &mut [Answer]); 4] = [
            (4, &mut policy.caches),
            (7, &mut policy.features),
            (0xb, &mut policy.topology),
            (0xd, &mut policy.states),
        ];
        for (leaf, places) in groups {
            if leaf <= basic_limit {
                for (subleaf, place) in (0..).zip(places) {
                    *place = cpuid(leaf, subleaf);
                }
            }
        }
        if extended_limit & EXTENDED_BASE != 0 {
            for (leaf, place) in (EXTENDED_BASE..=extended_limit).zip(&mut policy.extended) {
                *place = cpuid(leaf, 0);
            }
        }
        policy
    }

    /// The answer's place, if the policy has one for this leaf.
    #[inline]
    fn place(&mut self, leaf: u32, subleaf: u32) -> Option<&mut Answer> {
        let (leaf_index, subleaf) = (usize::try_from(leaf & 0xffff).ok()?, usize::try_from(subleaf).ok()?);
        match leaf {
            4 => self.caches.get_mut(subleaf),
            7 => self.features.get_mut(subleaf),
            0xb => self.topology.get_mut(subleaf),
            0xd => self.states.get_mut(subleaf),
            0..=0xffff => self.basic.get_mut(leaf_index),
            EXTENDED_BASE..=0x8000_ffff => self.extended.get_mut(leaf_index),
            _ => None,
        }
    }

    /// The stored answer for a leaf, zeroes beyond the limits that leaves 0, 7 and 0x80000000 give, as on AMD processors.
    #[inline]
    pub fn answer(&self, leaf: u32, subleaf: u32) -> Answer {
        let (index, sub) = ((leaf & 0xffff) as usize, subleaf as usize);
        let found = if leaf >= EXTENDED_BASE {
            if leaf > self.extended_limit() { None } else { self.extended.get(index) }
        } else if leaf > self.basic_limit() {
            None
        } else {
            match leaf {
                4 => self.caches.get(sub),
                7 if subleaf > self.features[0][0] => None,
                7 => self.features.get(sub),
                0xb => self.topology.get(sub),
                0xd => self.states.get(sub),
                _ => self.basic.get(index),
            }
        };
        found.copied().unwrap_or_default()
    }

    /// Last basic leaf.
    #[inline]
    pub fn basic_limit(&self) -> u32 {
        self.basic[0][0]
    }

    /// Last extended leaf.
    #[inline]
    pub fn extended_limit(&self) -> u32 {
        self.extended[0][0]
    }

    /// The featureset.
    pub fn featureset(&self) -> Featureset {
        let mut copy = *self;
        FEATURESET_WORDS.first_chunk().map_or([0; WORDS], |sources: &[WordSource; WORDS]| {
            sources.each_ref().map(|source| copy.word(source).map_or(0, |word| *word))
        })
    }

    /// Replaces the featureset.
    pub(super) fn set_featureset(&mut self, words: &Featureset) {
        for (source, value) in FEATURESET_WORDS.iter().zip(words) {
            if let Some(word) = self.word(source) {
                *word = *value;
            }
        }
    }

    fn word(&mut self, source: &WordSource) -> Option<&mut u32> {
        let WordSource::Cpuid { leaf, subleaf, register } = *source else { return None };
        let [a, b, c, d] = self.place(leaf, subleaf)?;
        Some(match register {
            CpuidRegister::Eax => a,
            CpuidRegister::Ebx => b,
            CpuidRegister::Ecx => c,
            CpuidRegister::Edx => d,
        })
    }

    /// Whether guests with this policy have a feature.
    pub fn has(&self, feature: CpuFeature) -> bool {
        let word = usize::try_from(feature.word()).ok();
        let Some(source) = word.and_then(|word| FEATURESET_WORDS.get(word)) else { return false };
        let WordSource::Cpuid { leaf, subleaf, register } = *source else { return false };
        let [a, b, c, d] = match leaf {
            7 => self.features.get(subleaf as usize),
            0xd => self.states.get(subleaf as usize),
            EXTENDED_BASE.. => self.extended.get((leaf & 0xffff) as usize),
            _ => self.basic.get(leaf as usize),
        }
        .copied()
        .unwrap_or_default();
        let value = match register {
            CpuidRegister::Eax => a,
            CpuidRegister::Ebx => b,
            CpuidRegister::Ecx => c,
            CpuidRegister::Edx => d,
        };
        value & feature.mask() != 0
    }

    /// Components that the guest may enable in XCR0 (leaf 0xd.0).
    #[inline]
    pub fn extended_states(&self) -> u64 {
        let [low, _, _, high] = self.states[0];
        u64::from(high) << 32 | u64::from(low)
    }

    /// Bits of a guest physical address.
    pub fn physical_address_bits(&self) -> u32 {
        self.extended[8][0] & 0xff
    }

    /// Hands every leaf to `put`, in ascending order, as Xen's serialiser does.
    ///
    /// # Errors
    /// What `put` gives.
    pub fn to_leaves<E>(&self, mut put: impl FnMut(CpuidLeaf) -> Result<(), E>) -> Result<(), E> {
        let mut one = |leaf, subleaf, [a, b, c, d]: Answer| put(CpuidLeaf { leaf, subleaf, a, b, c, d });
        for (leaf, answer) in (0..=self.basic_limit()).zip(&self.basic) {
            match leaf {
                4 => until_empty(&self.caches, |answer| answer[0] & 0x1f == 0, |sub, answer| one(leaf, sub, answer))?,
                0xb => {
                    until_empty(&self.topology, |answer| answer[2] & 0xff00 == 0, |sub, answer| one(leaf, sub, answer))?
                }
                7 => {
                    for (subleaf, answer) in (0..=self.features[0][0]).zip(&self.features) {
                        one(leaf, subleaf, *answer)?;
                    }
                }
                0xd => {
                    let states = self.extended_states();
                    let last = if states == 0 { 1 } else { 63 - states.leading_zeros() };
                    for (subleaf, answer) in (0..=last.max(1)).zip(&self.states) {
                        one(leaf, subleaf, *answer)?;
                    }
                }
                _ => one(leaf, CPUID_NO_SUBLEAF, *answer)?,
            }
        }
        one(0x4000_0000, CPUID_NO_SUBLEAF, [self.hypervisor_limit, 0, 0, 0])?;
        one(0x4000_0100, CPUID_NO_SUBLEAF, [0; 4])?;
        for (leaf, answer) in (EXTENDED_BASE..=self.extended_limit()).zip(&self.extended) {
            one(leaf, CPUID_NO_SUBLEAF, *answer)?;
        }
        Ok(())
    }

    /// The policy's MSRs: neither CPUID faulting nor architectural capabilities are offered.
    pub const fn to_msrs(&self) -> [MsrEntry; MAX_MSRS] {
        [MsrEntry { idx: 0xce, flags: 0, val: 0 }, MsrEntry { idx: 0x10a, flags: 0, val: 0 }]
    }

    /// The policy with the listed leaves in the place of its own, cut down to what `maximum` can give.
    ///
    /// # Errors
    /// [`PolicyError`] names the leaf.
    pub fn apply_leaves(
        &self,
        maximum: &Self,
        leaves: impl ExactSizeIterator<Item = CpuidLeaf>,
    ) -> Result<Self, PolicyError> {
        let refused = |errno, leaf, subleaf| PolicyError { errno, leaf, subleaf };
        if leaves.len() > MAX_LEAVES {
            return Err(refused(Errno::E2BIG, u32::MAX, u32::MAX));
        }
        let mut new = *self;
        for CpuidLeaf { leaf, subleaf, a, b, c, d } in leaves {
            let has_subleaves = matches!(leaf, 4 | 7 | 0xb | 0xd);
            let out_of_range = refused(Errno::ERANGE, leaf, subleaf);
            if has_subleaves == (subleaf == CPUID_NO_SUBLEAF) {
                return Err(out_of_range);
            }
            match leaf {
                0x4000_0000 => new.hypervisor_limit = a,
                0x4000_0100 => {}
                // Components beyond ours are computed anyway, not taken.
                0xd if (EXTENDED_STATES as u32..LISTED_STATES).contains(&subleaf) => {}
                _ => {
                    let key = if has_subleaves { subleaf } else { 0 };
                    *new.place(leaf, key).ok_or(out_of_range)? = [a, b, c, d];
                }
            }
        }
        let limits = [
            (new.basic_limit(), maximum.basic_limit(), 0, CPUID_NO_SUBLEAF),
            (new.features[0][0], FEATURES as u32 - 1, 7, 0),
            (new.extended_limit(), maximum.extended_limit(), EXTENDED_BASE, CPUID_NO_SUBLEAF),
        ];
        if let Some((_, _, leaf, subleaf)) = limits.iter().find(|(wanted, allowed, ..)| wanted > allowed) {
            return Err(refused(Errno::EINVAL, *leaf, *subleaf));
        }
        features::clamp(&mut new, maximum);
        Ok(new)
    }
}

/// Hands out sub-leaves up to and including the first that says there are no more.
fn until_empty<E>(
    answers: &[Answer],
    is_empty: impl Fn(&Answer) -> bool,
    mut put: impl FnMut(u32, Answer) -> Result<(), E>,
) -> Result<(), E> {
    for (subleaf, answer) in (0..).zip(answers) {
        put(subleaf, *answer)?;
        if is_empty(answer) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
