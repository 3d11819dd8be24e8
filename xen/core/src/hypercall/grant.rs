//! grant_table_op (hypercall 20, public/grant_table.h): arrays of requests, each with a status of its own.
//!
//! A long array is interrupted between two requests; then the upper bits of the command register say how many are done. The
//! operations that Xen does not offer to HVM guests are refused with ENOSYS here too.

use super::Caller;
use super::access::{Need, Target};
use crate::grant::copy::Copier;
use crate::grant::map::{self, Wanted};
use crate::grant::{Refusal, VERSION};
use crate::outcome::{Cursor, Reply, Stop};
use core::mem::offset_of;
use machine::{Gpa, cpu};
use public_abi::domid::DOMID_SELF;
use public_abi::grant_table::*;
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, IntoBytes};

/// Where the number of requests done begins in the command.
const DONE_SHIFT: u32 = 12;
/// The operation's bits.
const OPERATION: u32 = (1 << DONE_SHIFT) - 1;
/// Requests in an array at the most: so many that the number done fits into the command.
const MOST_REQUESTS: u32 = u32::MAX >> DONE_SHIFT;

/// Answers the call.
///
/// # Errors
/// ENOSYS for an operation that does not exist for HVM guests; EINVAL for an array that is too long; EFAULT.
#[inline(never)]
pub fn grant_table_op(caller: &Caller<'_>, command: u32, array: GuestPtr<()>, count: u32) -> Reply {
    let operation = GrantTableOp::try_from(command & OPERATION).map_err(|_| Errno::ENOSYS)?;
    let requests = Requests { caller, operation, done: command >> DONE_SHIFT, count };
    match operation {
        GrantTableOp::MapGrantRef => requests.each(array.cast(), WriteBack::Whole, |request| map_one(caller, request)),
        GrantTableOp::UnmapGrantRef => {
            let at = offset_of!(UnmapGrantRef, status);
            requests.each(array.cast(), WriteBack::Status(at), |request: &mut UnmapGrantRef| {
                let done = map::unmap(caller.host, caller.domain, request.handle, Gpa::new(request.host_addr));
                request.status = status(done);
                request.status
            })
        }
        GrantTableOp::Copy => {
            let mut copier = Copier::new(caller);
            let at = offset_of!(GrantCopy, status);
            requests.each(array.cast(), WriteBack::Status(at), |request| status(copier.copy(request)))
        }
        GrantTableOp::SwapGrantRef => {
            let at = offset_of!(SwapGrantRef, status);
            requests.each(array.cast(), WriteBack::Status(at), |request: &mut SwapGrantRef| {
                status(caller.domain.grants.swap(request.ref_a, request.ref_b))
            })
        }
        GrantTableOp::SetupTable => {
            requests.only_one()?;
            setup_table(caller, array.cast())
        }
        GrantTableOp::QuerySize => {
            requests.only_one()?;
            query_size(caller, array.cast())
        }
        GrantTableOp::SetVersion => set_version(caller, array.cast()),
        GrantTableOp::GetVersion => get_version(caller, array.cast()),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// A result as the ABI has it.
const fn status(result: Result<(), Refusal>) -> i16 {
    match result {
        Ok(()) => GNTST_OKAY,
        Err(Refusal(status)) => status,
    }
}

/// What of a request is written back.
#[derive(Clone, Copy)]
enum WriteBack {
    /// All of it.
    Whole,
    /// The status, so many bytes into it.
    Status(usize),
}

/// An array of requests.
struct Requests<'c, 'a> {
    caller: &'c Caller<'a>,
    operation: GrantTableOp,
    done: u32,
    count: u32,
}

impl Requests<'_, '_> {
    fn check(&self) -> Result<(), Errno> {
        if self.count > MOST_REQUESTS { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Some operations take exactly one structure.
    fn only_one(&self) -> Result<(), Errno> {
        if self.count == 1 && self.done == 0 { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Does the requests that are left, until others must run.
    fn each<T: FromBytes + IntoBytes + zerocopy::Immutable>(
        &self,
        array: GuestPtr<T>,
        write_back: WriteBack,
        mut act: impl FnMut(&mut T) -> i16,
    ) -> Reply {
        self.check()?;
        let memory = &self.caller.memory;
        for number in self.done..self.count {
            if number > self.done && cpu::must_yield() {
                let command = self.operation.number() | number << DONE_SHIFT;
                return Err(Stop::Restart(Some(Cursor::one(0, u64::from(command)))));
            }
            let place = array.element(u64::from(number)).ok_or(Errno::EFAULT)?;
            let mut request = memory.read(place)?;
            let status = act(&mut request);
            match write_back {
                WriteBack::Whole => memory.write(place, &request)?,
                WriteBack::Status(offset) => {
                    let at = u64::try_from(offset).ok().and_then(|offset| place.address().checked_add(offset));
                    memory.write(GuestPtr::from_address(at.ok_or(Errno::EFAULT)?), &status)?;
                }
            }
        }
        Ok(0)
    }
}

fn map_one(caller: &Caller<'_>, request: &mut MapGrantRef) -> i16 {
    let result = try_map(caller, request);
    request.status = status(result);
    request.status
}

fn try_map(caller: &Caller<'_>, request: &mut MapGrantRef) -> Result<(), Refusal> {
    let access = map::access_of(request.flags)?;
    if request.dom == DOMID_SELF {
        return Err(Refusal(GNTST_BAD_DOMAIN));
    }
    let granter = caller.target(request.dom, Need::Nothing).map_err(|_| Refusal(GNTST_BAD_DOMAIN))?;
    let wanted = Wanted { reference: request.gref, address: Gpa::new(request.host_addr), access };
    let made = map::map(caller.domain, &granter, wanted)?;
    request.handle = made.handle;
    request.dev_bus_addr = made.page.address().number();
    Ok(())
}

/// The table that a request names, or the status that says why not.
fn table_of<'a>(caller: &Caller<'a>, id: u16) -> Result<Target<'a>, Refusal> {
    caller.target(id, Need::SelfOrControl).map_err(|errno| match errno {
        Errno::EPERM => Refusal(GNTST_PERMISSION_DENIED),
        _ => Refusal(GNTST_BAD_DOMAIN),
    })
}

fn setup_table(caller: &Caller<'_>, place: GuestPtr<SetupTable>) -> Reply {
    let mut request = caller.memory.read(place)?;
    request.status = status(try_setup(caller, &request));
    caller.memory.write(place, &request)?;
    Ok(0)
}

fn try_setup(caller: &Caller<'_>, request: &SetupTable) -> Result<(), Refusal> {
    let domain = table_of(caller, request.dom)?;
    domain.grants.grow(request.nr_frames).map_err(|_| Refusal(GNTST_GENERAL_ERROR))?;
    let mut result = Ok(());
    for number in 0..request.nr_frames {
        let gfn = domain.grants.frame_gfn(number);
        if caller.memory.write_at(request.frame_list, u64::from(number), &gfn).is_err() {
            result = Err(Refusal(GNTST_BAD_VIRT_ADDR));
        }
    }
    result
}

fn query_size(caller: &Caller<'_>, place: GuestPtr<QuerySize>) -> Reply {
    let mut request = caller.memory.read(place)?;
    let size = table_of(caller, request.dom).map(|domain| domain.grants.size());
    if let Ok((frames, most)) = size {
        (request.nr_frames, request.max_nr_frames) = (frames, most);
    }
    request.status = status(size.map(drop));
    caller.memory.write(place, &request)?;
    Ok(0)
}

/// Version 1 is what there is; 2 is answered as by a Xen that is limited to version 1.
fn set_version(caller: &Caller<'_>, place: GuestPtr<SetVersion>) -> Reply {
    let request = caller.memory.read(place)?;
    let result = match request.version {
        1 => Ok(0),
        2 => Err(Errno::ENOSYS.into()),
        _ => Err(Errno::EINVAL.into()),
    };
    caller.memory.write(place, &SetVersion { version: VERSION })?;
    result
}

fn get_version(caller: &Caller<'_>, place: GuestPtr<GetVersion>) -> Reply {
    let mut request = caller.memory.read(place)?;
    caller.target(request.dom, Need::SelfOrControl)?;
    request.version = VERSION;
    caller.memory.write(place, &request)?;
    Ok(0)
}
