//! platform_op: requests of the hardware domain about the host's clock, processors and firmware.
//!
//! Order of errors as in Xen: `EFAULT`, `EACCES` for another interface version, `EPERM`, then the operation's. Firmware
//! data that a legacy boot would have collected does not exist, and power management stays with the processors' own.

mod cpus;

use super::Caller;
use super::answer::Answer;
use crate::outcome::Reply;
use crate::time;
use public_abi::hypercall::Caller as Who;
use public_abi::payload::Payload;
use public_abi::platform::{
    CoreParking, DelMemtype, PLATFORM_INTERFACE_VERSION, PlatformOp, PlatformQuirk, PlatformRequest, ResourceOp,
    Settime32, Settime64,
};
use public_abi::platform_more::{FirmwareInfo, FirmwareInfoType, SetProcessorPminfo};
use public_abi::{Errno, GuestPtr};

/// Entries of a resource_op at the most.
const MAX_RESOURCE_ENTRIES: u32 = 3;

/// Answers platform_op.
///
/// # Errors
/// As the file's head says; `ENOSYS` for unknown operations.
#[inline(never)]
pub fn handle(caller: &Caller<'_>, argument: GuestPtr<()>) -> Reply {
    let pointer: GuestPtr<PlatformRequest> = argument.cast();
    let mut request = caller.memory.read(pointer)?;
    if request.interface_version != PLATFORM_INTERFACE_VERSION {
        return Err(Errno::EACCES.into());
    }
    caller.permit(Who::HardwareDomain)?;
    let operation = request.command().map_err(|_| Errno::ENOSYS)?;
    perform(caller, operation, &mut request)?.finish(|| caller.memory.write(pointer, &request))
}

/// The parameters of a request, as the type of its command.
fn parameters<T: Payload<PlatformRequest>>(request: &PlatformRequest) -> Result<T, Errno> {
    request.get().map_err(|_| Errno::EINVAL)
}

fn perform(caller: &Caller<'_>, operation: PlatformOp, request: &mut PlatformRequest) -> Result<Answer, Errno> {
    match operation {
        PlatformOp::Settime32 => {
            let time: Settime32 = parameters(request)?;
            Ok(set_time(caller, u64::from(time.secs), time.nsecs, time.system_time))
        }
        PlatformOp::Settime64 => {
            let time: Settime64 = parameters(request)?;
            if time.mbz != 0 {
                return Err(Errno::EINVAL);
            }
            Ok(set_time(caller, time.secs, time.nsecs, time.system_time))
        }
        PlatformOp::FirmwareInfo => Err(firmware(&parameters(request)?)),
        // Not booted by UEFI.
        PlatformOp::EfiRuntimeCall => Err(Errno::ENOSYS),
        PlatformOp::GetCpuInfo => cpus::information(caller, request),
        PlatformOp::GetCpuVersion => cpus::version(caller, request),
        PlatformOp::CpuOnline => cpus::online(caller, &parameters(request)?),
        PlatformOp::CpuOffline => cpus::offline(caller, &parameters(request)?),
        // Only for a domain that controls the frequency itself (Xen's `cpufreq=dom0-kernel`).
        PlatformOp::ChangeFreq | PlatformOp::GetIdleTime => Err(Errno::ENOSYS),
        PlatformOp::SetProcessorPminfo => Err(power_management(&parameters(request)?)),
        PlatformOp::CoreParking => core_parking(request),
        PlatformOp::ResourceOp => resources(&parameters(request)?),
        PlatformOp::PlatformQuirk => quirk(&parameters(request)?),
        PlatformOp::DelMemtype => {
            let removal: DelMemtype = parameters(request)?;
            Err(if removal.handle == 0 { Errno::EOPNOTSUPP } else { Errno::EINVAL })
        }
        // No variable MTRR is offered: every register number is too large.
        PlatformOp::ReadMemtype => Err(Errno::EINVAL),
        PlatformOp::AddMemtype
        | PlatformOp::MicrocodeUpdate
        | PlatformOp::EnterAcpiSleep
        | PlatformOp::CpuHotadd
        | PlatformOp::MemHotadd
        | PlatformOp::GetSymbol => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::ENOSYS),
    }
}

fn set_time(caller: &Caller<'_>, seconds: u64, nanoseconds: u32, system_time: u64) -> Answer {
    time::set_wall_clock(caller.host, seconds, u64::from(nanoseconds), system_time);
    Answer::Unchanged
}

/// What Xen answers when its boot code collected nothing.
fn firmware(request: &FirmwareInfo) -> Errno {
    match FirmwareInfoType::try_from(request.kind) {
        Ok(FirmwareInfoType::EfiInfo) => Errno::ENOSYS,
        Ok(_) => Errno::ESRCH,
        Err(_) => Errno::EINVAL,
    }
}

/// What Xen answers when it does no power management of its own.
fn power_management(request: &SetProcessorPminfo) -> Errno {
    const LAST_KIND: u32 = 3;
    if request.kind <= LAST_KIND { Errno::ENOSYS } else { Errno::EINVAL }
}

fn core_parking(request: &mut PlatformRequest) -> Result<Answer, Errno> {
    const SET: u32 = 1;
    const GET: u32 = 2;
    let mut parking: CoreParking = parameters(request)?;
    match parking.kind {
        GET => {
            parking.idle_nums = 0;
            request.set(&parking).map_err(|_| Errno::EINVAL)?;
            Ok(Answer::Changed)
        }
        SET => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EINVAL),
    }
}

/// MSRs for the tools of resource control (`xl psr-…`), which the processors here do not have.
fn resources(request: &ResourceOp) -> Result<Answer, Errno> {
    match request.nr_entries {
        0 => Ok(Answer::Unchanged),
        1..=MAX_RESOURCE_ENTRIES => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EINVAL),
    }
}

/// The hardware domain's opinion of the chipset: all that is known needs nothing done.
fn quirk(request: &PlatformQuirk) -> Result<Answer, Errno> {
    match request.quirk_id {
        1..=3 => Ok(Answer::Unchanged),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_answers_are_those_of_a_boot_without_data() {
        let ask = |kind| firmware(&FirmwareInfo { kind, ..FirmwareInfo::default() });
        assert_eq!([ask(1), ask(2), ask(3), ask(5)], [Errno::ESRCH; 4]);
        assert_eq!(ask(4), Errno::ENOSYS);
        assert_eq!([ask(0), ask(6)], [Errno::EINVAL; 2]);
    }

    #[test]
    fn power_management_is_refused_by_kind() {
        let ask = |kind| power_management(&SetProcessorPminfo { kind, ..SetProcessorPminfo::default() });
        assert_eq!([ask(0), ask(3), ask(4)], [Errno::ENOSYS, Errno::ENOSYS, Errno::EINVAL]);
    }

    #[test]
    fn core_parking_can_be_asked_but_not_set() {
        let mut request = PlatformRequest::new(PlatformOp::CoreParking);
        request.set(&CoreParking { kind: 2, idle_nums: 9 }).unwrap();
        assert_eq!(core_parking(&mut request), Ok(Answer::Changed));
        assert_eq!(request.get::<CoreParking>().unwrap().idle_nums, 0);
        request.set(&CoreParking { kind: 1, idle_nums: 1 }).unwrap();
        assert_eq!(core_parking(&mut request), Err(Errno::EOPNOTSUPP));
        request.set(&CoreParking { kind: 3, idle_nums: 1 }).unwrap();
        assert_eq!(core_parking(&mut request), Err(Errno::EINVAL));
    }
}
