//! Addresses that cannot hold what a hypercall reads or writes.

use rt::memory;
use rt::paging::{self, PRESENT, WRITABLE};

/// Where the page is mapped whose last byte is the last one that is there.
pub const WINDOW: u64 = 0x0000_0300_0000_0000;
/// How many there are.
pub const COUNT: usize = 9;

/// Addresses that cannot hold any structure of more than a byte.
#[must_use]
pub fn pointers() -> [u64; COUNT] {
    let page = memory::take_pages(1);
    // One page with nothing behind it: structures that begin in its last byte do not fit.
    paging::map(WINDOW, page, PRESENT | WRITABLE);
    // A page-table entry that points beyond all memory, one to the local APIC.
    paging::map(WINDOW + 0x10000, 0x0000_007f_ffff_f000, PRESENT | WRITABLE);
    paging::map(WINDOW + 0x20000, 0xfee0_0000, PRESENT | WRITABLE);
    [
        WINDOW + 0xfff,
        WINDOW + 0x1000,
        WINDOW + 0x10000,
        WINDOW + 0x20000,
        0x0000_7fff_ffff_fff9,
        0x0000_8000_0000_0000,
        // Not canonical. Xen does not check that but ignores the upper bits, so they must name nothing, too.
        0x8000_6000_0000_0000,
        0xffff_ffff_ffff_f000,
        u64::MAX,
    ]
}
