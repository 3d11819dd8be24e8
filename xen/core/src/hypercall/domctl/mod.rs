//! domctl: the toolstack's requests about one domain.
//!
//! Order of errors as in Xen (common/domctl.c): `EFAULT`, `EACCES` for another interface version, `ESRCH` for a domain that
//! is not there, `EPERM`, then the operation's, and `ENOSYS` for unknown commands last. Requests about hardware check their
//! numbers before the caller. Each file below answers a group of commands; what changes a domain as a whole is in `domain`.

mod absent;
mod affinity;
mod clock;
mod debugger;
mod hardware;
mod hvm_context;
mod info;
mod life;
mod memory;
mod policy;
mod scheduler;
mod vcpus;

use super::Caller;
use super::access::Target;
use super::answer::Answer;
use crate::outcome::{Reply, Stop};
use crate::vcpu::Vcpu;
use public_abi::domctl::{DOMCTL_INTERFACE_VERSION, Domctl, DomctlOp};
use public_abi::domid::{DOMID_INVALID, DOMID_IO};
use public_abi::hypercall::Caller as Who;
use public_abi::payload::Payload;
use public_abi::{Errno, GuestPtr};

/// Answers domctl.
///
/// # Errors
/// As the file's head says.
#[inline(never)]
pub fn handle(caller: &Caller<'_>, argument: GuestPtr<()>) -> Reply {
    let pointer: GuestPtr<Domctl> = argument.cast();
    let mut request = caller.memory.read(pointer)?;
    if request.interface_version != DOMCTL_INTERFACE_VERSION {
        return Err(Errno::EACCES.into());
    }
    let answer = match request.command() {
        Ok(DomctlOp::CreateDomain) => {
            caller.permit(Who::Control)?;
            life::create(caller, &mut request)?
        }
        Ok(DomctlOp::GetDomainInfo) => info::domain(caller, &mut request)?,
        Ok(DomctlOp::DestroyDomain) => return life::destroy(caller, &request),
        Ok(operation) if names_no_domain(operation, request.domain) => {
            caller.permit(Who::Control)?;
            return Err(Errno::EOPNOTSUPP.into());
        }
        command => {
            let target = caller.find(request.domain)?;
            match command.ok().filter(|operation| hardware::covers(*operation)) {
                Some(operation) => hardware::perform(caller, &target, operation, &request)?,
                None => {
                    caller.permit(command.map_or(Who::Control, DomctlOp::caller))?;
                    perform(caller, &target, command.map_err(|_| Errno::ENOSYS)?, &mut request)?
                }
            }
        }
    };
    answer.finish(|| caller.memory.write(pointer, &request))
}

/// Requests about devices and events may be about no domain at all, or about the owner of unassigned devices.
fn names_no_domain(operation: DomctlOp, domain: u16) -> bool {
    match operation {
        DomctlOp::AssignDevice | DomctlOp::DeassignDevice => domain == DOMID_IO,
        DomctlOp::TestAssignDevice | DomctlOp::VmEventOp => domain == DOMID_INVALID,
        _ => false,
    }
}

/// The parameters of a request, as the type of its command.
fn parameters<T: Payload<Domctl>>(request: &Domctl) -> Result<T, Errno> {
    request.get().map_err(|_| Errno::EINVAL)
}

/// Puts parameters back into a request.
fn answer<T: Payload<Domctl>>(request: &mut Domctl, parameters: &T) -> Result<Answer, Errno> {
    request.set(parameters).map_err(|_| Errno::EINVAL)?;
    Ok(Answer::Changed)
}

/// A vCPU of the target.
fn find_vcpu<'a>(target: &'a Target<'_>, index: u32, missing: Errno) -> Result<&'a Vcpu, Errno> {
    target.vcpu(index).ok_or(missing)
}

fn perform(
    caller: &Caller<'_>,
    target: &Target<'_>,
    operation: DomctlOp,
    request: &mut Domctl,
) -> Result<Answer, Stop> {
    match operation {
        DomctlOp::MaxVcpus => life::max_vcpus(caller, target, request),
        DomctlOp::PauseDomain => life::pause(caller, target),
        DomctlOp::UnpauseDomain => life::unpause(caller, target),
        DomctlOp::ResumeDomain => life::resume(caller, target),
        DomctlOp::SetDomainHandle => Ok(life::set_handle(target, &parameters(request)?)),
        DomctlOp::Subscribe => Ok(life::subscribe(target, &parameters(request)?)),
        DomctlOp::GetVcpuInfo => info::vcpu(caller, target, request),
        DomctlOp::SetVcpuAffinity => affinity::set_vcpu(caller, target, request),
        DomctlOp::GetVcpuAffinity => affinity::get_vcpu(caller, target, request),
        DomctlOp::SetNodeAffinity => affinity::set_nodes(caller, &parameters(request)?),
        DomctlOp::GetNodeAffinity => affinity::get_nodes(caller, &parameters(request)?),
        DomctlOp::MaxMem => Ok(memory::set_limit(target, &parameters(request)?)),
        DomctlOp::GetPagingMempoolSize => memory::get_pool(target, request),
        DomctlOp::SetPagingMempoolSize => memory::set_pool(target, &parameters(request)?),
        DomctlOp::ShadowOp => memory::paging(target, request),
        DomctlOp::GetPageFrameInfo3 => memory::frame_types(caller, target, request),
        DomctlOp::HypercallInit => memory::hypercall_page(target, &parameters(request)?),
        DomctlOp::SetTimeOffset => clock::set_offset(caller, target, &parameters(request)?),
        DomctlOp::SetTscInfo => clock::set_tsc(target, &parameters(request)?),
        DomctlOp::GetTscInfo => clock::get_tsc(caller, target, request),
        DomctlOp::GetCpuPolicy => policy::get(caller, target, request),
        DomctlOp::SetCpuPolicy => policy::set(caller, target, request),
        DomctlOp::GetHvmContext => hvm_context::get(caller, target, request),
        DomctlOp::SetHvmContext => hvm_context::set(caller, target, &parameters(request)?),
        DomctlOp::GetHvmContextPartial => hvm_context::get_one(caller, target, request),
        DomctlOp::SchedulerOp => scheduler::perform(caller, target, request),
        DomctlOp::SendTrigger => vcpus::trigger(caller, target, &parameters(request)?),
        DomctlOp::GetVcpuContext => vcpus::get_registers(caller, target, &parameters(request)?),
        DomctlOp::SetVcpuContext => vcpus::set_registers(target, &parameters(request)?),
        DomctlOp::GdbsxGuestMemio => debugger::copy(caller, target, request),
        other => absent::perform(caller, target, other, request),
    }
}
