//! memory_op: questions, memory maps, claims, and the operations of features that no domain has.

use super::Caller;
use super::access::Need;
use crate::domain;
use crate::memory;
use crate::outcome::Reply;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use public_abi::memory::{
    E820Entry, ForeignMemoryMap, MemoryDomain, MemoryMap, MemoryOp, MemoryReservation, PodTarget, RDM_ALL,
    ReservedDeviceMemoryMap, VnumaTopologyInfo,
};
use public_abi::memory_tools::MemAccessOp;
use public_abi::{Errno, GuestPtr};

/// Entries of a memory map at the most (Xen's E820MAX).
const MOST_MAP_ENTRIES: u32 = 1024;

/// XENMEM_current_reservation, maximum_reservation, maximum_gpfn.
pub(super) fn statistics(caller: &Caller<'_>, operation: MemoryOp, argument: GuestPtr<MemoryDomain>) -> Reply {
    let request = caller.memory.read(argument)?;
    let domain = caller.target(request.domid, Need::SelfOrControl)?;
    Ok(match operation {
        MemoryOp::CurrentReservation => domain.accounting.pages(),
        MemoryOp::MaximumReservation => domain.accounting.max_pages.load(Ordering::Relaxed),
        _ => domain.p2m.maximum_gfn().number(),
    })
}

/// XENMEM_memory_map: the caller's own.
pub(super) fn memory_map(caller: &Caller<'_>, argument: GuestPtr<MemoryMap>) -> Reply {
    let request = caller.memory.read(argument)?;
    let (count, entries) = copy_map(caller)?;
    let wanted = usize::try_from(request.nr_entries).unwrap_or(usize::MAX);
    let given = count.min(wanted);
    for (entry, index) in entries.iter().take(given).zip(0u64..) {
        caller.memory.write_at(request.buffer, index, entry)?;
    }
    let nr_entries = u32::try_from(given).map_err(|_| Errno::EINVAL)?;
    caller.memory.write(argument, &MemoryMap { nr_entries, ..request })?;
    Ok(0)
}

/// A copy of the caller's map, because guest memory is not written under a domain's lock.
fn copy_map(caller: &Caller<'_>) -> Result<(usize, Vec<E820Entry>), Errno> {
    let control = caller.domain.control.lock();
    let map = &control.memory_map;
    if map.is_empty() {
        return Err(Errno::ENOSYS);
    }
    let mut entries = Vec::new();
    entries.try_reserve_exact(map.len()).map_err(|_| Errno::ENOMEM)?;
    entries.extend(map.iter().map(|entry| E820Entry {
        addr: halves(entry.start),
        size: halves(entry.length),
        kind: entry.kind,
    }));
    Ok((map.len(), entries))
}

/// The low and the high half of a number.
fn halves(value: u64) -> [u32; 2] {
    let low = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let high = u32::try_from(value >> 32).unwrap_or(0);
    [low, high]
}

/// XENMEM_set_memory_map.
pub(super) fn set_memory_map(caller: &Caller<'_>, argument: GuestPtr<ForeignMemoryMap>) -> Reply {
    let request = caller.memory.read(argument)?;
    if request.map.nr_entries > MOST_MAP_ENTRIES {
        return Err(Errno::EINVAL.into());
    }
    let domain = caller.target(request.domid, Need::SelfOrControl)?;
    let mut entries = Vec::new();
    let count = usize::try_from(request.map.nr_entries).map_err(|_| Errno::EINVAL)?;
    entries.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for index in 0..u64::from(request.map.nr_entries) {
        let entry = caller.memory.read_at(request.map.buffer, index)?;
        entries.push(domain::E820Entry { start: entry.start(), length: entry.length(), kind: entry.kind });
    }
    let before = core::mem::replace(&mut domain.control.lock().memory_map, entries);
    drop(before);
    Ok(0)
}

/// XENMEM_set_pod_target and get_pod_target. No domain has memory on demand, so a target changes nothing.
pub(super) fn pod_target(caller: &Caller<'_>, operation: MemoryOp, argument: GuestPtr<PodTarget>) -> Reply {
    let request = caller.memory.read(argument)?;
    let domain = caller.target(request.domid, Need::Control)?;
    let maximum = domain.accounting.max_pages.load(Ordering::Relaxed);
    if operation == MemoryOp::SetPodTarget && request.target_pages > maximum {
        return Err(Errno::EINVAL.into());
    }
    let tot_pages = domain.accounting.pages();
    caller.memory.write(argument, &PodTarget { tot_pages, pod_cache_pages: 0, pod_entries: 0, ..request })?;
    Ok(0)
}

/// XENMEM_claim_pages.
pub(super) fn claim(caller: &Caller<'_>, argument: GuestPtr<MemoryReservation>) -> Reply {
    let request = caller.memory.read(argument)?;
    if !request.extent_start.is_null() || request.extent_order != 0 || request.mem_flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    if request.domid == public_abi::domid::DOMID_SELF {
        return Err(Errno::EINVAL.into());
    }
    let domain = caller.target(request.domid, Need::Control).map_err(|error| match error {
        Errno::ESRCH => Errno::EINVAL,
        other => other,
    })?;
    memory::claim(caller.host, &domain, request.nr_extents)?;
    Ok(0)
}

/// XENMEM_get_vnumainfo: no domain has virtual nodes.
pub(super) fn vnuma(caller: &Caller<'_>, argument: GuestPtr<VnumaTopologyInfo>) -> Reply {
    let request = caller.memory.read(argument)?;
    if request.pad != 0 {
        return Err(Errno::EINVAL.into());
    }
    let _domain = caller.target(request.domid, Need::SelfOrControl)?;
    Err(Errno::EOPNOTSUPP.into())
}

/// XENMEM_reserved_device_memory_map: guests get no devices, so no region matters to anybody who may ask, as without an IOMMU.
pub(super) fn reserved_device_memory(caller: &Caller<'_>, argument: GuestPtr<ReservedDeviceMemoryMap>) -> Reply {
    let request = caller.memory.read(argument)?;
    if request.flags & !RDM_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    caller.memory.write(argument, &ReservedDeviceMemoryMap { nr_entries: 0, ..request })?;
    Ok(0)
}

/// XENMEM_access_op: nobody listens to any domain's accesses.
pub(super) fn access(caller: &Caller<'_>, argument: GuestPtr<MemAccessOp>) -> Reply {
    let request = caller.memory.read(argument)?;
    let _domain = caller.other_target(request.domid)?;
    Err(Errno::ENODEV.into())
}
