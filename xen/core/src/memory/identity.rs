//! The 1:1 domain: its RAM, its devices, and what is emulated for it.
//!
//! Without an IOMMU the control domain's devices use machine addresses, so its guest addresses are the same ones
//! (architecture.md, decision 4). Its RAM is adopted where it lies; device memory is mapped when it is first touched, but
//! never what the hypervisor emulates or keeps for itself.

use super::replace::errno;
use crate::domain::Domain;
use crate::p2m::entry::{ORDER_1G, ORDER_2M, ORDER_4K};
use crate::p2m::{ChangeError, Entry, Kind};
use machine::{Gfn, Mfn, frame, log};
use public_abi::Errno;

/// Makes `count` reserved machine pages from `start` on the RAM of a 1:1 domain, in the largest entries that fit. Their
/// content is kept. Pages that are not reserved RAM are left out. Gives how many pages it got.
///
/// # Errors
/// `ENOMEM` without memory for tables; the pages so far are the domain's. `EINVAL`, if the domain is not mapped 1:1.
pub fn adopt(domain: &Domain, start: Mfn, count: u64) -> Result<u64, Errno> {
    if !domain.p2m.is_identity() {
        return Err(Errno::EINVAL);
    }
    let end = start.saturating_add(count);
    let mut page = start;
    let mut adopted = 0;
    while page < end {
        let fits = |order: &u32| page.is_aligned(*order) && page.saturating_add(1 << order) <= end;
        let is_whole = |order: &u32| (0..1u64 << order).all(|offset| is_reserved(page.saturating_add(offset)));
        let order = [ORDER_1G, ORDER_2M, ORDER_4K].into_iter().filter(fits).find(is_whole);
        if let Some(order) = order {
            adopt_block(domain, page, order)?;
            adopted += 1u64 << order;
        }
        page = page.saturating_add(1 << order.unwrap_or(ORDER_4K));
    }
    Ok(adopted)
}

fn is_reserved(mfn: Mfn) -> bool {
    frame::state(mfn).is_some_and(|state| state.kind == frame::Kind::Reserved)
}

fn adopt_block(domain: &Domain, mfn: Mfn, order: u32) -> Result<(), Errno> {
    let mut txn = domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
    for page in 0..1u64 << order {
        if !frame::adopt(mfn.saturating_add(page), domain.id) {
            // Somebody else took it since it was looked at, which boot does not do.
            return Err(Errno::EBUSY);
        }
    }
    domain.accounting.charge_always(1 << order);
    txn.set(Gfn::new(mfn.number()), Entry::with_frame(Kind::RamRw, order, mfn)).map_err(errno)?;
    txn.finish();
    Ok(())
}

/// Marks guest frames as emulated device memory: accesses are emulated for ever, nothing is mapped there by a fault. For
/// interrupt controllers, PCI configuration space, and whatever else the hypervisor keeps from the domain.
///
/// # Errors
/// `EBUSY`, if something is mapped there; `ENOMEM`; `EINVAL` for bad frame numbers. Frames before that one are marked.
pub fn mark_emulated(domain: &Domain, start: Gfn, count: u64) -> Result<(), Errno> {
    let end = start.checked_add(count).ok_or(Errno::EINVAL)?;
    let mut gfn = start;
    while gfn < end {
        let mut txn = domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
        while gfn < end && txn.has_room() {
            let left = end.number().saturating_sub(gfn.number());
            let fits = |order: &u32| gfn.is_aligned(*order) && left >= 1 << order;
            let mut orders = [ORDER_1G, ORDER_2M, ORDER_4K].into_iter().filter(fits).peekable();
            while let Some(order) = orders.next() {
                match put_emulated(&mut txn, gfn, order) {
                    // Smaller entries are there: go through them one by one.
                    Err(ChangeError::Occupied) if orders.peek().is_some() => {}
                    result => {
                        result.map_err(errno)?;
                        gfn = gfn.saturating_add(1 << order);
                        break;
                    }
                }
            }
        }
        txn.finish();
    }
    Ok(())
}

