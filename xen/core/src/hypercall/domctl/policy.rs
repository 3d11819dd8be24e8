//! domctl about a domain's CPU policy: which CPUID leaves and MSRs it sees. `x86` keeps and checks the policy.

use super::{Answer, answer, parameters};
use crate::domain::destroy::Paused;
use crate::hypercall::access::Target;
#[allow(unused_imports, reason = "needed only while LinearMemory lacks the methods")]
use crate::hypercall::guest_copy::GuestCopy as _;
use crate::hypercall::sysctl::List;
use crate::hypercall::{Caller, neighbours};
use crate::outcome::Stop;
use alloc::vec::Vec;
use public_abi::cpu_policy::CPUID_INPUT_UNUSED;
use public_abi::domctl::Domctl;
use public_abi::domctl_vcpu::CpuPolicy;
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, IntoBytes};

/// get_cpu_policy.
pub fn get(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut policy: CpuPolicy = parameters(request)?;
    let (mut leaf_list, mut msr_list) = (List::new(policy.nr_leaves), List::new(policy.nr_msrs));
    neighbours::domain_policy(
        target,
        &mut |leaf| leaf_list.put(policy.leaves.is_null(), |at| caller.memory.write_at(policy.leaves, at, &leaf)),
        &mut |msr| msr_list.put(policy.msrs.is_null(), |at| caller.memory.write_at(policy.msrs, at, &msr)),
    )?;
    policy.nr_leaves = if policy.leaves.is_null() { neighbours::MAX_LEAVES } else { leaf_list.count };
    policy.nr_msrs = if policy.msrs.is_null() { neighbours::MAX_MSRS } else { msr_list.count };
    Ok(answer(request, &policy)?)
}

/// set_cpu_policy: merges leaves and MSRs into the policy, all or nothing, until the domain is first unpaused.
pub fn set(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut policy: CpuPolicy = parameters(request)?;
    target.other_or(Errno::EINVAL)?;
    if target.control.lock().records.creation_finished {
        return Err(Errno::EEXIST.into());
    }
    let leaves = copy_in(caller, policy.leaves, policy.nr_leaves, neighbours::MAX_LEAVES)?;
    let msrs = copy_in(caller, policy.msrs, policy.nr_msrs, neighbours::MAX_MSRS)?;
    let paused = Paused::new(caller.host, target);
    let result = neighbours::apply_policy(target, &leaves, &msrs);
    drop(paused);
    let Err(refusal) = result else {
        return Ok(Answer::Unchanged);
    };
    (policy.err_leaf, policy.err_subleaf) = refusal.leaf.unwrap_or((CPUID_INPUT_UNUSED, CPUID_INPUT_UNUSED));
    policy.err_msr = refusal.msr.unwrap_or(CPUID_INPUT_UNUSED);
    answer(request, &policy)?;
    Ok(Answer::ChangedBut(refusal.errno))
}

/// Copies an array of at most `most` elements. Xen takes longer ones and trips over the first bad element; no list without
/// repetitions is that long.
fn copy_in<T: FromBytes + IntoBytes>(
    caller: &Caller<'_>,
    array: GuestPtr<T>,
    count: u32,
    most: u32,
) -> Result<Vec<T>, Errno> {
    if count > most {
        return Err(Errno::E2BIG);
    }
    let mut list = Vec::new();
    list.try_reserve_exact(usize::try_from(count).map_err(|_| Errno::E2BIG)?).map_err(|_| Errno::ENOMEM)?;
    for index in 0..count {
        list.push(caller.memory.read_at(array, u64::from(index))?);
    }
    Ok(list)
}
