//! Giving a domain memory at guest frames that it names.

use super::claim::{count_taken, may_take};
use super::remove::remove_range;
use super::replace::{check_replaceable, drop_references, errno, replace};
use crate::domain::Domain;
use crate::domain::lifecycle::Stage;
use crate::host::Host;
use crate::p2m::entry::ORDER_2M;
use crate::p2m::{self, ChangeError, Entry, Kind, P2mTxn};
use machine::frame::{self, Fill};
use machine::{Gfn, Mfn};
use public_abi::Errno;

/// log2 of the pages of an extent at the most: 2 MiB. Zeroing more at once would keep others waiting too long.
pub const MAX_ORDER: u32 = ORDER_2M;

/// Gives a domain `1 << order` zeroed pages at `gfn`. A page that was there is freed. In a 1:1 domain only frames come back
/// that are reserved for these very guest frames.
///
/// # Errors
/// `EINVAL` for a bad frame number or order; `ENOMEM` without memory or above the domain's maximum; `ESRCH` for a dying
/// domain; `EBUSY`, `EPERM` or `EINVAL` if something is there that must not be replaced. Nothing has been populated.
pub fn populate(host: &Host, domain: &Domain, gfn: Gfn, order: u32) -> Result<(), Errno> {
    if order > MAX_ORDER || !p2m::can_translate(gfn, order) {
        return Err(Errno::EINVAL);
    }
    if domain.lifecycle.stage() != Stage::Alive {
        return Err(Errno::ESRCH);
    }
    if domain.p2m.is_identity() {
        return take_back(domain, gfn, order);
    }
    let pages = 1 << order;
    if !domain.accounting.charge(pages) {
        return Err(Errno::ENOMEM);
    }
    let Some(mfn) = allocate(host, domain, order) else {
        domain.accounting.discharge(pages);
        return Err(Errno::ENOMEM);
    };
    match map_new_block(domain, gfn, mfn, order) {
        Ok(()) => {
            count_taken(host, domain, pages);
            Ok(())
        }
        Err(Failure { error, done }) => {
            let rest = pages.saturating_sub(done);
            drop_references(mfn.saturating_add(done), rest);
            domain.accounting.discharge(rest);
            // What was mapped is the domain's own by now; it goes the way of all memory.
            match remove_range(domain, gfn, gfn.saturating_add(done)) {
                Ok(()) | Err(_) => Err(error),
            }
        }
    }
}

fn allocate(host: &Host, domain: &Domain, order: u32) -> Option<Mfn> {
    may_take(host, domain, 1 << order).then(|| frame::allocate(order, frame::Kind::Guest, domain.id, Fill::Zero))?
}

/// Mapping stopped: why, and after how many pages. The references of the others are the caller's.
struct Failure {
    error: Errno,
    done: u64,
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self { error, done: 0 }
    }
}

/// Maps a new block, as one entry if it fits, else page by page.
fn map_new_block(domain: &Domain, gfn: Gfn, mfn: Mfn, order: u32) -> Result<(), Failure> {
    let is_entry = order == 0 || order == ORDER_2M && gfn.is_aligned(order);
    if is_entry {
        let mut txn = domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
        match replace(domain, &mut txn, gfn, Entry::with_frame(Kind::RamRw, order, mfn), check_replaceable) {
            Ok(()) => {
                txn.finish();
                return Ok(());
            }
            Err(ChangeError::Occupied) => {}
            Err(error) => return Err(errno(error).into()),
        }
    }
    check_range(domain, gfn, 1 << order)?;
    map_pages(domain, gfn, mfn, 1 << order)
}

/// Maps pages one by one.
fn map_pages(domain: &Domain, gfn: Gfn, mfn: Mfn, count: u64) -> Result<(), Failure> {
    let mut done = 0;
    while done < count {
        let mut txn = domain.p2m.begin().map_err(|_| Failure { error: Errno::ENOMEM, done })?;
        let mut result = Ok(());
        while done < count && txn.has_room() && result.is_ok() {
            let at = gfn.saturating_add(done);
            let entry = Entry::with_frame(Kind::RamRw, 0, mfn.saturating_add(done));
            // Checked again: somebody may have mapped something here since the range was looked at.
            result = replace(domain, &mut txn, at, entry, check_replaceable).map_err(errno);
            if result.is_ok() {
                done = done.saturating_add(1);
            }
        }
        txn.finish();
        result.map_err(|error| Failure { error, done })?;
    }
    Ok(())
}

fn check_range(domain: &Domain, gfn: Gfn, count: u64) -> Result<(), Errno> {
    let txn = domain.p2m.begin_removal();
    (0..count).try_for_each(|page| check_replaceable(txn.entry(gfn.saturating_add(page)).kind))
}

/// Gives a 1:1 domain frames back that are reserved for it.
fn take_back(domain: &Domain, gfn: Gfn, order: u32) -> Result<(), Errno> {
    let end = gfn.saturating_add(1 << order);
    // One frame is looked at where it is taken; of several, all come or none.
    if order != 0 {
        let txn = domain.p2m.begin_removal();
        let is_reserved = |page: u64| txn.entry(gfn.saturating_add(page)).kind == Kind::Reserved;
        if !(0..1 << order).all(is_reserved) {
            return Err(Errno::ENOMEM);
        }
    }
    let mut at = gfn;
    while at < end {
        let result = domain.p2m.begin().map_err(|_| Errno::ENOMEM).and_then(|mut txn| {
            let mut result = Ok(());
            while at < end && txn.has_room() && result.is_ok() {
                result = take_back_one(domain, &mut txn, at, end).map(|count| at = at.saturating_add(count));
            }
            txn.finish();
            result
        });
        if let Err(error) = result {
            return match remove_range(domain, gfn, at) {
                Ok(()) | Err(_) => Err(error),
            };
        }
    }
    Ok(())
}

/// Gives one reserved entry back, whole if all of it is wanted. Gives how many frames came. A frame that somebody still uses
/// from before it was given up stays reserved: what it will hold is not theirs to see.
fn take_back_one(domain: &Domain, txn: &mut P2mTxn<'_>, at: Gfn, end: Gfn) -> Result<u64, Errno> {
    let entry = txn.entry(at);
    let is_whole = at.is_aligned(entry.order) && at.saturating_add(1 << entry.order) <= end;
    let order = if is_whole { entry.order } else { 0 };
    let old = entry.part_covering(at, order);
    let is_unused = |page| {
        frame::state(old.mfn.saturating_add(page)).is_some_and(|state| state.count == 1 && state.owner == domain.id)
    };
    let is_free = entry.kind == Kind::Reserved && (0..1 << order).all(is_unused);
    if !is_free || !domain.accounting.charge(1 << order) {
        return Err(Errno::ENOMEM);
    }
    // The domain's own old content would harm nobody, but populated memory is zero everywhere else.
    for page in 0..1 << order {
        machine::memory::zero_page(old.mfn.saturating_add(page));
    }
    txn.retype_entry(at, &old, Kind::RamRw).map(|()| 1 << order).map_err(|error| {
        domain.accounting.discharge(1 << order);
        errno(error)
    })
}
