//! memory_op (hypercall 12, public/memory.h): which sub-operation, and the three that change a reservation.
//!
//! The others are in `memory_physmap` (what is mapped where) and `memory_info` (questions, maps, claims). The command
//! register carries the operation and, in its upper bits, how far an interrupted call had come. As in Xen, operations on
//! reservations never fail: they answer how many extents are done.

use super::access::Need;
use super::{Caller, memory_info, memory_physmap};
use crate::memory;
use crate::outcome::{Cursor, Reply, Stop};
use machine::{Gfn, cpu, frame};
use public_abi::memory::{
    MEMF_EXACT_NODE_REQUEST, MEMF_POPULATE_ON_DEMAND, MEMF_VNODE, MEMOP_EXTENT_SHIFT, MemoryOp, MemoryReservation,
    memf_address_bits, memf_node, split_command,
};
use public_abi::{Errno, GuestPtr};

/// Extents that a call may have, so that the cursor still fits into 32 bits of the command.
const MOST_EXTENTS: u64 = (u32::MAX >> MEMOP_EXTENT_SHIFT) as u64;

/// Makes a memory_op.
///
/// # Errors
/// Those of the sub-operations, with Xen's numbers; `ENOSYS` for unknown ones and those that only PV guests can use.
#[inline(never)]
pub fn memory_op(caller: &Caller<'_>, command: u64, argument: GuestPtr<()>) -> Reply {
    let (number, start) = split_command(command);
    let operation = u32::try_from(number).ok().and_then(|number| MemoryOp::try_from(number).ok());
    let operation = operation.ok_or(Errno::ENOSYS)?;
    match operation {
        MemoryOp::IncreaseReservation | MemoryOp::DecreaseReservation | MemoryOp::PopulatePhysmap => {
            change_reservation(caller, operation, start, argument.cast())
        }
        MemoryOp::AddToPhysmap => memory_physmap::add(caller, start, argument.cast()),
        MemoryOp::AddToPhysmapBatch => memory_physmap::add_batch(caller, start, argument.cast()),
        MemoryOp::RemoveFromPhysmap => {
            from_start(start)?;
            memory_physmap::remove(caller, argument.cast())
        }
        MemoryOp::AcquireResource => memory_physmap::acquire_resource(caller, start, argument.cast()),
        MemoryOp::MaximumRamPage => {
            from_start(start)?;
            Ok(frame::last_page().number().saturating_add(1))
        }
        MemoryOp::CurrentReservation | MemoryOp::MaximumReservation | MemoryOp::MaximumGpfn => {
            from_start(start)?;
            memory_info::statistics(caller, operation, argument.cast())
        }
        MemoryOp::MemoryMap => memory_info::memory_map(caller, argument.cast()),
        MemoryOp::SetMemoryMap => memory_info::set_memory_map(caller, argument.cast()),
        MemoryOp::SetPodTarget | MemoryOp::GetPodTarget => memory_info::pod_target(caller, operation, argument.cast()),
        MemoryOp::ClaimPages => {
            from_start(start)?;
            memory_info::claim(caller, argument.cast())
        }
        MemoryOp::GetVnumaInfo => {
            from_start(start)?;
            memory_info::vnuma(caller, argument.cast())
        }
        MemoryOp::ReservedDeviceMemoryMap => {
            from_start(start)?;
            memory_info::reserved_device_memory(caller, argument.cast())
        }
        MemoryOp::AccessOp => memory_info::access(caller, argument.cast()),
        // No page is shared, so none is saved.
        MemoryOp::GetSharingFreedPages | MemoryOp::GetSharingSharedPages => Ok(0),
        // PV only (exchange, machphys_*); refused to HVM guests (machine_memory_map); or left out of a default build of
        // Xen, too (paging_op, sharing_op).
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Refuses a cursor where there is nothing to continue.
fn from_start(start: u64) -> Result<(), Errno> {
    if start == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Goes on later with element `done`.
pub(super) fn restart(operation: MemoryOp, done: u64) -> Stop {
    let value = u64::from(operation.number()) | done << MEMOP_EXTENT_SHIFT;
    Stop::Restart(Some(Cursor::one(0, value)))
}

/// Whether others must run before the next element. The first element of a call is always done, so that every call gets
/// on.
#[inline]
pub(super) fn must_pause(start: u64, next: u64) -> bool {
    next != start && cpu::must_yield()
}

/// Populates, gives back, or adds extents. Whatever goes wrong, the answer is how many extents are done.
fn change_reservation(
    caller: &Caller<'_>,
    operation: MemoryOp,
    start: u64,
    argument: GuestPtr<MemoryReservation>,
) -> Reply {
    let Ok(request) = caller.memory.read(argument) else { return Ok(start) };
    let is_sane = request.nr_extents <= MOST_EXTENTS
        && start < request.nr_extents
        && request.extent_order <= memory::MAX_ORDER
        && (request.mem_flags == 0 || can_place(request.mem_flags));
    if !is_sane {
        return Ok(start);
    }
    let Ok(domain) = caller.target(request.domid, Need::SelfOrControl) else { return Ok(start) };
    let on_demand = request.mem_flags & MEMF_POPULATE_ON_DEMAND != 0;
    if operation == MemoryOp::IncreaseReservation || operation == MemoryOp::PopulatePhysmap && on_demand {
        // Memory that is nowhere in the guest's map is of no use to an HVM guest, and none is populated on demand.
        return Ok(start);
    }
    for extent in start..request.nr_extents {
        if must_pause(start, extent) {
            return Err(restart(operation, extent));
        }
        let Ok(gfn) = caller.memory.read_at(request.extent_start, extent) else { return Ok(extent) };
        let result = if operation == MemoryOp::PopulatePhysmap {
            memory::populate(caller.host, &domain, Gfn::new(gfn), request.extent_order)
        } else {
            memory::decrease(&domain, Gfn::new(gfn), request.extent_order)
        };
        if result.is_err() {
            return Ok(extent);
        }
    }
    Ok(request.nr_extents)
}

/// Whether memory can be placed as the flags ask: the machine is one node, and pages are not chosen by address.
fn can_place(flags: u32) -> bool {
    let bits = memf_address_bits(flags);
    let fits = || {
        let last = frame::last_page().address().number() | 0xfff;
        bits >= 64u32.saturating_sub(last.leading_zeros())
    };
    let wants_other_node = flags & MEMF_VNODE == 0 && memf_node(flags).is_some_and(|node| node != 0);
    (bits == 0 || fits()) && !(wants_other_node && flags & MEMF_EXACT_NODE_REQUEST != 0)
}
