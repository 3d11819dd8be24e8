//! A fault where nothing is: the 1:1 domain that owns the hardware gets its device memory at the first touch.
//!
//! Firmware does not list all device memory, so the domain finds it by itself (xen-abi.md, 4.1). RAM never comes this way,
//! and neither does what `memory::mark_emulated` has marked. Pages with a table of messages (`pci`) are never mapped: each
//! access to them is emulated.

use super::Handled;
use crate::domain::Domain;
use crate::memory;
use machine::Gfn;
use public_abi::Errno;

/// Maps the page if it is a device's, else leaves the access to the emulator.
pub(super) fn handle(domain: &Domain, gfn: Gfn, is_hidden: impl FnOnce(Gfn) -> bool) -> Handled {
    if !domain.is_control() || !domain.p2m.is_identity() {
        return Handled::Emulate;
    }
    match memory::map_device(domain, gfn, is_hidden) {
        Ok(()) => Handled::Resume,
        // Somebody has put something here meanwhile: look again.
        Err(Errno::EBUSY) if domain.p2m.lookup(gfn).rights().bits() != 0 => Handled::Resume,
        Err(_) => Handled::Emulate,
    }
}
