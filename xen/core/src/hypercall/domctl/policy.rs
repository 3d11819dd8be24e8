//! domctl about a domain's CPU policy: which CPUID leaves and MSRs it sees. `x86::cpuid` keeps and checks the policy.

use super::{Answer, answer, parameters};
use crate::domain::destroy::Paused;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::hypercall::sysctl::hand_out;
use crate::outcome::Stop;
use crate::x86::cpuid::{CpuPolicy as Policy, MAX_LEAVES, MAX_MSRS};
use alloc::vec::Vec;
use machine::log;
use machine::platform::cpuid;
use public_abi::cpu_policy::{CPUID_INPUT_UNUSED, MsrEntry};
use public_abi::domctl::Domctl;
use public_abi::domctl_vcpu::CpuPolicy;
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, IntoBytes};

/// get_cpu_policy.
pub fn get(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut asked: CpuPolicy = parameters(request)?;
    let policy = *target.x86.policy();
    (asked.nr_leaves, asked.nr_msrs) =
        hand_out(caller, &policy, (asked.leaves, asked.nr_leaves), (asked.msrs, asked.nr_msrs))?;
    Ok(answer(request, &asked)?)
}

/// Why lists were refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Refusal {
    errno: Errno,
    leaf: (u32, u32),
    msr: u32,
}

/// set_cpu_policy: merges leaves and MSRs into the policy, all or nothing, until the domain is first unpaused.
pub fn set(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut asked: CpuPolicy = parameters(request)?;
    target.other_or(Errno::EINVAL)?;
    if target.control.lock().records.creation_finished {
        return Err(Errno::EEXIST.into());
    }
    let leaves = copy_in(caller, asked.leaves, asked.nr_leaves, MAX_LEAVES)?;
    let msrs = copy_in(caller, asked.msrs, asked.nr_msrs, MAX_MSRS)?;
    let _paused = Paused::new(caller.host, target);
    let before = *target.x86.policy();
    let maximum = Policy::maximum(&Policy::raw(cpuid));
    let merged = before
        .apply_leaves(&maximum, leaves.into_iter())
        .map_err(|error| Refusal { errno: error.errno, leaf: (error.leaf, error.subleaf), msr: CPUID_INPUT_UNUSED })
        .and_then(|policy| check_msrs(&policy, &msrs).map(|()| policy));
    match merged {
        Ok(policy) if target.x86.set_policy(policy) => Ok(Answer::Unchanged),
        // Somebody looks at the policy at this moment.
        Ok(_) => Err(Stop::Restart(None)),
        Err(refusal) => {
            log!(Warning, "{}: CPU policy is refused: {refusal:?}", target.id);
            (asked.err_leaf, asked.err_subleaf) = refusal.leaf;
            asked.err_msr = refusal.msr;
            answer(request, &asked)?;
            Ok(Answer::ChangedBut(refusal.errno))
        }
    }
}

/// The MSRs of a policy are fixed: a list may repeat them, nothing else.
fn check_msrs(policy: &Policy, msrs: &[MsrEntry]) -> Result<(), Refusal> {
    for msr in msrs {
        let known = policy.to_msrs().into_iter().find(|known| known.idx == msr.idx);
        let errno = match known {
            None => Errno::ERANGE,
            Some(known) if known == *msr => continue,
            Some(_) => Errno::EINVAL,
        };
        return Err(Refusal { errno, leaf: (CPUID_INPUT_UNUSED, CPUID_INPUT_UNUSED), msr: msr.idx });
    }
    Ok(())
}

/// Copies an array of at most `most` elements. Xen takes longer ones and trips over the first bad element; no list without
/// repetitions is that long.
fn copy_in<T: FromBytes + IntoBytes>(
    caller: &Caller<'_>,
    array: GuestPtr<T>,
    count: u32,
    most: usize,
) -> Result<Vec<T>, Errno> {
    let length = usize::try_from(count).ok().filter(|length| *length <= most).ok_or(Errno::E2BIG)?;
    let mut list = Vec::new();
    list.try_reserve_exact(length).map_err(|_| Errno::ENOMEM)?;
    for index in 0..u64::from(count) {
        list.push(caller.memory.read_at(array, index)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msrs_may_only_be_repeated() {
        let policy = Policy::EMPTY;
        assert_eq!(check_msrs(&policy, &policy.to_msrs()), Ok(()));
        let check =
            |idx, flags, val| check_msrs(&policy, &[MsrEntry { idx, flags, val }]).map_err(|r| (r.errno, r.msr));
        assert_eq!(check(0xce, 0, 1), Err((Errno::EINVAL, 0xce)));
        assert_eq!(check(0xce, 1, 0), Err((Errno::EINVAL, 0xce)));
        assert_eq!(check(0x10, 0, 0), Err((Errno::ERANGE, 0x10)));
    }
}
