//! Pages that are not a domain's own RAM: the hypervisor's shared ones, other domains', granted ones; and moving a frame.

use super::replace::{check_replaceable, errno, replace, vacate};
use crate::domain::Domain;
use crate::p2m::{Access, ChangeError, Entry, Kind, PinError};
use machine::frame::{self, Pin};
use machine::{Gfn, Mfn};
use public_abi::Errno;

/// Maps a page of the hypervisor (shared_info, a grant frame) at a guest frame. RAM that was there is freed. As in Xen such
/// a page is at one guest frame at a time: it leaves the one before.
///
/// # Errors
/// `EINVAL` for a bad frame; `EBUSY` or `EPERM` if what is there must not be replaced; `ENOMEM`.
pub fn map_shared(domain: &Domain, gfn: Gfn, page: Pin) -> Result<(), Errno> {
    let mfn = page.mfn();
    let before = frame::gfn(mfn);
    put(domain, gfn, Entry::with_frame(Kind::SharedPage, 0, mfn), page, check_replaceable)?;
    frame::set_gfn(mfn, gfn);
    if let Some(before) = before.filter(|before| *before != gfn) {
        let mut txn = domain.p2m.begin_removal();
        let entry = txn.entry(before);
        // The record may be of a page that was unmapped long ago.
        if entry.kind == Kind::SharedPage && entry.mfn == mfn {
            vacate(domain, &mut txn, before, 0).map_err(errno)?;
        }
        txn.finish();
    }
    Ok(())
}

/// A page of `owner` for a foreign mapping, and whether it may only be read.
///
/// # Errors
/// `EINVAL`, if it is not RAM that the domain owns; `ENOENT`, if its content is with the pager.
pub fn foreign_page(owner: &Domain, gfn: Gfn) -> Result<(Pin, Access), Errno> {
    match owner.p2m.pin_for_others(gfn, Access::Write) {
        Ok(page) => Ok((page, Access::Write)),
        Err(PinError::ReadOnly) => Ok((owner.p2m.pin_for_others(gfn, Access::Read)?, Access::Read)),
        Err(error) => Err(error.into()),
    }
}

/// Maps a page of another domain at a guest frame. RAM that was there is freed, another foreign page is unmapped.
///
/// # Errors
/// As [`map_shared`].
pub fn map_foreign(domain: &Domain, gfn: Gfn, (page, access): (Pin, Access)) -> Result<(), Errno> {
    let kind = if access == Access::Write { Kind::Foreign } else { Kind::ForeignRo };
    // As in Xen, a foreign page replaces another in one step.
    put(domain, gfn, Entry::with_frame(kind, 0, page.mfn()), page, |kind| match kind {
        Kind::Foreign | Kind::ForeignRo => Ok(()),
        other => check_replaceable(other),
    })
}

/// Maps a granted page at a guest frame. The entry keeps the page until [`unmap_grant`].
///
/// # Errors
/// As [`map_shared`].
pub fn map_grant(domain: &Domain, gfn: Gfn, page: Pin, access: Access) -> Result<(), Errno> {
    let kind = if access == Access::Write { Kind::GrantRw } else { Kind::GrantRo };
    put(domain, gfn, Entry::with_frame(kind, 0, page.mfn()), page, check_replaceable)
}

/// Takes a granted page away from a guest frame, and waits until no CPU can reach it.
///
/// # Errors
/// `EINVAL`, if that page is not mapped there as a grant; `ENOMEM` cannot be, since a page entry is replaced.
pub fn unmap_grant(domain: &Domain, gfn: Gfn, page: Mfn) -> Result<(), Errno> {
    let mut txn = domain.p2m.begin_removal();
    let entry = txn.entry(gfn);
    if !matches!(entry.kind, Kind::GrantRw | Kind::GrantRo) || entry.frame_at(gfn) != page {
        return Err(Errno::EINVAL);
    }
    vacate(domain, &mut txn, gfn, 0).map_err(errno)?;
    txn.finish();
    Ok(())
}