fn put_emulated(txn: &mut crate::p2m::P2mTxn<'_>, gfn: Gfn, order: u32) -> Result<(), ChangeError> {
    match txn.entry(gfn).kind {
        Kind::Hole | Kind::MmioDm | Kind::MmioDirect => {
            txn.set(gfn, Entry::without_frame(Kind::MmioDm, order)).map(drop)
        }
        _ => Err(ChangeError::Occupied),
    }
}

/// Device pages that are mapped by faults and logged at the most.
const LOGGED: u64 = 8;

/// Maps device memory at its own address for the 1:1 domain, which has just touched it. Only what is no RAM of the machine, and
/// what is not hidden: that is asked under the lock of the domain's map, so that [`unmap_device`] later takes away what was
/// mapped before somebody hid it.
///
/// # Errors
/// `EPERM` for RAM, for what is hidden, or in a domain that is not 1:1; `EBUSY`, if something is mapped there; `ENOMEM`; `EINVAL` beyond the
/// addresses that tables translate.
pub fn map_device(domain: &Domain, gfn: Gfn, is_hidden: impl FnOnce(Gfn) -> bool) -> Result<(), Errno> {
    let mfn = Mfn::new(gfn.number());
    if !domain.p2m.is_identity() || frame::state(mfn).is_some() {
        return Err(Errno::EPERM);
    }
    let mut txn = domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
    match txn.entry(gfn).kind {
        // Another vCPU was faster.
        Kind::MmioDirect => return Ok(()),
        Kind::Hole => {}
        _ => return Err(Errno::EBUSY),
    }
    if is_hidden(gfn) {
        return Err(Errno::EPERM);
    }
    txn.set(gfn, Entry::with_frame(Kind::MmioDirect, ORDER_4K, mfn)).map_err(errno)?;
    txn.finish();
    let number = domain.p2m.count_device_page();
    if number < LOGGED {
        log!(Info, "{}: device memory at {:#x} is mapped 1:1 at its first use", domain.id, mfn.address().number());
    }
    Ok(())
}

/// Maps `count` pages from `start` on for devices that need them at all times, at equal guest and machine addresses (RDM-5). RAM
/// is never meant, nor what is mapped or emulated.
///
/// # Errors
/// `EBUSY`, if a page is RAM or something is there, and `EINVAL` for bad frame numbers: nothing is mapped then. `ENOMEM`: pages
/// before that one are mapped.
pub fn map_reserved(domain: &Domain, start: Gfn, count: u64) -> Result<(), Errno> {
    let end = start.checked_add(count).ok_or(Errno::EINVAL)?;
    let is_free = |gfn: Gfn| {
        let is_empty = matches!(domain.p2m.lookup(gfn).kind, Kind::Hole | Kind::IdentityRdm);
        is_empty && frame::state(Mfn::new(gfn.number())).is_none()
    };
    if !domain.p2m.is_identity() || !crate::p2m::can_translate(end, 0) {
        return Err(Errno::EINVAL);
    }
    let mut gfn = start;
    while gfn < end {
        if !is_free(gfn) {
            return Err(Errno::EBUSY);
        }
        gfn = gfn.saturating_add(1);
    }
    let mut gfn = start;
    while gfn < end {
        let mut txn = domain.p2m.begin().map_err(|_| Errno::ENOMEM)?;
        while gfn < end && txn.has_room() {
            let mfn = Mfn::new(gfn.number());
            txn.set_anything(gfn, Entry::with_frame(Kind::IdentityRdm, ORDER_4K, mfn)).map_err(errno)?;
            gfn = gfn.saturating_add(1);
        }
        txn.finish();
    }
    Ok(())
}

/// Takes a page of device memory away from the 1:1 domain, if it was mapped, and waits until no CPU reaches it.
pub fn unmap_device(domain: &Domain, gfn: Gfn) {
    let mut txn = domain.p2m.begin_removal();
    if txn.entry(gfn).kind == Kind::MmioDirect {
        // They are mapped page by page, and a page becomes a hole without any new table.
        let old = txn.set(gfn, Entry::hole(ORDER_4K));
        debug_assert!(old.is_ok(), "{gfn:?} cannot be unmapped: {old:?}");
    }
    txn.finish();
}
