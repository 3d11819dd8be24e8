//! Where to put things during boot: the highest free place in RAM that fits. Pure, so that odd memory maps are tested.

use crate::boot_info::{Range, RangeKind};
use crate::units::Mfn;

/// The highest `alignment`-aligned start of `length` bytes that lies inside one RAM range, ends at or below `limit`, stays
/// above the first MiB, and touches none of `occupied` (`(start, length)` pairs). `alignment` is a power of two.
pub fn highest_fit(ranges: &[Range], occupied: &[(u64, u64)], length: u64, alignment: u64, limit: u64) -> Option<u64> {
    const LOWEST: u64 = 0x10_0000;
    let mut best: Option<u64> = None;
    for range in ranges.iter().filter(|range| range.kind == RangeKind::Ram) {
        let floor = range.start.number().max(LOWEST);
        let mut end = range.end().min(limit);
        // Every step either finds a place or moves `end` below an obstacle, of which there are finitely many.
        while let Some(start) = end.checked_sub(length).map(|start| start & !(alignment - 1)).filter(|s| *s >= floor) {
            let blocker = occupied
                .iter()
                .chain(reserved(ranges).as_slice())
                .filter(|(other, size)| *other < start + length && start < other.saturating_add(*size))
                .map(|(other, _)| *other)
                .min();
            match blocker {
                Some(other) => end = other,
                None => {
                    best = best.max(Some(start));
                    break;
                }
            }
        }
    }
    best
}

/// A page below 640 KiB from which other processors can start: the highest that is unused RAM. Not the first page, where firmware
/// keeps its vectors and data.
pub fn trampoline_page(is_unused: impl Fn(Mfn) -> bool) -> Option<Mfn> {
    const END: u64 = 0xa_0000 >> crate::PAGE_SHIFT;
    (1..END).rev().map(Mfn::new).find(|page| is_unused(*page))
}

/// What the map calls anything but RAM: firmware maps overlap at times, and then the reservation wins.
fn reserved(ranges: &[Range]) -> heapless::Vec<(u64, u64), { crate::boot_info::MAX_RANGES }> {
    ranges
        .iter()
        .filter(|range| range.kind != RangeKind::Ram)
        .map(|range| (range.start.number(), range.length))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Maddr;

    const fn ram(start: u64, end: u64) -> Range {
        Range { start: Maddr::new(start), length: end - start, kind: RangeKind::Ram }
    }

    #[test]
    fn takes_the_top_and_respects_the_limit() {
        let map = [ram(0, 0x9_0000), ram(0x10_0000, 0x8000_0000), ram(0x1_0000_0000, 0x2_0000_0000)];
        assert_eq!(highest_fit(&map, &[], 0x20_0000, 0x20_0000, u64::MAX), Some(0x1_ffe0_0000));
        assert_eq!(highest_fit(&map, &[], 0x1234, 0x1000, 0x1_0000_0000), Some(0x7fff_e000));
        assert_eq!(highest_fit(&map, &[], 0x1000, 0x1000, 0x10_0000), None, "never below 1 MiB");
    }

    #[test]
    fn other_processors_start_from_unused_ram_below_640_kib() {
        let among = |pages: &[u64]| {
            let pages: std::vec::Vec<_> = pages.iter().map(|page| Mfn::new(*page)).collect();
            trampoline_page(|page| pages.contains(&page))
        };
        assert_eq!(among(&[0, 8, 0x9e, 0xa0, 0x100]), Some(Mfn::new(0x9e)));
        assert_eq!(among(&[1]), Some(Mfn::new(1)));
        assert_eq!(among(&[0, 0xa0]), None);
    }

    #[test]
    fn goes_below_obstacles_and_reservations() {
        let reserved = Range { start: Maddr::new(0x7fe0_0000), length: 0x20_0000, kind: RangeKind::Reserved };
        let map = [ram(0x10_0000, 0x8000_0000), reserved];
        let occupied = [(0x7fc0_1000, 0x1000), (0x7f00_0000, 0x10_0000)];
        assert_eq!(highest_fit(&map, &occupied, 0x20_0000, 0x20_0000, u64::MAX), Some(0x7fa0_0000));
        assert_eq!(highest_fit(&map, &occupied, 0x1000, 0x1000, u64::MAX), Some(0x7fdf_f000));
        assert_eq!(highest_fit(&map, &[(0x10_0000, u64::MAX)], 0x1000, 0x1000, u64::MAX), None);
    }
}
