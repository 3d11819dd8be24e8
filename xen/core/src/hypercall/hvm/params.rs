//! HVM parameters: who may read and set which, and which values are right (public/hvm/params.h; rules of Xen 4.17's
//! arch/x86/hvm/hvm.c).
//!
//! The values live in `Control::hvm_params`. A few take effect beyond being stored: `apply` does that, after all checks and
//! before the value is stored, because an effect may not exist.

use crate::domain::Domain;
use crate::event::upcall;
use crate::hypercall::Caller;
use crate::hypercall::access::{Need, Target};
use crate::outcome::{Reply, Stop};
use machine::log;
use public_abi::Errno;
use public_abi::hvm_op::HvmParamRequest;
use public_abi::hvm_params::{CallbackVia, HVM_NR_PARAMS, HvmParam, TimerMode, ViridianFeatures};

/// The largest shutdown reason that a triple fault may be given (SHUTDOWN_MAX).
const LAST_SHUTDOWN_REASON: u64 = 5;
/// ALTP2M modes end here (XEN_ALTP2M_limited).
const LAST_ALTP2M_MODE: u64 = 3;
/// Pages of ioreq servers at the most: bits of a word.
const MAX_IOREQ_PAGES: u64 = 64;
/// A 32-bit task state segment without maps.
const TSS_BYTES: u64 = 104;
/// The largest useful one: with both bitmaps and the byte that ends them.
const TSS_MAX_BYTES: u64 = TSS_BYTES + 0x100 / 8 + 0x10000 / 8 + 1;
/// What old firmware means when it names no size.
const TSS_OLD_BYTES: u64 = 128;
/// In the stored value: it has not been looked at since it was set (VM86_TSS_UPDATED of Xen).
const TSS_UPDATED: u64 = 1 << 63;
/// The low half of a value.
const LOW: u64 = 0xffff_ffff;

/// How a parameter may be reached by the domain itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// It may.
    Guest,
    /// Nobody may: it is obsolete.
    Nobody,
    /// Only the control domain may.
    Control,
}

