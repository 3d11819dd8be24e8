//! domctl about where vCPUs may run and would rather run, and on which NUMA nodes a domain's memory should be.
//!
//! What is answered to a change is what it comes to: the wanted CPUs that exist (common/sched/core.c of 4.17).

use super::{Answer, answer, find_vcpu, parameters};
use crate::hypercall::access::Target;
use crate::hypercall::{Caller, bitmaps};
use crate::outcome::Stop;
use crate::sched;
use crate::vcpu::Vcpu;
use public_abi::Errno;
use public_abi::domctl::Domctl;
use public_abi::domctl_domain::NodeAffinity;
use public_abi::domctl_vcpu::{AffinityFlags, VcpuAffinity};

/// NUMA nodes of this host.
const NODES: usize = 1;

/// The flags and the vCPU of a request, after the checks that both commands share.
fn check<'a>(target: &'a Target<'_>, request: &Domctl) -> Result<(VcpuAffinity, AffinityFlags, &'a Vcpu), Errno> {
    let affinity: VcpuAffinity = parameters(request)?;
    if affinity.vcpu >= target.settings.max_vcpus {
        return Err(Errno::EINVAL);
    }
    let vcpu = find_vcpu(target, affinity.vcpu, Errno::ESRCH)?;
    let flags = AffinityFlags::from_bits_retain(affinity.flags);
    let lacks = |flag, map: &public_abi::bitmap::Bitmap| flags.contains(flag) && map.bitmap.is_null();
    if flags.is_empty()
        || lacks(AffinityFlags::HARD, &affinity.cpumap_hard)
        || lacks(AffinityFlags::SOFT, &affinity.cpumap_soft)
    {
        return Err(Errno::EINVAL);
    }
    Ok((affinity, flags, vcpu))
}

/// setvcpuaffinity. Both maps are read and checked before one takes effect.
pub fn set_vcpu(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let (affinity, flags, vcpu) = check(target, request)?;
    let cpus = caller.host.cpus.len();
    let online = bitmaps::first_bits(cpus);
    let read = |flag, map| flags.contains(flag).then(|| bitmaps::read(caller, map, cpus)).transpose();
    let hard = read(AffinityFlags::HARD, &affinity.cpumap_hard)?;
    let soft = read(AffinityFlags::SOFT, &affinity.cpumap_soft)?;
    if hard.is_some_and(|hard| hard & online == 0) {
        return Err(Errno::EINVAL.into());
    }
    if let Some(hard) = hard {
        sched::set_affinity(caller.host, vcpu, widen(hard, online))?;
    }
    if let Some(soft) = soft {
        vcpu.sched.set_soft_affinity(widen(soft, online));
    }
    let allowed = vcpu.sched.affinity();
    if hard.is_some() {
        bitmaps::write(caller, &affinity.cpumap_hard, allowed & online, cpus)?;
    }
    if let Some(soft) = soft {
        bitmaps::write(caller, &affinity.cpumap_soft, soft & allowed & online, cpus)?;
    }
    Ok(answer(request, &affinity)?)
}

/// "All CPUs" means those to come, too.
fn widen(set: u64, online: u64) -> u64 {
    if set & online == online { u64::MAX } else { set }
}

/// getvcpuaffinity.
pub fn get_vcpu(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let (affinity, flags, vcpu) = check(target, request)?;
    let cpus = caller.host.cpus.len();
    if flags.contains(AffinityFlags::HARD) {
        bitmaps::write(caller, &affinity.cpumap_hard, vcpu.sched.affinity(), cpus)?;
    }
    if flags.contains(AffinityFlags::SOFT) {
        bitmaps::write(caller, &affinity.cpumap_soft, vcpu.sched.soft_affinity(), cpus)?;
    }
    Ok(Answer::Unchanged)
}

/// setnodeaffinity. With one node there is one choice, which is also "all": nothing needs to be remembered.
pub fn set_nodes(caller: &Caller<'_>, request: &NodeAffinity) -> Result<Answer, Stop> {
    let nodes = bitmaps::read(caller, &request.nodemap, NODES)?;
    if nodes == 0 { Err(Errno::EINVAL.into()) } else { Ok(Answer::Unchanged) }
}

/// getnodeaffinity.
pub fn get_nodes(caller: &Caller<'_>, request: &NodeAffinity) -> Result<Answer, Stop> {
    bitmaps::write(caller, &request.nodemap, u64::MAX, NODES)?;
    Ok(Answer::Unchanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cpus_include_those_to_come() {
        assert_eq!(widen(0b11, 0b11), u64::MAX);
        assert_eq!(widen(0b01, 0b11), 0b01);
    }
}
