//! vcpu_op and set_timer_op (hypercalls 24 and 15, public/vcpu.h): a guest's requests about its own vCPUs.
//!
//! `vcpu_initialise` sets the registers of a new vCPU; the rest is here.

use super::{Caller, vcpu_initialise};
use crate::domain::shutdown;
use crate::event::upcall;
use crate::outcome::{Reply, Stop};
use crate::p2m::Access;
use crate::sched;
use crate::time::{self, Area, timers};
use crate::timer::TimerKind;
use crate::vcpu::{Vcpu, Wait};
use crate::x86::vlapic::ipi;
use core::sync::atomic::Ordering;
use machine::{Gfn, PAGE_SIZE};
use public_abi::vcpu::{
    RegisterMemoryArea, RegisterVcpuInfo, RunstateInfo, SetPeriodicTimer, SetSingleshotTimer, VcpuOp,
};
use public_abi::x86::{VcpuInfo, VcpuTimeInfo};
use public_abi::{Errno, GuestPtr};

/// The alignment that vcpu_info needs, which Xen checks.
const INFO_ALIGNMENT: usize = align_of::<VcpuInfo>();

/// Answers set_timer_op.
///
/// # Errors
/// None.
#[inline(never)]
pub fn set_timer_op(caller: &Caller<'_>, nanoseconds: i64) -> Reply {
    timers::set_timer_op(caller.host, caller.vcpu, nanoseconds);
    Ok(0)
}

/// Answers vcpu_op.
///
/// # Errors
/// ENOENT for a vCPU that does not exist, ENOSYS for an operation that does not exist; else those of the operation.
#[inline(never)]
pub fn vcpu_op(caller: &Caller<'_>, command: u32, vcpu: u32, argument: GuestPtr<()>) -> Reply {
    let (host, domain) = (caller.host, caller.domain);
    let vcpu = domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    match VcpuOp::try_from(command).map_err(|_| Errno::ENOSYS)? {
        VcpuOp::Initialise => {
            if !upcall::has_info(domain, vcpu) {
                return Err(Errno::EINVAL.into());
            }
            vcpu_initialise::initialise(caller, vcpu, argument.cast())?;
        }
        VcpuOp::Up => up(caller, vcpu)?,
        VcpuOp::Down => {
            shutdown::vcpu_down(host, domain, vcpu);
            // If it is the caller, it does not go on; the run loop sees that.
            return if is_self(caller, vcpu) { Err(Stop::Yield(0)) } else { Ok(0) };
        }
        VcpuOp::IsUp => return Ok(u64::from(!vcpu.wait().contains(Wait::DOWN))),
        VcpuOp::GetRunstateInfo => caller.memory.write(argument.cast(), &time::runstate(host, vcpu))?,
        VcpuOp::RegisterRunstateMemoryArea => {
            let area = area(caller, argument.cast(), size_of::<RunstateInfo>())?;
            time::register_runstate_area(domain, vcpu, area);
        }
        VcpuOp::RegisterVcpuTimeMemoryArea => {
            let area = area(caller, argument.cast(), size_of::<VcpuTimeInfo>())?;
            time::register_time_area(host, domain, vcpu, area);
        }
        VcpuOp::SetPeriodicTimer => {
            let set: SetPeriodicTimer = caller.memory.read(argument.cast())?;
            timers::set_periodic(host, vcpu, set.period_ns)?;
        }
        VcpuOp::StopPeriodicTimer => timers::stop_periodic(host, vcpu),
        VcpuOp::SetSingleshotTimer => {
            only_self(caller, vcpu)?;
            let set: SetSingleshotTimer = caller.memory.read(argument.cast())?;
            timers::set_singleshot(host, domain, vcpu, set.timeout_abs_ns, set.flags)?;
        }
        VcpuOp::StopSingleshotTimer => {
            only_self(caller, vcpu)?;
            timers::stop(host, vcpu, TimerKind::Singleshot);
        }
        VcpuOp::RegisterVcpuInfo => register_info(caller, vcpu, argument.cast())?,
        VcpuOp::SendNmi => {
            if !argument.is_null() {
                return Err(Errno::EINVAL.into());
            }
            ipi::send_nmi(host, domain, vcpu);
        }
        // Only vCPUs of a control domain that is pinned one to one have one, and there are none.
        VcpuOp::GetPhysid => return Err(Errno::EINVAL.into()),
        _ => return Err(Errno::ENOSYS.into()),
    }
    Ok(0)
}

fn is_self(caller: &Caller<'_>, vcpu: &Vcpu) -> bool {
    caller.vcpu.index == vcpu.index
}

/// Some operations are for the calling vCPU only.
fn only_self(caller: &Caller<'_>, vcpu: &Vcpu) -> Result<(), Errno> {
    if is_self(caller, vcpu) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Starts a vCPU whose registers are set.
fn up(caller: &Caller<'_>, vcpu: &Vcpu) -> Result<(), Errno> {
    if !vcpu.is_initialised.load(Ordering::Acquire) {
        return Err(Errno::EINVAL);
    }
    if vcpu.wait().contains(Wait::DOWN) {
        sched::wake(caller.host, caller.domain, vcpu, Wait::DOWN);
    }
    Ok(())
}

/// The area that an argument names, or none for address 0.
fn area(caller: &Caller<'_>, argument: GuestPtr<RegisterMemoryArea>, length: usize) -> Result<Option<Area>, Errno> {
    let request = caller.memory.read(argument)?;
    if request.addr == 0 {
        return Ok(None);
    }
    Area::try_new(request.addr, length, |address| caller.memory.pin(address)).map(Some)
}

/// Moves a vCPU's vcpu_info, for the caller itself or a vCPU that is down.
fn register_info(caller: &Caller<'_>, vcpu: &Vcpu, argument: GuestPtr<RegisterVcpuInfo>) -> Result<(), Errno> {
    let (host, domain) = (caller.host, caller.domain);
    let request = caller.memory.read(argument)?;
    let offset = usize::try_from(request.offset).map_err(|_| Errno::ENXIO)?;
    if offset > PAGE_SIZE - size_of::<VcpuInfo>() || !offset.is_multiple_of(INFO_ALIGNMENT) {
        return Err(Errno::ENXIO);
    }
    if !is_self(caller, vcpu) && !vcpu.wait().contains(Wait::DOWN) {
        return Err(Errno::EINVAL);
    }
    // The domain's own RAM only: the pin would outlive a mapping of somebody else's page.
    let page = domain.p2m.pin_for_others(Gfn::new(request.mfn), Access::Write).map_err(|_| Errno::EINVAL)?;
    upcall::register_info(host, domain, vcpu, page, offset)?;
    time::refresh_vcpu(host, domain, vcpu);
    Ok(())
}
