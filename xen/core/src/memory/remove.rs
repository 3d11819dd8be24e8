//! Taking memory away from a domain: ballooning.

use super::replace::{errno, vacate, vacate_if};
use crate::domain::Domain;
use crate::p2m::{ChangeError, Kind, P2mTxn};
use machine::Gfn;
use public_abi::Errno;

/// Takes `1 << order` pages from a domain, page by page; stops at the first that is none of its own. The pages are freed,
/// or, in a 1:1 domain, kept for the same guest frames.
///
/// # Errors
/// `ENOENT` where there is nothing; `EPERM` for device memory; `EBUSY` for what belongs to a device; `ENXIO` for pages of
/// others; `ENOMEM` if a block cannot be split; `EINVAL` for a bad frame number. Pages before that one are gone.
pub fn decrease(domain: &Domain, gfn: Gfn, order: u32) -> Result<(), Errno> {
    let count = 1u64.checked_shl(order).ok_or(Errno::EINVAL)?;
    remove_range(domain, gfn, gfn.checked_add(count).ok_or(Errno::EINVAL)?)
}

/// As [`decrease`], for the frames from `gfn` to before `end`.
pub(super) fn remove_range(domain: &Domain, gfn: Gfn, end: Gfn) -> Result<(), Errno> {
    let mut at = gfn;
    let mut needs_tables = false;
    while at < end {
        // Taking away needs no memory, unless a block must be split.
        let mut txn = match needs_tables {
            true => domain.p2m.begin().map_err(|_| Errno::ENOMEM)?,
            false => domain.p2m.begin_removal(),
        };
        let problem = loop {
            match remove_one(domain, &mut txn, at, end) {
                Ok(count) => at = at.saturating_add(count),
                Err(problem) => break Some(problem),
            }
            if at >= end {
                break None;
            }
        };
        txn.finish();
        match problem {
            Some(Problem::Refused(error)) => return Err(error),
            Some(Problem::NeedsTables) => needs_tables = true,
            Some(Problem::NeedsRoom) | None => needs_tables = false,
        }
    }
    Ok(())
}

/// Why a page was not removed.
enum Problem {
    /// The transaction is full: once more in the next.
    NeedsRoom,
    /// Once more, with spare tables.
    NeedsTables,
    /// It cannot be.
    Refused(Errno),
}

/// Removes the entry at a frame, whole if all of it is to go. Gives how many frames went.
fn remove_one(domain: &Domain, txn: &mut P2mTxn<'_>, at: Gfn, end: Gfn) -> Result<u64, Problem> {
    if !txn.has_room_to_release() {
        return Err(Problem::NeedsRoom);
    }
    if at.saturating_add(1) >= end {
        // Whatever covers it, one page of that is to go.
        let result = vacate_if(domain, txn, at, 0, check_removable);
        return removed(txn, result, 1);
    }
    let entry = txn.entry(at);
    check_removable(entry.kind).map_err(Problem::Refused)?;
    let pages = 1 << entry.order;
    let is_whole = at.is_aligned(entry.order) && at.saturating_add(pages) <= end;
    let (order, count) = if is_whole { (entry.order, pages) } else { (0, 1) };
    let result = vacate(domain, txn, at, order);
    removed(txn, result, count)
}

/// What became of `count` frames.
fn removed(txn: &P2mTxn<'_>, result: Result<(), ChangeError>, count: u64) -> Result<u64, Problem> {
    match result {
        Ok(()) => Ok(count),
        // With all spare tables there this is final.
        Err(ChangeError::NoRoom) if !txn.has_room() => Err(Problem::NeedsTables),
        Err(error) => Err(Problem::Refused(errno(error))),
    }
}

fn check_removable(kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::RamRw
        | Kind::RamLogDirty
        | Kind::RamRo
        | Kind::PagingOut
        | Kind::Paged
        | Kind::PagingIn
        | Kind::PopulateOnDemand
        | Kind::CopyOnWrite
        | Kind::Broken
        | Kind::SharedPage => Ok(()),
        Kind::Hole | Kind::MmioDm | Kind::Reserved => Err(Errno::ENOENT),
        Kind::MmioDirect => Err(Errno::EPERM),
        Kind::IdentityRdm | Kind::RdmHole => Err(Errno::EBUSY),
        Kind::Foreign | Kind::ForeignRo | Kind::GrantRw | Kind::GrantRo => Err(Errno::ENXIO),
    }
}
