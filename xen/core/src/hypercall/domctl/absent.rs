//! domctl for features that do not exist here: Xen's answers without them, after the checks that Xen makes before.

use super::{Answer, answer, find_vcpu, parameters};
use crate::domain::lifecycle::Stage;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use public_abi::Errno;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domctl_debug::{DebugOp, MonitorOp, MonitorOperation, PsrAlloc, VmEventMode, VmEventOp};
use public_abi::domctl_domain::{SetDebugging, SetVirqHandler};
use public_abi::domctl_vcpu::{ExtVcpuContext, VcpuExtState, VcpuMsrs};
use public_abi::virq::Virq;

/// Answers all commands that have no file of their own.
pub fn perform(
    caller: &Caller<'_>,
    target: &Target<'_>,
    operation: DomctlOp,
    request: &mut Domctl,
) -> Result<Answer, Stop> {
    match operation {
        DomctlOp::SetDebugging => {
            let debugging: SetDebugging = parameters(request)?;
            target.other_or(Errno::EINVAL)?;
            // Breakpoints are the guest's own.
            if debugging.enable == 0 { Ok(Answer::Unchanged) } else { Err(Errno::EOPNOTSUPP.into()) }
        }
        DomctlOp::SetVirqHandler => set_virq_handler(caller, target, &parameters(request)?),
        DomctlOp::MonitorOp => monitor(target, request),
        other => Err(refusal(target, other, request)?.into()),
    }
}

/// Chooses who hears of a global virtual interrupt.
fn set_virq_handler(caller: &Caller<'_>, target: &Target<'_>, request: &SetVirqHandler) -> Result<Answer, Stop> {
    let virq = Virq::try_from(request.virq).map_err(|_| Errno::EINVAL)?;
    caller.host.virq_handlers.set(virq, target.id)?;
    Ok(Answer::Unchanged)
}

/// No event can be reported, and that is what the capabilities say.
fn monitor(target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    /// Events are bits of a word.
    const LAST_EVENT: u32 = 31;
    let mut monitor: MonitorOp = parameters(request)?;
    target.other_or(Errno::EPERM)?;
    match MonitorOperation::try_from(monitor.op) {
        Ok(MonitorOperation::GetCapabilities) => {
            monitor.event = 0;
            Ok(answer(request, &monitor)?)
        }
        Ok(MonitorOperation::Enable | MonitorOperation::Disable) if monitor.event > LAST_EVENT => {
            Err(Errno::EINVAL.into())
        }
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

fn refusal(target: &Target<'_>, operation: DomctlOp, request: &Domctl) -> Result<Errno, Errno> {
    Ok(match operation {
        DomctlOp::SoftReset if target.is_own() => Errno::EINVAL,
        DomctlOp::SetAccessRequired | DomctlOp::AuditP2m if target.is_own() => Errno::EPERM,
        DomctlOp::VmEventOp => vm_event(target, &parameters(request)?),
        DomctlOp::DebugOp => {
            let debug: DebugOp = parameters(request)?;
            find_vcpu(target, debug.vcpu, Errno::EINVAL)?;
            // Single steps need a monitor trap flag, which SVM does not have.
            if debug.op <= 1 { Errno::EOPNOTSUPP } else { Errno::ENOSYS }
        }
        DomctlOp::GetVcpuMsrs | DomctlOp::SetVcpuMsrs => {
            let msrs: VcpuMsrs = parameters(request)?;
            find_vcpu(target, msrs.vcpu, Errno::ESRCH)?;
            // For PV guests; others' MSRs are in their HVM context.
            Errno::EINVAL
        }
        DomctlOp::GetVcpuExtState | DomctlOp::SetVcpuExtState => {
            let state: VcpuExtState = parameters(request)?;
            find_vcpu(target, state.vcpu, Errno::ESRCH)?;
            Errno::EOPNOTSUPP
        }
        DomctlOp::GetExtVcpuContext | DomctlOp::SetExtVcpuContext => {
            let context: ExtVcpuContext = parameters(request)?;
            find_vcpu(target, context.vcpu, Errno::ESRCH)?;
            Errno::EOPNOTSUPP
        }
        DomctlOp::PsrCmtOp => Errno::ENODEV,
        DomctlOp::PsrAlloc => {
            let psr: PsrAlloc = parameters(request)?;
            if is_psr_command(psr.cmd) { Errno::ENODEV } else { Errno::EOPNOTSUPP }
        }
        // Not for HVM guests, of other architectures, or left out of Xen's usual builds.
        DomctlOp::RealModeArea
        | DomctlOp::SetOptFeature
        | DomctlOp::CacheFlush
        | DomctlOp::VuartOp
        | DomctlOp::MemSharingOp
        | DomctlOp::AuditP2m => Errno::ENOSYS,
        DomctlOp::VmtraceOp => Errno::EINVAL,
        // Address size, device assignment, stopping for debuggers, virtual NUMA, …
        _ => Errno::EOPNOTSUPP,
    })
}

/// Xen's order of checks for vm_event_op, and its answer to modes that it was built without.
fn vm_event(target: &Target<'_>, request: &VmEventOp) -> Errno {
    if target.is_own() || target.lifecycle.stage() == Stage::Alive && target.vcpus().is_empty() {
        return Errno::EINVAL;
    }
    match VmEventMode::try_from(request.mode) {
        Ok(VmEventMode::Monitor) => Errno::EOPNOTSUPP,
        _ => Errno::ENOSYS,
    }
}

/// Setting and getting L3, L3 code and data, L2 masks and bandwidth (public/domctl.h, XEN_DOMCTL_PSR_*).
fn is_psr_command(command: u32) -> bool {
    command <= 9
}
