//! sysctl: the toolstack's requests about the host.
//!
//! Order of errors as in Xen (common/sysctl.c): `EFAULT`, `EACCES` for another interface version, `EPERM`, then the
//! operation's. Each file below answers a group of commands: it takes the request, and says whether it has changed it.
//! Commands for things that do not exist here get Xen's answer without that feature.

mod host;
mod log_ring;
mod policy;
mod pool;
mod topology;

pub(super) use policy::hand_out;

use super::Caller;
use super::answer::Answer;
use crate::outcome::Reply;
use public_abi::hypercall::Caller as Who;
use public_abi::payload::Payload;
use public_abi::sched_params::SchedulerId;
use public_abi::sysctl::{SYSCTL_INTERFACE_VERSION, SchedId, Sysctl, SysctlOp};
use public_abi::sysctl_more::{CpuHotplug, HotplugOperation, PageOfflineOp, SysctlPsrAlloc};
use public_abi::{Errno, GuestPtr};

/// Answers sysctl.
///
/// # Errors
/// As the file's head says; `ENOSYS` for unknown commands.
#[inline(never)]
pub fn handle(caller: &Caller<'_>, argument: GuestPtr<()>) -> Reply {
    let pointer: GuestPtr<Sysctl> = argument.cast();
    let mut request = caller.memory.read(pointer)?;
    if request.interface_version != SYSCTL_INTERFACE_VERSION {
        return Err(Errno::EACCES.into());
    }
    caller.permit(Who::Control)?;
    let operation = request.command().map_err(|_| Errno::ENOSYS)?;
    perform(caller, operation, &mut request)?.finish(|| caller.memory.write(pointer, &request))
}

/// The parameters of a request, as the type of its command.
fn parameters<T: Payload<Sysctl>>(request: &Sysctl) -> Result<T, Errno> {
    request.get().map_err(|_| Errno::EINVAL)
}

/// Puts parameters back into a request.
fn answer<T: Payload<Sysctl>>(request: &mut Sysctl, parameters: &T) -> Result<Answer, Errno> {
    request.set(parameters).map_err(|_| Errno::EINVAL)?;
    Ok(Answer::Changed)
}

fn perform(caller: &Caller<'_>, operation: SysctlOp, request: &mut Sysctl) -> Result<Answer, Errno> {
    match operation {
        SysctlOp::PhysInfo => host::physical(caller, request),
        SysctlOp::GetDomainInfoList => host::domains(caller, request),
        SysctlOp::GetCpuInfo => host::idle_times(caller, request),
        SysctlOp::AvailHeap => host::free_memory(request),
        SysctlOp::DebugKeys => host::debug_keys(caller, &parameters(request)?),
        SysctlOp::ReadConsole => log_ring::read(caller, request),
        SysctlOp::SchedId => answer(request, &SchedId { sched_id: SchedulerId::Credit2.number() }),
        SysctlOp::SchedulerOp => pool::scheduler(&caller.host.rate_limit, request),
        SysctlOp::CpupoolOp => pool::cpu_pools(caller, request),
        SysctlOp::NumaInfo => topology::nodes(caller, request),
        SysctlOp::CpuTopoInfo => topology::cpus(caller, request),
        SysctlOp::PciTopoInfo => topology::pci(caller, request),
        SysctlOp::GetCpuPolicy => policy::leaves(caller, request),
        SysctlOp::GetCpuFeatureset => policy::featureset(caller, request),
        SysctlOp::GetCpuLevellingCaps => policy::levelling(request),
        other => Err(absent(other, request)?),
    }
}

/// What Xen answers to commands for features that it was built or booted without.
fn absent(operation: SysctlOp, request: &Sysctl) -> Result<Errno, Errno> {
    Ok(match operation {
        SysctlOp::PsrCmtOp => Errno::ENODEV,
        SysctlOp::PsrAlloc => {
            let psr: SysctlPsrAlloc = parameters(request)?;
            if psr.cmd <= 2 { Errno::ENODEV } else { Errno::EOPNOTSUPP }
        }
        SysctlOp::PageOfflineOp => {
            let pages: PageOfflineOp = parameters(request)?;
            if pages.end < pages.start { Errno::EINVAL } else { Errno::EOPNOTSUPP }
        }
        SysctlOp::CpuHotplug => {
            let hotplug: CpuHotplug = parameters(request)?;
            // All CPUs run, so that starting one again is an error in Xen, too; none can be stopped.
            match HotplugOperation::try_from(hotplug.op) {
                Ok(HotplugOperation::Online) => Errno::EEXIST,
                _ => Errno::EOPNOTSUPP,
            }
        }
        SysctlOp::CoverageOp | SysctlOp::GetPmStat | SysctlOp::PmOp => Errno::EOPNOTSUPP,
        // Trace buffers, performance counters, lock profiles, live patches.
        _ => Errno::ENOSYS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(operation: SysctlOp, change: impl FnOnce(&mut Sysctl)) -> Errno {
        let mut request = Sysctl::new(operation);
        change(&mut request);
        absent(operation, &request).unwrap()
    }

    #[test]
    fn absent_features_are_refused_as_xen_refuses_them() {
        assert_eq!(refusal(SysctlOp::TbufOp, |_| ()), Errno::ENOSYS);
        assert_eq!(refusal(SysctlOp::LivepatchOp, |_| ()), Errno::ENOSYS);
        assert_eq!(refusal(SysctlOp::PsrCmtOp, |_| ()), Errno::ENODEV);
        assert_eq!(refusal(SysctlOp::PsrAlloc, |_| ()), Errno::ENODEV);
        let unknown = SysctlPsrAlloc { cmd: 9, ..SysctlPsrAlloc::default() };
        assert_eq!(refusal(SysctlOp::PsrAlloc, |request| request.set(&unknown).unwrap()), Errno::EOPNOTSUPP);
        let backwards = PageOfflineOp { start: 2, end: 1, ..PageOfflineOp::default() };
        assert_eq!(refusal(SysctlOp::PageOfflineOp, |request| request.set(&backwards).unwrap()), Errno::EINVAL);
    }
}
