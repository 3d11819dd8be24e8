//! sysctl about CPU policies: what the processors can do, and what guests may be given.
//!
//! "Raw" and "host" are the processor itself; the guests' policies are made by `x86`. PV has none.

use super::{answer, parameters};
use crate::hypercall::answer::Answer;
#[allow(unused_imports, reason = "needed only while LinearMemory lacks the methods")]
use crate::hypercall::guest_copy::GuestCopy as _;
use crate::hypercall::{Caller, neighbours};
use machine::platform::cpuid;
use public_abi::Errno;
use public_abi::cpu_policy::{CPUID_NO_SUBLEAF, CpuidLeaf, CpuidRegister, FEATURESET_WORDS, MsrEntry, WordSource};
use public_abi::sysctl::{CpuFeatureset, CpuPolicyIndex, FeaturesetIndex, Sysctl, SysctlCpuPolicy};
use public_abi::sysctl_more::CpuLevellingCaps;

/// Words of the featureset.
const WORDS: usize = FEATURESET_WORDS.len();

/// get_cpu_policy.
pub fn leaves(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut policy: SysctlCpuPolicy = parameters(request)?;
    let index = CpuPolicyIndex::try_from(policy.index).map_err(|_| Errno::EINVAL)?;
    if policy.rsvd != 0 {
        return Err(Errno::EINVAL);
    }
    let (mut leaf_list, mut msr_list) = (List::new(policy.nr_leaves), List::new(policy.nr_msrs));
    walk(
        caller,
        index,
        &mut |leaf| leaf_list.put(policy.leaves.is_null(), |at| caller.memory.write_at(policy.leaves, at, &leaf)),
        &mut |msr| msr_list.put(policy.msrs.is_null(), |at| caller.memory.write_at(policy.msrs, at, &msr)),
    )?;
    policy.nr_leaves = if policy.leaves.is_null() { neighbours::MAX_LEAVES } else { leaf_list.count };
    policy.nr_msrs = if policy.msrs.is_null() { neighbours::MAX_MSRS } else { msr_list.count };
    answer(request, &policy)
}

/// A caller's array that is filled from the front.
pub(in crate::hypercall) struct List {
    room: u32,
    /// Elements written.
    pub count: u32,
}

impl List {
    /// An empty array with room for so many elements.
    pub const fn new(room: u32) -> Self {
        Self { room, count: 0 }
    }

