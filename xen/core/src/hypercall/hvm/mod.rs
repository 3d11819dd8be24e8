//! hvm_op: parameters, upcall vectors and small questions of HVM and PVH guests.
//!
//! `params` has the rules per parameter. A domain may ask about itself, the control domain about all. What needs features
//! that do not exist here (alternative views, shadow paging, trace) is answered as Xen answers without them.

mod params;

use super::Caller;
use super::access::Need;
use crate::domain::Domain;
use crate::event::upcall;
use crate::outcome::Reply;
use crate::p2m::Kind;
use machine::Gfn;
use public_abi::hvm_op::{EvtchnUpcallVector, GetMemType, GetTime, HvmOp, HvmParamRequest, MemType, PagetableDying};
use public_abi::{Errno, GuestPtr};

/// Answers hvm_op.
///
/// # Errors
/// Those of the operations; `ENOSYS` for unknown ones.
#[inline(never)]
pub fn handle(caller: &Caller<'_>, command: u64, argument: GuestPtr<()>) -> Reply {
    let operation = u32::try_from(command).ok().and_then(|number| HvmOp::try_from(number).ok());
    match operation.ok_or(Errno::ENOSYS)? {
        HvmOp::SetParam => params::set(caller, &caller.memory.read(argument.cast())?),
        HvmOp::GetParam => {
            let pointer: GuestPtr<HvmParamRequest> = argument.cast();
            let mut request = caller.memory.read(pointer)?;
            request.value = params::get(caller, &request)?;
            caller.memory.write(pointer, &request)?;
            Ok(0)
        }
        HvmOp::SetEvtchnUpcallVector => set_upcall_vector(caller, &caller.memory.read(argument.cast())?),
        HvmOp::FlushTlbs if argument.is_null() => {
            caller.domain.p2m.flush_all();
            Ok(0)
        }
        HvmOp::FlushTlbs => Err(Errno::EINVAL.into()),
        HvmOp::GetTime => {
            caller.memory.write(argument.cast(), &GetTime { now: caller.host.clock.now() })?;
            Ok(0)
        }
        HvmOp::GetMemType => memory_type(caller, argument.cast()),
        HvmOp::PagetableDying => pagetable_dying(caller, &caller.memory.read(argument.cast())?),
        // No monitor listens: there is nobody to tell, and Xen takes that for success.
        HvmOp::GuestRequestVmEvent if argument.is_null() => Ok(0),
        HvmOp::GuestRequestVmEvent => Err(Errno::EINVAL.into()),
        HvmOp::Altp2m => Err(Errno::EOPNOTSUPP.into()),
        _ => Err(Errno::ENOSYS.into()),
    }
}

fn set_upcall_vector(caller: &Caller<'_>, request: &EvtchnUpcallVector) -> Reply {
    upcall::set_vector(caller.host, caller.domain, request.vcpu, request.vector)?;
    Ok(0)
}

fn memory_type(caller: &Caller<'_>, pointer: GuestPtr<GetMemType>) -> Reply {
    let mut request = caller.memory.read(pointer)?;
    let target = caller.target(request.domid, Need::SelfOrControl)?;
    let kind = kind_of_frame(&target, request.pfn);
    request.mem_type = u16::try_from(kind.number()).unwrap_or(u16::MAX);
    caller.memory.write(pointer, &request)?;
    Ok(0)
}

/// What a guest frame is (the classes of arch/x86/hvm/hvm.c of 4.17).
fn kind_of_frame(domain: &Domain, gfn: u64) -> MemType {
    match domain.p2m.lookup(Gfn::new(gfn)).kind {
        Kind::RamRw
        | Kind::PagingOut
        | Kind::Paged
        | Kind::PagingIn
        | Kind::PopulateOnDemand
        | Kind::GrantRw
        | Kind::SharedPage => MemType::RamRw,
        Kind::RamLogDirty | Kind::RamRo | Kind::CopyOnWrite | Kind::GrantRo => MemType::RamRo,
        _ => MemType::MmioDm,
    }
}

/// A hint for shadow paging, which does not exist here.
fn pagetable_dying(caller: &Caller<'_>, request: &PagetableDying) -> Reply {
    let target = caller.find_any(request.domid)?;
    Err(if target.is_own() { Errno::EINVAL } else { Errno::EOPNOTSUPP }.into())
}
