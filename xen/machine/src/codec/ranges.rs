//! The firmware's memory map brought in order, once, before anything is placed by it: sorted, without overlaps, and with no
//! more RAM regions than the frame table takes. Pure, so that odd maps are tested.
//!
//! Firmware maps overlap at times. What is said twice is what the more careful of the two says: RAM only where nobody says
//! anything else.

use crate::boot_info::{BootInfo, MAX_RANGES, Range, RangeKind};
use crate::codec::loader::LoaderError;
use crate::frame::MAX_REGIONS;
use crate::units::Maddr;
use heapless::Vec;

/// As many pieces as ranges can be cut into by one another's ends.
const MAX_PIECES: usize = 2 * MAX_RANGES;

/// Brings the map in order.
pub fn tidy(info: &mut BootInfo) {
    let (mut pieces, overlaps) = cut(&info.ranges);
    if overlaps {
        info.complain(LoaderError::OverlappingRanges);
    }
    let mut lost = keep_largest_ram(&mut pieces);
    while pieces.len() > MAX_RANGES {
        lost += drop_smallest(&mut pieces);
    }
    if lost != 0 {
        info.complain(LoaderError::LostRam(lost));
    }
    info.ranges.clear();
    // They fit: what did not was dropped above.
    info.ranges.extend(pieces);
}

/// How careful one must be: the higher wins.
const fn care(kind: RangeKind) -> u8 {
    match kind {
        RangeKind::Ram => 0,
        RangeKind::AcpiReclaimable => 1,
        RangeKind::AcpiNvs => 2,
        RangeKind::Reserved => 3,
        RangeKind::Unusable => 4,
    }
}

/// The map in ascending pieces of which neighbours differ; and whether ranges of different kinds overlapped.
fn cut(ranges: &[Range]) -> (Vec<Range, MAX_PIECES>, bool) {
    let mut ends: Vec<u64, MAX_PIECES> = ranges.iter().flat_map(|range| [range.start.number(), range.end()]).collect();
    ends.sort_unstable();
    let mut pieces: Vec<Range, MAX_PIECES> = Vec::new();
    let mut overlaps = false;
    for (start, end) in ends.iter().zip(ends.iter().skip(1)).filter(|(start, end)| start < end) {
        let covers = |range: &&Range| range.start.number() <= *start && range.end() >= *end;
        let kinds = || ranges.iter().filter(covers).map(|range| range.kind);
        let Some(kind) = kinds().max_by_key(|kind| care(*kind)) else { continue };
        overlaps |= kinds().any(|other| other != kind);
        match pieces.last_mut() {
            Some(last) if last.end() == *start && last.kind == kind => last.length += end - start,
            // There are fewer pieces than ends.
            _ => drop(pieces.push(Range { start: Maddr::new(*start), length: end - start, kind })),
        }
    }
    (pieces, overlaps)
}

fn page_count(range: &Range) -> u64 {
    let (first, end) = range.pages();
    end - first
}

/// Makes the smallest regions of RAM unusable until the frame table has room for the rest. Gives the bytes lost.
fn keep_largest_ram(pieces: &mut [Range]) -> u64 {
    let mut lost = 0;
    loop {
        let mut ram = pieces.iter_mut().filter(|piece| piece.kind == RangeKind::Ram && page_count(piece) > 0);
        let count = ram.by_ref().count();
        let ram = pieces.iter_mut().filter(|piece| piece.kind == RangeKind::Ram && page_count(piece) > 0);
        let Some(smallest) = ram.min_by_key(|piece| piece.length).filter(|_| count > MAX_REGIONS) else { return lost };
        smallest.kind = RangeKind::Unusable;
        lost += smallest.length;
    }
}