    /// Writes the next element, unless the caller only asks for sizes.
    ///
    /// # Errors
    /// `ENOBUFS` when the array is full; those of `write`.
    pub fn put(&mut self, sizes_only: bool, write: impl FnOnce(u64) -> Result<(), Errno>) -> Result<(), Errno> {
        if sizes_only {
            return Ok(());
        }
        if self.count == self.room {
            return Err(Errno::ENOBUFS);
        }
        write(u64::from(self.count))?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

fn walk(
    caller: &Caller<'_>,
    index: CpuPolicyIndex,
    leaf: &mut dyn FnMut(CpuidLeaf) -> Result<(), Errno>,
    msr: &mut dyn FnMut(MsrEntry) -> Result<(), Errno>,
) -> Result<(), Errno> {
    match index {
        CpuPolicyIndex::Raw | CpuPolicyIndex::Host => hardware(&cpuid, leaf),
        CpuPolicyIndex::PvMax | CpuPolicyIndex::PvDefault => Err(Errno::EOPNOTSUPP),
        _ => neighbours::system_policy(caller.host, index, leaf, msr),
    }
}

/// The leaves that Xen's policies have, as the processor gives them (xen/lib/x86/cpuid.c names the set).
fn hardware(
    cpuid: &dyn Fn(u32, u32) -> [u32; 4],
    visit: &mut dyn FnMut(CpuidLeaf) -> Result<(), Errno>,
) -> Result<(), Errno> {
    /// The highest basic and extended leaves that a policy has.
    const LAST_BASIC: u32 = 0xd;
    const EXTENDED: u32 = 0x8000_0000;
    const LAST_EXTENDED: u32 = 0x8000_0021;
    let mut emit = |leaf, subleaf| {
        let [a, b, c, d] = cpuid(leaf, if subleaf == CPUID_NO_SUBLEAF { 0 } else { subleaf });
        visit(CpuidLeaf { leaf, subleaf, a, b, c, d })
    };
    let [last, ..] = cpuid(0, 0);
    for leaf in 0..=last.min(LAST_BASIC) {
        match leaf {
            4 => {
                for subleaf in 0..6 {
                    emit(leaf, subleaf)?;
                    let [kind, ..] = cpuid(leaf, subleaf);
                    // Bits 0-4: no more caches.
                    if kind & 0x1f == 0 {
                        break;
                    }
                }
            }
            7 => {
                let [last_subleaf, ..] = cpuid(leaf, 0);
                for subleaf in 0..=last_subleaf.min(2) {
                    emit(leaf, subleaf)?;
                }
            }
            0xb => {
                for subleaf in 0..2 {
                    emit(leaf, subleaf)?;
                    let [_, _, kind, _] = cpuid(leaf, subleaf);
                    // Bits 8-15: no more levels.
                    if kind & 0xff00 == 0 {
                        break;
                    }
                }
            }
            0xd => {
                for subleaf in 0..62 {
                    let [a, b, c, d] = cpuid(leaf, subleaf);
                    if subleaf < 2 || a | b | c | d != 0 {
                        emit(leaf, subleaf)?;
                    }
                }
            }
            _ => emit(leaf, CPUID_NO_SUBLEAF)?,
        }
    }
    let [last, ..] = cpuid(EXTENDED, 0);
    for leaf in EXTENDED..=last.min(LAST_EXTENDED) {
        emit(leaf, CPUID_NO_SUBLEAF)?;
    }
    Ok(())
}

/// get_cpu_featureset.
pub fn featureset(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut set: CpuFeatureset = parameters(request)?;
    let existing = u32::try_from(WORDS).unwrap_or(0);
    if set.features.is_null() {
        set.nr_features = existing;
        return answer(request, &set);
    }
    let index = FeaturesetIndex::try_from(set.index).map_err(|_| Errno::EINVAL)?;
    let policy = match index {
        FeaturesetIndex::Raw => CpuPolicyIndex::Raw,
        FeaturesetIndex::Host => CpuPolicyIndex::Host,
        FeaturesetIndex::Hvm => CpuPolicyIndex::HvmDefault,
        FeaturesetIndex::HvmMax => CpuPolicyIndex::HvmMax,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    let mut words = [0; WORDS];
    walk(
        caller,
        policy,
        &mut |leaf| {
            collect(&mut words, &leaf);
            Ok(())
        },
        &mut |_| Ok(()),
    )?;
    let count = existing.min(set.nr_features);
    for (at, word) in (0..u64::from(count)).zip(&words) {
        caller.memory.write_at(set.features, at, word)?;
    }
    set.nr_features = count;
    answer(request, &set)?;
    Ok(if count < existing { Answer::ChangedBut(Errno::ENOBUFS) } else { Answer::Changed })
}

/// Takes from a leaf the words of the featureset that are in it.
fn collect(words: &mut [u32; WORDS], found: &CpuidLeaf) {
    for (word, source) in words.iter_mut().zip(FEATURESET_WORDS) {
        let WordSource::Cpuid { leaf, subleaf, register } = *source else {
            continue;
        };
        let same_subleaf = found.subleaf == subleaf || found.subleaf == CPUID_NO_SUBLEAF && subleaf == 0;
        if found.leaf == leaf && same_subleaf {
            *word = match register {
                CpuidRegister::Eax => found.a,
                CpuidRegister::Ebx => found.b,
                CpuidRegister::Ecx => found.c,
                CpuidRegister::Edx => found.d,
            };
        }
    }
}

/// get_cpu_levelling_caps: which CPUID words can be masked for PV guests, of whom there are none.
pub fn levelling(request: &mut Sysctl) -> Result<Answer, Errno> {
    answer(request, &CpuLevellingCaps { caps: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// A processor with basic leaves to 0xd and extended ones to 0x8000001e.
    fn processor(leaf: u32, subleaf: u32) -> [u32; 4] {
        match (leaf, subleaf) {
            (0, _) => [0xd, 0, 0, 0],
            (1, _) => [0, 0, 0x0000_0201, 0x0780_0000],
            (4, 0) => [0x21, 0, 0, 0],
            (7, 0) => [1, 0x0020_0000, 0, 0],
            (7, 1) => [0x10, 0, 0, 0],
            (0xd, 0) => [7, 576, 832, 0],
            (0xd, 2) => [256, 576, 0, 0],
            (0x8000_0000, _) => [0x8000_001e, 0, 0, 0],
            (0x8000_0001, _) => [0, 0, 4, 0x2010_0800],
            _ => [0; 4],
        }
    }

    fn listed() -> Vec<CpuidLeaf> {
        let mut list = Vec::new();
        hardware(&processor, &mut |leaf| {
            list.push(leaf);
            Ok(())
        })
        .unwrap();
        list
    }

    #[test]
    fn leaves_come_in_order_and_with_their_subleaves() {
        let list = listed();
        let of = |leaf: u32| list.iter().filter(|l| l.leaf == leaf).map(|l| l.subleaf).collect::<Vec<_>>();
        assert_eq!(of(1), [CPUID_NO_SUBLEAF]);
        assert_eq!(of(4), [0, 1], "ends with the sub-leaf that says so");
        assert_eq!(of(7), [0, 1]);
        assert_eq!(of(0xd), [0, 1, 2]);
        assert_eq!(of(0x8000_001e), [CPUID_NO_SUBLEAF]);
        assert!(of(0x8000_001f).is_empty());
        assert!(list.is_sorted_by_key(|leaf| (leaf.leaf, leaf.subleaf)));
        assert!(u32::try_from(list.len()).unwrap() <= neighbours::MAX_LEAVES);
    }

    #[test]
    fn the_featureset_is_taken_from_the_leaves() {
        let mut words = [0; WORDS];
        for leaf in listed() {
            collect(&mut words, &leaf);
        }
        assert_eq!(words[..4], [0x0780_0000, 0x0000_0201, 0x2010_0800, 4]);
        assert_eq!((words[5], words[10]), (0x0020_0000, 0x10));
    }

    #[test]
    fn a_full_list_says_so() {
        let mut list = List::new(1);
        assert_eq!(list.put(false, |at| if at == 0 { Ok(()) } else { Err(Errno::EFAULT) }), Ok(()));
        assert_eq!(list.put(false, |_| Ok(())), Err(Errno::ENOBUFS));
        assert_eq!(list.put(true, |_| Err(Errno::EFAULT)), Ok(()), "who asks for sizes gets nothing written");
    }
}