/// HVMOP_set_param.
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EPERM`, `EEXIST`, `EOPNOTSUPP`; `Stop::Crash` for values that Xen crashes a domain for.
pub fn set(caller: &Caller<'_>, request: &HvmParamRequest) -> Reply {
    let (parameter, target) = find(caller, request)?;
    let own = target.is_own();
    reach(setter(parameter), own)?;
    let index = place(request.index)?;
    if is_set_once(parameter) {
        let now = value_at(&target, index);
        if now != 0 && now != request.value {
            return Err(Errno::EEXIST.into());
        }
    }
    let value = check(parameter, request.value, own)?;
    apply(caller, &target, parameter, value);
    let index = if parameter == Some(HvmParam::Vm86Tss) { place(HvmParam::Vm86TssSized.number())? } else { index };
    if let Some(stored) = target.control.lock().hvm_params.get_mut(index) {
        *stored = value;
    }
    Ok(0)
}

/// HVMOP_get_param.
///
/// # Errors
/// `EINVAL`, `ESRCH`, `EPERM`.
pub fn get(caller: &Caller<'_>, request: &HvmParamRequest) -> Result<u64, Errno> {
    let (parameter, target) = find(caller, request)?;
    reach(getter(parameter), target.is_own())?;
    let sized = place(HvmParam::Vm86TssSized.number())?;
    Ok(match parameter {
        // Sleep is not emulated: the domain is never asleep.
        Some(HvmParam::AcpiSState) => 0,
        Some(HvmParam::Vm86Tss) => value_at(&target, sized) & LOW,
        Some(HvmParam::Vm86TssSized) => value_at(&target, sized) & !TSS_UPDATED,
        _ => value_at(&target, place(request.index)?),
    })
}

/// The parameter and the domain of a request. Numbers without a name are parameters, too: only the control domain may use
/// them, and they do nothing.
fn find<'a>(caller: &Caller<'a>, request: &HvmParamRequest) -> Result<(Option<HvmParam>, Target<'a>), Errno> {
    if request.index >= HVM_NR_PARAMS {
        return Err(Errno::EINVAL);
    }
    let target = caller.target(request.domid, Need::SelfOrControl)?;
    Ok((HvmParam::try_from(request.index).ok(), target))
}

fn place(index: u32) -> Result<usize, Errno> {
    usize::try_from(index).map_err(|_| Errno::EINVAL)
}

fn value_at(domain: &Domain, index: usize) -> u64 {
    domain.control.lock().hvm_params.get(index).copied().unwrap_or(0)
}

fn reach(reach: Reach, own: bool) -> Result<(), Errno> {
    match reach {
        Reach::Guest => Ok(()),
        Reach::Nobody => Err(Errno::EINVAL),
        Reach::Control if own => Err(Errno::EPERM),
        Reach::Control => Ok(()),
    }
}

fn is_obsolete(parameter: HvmParam) -> bool {
    matches!(
        parameter,
        HvmParam::PaeEnabled
            | HvmParam::DmDomain
            | HvmParam::MemoryEventCr0
            | HvmParam::MemoryEventCr3
            | HvmParam::MemoryEventCr4
            | HvmParam::MemoryEventInt3
            | HvmParam::NestedHvm
            | HvmParam::MemoryEventSingleStep
            | HvmParam::BufioreqEvtchn
            | HvmParam::MemoryEventMsr
    )
}

fn setter(parameter: Option<HvmParam>) -> Reach {
    match parameter {
        Some(
            HvmParam::CallbackIrq
            | HvmParam::Vm86Tss
            | HvmParam::Vm86TssSized
            | HvmParam::AcpiIoportsLocation
            | HvmParam::VmGenerationIdAddr
            | HvmParam::StoreEvtchn
            | HvmParam::ConsoleEvtchn
            | HvmParam::X87FipWidth,
        ) => Reach::Guest,
        Some(parameter) if is_obsolete(parameter) => Reach::Nobody,
        _ => Reach::Control,
    }
}

fn getter(parameter: Option<HvmParam>) -> Reach {
    match parameter {
        Some(HvmParam::StorePfn | HvmParam::ConsolePfn | HvmParam::Altp2m) => Reach::Guest,
        other => setter(other),
    }
}

fn is_set_once(parameter: Option<HvmParam>) -> bool {
    matches!(
        parameter,
        Some(
            HvmParam::Viridian
                | HvmParam::IoreqPfn
                | HvmParam::BufioreqPfn
                | HvmParam::IoreqServerPfn
                | HvmParam::NrIoreqServerPages
                | HvmParam::Altp2m
                | HvmParam::McaCap
        )
    )
}

/// The value to store, if `value` is right for the parameter.
fn check(parameter: Option<HvmParam>, value: u64, own: bool) -> Result<u64, Stop> {
    let Some(parameter) = parameter else {
        return Ok(value);
    };
    match parameter {
        HvmParam::TimerMode => require(value <= u64::from(TimerMode::OneMissedTickPending.number()))?,
        HvmParam::Viridian => {
            let features = ViridianFeatures::from_bits(value).ok_or(Errno::EINVAL)?;
            require(features.contains(ViridianFeatures::BASE_FREQ))?;
            return Err(Errno::EOPNOTSUPP.into());
        }
        HvmParam::AcpiSState => match value {
            0 => {}
            3 => return Err(Errno::EOPNOTSUPP.into()),
            _ => return Err(Errno::EINVAL.into()),
        },
        // There is no emulated ACPI whose ports could move.
        HvmParam::AcpiIoportsLocation => return Err(Errno::ENODEV.into()),
        HvmParam::Altp2m => {
            require(value <= LAST_ALTP2M_MODE)?;
            if value != 0 {
                return Err(Errno::EOPNOTSUPP.into());
            }
        }
        HvmParam::TripleFaultReason => require(value <= LAST_SHUTDOWN_REASON)?,
        HvmParam::NrIoreqServerPages => require((1..=MAX_IOREQ_PAGES).contains(&value))?,
        HvmParam::X87FipWidth => require(matches!(value, 0 | 4 | 8))?,
        // Machine checks can only be broadcast here.
        HvmParam::McaCap => require(value == 0)?,
        HvmParam::Vm86Tss => return old_task_state(value, own),
        HvmParam::Vm86TssSized => return task_state(value, own),
        _ => {}
    }
    Ok(value)
}

fn require(right: bool) -> Result<(), Errno> {
    if right { Ok(()) } else { Err(Errno::EINVAL) }
}

/// A domain that sets a task state segment which hardware would misread is stopped, as in Xen.
fn bad_task_state(own: bool) -> Stop {
    if own { Stop::Crash(&"it set a wrong HVM_PARAM_VM86_TSS") } else { Errno::EINVAL.into() }
}

fn old_task_state(value: u64, own: bool) -> Result<u64, Stop> {
    match value {
        0 => Ok(0),
        address if address & !LOW == 0 => Ok(TSS_UPDATED | TSS_OLD_BYTES << 32 | address),
        _ => Err(bad_task_state(own)),
    }
}

fn task_state(value: u64, own: bool) -> Result<u64, Stop> {
    let bytes = value >> 32;
    if bytes < TSS_BYTES {
        return Err(bad_task_state(own));
    }
    Ok(TSS_UPDATED | bytes.min(TSS_MAX_BYTES) << 32 | value & LOW)
}

/// What a parameter does beyond being stored.
fn apply(caller: &Caller<'_>, domain: &Domain, parameter: Option<HvmParam>, value: u64) {
    if parameter == Some(HvmParam::CallbackIrq) {
        // Without an emulated 8259 pair only a vector can be delivered; Xen then stores other values and does nothing.
        if let Some(CallbackVia::Vector(vector)) = CallbackVia::from_value(value) {
            log!(Debug, "{}: events by vector {vector:#x}", domain.id);
            upcall::set_callback(caller.host, domain, value);
        }
    }
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
