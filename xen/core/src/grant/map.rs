//! Mapping other domains' grants at guest frames, and unmapping them (GNTTABOP_map_grant_ref, GNTTABOP_unmap_grant_ref).
//!
//! For translated domains the address is a guest physical one, and there are no separate mappings for devices.

use super::maptrack::Mapping;
use super::table::Purpose;
use super::{DomainGrants, Refusal};
use crate::domain::Domain;
use crate::host::Host;
use crate::memory;
use crate::p2m::Access;
use machine::{DomId, Gpa, Mfn};
use public_abi::grant_table::*;

/// What a request to map asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The entry in the granter's table.
    pub reference: u32,
    /// Where to map it.
    pub address: Gpa,
    /// What the mapping shall allow.
    pub access: Access,
}

/// A mapping that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// Its handle.
    pub handle: u32,
    /// The page.
    pub page: Mfn,
}

/// What the flags of a request mean for a translated domain.
///
/// # Errors
/// `GNTST_BAD_GNTREF` if nothing is to be mapped, `GNTST_GENERAL_ERROR` for mappings that only PV guests have.
pub fn access_of(flags: u32) -> Result<Access, Refusal> {
    let flags = MapFlags::from_bits_retain(flags);
    if !flags.intersects(MapFlags::HOST_MAP | MapFlags::DEVICE_MAP) {
        return Err(Refusal(GNTST_BAD_GNTREF));
    }
    // Any other bit fails in Xen when the page is put into the p2m.
    if flags.difference(MapFlags::READONLY) != MapFlags::HOST_MAP {
        return Err(Refusal(GNTST_GENERAL_ERROR));
    }
    Ok(if flags.contains(MapFlags::READONLY) { Access::Read } else { Access::Write })
}

/// Maps a grant of `granter` into `user`.
///
/// # Errors
/// `GNTST_NO_SPACE` when handles have run out; as `GrantTable::acquire`; `GNTST_GENERAL_ERROR` if the page cannot be put
/// there.
pub fn map(user: &Domain, granter: &Domain, wanted: Wanted) -> Result<Made, Refusal> {
    let handle = user.grants.maptrack().reserve()?;
    match try_map(user, granter, wanted) {
        Ok(mapping) => {
            user.grants.maptrack().set(handle, mapping);
            Ok(Made { handle, page: mapping.page })
        }
        Err(refusal) => {
            user.grants.maptrack().release(handle);
            Err(refusal)
        }
    }
}

fn try_map(user: &Domain, granter: &Domain, wanted: Wanted) -> Result<Mapping, Refusal> {
    let Wanted { reference, address, access } = wanted;
    let acquired = granter.grants.table().acquire(granter, reference, user.id, access, Purpose::Map)?;
    let page = acquired.page.mfn();
    if memory::map_grant(user, address.frame(), acquired.page, access).is_err() {
        // Never written: the frame is as clean as before.
        let _gfn = granter.grants.table().release_use(reference, user.id, access, page);
        return Err(Refusal(GNTST_GENERAL_ERROR));
    }
    Ok(Mapping { page, reference, granter: granter.id, access })
}

/// Unmaps by a handle. With address 0 nothing is unmapped, as the header says.
///
/// # Errors
/// `GNTST_BAD_HANDLE`; `GNTST_GENERAL_ERROR` if the page is not mapped at that address as a grant.
pub fn unmap(host: &Host, user: &Domain, handle: u32, address: Gpa) -> Result<(), Refusal> {
    if address == Gpa::new(0) {
        return user.grants.maptrack().get(handle).map(drop);
    }
    let mapping = user.grants.maptrack().take(handle)?;
    // When this returns no CPU can reach the page any more; only then may the granter see that the use has ended.
    if memory::unmap_grant(user, address.frame(), mapping.page).is_err() {
        user.grants.maptrack().set(handle, mapping);
        return Err(Refusal(GNTST_GENERAL_ERROR));
    }
    release(host, user, &mapping);
    user.grants.maptrack().release(handle);
    Ok(())
}

/// Ends the use of a grant that a mapping was. The granter may be gone already: its pages stay for as long as others map them.
pub(super) fn release(host: &Host, user: &Domain, mapping: &Mapping) {
    if mapping.granter == user.id {
        end_use(&user.grants, user, user.id, mapping);
    } else if let Some(granter) = host.domains.get(mapping.granter) {
        end_use(&granter.grants, &granter, user.id, mapping);
    }
}

fn end_use(grants: &DomainGrants, granter: &Domain, user: DomId, mapping: &Mapping) {
    let written = grants.table().release_use(mapping.reference, user, mapping.access, mapping.page);
    if let Some(gfn) = written {
        granter.p2m.mark_dirty(gfn);
    }
}
