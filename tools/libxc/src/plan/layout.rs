//! The guest physical address space of a PVH guest, where libxl puts things.
//!
//! RAM from 0 up to the hole below 4 GiB, the rest from 4 GiB on. In the hole: ACPI tables at 0xfc000000, the local APIC at
//! 0xfee00000, and eight special pages below 0xff000000. Numbers: tools/include/xenguest.h, libs/light/libxl_dom.c
//! (`libxl__build_hvm`) and xg_dom_x86.c; xen-abi.md §2.2.

use image::GpaRange;
use public_abi::memory::E820Type;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Where ACPI tables start; the lowest address of the hole.
pub const ACPI_BASE: u64 = 0xfc00_0000;
/// First address after the special pages.
pub const SPECIAL_END: u64 = 0xff00_0000;
/// Number of special pages.
pub const SPECIAL_PAGES: u64 = 8;
/// Address of the local APIC.
pub const LAPIC_BASE: u32 = 0xfee0_0000;
/// Where RAM goes on above the hole.
pub const HIGH_BASE: u64 = 1 << 32;

/// The special pages by their position, counted from the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialPage {
    /// Memory paging's ring.
    Paging = 0,
    /// The monitor's ring.
    Access = 1,
    /// Memory sharing's ring.
    Sharing = 2,
    /// Buffered I/O requests.
    BufferedIoreq = 3,
    /// The xenstore ring.
    Xenstore = 4,
    /// I/O requests.
    Ioreq = 5,
    /// The identity-mapping page directory for real mode on Intel.
    IdentityPageTable = 6,
    /// The console ring.
    Console = 7,
}

impl SpecialPage {
    /// Its guest frame number.
    pub const fn gfn(self) -> u64 {
        let position = match self {
            SpecialPage::Paging => 0,
            SpecialPage::Access => 1,
            SpecialPage::Sharing => 2,
            SpecialPage::BufferedIoreq => 3,
            SpecialPage::Xenstore => 4,
            SpecialPage::Ioreq => 5,
            SpecialPage::IdentityPageTable => 6,
            SpecialPage::Console => 7,
        };
        SPECIAL_END / PAGE - SPECIAL_PAGES + position
    }
}

/// Frames that a range touches.
pub fn pages(range: GpaRange) -> u64 {
    range.end().div_ceil(PAGE) - first_gfn(range)
}

/// The first frame that a range touches.
pub fn first_gfn(range: GpaRange) -> u64 {
    range.start() / PAGE
}

/// The range of `bytes` bytes from `start`; for the constants of this file and sums that cannot wrap.
pub(super) fn range(start: u64, bytes: u64) -> GpaRange {
    GpaRange::new(start, bytes).unwrap_or(GpaRange::EMPTY)
}

/// Where the special pages are.
pub fn special_pages() -> GpaRange {
    range(SPECIAL_END - SPECIAL_PAGES * PAGE, SPECIAL_PAGES * PAGE)
}

/// The RAM of a guest with that much memory: one range, or two around the hole.
pub fn ram(memory_kib: u64) -> Vec<GpaRange> {
    let bytes = memory_kib * 1024;
    let low = bytes.min(ACPI_BASE);
    let mut ranges = vec![range(0, low)];
    if bytes > low {
        ranges.push(range(HIGH_BASE, bytes - low));
    }
    ranges
}

/// One entry of the memory map that the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// What it covers.
    pub range: GpaRange,
    /// What it is.
    pub kind: E820Type,
}

/// The memory map: RAM, ACPI tables, special pages, in the order of addresses.
pub fn memory_map(ram: &[GpaRange], acpi: Option<GpaRange>) -> Vec<MapEntry> {
    let mut map: Vec<MapEntry> = ram.iter().map(|&range| MapEntry { range, kind: E820Type::Ram }).collect();
    map.extend(acpi.map(|range| MapEntry { range, kind: E820Type::Acpi }));
    map.push(MapEntry { range: special_pages(), kind: E820Type::Reserved });
    map.sort_by_key(|entry| entry.range.start());
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_pages_are_where_libxl_puts_them() {
        assert_eq!(SpecialPage::Paging.gfn(), 0xfeff8);
        assert_eq!(SpecialPage::Xenstore.gfn(), 0xfeffc);
        assert_eq!(SpecialPage::Console.gfn(), 0xfefff);
        assert_eq!((first_gfn(special_pages()), pages(special_pages())), (0xfeff8, 8));
    }

    #[test]
    fn ram_goes_around_the_hole() {
        assert_eq!(ram(64 << 10), [range(0, 64 << 20)]);
        let eight = ram(8 << 20);
        assert_eq!(eight, [range(0, ACPI_BASE), range(HIGH_BASE, (8 << 30) - ACPI_BASE)]);
    }

    #[test]
    fn the_memory_map_is_sorted_and_disjoint() {
        let map = memory_map(&ram(5 << 20), Some(range(ACPI_BASE, PAGE)));
        let kinds: Vec<_> = map.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [E820Type::Ram, E820Type::Acpi, E820Type::Reserved, E820Type::Ram]);
        for pair in map.windows(2) {
            assert!(pair[0].range.end() <= pair[1].range.start());
        }
    }
}
