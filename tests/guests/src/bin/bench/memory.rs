//! Memory given back and taken again.

use guests::{Test, call};
use public_abi::GuestPtr;
use public_abi::domid::DOMID_SELF;
use public_abi::memory::{MemoryOp, MemoryReservation};

use crate::row::measure;

pub(crate) fn run(test: &mut Test) {
    let page = rt::memory::take_pages(1);
    measure(test, "decrease-populate", || decrease_and_populate(DOMID_SELF, page >> 12));
}

/// Takes a page away from a domain and gives it one at the same place.
pub(crate) fn decrease_and_populate(domid: u16, frame: u64) -> bool {
    let mut frames = [frame];
    let extent_start = GuestPtr::from_address(call::address(&mut frames));
    let mut request = MemoryReservation { extent_start, nr_extents: 1, domid, ..Default::default() };
    let decreased = call::memory(MemoryOp::DecreaseReservation, &mut request);
    decreased == 1 && call::memory(MemoryOp::PopulatePhysmap, &mut request) == 1
}
