//! Page tables of the guest itself: 4 KiB mappings at addresses of the test's choosing.
//!
//! The entry code maps the first 4 GiB one to one with 2 MiB pages; a mapping inside of them splits such a page.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::memory;

/// Entry is valid.
pub const PRESENT: u64 = 1;
/// Writing is allowed.
pub const WRITABLE: u64 = 1 << 1;
/// User mode may use it.
pub const USER: u64 = 1 << 2;
/// Not cached.
pub const UNCACHED: u64 = 1 << 4;
/// The entry maps a large page.
const LARGE: u64 = 1 << 7;
/// No code here.
pub const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

unsafe extern "C" {
    static rt_level4: [AtomicU64; 512];
}

fn table(entry: u64) -> &'static [AtomicU64; 512] {
    let address = (entry & ADDRESS) as usize;
    // SAFETY: tables are static pages of this image, mapped one to one and never freed.
    unsafe { &*core::ptr::with_exposed_provenance::<[AtomicU64; 512]>(address) }
}

fn flush(address: u64) {
    // SAFETY: forgetting a translation is always allowed.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// The last-level entry for `address`, with all tables on the way made.
fn entry(address: u64) -> &'static AtomicU64 {
    // SAFETY: the entry code's table.
    let mut here: &'static [AtomicU64; 512] = unsafe { &rt_level4 };
    for shift in [39, 30, 21] {
        let slot = &here[(address >> shift & 511) as usize];
        let old = slot.load(Ordering::Relaxed);
        if old & PRESENT == 0 {
            slot.store(memory::take_pages(1) | PRESENT | WRITABLE | USER, Ordering::Relaxed);
        } else if old & LARGE != 0 {
            assert!(shift == 21, "a 1 GiB page at {address:#x}");
            let page = memory::take_pages(1);
            let small = table(page);
            for (index, leaf) in small.iter().enumerate() {
                leaf.store((old & !LARGE) + index as u64 * 4096, Ordering::Relaxed);
            }
            slot.store(page | PRESENT | WRITABLE | USER, Ordering::Relaxed);
        }
        here = table(slot.load(Ordering::Relaxed));
    }
    &here[(address >> 12 & 511) as usize]
}

/// Maps the page at `address` to the guest physical page `physical` with `flags`.
pub fn map(address: u64, physical: u64, flags: u64) {
    entry(address).store(physical & ADDRESS | flags, Ordering::Relaxed);
    flush(address);
}

/// Makes the page at `address` fault.
pub fn unmap(address: u64) {
    entry(address).store(0, Ordering::Relaxed);
    flush(address);
}

/// The address of the root table.
#[must_use]
pub fn root() -> u64 {
    (&raw const rt_level4).expose_provenance() as u64
}
