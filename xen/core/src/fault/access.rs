//! An access that introspection has forbidden. Nobody listens, so the restriction ends, as in Xen without a listener.

use super::Handled;
use crate::domain::Domain;
use crate::p2m::entry::MemoryAccess;
use machine::Gfn;

const NO_MEMORY: &str = "it touched a page that introspection had narrowed, and there is no memory to widen it";

/// Gives the frame its kind's rights back.
pub(super) fn handle(domain: &Domain, gfn: Gfn) -> Handled {
    let Ok(mut txn) = domain.p2m.begin() else { return Handled::Crash(&NO_MEMORY) };
    let result = txn.restrict(gfn, 0, MemoryAccess::Rwx);
    txn.finish();
    match result {
        Ok(_) => Handled::Resume,
        Err(_) => Handled::Crash(&NO_MEMORY),
    }
}