/// Leaves out the piece that matters least: the smallest of RAM, else the last. Gives the bytes of RAM lost.
fn drop_smallest(pieces: &mut Vec<Range, MAX_PIECES>) -> u64 {
    let ram = pieces.iter().enumerate().filter(|(_, piece)| piece.kind == RangeKind::Ram);
    let Some((index, length)) = ram.map(|(index, piece)| (index, piece.length)).min_by_key(|(_, length)| *length)
    else {
        pieces.truncate(MAX_RANGES);
        return 0;
    };
    pieces.remove(index);
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use RangeKind::{AcpiNvs, Ram, Reserved, Unusable};

    fn tidied(ranges: &[(u64, u64, RangeKind)]) -> (std::vec::Vec<(u64, u64, RangeKind)>, std::vec::Vec<LoaderError>) {
        let mut info = BootInfo::new();
        for (start, end, kind) in ranges {
            info.ranges.push(Range { start: Maddr::new(*start), length: end - start, kind: *kind }).unwrap();
        }
        tidy(&mut info);
        let ranges = info.ranges.iter().map(|range| (range.start.number(), range.end(), range.kind)).collect();
        (ranges, info.complaints.iter().copied().collect())
    }

    #[test]
    fn a_good_map_is_only_sorted_and_joined() {
        let map = [
            (0x10_0000, 0x20_0000, Ram),
            (0, 0x9_fc00, Ram),
            (0x20_0000, 0x30_0000, Ram),
            (0xf_0000, 0x10_0000, Reserved),
        ];
        let good = [(0, 0x9_fc00, Ram), (0xf_0000, 0x10_0000, Reserved), (0x10_0000, 0x30_0000, Ram)];
        assert_eq!(tidied(&map), (good.to_vec(), std::vec![]));
        assert_eq!(tidied(&good), (good.to_vec(), std::vec![]));
    }

    #[test]
    fn what_is_said_twice_is_what_the_more_careful_says() {
        let map = [
            (0, 0x10_0000, Ram),
            (0x8000, 0xa000, Reserved),
            (0x9000, 0xb000, AcpiNvs),
            (0xf_f000, 0x11_0000, Unusable),
        ];
        let (ranges, complaints) = tidied(&map);
        let wanted = [
            (0, 0x8000, Ram),
            (0x8000, 0xa000, Reserved),
            (0xa000, 0xb000, AcpiNvs),
            (0xb000, 0xf_f000, Ram),
            (0xf_f000, 0x11_0000, Unusable),
        ];
        assert_eq!(ranges, wanted);
        assert_eq!(complaints, [LoaderError::OverlappingRanges]);
        // RAM said twice is RAM once.
        let (ranges, complaints) = tidied(&[(0, 0x2000, Ram), (0x1000, 0x3000, Ram)]);
        assert_eq!((ranges, complaints), (std::vec![(0, 0x3000, Ram)], std::vec![]));
    }

    #[test]
    fn the_largest_regions_of_ram_are_kept() {
        // 40 regions, the later the larger, with holes between them.
        let map: std::vec::Vec<_> = (1..=40u64).map(|n| (n << 20, (n << 20) + n * 0x1000, Ram)).collect();
        let (ranges, complaints) = tidied(&map);
        let ram: std::vec::Vec<u64> = ranges.iter().filter(|range| range.2 == Ram).map(|range| range.0 >> 20).collect();
        assert_eq!(ram, (9..=40).collect::<std::vec::Vec<u64>>());
        assert_eq!(ranges.iter().filter(|range| range.2 == Unusable).count(), 8);
        assert_eq!(complaints, [LoaderError::LostRam((1..=8).map(|n| n * 0x1000).sum())]);
    }

    #[test]
    fn any_map_ends_up_in_order() {
        let mut seed = 1u64;
        let mut next = |limit: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % limit
        };
        for _ in 0..200 {
            let kinds = [Ram, Ram, Reserved, AcpiNvs, Unusable];
            let map: std::vec::Vec<_> = (0..MAX_RANGES)
                .map(|_| {
                    let start = next(1000) << 10;
                    (start, start + ((next(100) + 1) << 10), kinds[next(5) as usize])
                })
                .collect();
            let (ranges, _) = tidied(&map);
            assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let has_page = |range: &&(u64, u64, RangeKind)| range.0.div_ceil(0x1000) < range.1 / 0x1000;
            assert!(ranges.iter().filter(|range| range.2 == Ram).filter(has_page).count() <= MAX_REGIONS);
            for (start, end, kind) in &ranges {
                let said = map.iter().filter(|range| range.0 <= *start && range.1 > *start);
                assert_eq!(
                    said.map(|range| range.2)
                        .max_by_key(|kind| care(*kind))
                        .map(|said| said == *kind || *kind == Unusable),
                    Some(true),
                    "{start:#x} to {end:#x}"
                );
            }
        }
        // To the end of all addresses.
        let mut info = BootInfo::new();
        info.ranges.push(Range { start: Maddr::new(u64::MAX - 0xfff), length: u64::MAX, kind: Reserved }).unwrap();
        tidy(&mut info);
        assert_eq!(info.ranges[0].end(), u64::MAX);
    }
}