/// Puts one page somewhere; its reference goes over to the entry.
#[inline]
fn put(
    domain: &Domain,
    gfn: Gfn,
    entry: Entry,
    page: Pin,
    check: impl Fn(Kind) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut txn = domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
    replace(domain, &mut txn, gfn, entry, check).map_err(errno)?;
    page.into_entry();
    txn.finish();
    Ok(())
}

/// Takes away what is at a guest frame (XENMEM_remove_from_physmap). Own RAM is freed: unlike in Xen, where such a page
/// belongs to the domain until its end without anybody being able to reach it.
///
/// # Errors
/// `ENOENT` where no page is; `EBUSY` for what belongs to a device; `EINVAL` for granted pages, which are unmapped by their
/// handle; `ENOMEM` if a block cannot be split.
pub fn remove_from_physmap(domain: &Domain, gfn: Gfn) -> Result<(), Errno> {
    let mut txn = domain.p2m.begin_removal();
    check_unmappable(txn.entry(gfn).kind)?;
    match vacate(domain, &mut txn, gfn, 0) {
        Err(ChangeError::NoRoom) => {}
        result => {
            result.map_err(errno)?;
            txn.finish();
            return Ok(());
        }
    }
    // A block must be split.
    drop(txn);
    let mut txn = domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
    check_unmappable(txn.entry(gfn).kind)?;
    vacate(domain, &mut txn, gfn, 0).map_err(errno)?;
    txn.finish();
    Ok(())
}

fn check_unmappable(kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::RamRw
        | Kind::RamLogDirty
        | Kind::RamRo
        | Kind::PagingOut
        | Kind::CopyOnWrite
        | Kind::Foreign
        | Kind::ForeignRo
        | Kind::SharedPage => Ok(()),
        Kind::GrantRw | Kind::GrantRo => Err(Errno::EINVAL),
        Kind::IdentityRdm | Kind::RdmHole => Err(Errno::EBUSY),
        Kind::Hole
        | Kind::Paged
        | Kind::PagingIn
        | Kind::PopulateOnDemand
        | Kind::MmioDirect
        | Kind::MmioDm
        | Kind::Broken
        | Kind::Reserved => Err(Errno::ENOENT),
    }
}

/// Moves the RAM of one guest frame to another (XENMAPSPACE_gmfn). RAM that was there is freed.
///
/// # Errors
/// `EINVAL`, if there is no own RAM at `from`, or the domain is mapped 1:1; else as [`map_shared`].
pub fn move_frame(domain: &Domain, from: Gfn, to: Gfn) -> Result<(), Errno> {
    if domain.p2m.is_identity() {
        return Err(Errno::EINVAL);
    }
    loop {
        let mut txn = domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
        let entry = txn.entry(from);
        if !entry.kind.is_own_ram() {
            return Err(Errno::EINVAL);
        }
        check_replaceable(txn.entry(to).kind)?;
        if from == to {
            return Ok(());
        }
        if entry.order != 0 {
            // Split first, so that all spare tables are there for the new place.
            txn.retype(from, 0, entry.kind).map_err(errno)?;
            txn.finish();
            continue;
        }
        // While the page is at both places, each entry has a reference. It is charged for once, all the time.
        let page = Pin::take(entry.mfn, domain.id).ok_or(Errno::EINVAL)?;
        replace(domain, &mut txn, to, entry, check_replaceable).map_err(errno)?;
        page.into_entry();
        // A page entry becomes a hole, which cannot fail.
        let left = txn.exchange(from, Entry::hole(0), |_| Ok(()));
        debug_assert!(left.is_ok(), "{from:?} cannot be left: {left:?}");
        txn.finish();
        return left.map(|old| drop(Pin::from_entry(old.mfn))).map_err(errno);
    }
}
