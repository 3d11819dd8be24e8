//! domctl that only asks: getdomaininfo and getvcpuinfo.

use super::{Answer, answer, find_vcpu, parameters};
use crate::domain::info;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use machine::DomId;
use public_abi::Errno;
use public_abi::domctl::Domctl;
use public_abi::domctl_vcpu::GetVcpuInfo;
use public_abi::domid::DOMID_FIRST_RESERVED;
use public_abi::hypercall::Caller as Who;

/// getdomaininfo: of this domain, or if there is none of that number, of the next one. xenstored counts on both.
pub fn domain(caller: &Caller<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    if request.domain >= DOMID_FIRST_RESERVED {
        return Err(Errno::EINVAL.into());
    }
    let found = caller.host.domains.next_from(DomId(request.domain)).ok_or(Errno::ESRCH)?;
    caller.permit(Who::Xenstore)?;
    request.domain = found.id.0;
    Ok(answer(request, &info::domain(caller.host, &found))?)
}

/// getvcpuinfo.
pub fn vcpu(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let wanted: GetVcpuInfo = parameters(request)?;
    if wanted.vcpu >= target.settings.max_vcpus {
        return Err(Errno::EINVAL.into());
    }
    let vcpu = find_vcpu(target, wanted.vcpu, Errno::ESRCH)?;
    Ok(answer(request, &info::vcpu(caller.host, vcpu))?)
}
