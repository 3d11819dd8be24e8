//! The first write to a page that is watched for writes (memory-engine.md, DL-3 and DL-5).

use super::Handled;
use crate::domain::Domain;
use crate::p2m::Kind;
use machine::Gfn;

/// Marks the frame dirty, then lets the write through. Adding a right needs no flush: a processor that still remembers less
/// faults once more.
pub(super) fn handle(domain: &Domain, gfn: Gfn) -> Handled {
    domain.p2m.mark_dirty(gfn);
    let made_writable = domain.p2m.begin().is_ok_and(|mut txn| {
        let entry = txn.entry(gfn);
        if entry.kind != Kind::RamLogDirty {
            // Another vCPU was faster, or the page is gone: the access will tell.
            return true;
        }
        let result = txn.retype(gfn, 0, Kind::RamRw);
        txn.finish();
        result.is_ok()
    });
    if !made_writable {
        make_block_writable(domain, gfn);
    }
    Handled::Resume
}

/// Without memory to split a block, all of it becomes writable, so all of it is dirty.
fn make_block_writable(domain: &Domain, gfn: Gfn) {
    let order = domain.p2m.lookup(gfn).order;
    let start = gfn.align_down(order);
    for page in 0..1u64 << order {
        domain.p2m.mark_dirty(start.saturating_add(page));
    }
    let mut txn = domain.p2m.begin_removal();
    if txn.entry(gfn).kind == Kind::RamLogDirty && txn.entry(gfn).order == order {
        let result = txn.retype(start, order, Kind::RamRw);
        debug_assert!(result.is_ok(), "a whole entry cannot be made writable: {result:?}");
    }
    txn.finish();
}
