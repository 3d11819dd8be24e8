//! memory_op: what is mapped where (XENMEM_add_to_physmap, its batch, remove_from_physmap, acquire_resource).

use super::Caller;
use super::access::{Need, Target};
use super::memory::{must_pause, restart};
use crate::domain::Domain;
use crate::memory::special::{self, GrantFrames};
use crate::memory::{self};
use crate::outcome::Reply;
use machine::Gfn;
use machine::frame::Pin;
use public_abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, MAPIDX_GRANT_TABLE_STATUS, MEMOP_EXTENT_SHIFT, MapSpace, MemAcquireResource,
    MemoryOp, RESOURCE_GRANT_TABLE_ID_SHARED, RESOURCE_GRANT_TABLE_ID_STATUS, RemoveFromPhysmap, Resource,
};
use public_abi::{Errno, GuestPtr};

/// The guest frame number that means none.
const INVALID_GFN: u64 = u64::MAX;
/// Bytes of a synchronous request to a device model, of which each vCPU has one (public/hvm/ioreq.h).
const IOREQ_BYTES: u32 = 32;

/// Who may change this domain's map, in which space.
fn physmap_target<'a>(caller: &Caller<'a>, domid: u16, space: u32) -> Result<(Target<'a>, Option<MapSpace>), Errno> {
    let space = MapSpace::try_from(space).ok();
    let found = match caller.target(domid, Need::SelfOrControl) {
        // Device memory is for the hardware domain itself, and Xen says so first.
        Err(Errno::EPERM) if space == Some(MapSpace::DevMmio) => return Err(Errno::EACCES),
        result => result?,
    };
    let is_own_hardware = matches!(found, Target::Own(_)) && found.is_control();
    if space == Some(MapSpace::DevMmio) && !is_own_hardware {
        return Err(Errno::EACCES);
    }
    Ok((found, space))
}

/// XENMEM_add_to_physmap.
pub(super) fn add(caller: &Caller<'_>, start: u64, argument: GuestPtr<AddToPhysmap>) -> Reply {
    let start = u16::try_from(start).map_err(|_| Errno::EDOM)?;
    let request = caller.memory.read(argument)?;
    if request.space == MapSpace::GmfnForeign.number() {
        return Err(Errno::ENOSYS.into());
    }
    let (domain, space) = physmap_target(caller, request.domid, request.space)?;
    if request.gpfn == INVALID_GFN {
        return Err(Errno::EINVAL.into());
    }
    if space != Some(MapSpace::GmfnRange) {
        add_one(&domain, space, request.idx, request.gpfn)?;
        return Ok(0);
    }
    let left = request.size.checked_sub(start).ok_or(Errno::EILSEQ)?;
    let size = u64::from(request.size);
    if request.gpfn.checked_add(size).is_none() || request.idx.checked_add(size).is_none() {
        return Err(Errno::EOVERFLOW.into());
    }
    for done in 0..u64::from(left) {
        let offset = u64::from(start).saturating_add(done);
        if must_pause(u64::from(start), offset) {
            return Err(restart(MemoryOp::AddToPhysmap, offset));
        }
        let (idx, gpfn) = (request.idx.saturating_add(offset), request.gpfn.saturating_add(offset));
        add_one(&domain, Some(MapSpace::Gmfn), idx, gpfn)?;
    }
    Ok(0)
}

/// XENMEM_add_to_physmap_batch.
pub(super) fn add_batch(caller: &Caller<'_>, start: u64, argument: GuestPtr<AddToPhysmapBatch>) -> Reply {
    let start = u16::try_from(start).map_err(|_| Errno::EDOM)?;
    let request = caller.memory.read(argument)?;
    if u32::from(request.space) == MapSpace::GmfnRange.number() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (domain, space) = physmap_target(caller, request.domid, u32::from(request.space))?;
    if request.size < start || request.size == start && start != 0 {
        return Err(Errno::EILSEQ.into());
    }
    if space == Some(MapSpace::DevMmio) && request.foreign_domid != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    // The owner is looked up once; a wrong one is an error of every frame.
    let owner = match space {
        Some(MapSpace::GmfnForeign) => Some(foreign_owner(caller, &domain, request.foreign_domid)),
        _ => None,
    };
    for index in u64::from(start)..u64::from(request.size) {
        if must_pause(u64::from(start), index) {
            return Err(restart(MemoryOp::AddToPhysmapBatch, index));
        }
        let idx = caller.memory.read_at(request.idxs, index)?;
        let gpfn = caller.memory.read_at(request.gpfns, index)?;
        if gpfn == INVALID_GFN {
            return Err(Errno::EINVAL.into());
        }
        let result = match &owner {
            None => add_one(&domain, space, idx, gpfn),
            Some(Err(error)) => Err(*error),
            Some(Ok(owner)) => memory::foreign_page(owner, Gfn::new(idx))
                .and_then(|page| memory::map_foreign(&domain, Gfn::new(gpfn), page)),
        };
        let code = result.map_or_else(|error| -error.number(), |()| 0);
        caller.memory.write_at(request.errs, index, &code)?;
    }
    Ok(0)
}

