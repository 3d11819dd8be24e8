//! sysctl about CPU policies: what the processors can do, and what guests may be given. `x86::cpuid` makes the policies;
//! PV has none.

use super::{answer, parameters};
use crate::domain::Role;
use crate::hypercall::Caller;
use crate::hypercall::answer::Answer;
use crate::x86::cpuid::{CpuPolicy, MAX_LEAVES, MAX_MSRS, WORDS};
use machine::platform::cpuid;
use public_abi::cpu_policy::{CpuidLeaf, MsrEntry};
use public_abi::sysctl::{CpuFeatureset, CpuPolicyIndex, FeaturesetIndex, Sysctl, SysctlCpuPolicy};
use public_abi::sysctl_more::CpuLevellingCaps;
use public_abi::{Errno, GuestPtr};

/// get_cpu_policy.
pub fn leaves(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut asked: SysctlCpuPolicy = parameters(request)?;
    let index = CpuPolicyIndex::try_from(asked.index).map_err(|_| Errno::EINVAL)?;
    if asked.rsvd != 0 {
        return Err(Errno::EINVAL);
    }
    let policy = find(index)?;
    (asked.nr_leaves, asked.nr_msrs) =
        hand_out(caller, &policy, (asked.leaves, asked.nr_leaves), (asked.msrs, asked.nr_msrs))?;
    answer(request, &asked)
}

/// One of the host's policies.
fn find(index: CpuPolicyIndex) -> Result<CpuPolicy, Errno> {
    let raw = CpuPolicy::raw(cpuid);
    match index {
        CpuPolicyIndex::Raw => Ok(raw),
        CpuPolicyIndex::Host => Ok(CpuPolicy::host(&raw)),
        CpuPolicyIndex::HvmMax => Ok(CpuPolicy::maximum(&raw)),
        CpuPolicyIndex::HvmDefault => Ok(CpuPolicy::default_for(&raw, Role::Guest)),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Writes a policy to a caller's arrays, each with its room; gives the elements written, or for a NULL array, how many there
/// are at the most.
///
/// # Errors
/// `ENOBUFS` for too little room, `EFAULT`.
pub(in crate::hypercall) fn hand_out(
    caller: &Caller<'_>,
    policy: &CpuPolicy,
    (leaves, leaf_room): (GuestPtr<CpuidLeaf>, u32),
    (msrs, msr_room): (GuestPtr<MsrEntry>, u32),
) -> Result<(u32, u32), Errno> {
    let mut leaf_count = most(MAX_LEAVES);
    if !leaves.is_null() {
        leaf_count = 0;
        policy.to_leaves(|leaf| put(caller, leaves, &mut leaf_count, leaf_room, &leaf))?;
    }
    let mut msr_count = most(MAX_MSRS);
    if !msrs.is_null() {
        msr_count = 0;
        for msr in policy.to_msrs() {
            put(caller, msrs, &mut msr_count, msr_room, &msr)?;
        }
    }
    Ok((leaf_count, msr_count))
}

fn most(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Writes the next element of a caller's array.
fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    caller: &Caller<'_>,
    array: GuestPtr<T>,
    count: &mut u32,
    room: u32,
    value: &T,
) -> Result<(), Errno> {
    if *count == room {
        return Err(Errno::ENOBUFS);
    }
    caller.memory.write_at(array, u64::from(*count), value)?;
    *count = count.saturating_add(1);
    Ok(())
}

/// get_cpu_featureset.
pub fn featureset(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut set: CpuFeatureset = parameters(request)?;
    let existing = most(WORDS);
    if set.features.is_null() {
        set.nr_features = existing;
        return answer(request, &set);
    }
    let index = FeaturesetIndex::try_from(set.index).map_err(|_| Errno::EINVAL)?;
    let policy = find(match index {
        FeaturesetIndex::Raw => CpuPolicyIndex::Raw,
        FeaturesetIndex::Host => CpuPolicyIndex::Host,
        FeaturesetIndex::Hvm => CpuPolicyIndex::HvmDefault,
        FeaturesetIndex::HvmMax => CpuPolicyIndex::HvmMax,
        _ => return Err(Errno::EOPNOTSUPP),
    })?;
    let count = existing.min(set.nr_features);
    for (at, word) in (0..u64::from(count)).zip(&policy.featureset()) {
        caller.memory.write_at(set.features, at, word)?;
    }
    set.nr_features = count;
    answer(request, &set)?;
    Ok(if count < existing { Answer::ChangedBut(Errno::ENOBUFS) } else { Answer::Changed })
}

/// get_cpu_levelling_caps: which CPUID words can be masked for PV guests, of whom there are none.
pub fn levelling(request: &mut Sysctl) -> Result<Answer, Errno> {
    answer(request, &CpuLevellingCaps { caps: 0 })
}
