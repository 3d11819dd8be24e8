//! Putting something else at a guest frame: what may be replaced, what becomes of the old page, and the account.
//!
//! In a 1:1 domain a frame of its own never leaves: when something else takes its guest frame, or nothing does, the frame's
//! reference stays behind, and the frame comes back at the same number (architecture.md, decision 4).

use crate::domain::Domain;
use crate::p2m::{ChangeError, Entry, Kind, P2mTxn};
use machine::frame::Pin;
use machine::{Gfn, Mfn};
use public_abi::Errno;

/// Whether new memory may take the place of what is there.
///
/// # Errors
/// `EBUSY` for what belongs to devices, real or emulated; `EPERM` for device memory; `EINVAL` for pages of other domains,
/// which must be unmapped in the way in which they were mapped.
pub(super) fn check_replaceable(kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::IdentityRdm | Kind::RdmHole | Kind::MmioDm => Err(Errno::EBUSY),
        Kind::MmioDirect => Err(Errno::EPERM),
        Kind::Foreign | Kind::ForeignRo | Kind::GrantRw | Kind::GrantRo => Err(Errno::EINVAL),
        Kind::Hole
        | Kind::RamRw
        | Kind::RamLogDirty
        | Kind::RamRo
        | Kind::PagingOut
        | Kind::Paged
        | Kind::PagingIn
        | Kind::PopulateOnDemand
        | Kind::CopyOnWrite
        | Kind::Broken
        | Kind::Reserved
        | Kind::SharedPage => Ok(()),
    }
}

/// The error that the ABI has for a change that was refused.
pub(super) fn errno(error: ChangeError) -> Errno {
    match error {
        ChangeError::BadFrame | ChangeError::WrongTarget(_) => Errno::EINVAL,
        ChangeError::NoRoom | ChangeError::TooManyTables => Errno::ENOMEM,
        ChangeError::Occupied | ChangeError::PinnedByDevices => Errno::EBUSY,
        ChangeError::Refused(error) => error,
    }
}

/// Sets an entry if `check` lets what is there be replaced, and settles the account of own RAM that it replaces. The
/// references of `new` go over to the table.
///
/// # Errors
/// [`ChangeError`]; nothing has changed, and the references stay the caller's.
#[inline]
pub(super) fn replace(
    domain: &Domain,
    txn: &mut P2mTxn<'_>,
    gfn: Gfn,
    new: Entry,
    check: impl FnOnce(Kind) -> Result<(), Errno>,
) -> Result<(), ChangeError> {
    let keeps_frame = domain.p2m.is_identity() && is_identity_frame(&txn.entry(gfn).part_covering(gfn, new.order), gfn);
    let old = if keeps_frame {
        // The entry's references stay behind: the frame belongs to the domain for ever.
        txn.exchange(gfn, new, check)?
    } else {
        txn.set_checked(gfn, new, check)?
    };
    if old.kind.is_own_ram() {
        domain.accounting.discharge(1 << old.order);
    }
    Ok(())
}

/// Whether an entry of a 1:1 domain shows the domain's own frame of the same number. Pages of others, which lie anywhere,
/// may have the same number by chance.
fn is_identity_frame(entry: &Entry, gfn: Gfn) -> bool {
    let is_own = entry.kind.is_own_ram() || matches!(entry.kind, Kind::Reserved | Kind::Broken);
    is_own && entry.mfn.number() == gfn.number()
}

/// Drops one reference of each of `count` pages.
pub(super) fn drop_references(mfn: Mfn, count: u64) {
    for page in 0..count {
        drop(Pin::from_entry(mfn.saturating_add(page)));
    }
}

/// Leaves nothing at `1 << order` guest frames: a hole, or in a 1:1 domain a reserved one that keeps the frame.
///
/// # Errors
/// [`ChangeError`]; nothing has changed.
#[inline]
pub(super) fn vacate(domain: &Domain, txn: &mut P2mTxn<'_>, gfn: Gfn, order: u32) -> Result<(), ChangeError> {
    vacate_if(domain, txn, gfn, order, |_| Ok(()))
}

/// As [`vacate`], if `check` lets what is there go: saves looking it up first.
///
/// # Errors
/// [`ChangeError`], `Refused` with the error of `check`; nothing has changed.
#[inline]
pub(super) fn vacate_if(
    domain: &Domain,
    txn: &mut P2mTxn<'_>,
    gfn: Gfn,
    order: u32,
    check: impl FnOnce(Kind) -> Result<(), Errno>,
) -> Result<(), ChangeError> {
    let old = if domain.p2m.is_identity() {
        vacate_identity(domain, txn, gfn, order, check)?
    } else {
        txn.set_checked(gfn, Entry::hole(order), check)?
    };
    if old.kind.is_own_ram() {
        domain.accounting.discharge(1 << order);
    }
    Ok(())
}

fn vacate_identity(
    domain: &Domain,
    txn: &mut P2mTxn<'_>,
    gfn: Gfn,
    order: u32,
    check: impl FnOnce(Kind) -> Result<(), Errno>,
) -> Result<Entry, ChangeError> {
    let old = txn.entry(gfn).part_covering(gfn, order);
    check(old.kind).map_err(ChangeError::Refused)?;
    if is_identity_frame(&old, gfn) {
        if old.order != order {
            return Err(ChangeError::WrongTarget(old.mfn));
        }
        return txn.retype_entry(gfn, &old, Kind::Reserved).map(|()| old);
    }
    if order == 0 && domain.p2m.owns_identity_frame(gfn) {
        // The frame's reference stayed behind when something else was put here.
        return txn.set(gfn, Entry::with_frame(Kind::Reserved, 0, Mfn::new(gfn.number())));
    }
    txn.set(gfn, Entry::hole(order))
}