/// Whose pages a foreign mapping takes. Only the control domain maps others' pages, into its own map.
fn foreign_owner<'a>(caller: &Caller<'a>, mapper: &Domain, domid: u16) -> Result<Target<'a>, Errno> {
    if !mapper.is_control() {
        return Err(Errno::EPERM);
    }
    match caller.target(domid, Need::SelfOrControl)? {
        Target::Own(_) => Err(Errno::EPERM),
        other if other.id == mapper.id => Err(Errno::EINVAL),
        other => Ok(other),
    }
}

/// Maps one frame of any space but the foreign one.
fn add_one(domain: &Domain, space: Option<MapSpace>, idx: u64, gpfn: u64) -> Result<(), Errno> {
    let gfn = Gfn::new(gpfn);
    let page: Pin = match space {
        Some(MapSpace::SharedInfo) if idx == 0 => special::shared_info(domain)?,
        Some(MapSpace::GrantTable) if idx & MAPIDX_GRANT_TABLE_STATUS != 0 => {
            special::grant_frame(domain, GrantFrames::Status, idx & !MAPIDX_GRANT_TABLE_STATUS)?
        }
        Some(MapSpace::GrantTable) => special::grant_frame(domain, GrantFrames::Shared, idx)?,
        Some(MapSpace::Gmfn) => return memory::move_frame(domain, Gfn::new(idx), gfn),
        // Device memory is mapped by its use; Xen on x86 refuses this space, too.
        _ => return Err(Errno::EINVAL),
    };
    memory::map_shared(domain, gfn, page)
}

/// XENMEM_remove_from_physmap.
pub(super) fn remove(caller: &Caller<'_>, argument: GuestPtr<RemoveFromPhysmap>) -> Reply {
    let request = caller.memory.read(argument)?;
    let domain = caller.target(request.domid, Need::SelfOrControl)?;
    memory::remove_from_physmap(&domain, Gfn::new(request.gpfn))?;
    Ok(0)
}

/// XENMEM_acquire_resource: pages of the hypervisor that belong to another domain, mapped as foreign ones.
pub(super) fn acquire_resource(caller: &Caller<'_>, start: u64, argument: GuestPtr<MemAcquireResource>) -> Reply {
    if !caller.domain.is_control() {
        return Err(Errno::EACCES.into());
    }
    let request = caller.memory.read(argument)?;
    let end = request.frame.checked_add(u64::from(request.nr_frames));
    if request.pad != 0 || end.is_none_or(|end| end >> 32 != 0) || request.frame >> 32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let domain = caller.other_target(request.domid)?;
    let kind = Resource::try_from(u32::from(request.kind)).map_err(|_| Errno::EOPNOTSUPP)?;
    let most = most_frames(&domain, kind, request.id);
    if most == 0 {
        return Err(Errno::EINVAL.into());
    }
    if request.frame_list.is_null() {
        if request.nr_frames != 0 || start != 0 {
            return Err(Errno::EINVAL.into());
        }
        caller.memory.write(argument, &MemAcquireResource { nr_frames: most, ..request })?;
        return Ok(0);
    }
    let count = u64::from(request.nr_frames);
    if start >= count || count > u64::from(u32::MAX >> MEMOP_EXTENT_SHIFT) {
        return Err(Errno::EINVAL.into());
    }
    for index in start..count {
        if must_pause(start, index) {
            return Err(restart(MemoryOp::AcquireResource, index));
        }
        let page = resource_page(&domain, kind, request.id, request.frame.saturating_add(index))?;
        let gfn = caller.memory.read_at(request.frame_list, index)?;
        let mapped = memory::map_foreign(caller.domain, Gfn::new(gfn), (page, crate::p2m::Access::Write));
        // Once something is mapped, the caller learns of a failure of the whole, not of its reason (as Xen).
        mapped.map_err(|error| if index == 0 { error } else { Errno::EIO })?;
    }
    Ok(0)
}

/// Frames that a resource has; 0 if there is none of that identity.
fn most_frames(domain: &Domain, kind: Resource, id: u32) -> u32 {
    match (kind, id) {
        (Resource::GrantTable, RESOURCE_GRANT_TABLE_ID_SHARED) => {
            special::most_grant_frames(domain, GrantFrames::Shared)
        }
        (Resource::GrantTable, RESOURCE_GRANT_TABLE_ID_STATUS) => {
            special::most_grant_frames(domain, GrantFrames::Status)
        }
        // One for buffered requests, and those for the synchronous ones of all vCPUs.
        (Resource::IoreqServer, _) => {
            domain.settings.max_vcpus.saturating_mul(IOREQ_BYTES).div_ceil(4096).saturating_add(1)
        }
        // No domain has trace buffers, and the grant table no third kind of frames.
        _ => 0,
    }
}

fn resource_page(domain: &Domain, kind: Resource, id: u32, frame: u64) -> Result<Pin, Errno> {
    match (kind, id) {
        (Resource::GrantTable, RESOURCE_GRANT_TABLE_ID_SHARED) => {
            special::grant_frame(domain, GrantFrames::Shared, frame)
        }
        (Resource::GrantTable, _) => special::grant_frame(domain, GrantFrames::Status, frame),
        // There is no such server.
        (Resource::IoreqServer, _) => Err(Errno::ENOENT),
        _ => Err(Errno::EINVAL),
    }
}
