//! The end of a domain's memory: every entry is removed, in pieces, so that others run in between.

use super::claim::release_claim;
use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::{Reply, Stop};
use crate::p2m::{Entry, P2mTxn};
use machine::{Gfn, cpu};

/// Frames after which a step lets others run.
const CHUNK: u64 = 4096;
/// Entries that one transaction removes at the most.
const MOST_ENTRIES: u64 = 64;

/// Removes all memory of a dying domain: own RAM is freed, pages of others are unmapped, and the claim ends. Tables are
/// freed when the domain is dropped. The progress is in the p2m itself.
///
/// # Errors
/// `Stop::Restart(None)`, when there is more to do but others must run first.
pub fn relinquish(host: &Host, domain: &Domain) -> Reply {
    release_claim(host, domain);
    let mut from = Gfn::new(0);
    let mut frames = 0u64;
    loop {
        let mut txn = domain.p2m.begin_removal();
        let mut entries = 0..MOST_ENTRIES;
        let mut is_done = false;
        while !is_done && txn.has_room_to_release() && entries.next().is_some() {
            match txn.next(from) {
                None => is_done = true,
                Some((gfn, entry)) => {
                    remove(domain, &mut txn, gfn, &entry);
                    from = gfn.saturating_add(1 << entry.order);
                    // Giving frames up is what takes time; other entries count once.
                    let cost = if entry.kind.holds_reference() { 1 << entry.order } else { 1 };
                    frames = frames.saturating_add(cost);
                }
            }
        }
        txn.commit().complete();
        if is_done {
            return Ok(0);
        }
        if frames >= CHUNK || cpu::must_yield() {
            return Err(Stop::Restart(None));
        }
    }
}

/// Removes one whole entry.
fn remove(domain: &Domain, txn: &mut P2mTxn<'_>, gfn: Gfn, entry: &Entry) {
    // Granted pages are still here: their uses have ended (`grant::relinquish` comes first), their references end now.
    let removed = txn.set_anything(gfn, Entry::hole(entry.order));
    debug_assert!(removed.is_ok(), "a whole entry cannot be removed: {removed:?}");
    if removed.is_ok() && entry.kind.is_own_ram() {
        domain.accounting.discharge(1 << entry.order);
    }
}
