//! sched_op (hypercall 29, public/sched.h): giving up the CPU, waiting for events, stopping.

use super::Caller;
use super::access::Need;
use crate::domain::shutdown;
use crate::event::{channel, poll, upcall};
use crate::outcome::{Reply, Stop};
use crate::sched::Overridden;
use crate::time::timers;
use crate::timer::TimerKind;
use crate::vcpu::Wait;
use crate::x86::interrupts;
use machine::{CpuId, cpu};
use public_abi::domid::DOMID_SELF;
use public_abi::sched::{SchedOp, SchedPinOverride, SchedPoll, SchedRemoteShutdown, SchedShutdown, SchedWatchdog};
use public_abi::{Errno, GuestPtr};

/// Ports in one poll at the most, as in Xen.
const MOST_POLLED: u32 = 128;

/// Answers the call.
///
/// # Errors
/// ENOSYS for an operation that does not exist; else those of the operation.
#[inline(never)]
pub fn sched_op(caller: &Caller<'_>, command: u32, argument: GuestPtr<()>) -> Reply {
    match SchedOp::try_from(command).map_err(|_| Errno::ENOSYS)? {
        SchedOp::Yield => Err(Stop::Yield(0)),
        SchedOp::Block => block(caller),
        SchedOp::Shutdown => {
            let request: SchedShutdown = caller.memory.read(argument.cast())?;
            shutdown::shutdown(caller.host, caller.domain, low_byte(request.reason));
            // The domain has stopped: the run loop sees it and takes another vCPU.
            Err(Stop::Yield(0))
        }
        SchedOp::ShutdownCode => {
            let request: SchedShutdown = caller.memory.read(argument.cast())?;
            caller.domain.lifecycle.announce(low_byte(request.reason));
            Ok(0)
        }
        SchedOp::Poll => poll(caller, argument.cast()),
        SchedOp::RemoteShutdown => remote_shutdown(caller, argument.cast()),
        SchedOp::Watchdog => {
            let request: SchedWatchdog = caller.memory.read(argument.cast())?;
            Ok(shutdown::set_watchdog(caller.host, caller.domain, request.id, request.timeout)?)
        }
        SchedOp::PinOverride => pin_override(caller, argument.cast()),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Reasons are kept as bytes; Xen cuts them off the same way.
const fn low_byte(reason: u32) -> u8 {
    let [low, ..] = reason.to_le_bytes();
    low
}

/// The vCPU leaves its CPU, and stays off as long as it is marked as blocked. Not `Stop::Block`: that marks it again, and an
/// event that has come since the first marking, and has woken it, would be forgotten.
const fn off_cpu() -> Reply {
    Err(Stop::Yield(0))
}

/// Waits until there is an event or an interrupt. The vCPU counts as blocked before the last look, so that what comes after
/// the look wakes it.
fn block(caller: &Caller<'_>) -> Reply {
    upcall::clear_mask(caller.domain, caller.vcpu);
    // A poll that an interrupt has ended must not end this, too.
    poll::stop(caller.domain, caller.vcpu);
    caller.vcpu.add_wait(Wait::BLOCKED);
    if is_interrupted(caller) {
        caller.vcpu.clear_wait(Wait::BLOCKED);
        return Ok(0);
    }
    off_cpu()
}

/// Waits until one of some ports has an event pending, or the time has come.
fn poll(caller: &Caller<'_>, argument: GuestPtr<SchedPoll>) -> Reply {
    let request = caller.memory.read(argument)?;
    if request.nr_ports > MOST_POLLED {
        return Err(Errno::EINVAL.into());
    }
    let (host, domain, vcpu) = (caller.host, caller.domain, caller.vcpu);
    poll::begin(domain, vcpu);
    let must_wait = if is_interrupted(caller) { Ok(false) } else { none_pending(caller, &request) };
    if must_wait != Ok(true) {
        poll::stop(domain, vcpu);
        vcpu.clear_wait(Wait::BLOCKED);
        return must_wait.map(|_| 0).map_err(Stop::Error);
    }
    if request.timeout != 0 {
        timers::set(host, vcpu, TimerKind::Poll, request.timeout);
    } else if vcpu.timers.deadline(TimerKind::Poll).is_some() {
        timers::stop(host, vcpu, TimerKind::Poll);
    }
    off_cpu()
}

/// Whether something waits for the calling vCPU that ends waiting: an interrupt or an upcall, if it takes interrupts at all,
/// or an NMI. With interrupts off it may wait although one is pending, as in Xen: Linux polls so for a lock.
fn is_interrupted(caller: &Caller<'_>) -> bool {
    interrupts::is_pending(caller.domain, caller.vcpu, caller.interrupts)
}

/// Whether no port of a poll has its event pending.
fn none_pending(caller: &Caller<'_>, request: &SchedPoll) -> Result<bool, Errno> {
    let mut port = 0;
    for number in 0..request.nr_ports {
        port = caller.memory.read_at(request.ports, u64::from(number))?;
        if channel::is_pending(caller.domain, port)? {
            return Ok(false);
        }
    }
    if request.nr_ports == 1 {
        poll::narrow(caller.vcpu, port);
    }
    Ok(true)
}

fn remote_shutdown(caller: &Caller<'_>, argument: GuestPtr<SchedRemoteShutdown>) -> Reply {
    let request = caller.memory.read(argument)?;
    if request.domain_id == DOMID_SELF {
        return Err(Errno::ESRCH.into());
    }
    let domain = caller.target(request.domain_id, Need::Control)?;
    shutdown::shutdown(caller.host, &domain, low_byte(request.reason));
    Ok(0)
}

/// Binds the calling vCPU of the control domain to one CPU, whatever its affinity says, until it asks for a negative number.
/// Linux does so around firmware calls that must be made on CPU 0.
fn pin_override(caller: &Caller<'_>, argument: GuestPtr<SchedPinOverride>) -> Reply {
    if !caller.domain.is_control() {
        return Err(Errno::EPERM.into());
    }
    let request = caller.memory.read(argument)?;
    let unit = &caller.vcpu.sched;
    match u16::try_from(request.pcpu) {
        Ok(cpu) if usize::from(cpu) >= caller.host.cpus.len() => return Err(Errno::EINVAL.into()),
        Ok(cpu) => unit.override_affinity(CpuId(cpu)).map_err(|Overridden| Errno::EBUSY)?,
        Err(_) if request.pcpu > 0 => return Err(Errno::EINVAL.into()),
        Err(_) => unit.end_override().ok_or(Errno::EINVAL)?,
    }
    // It moves when it is placed anew.
    if unit.may_run_on(cpu::current()) { Ok(0) } else { off_cpu() }
}
