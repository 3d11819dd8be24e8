//! Which frames the control domain gets, and the memory map that it is told. Pure.
//!
//! Without an IOMMU its devices address memory by machine frame numbers, so it is mapped 1:1 (with one, too: one case less): the lowest RAM that the
//! hypervisor does not use itself, at its own addresses. RAM that it does not get stays in its map as unusable, so that it
//! puts neither device registers nor other domains' pages there.

use alloc::vec::Vec;
use image::GpaRange;
use machine::boot_info::{BootInfo, Range, RangeKind};
use machine::{PAGE_SHIFT, PAGE_SIZE_U64};

use crate::domain::E820Entry;

/// Linux reads at most so many entries of a Xen memory map.
pub const MAX_ENTRIES: usize = 128;
const GIB4: u64 = 1 << 32;

/// Why there is no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// No memory for the plan itself.
    OutOfMemory,
    /// The firmware's map has too many ranges.
    TooManyRanges,
}

/// What the control domain gets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// RAM, in page-aligned ranges, ascending, without overlaps.
    pub ram: Vec<GpaRange>,
    /// Its memory map.
    pub map: Vec<E820Entry>,
    /// Where its own ACPI tables go: inside RAM, marked as ACPI in the map.
    pub acpi: Option<GpaRange>,
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), PlanError> {
    list.try_reserve(1).map_err(|_| PlanError::OutOfMemory)?;
    list.push(item);
    Ok(())
}

/// RAM that the control domain can have: whole pages, below what the hypervisor took below 4 GiB, and all above 4 GiB.
pub fn available(info: &BootInfo) -> impl Iterator<Item = GpaRange> + '_ {
    let floor = info.floor.number();
    info.ranges.iter().filter(|range| range.kind == RangeKind::Ram).filter_map(move |range| {
        let (first, end) = range.pages();
        let (start, end) = (first << PAGE_SHIFT, end << PAGE_SHIFT);
        let end = if start < GIB4 { end.min(floor) } else { end };
        GpaRange::between(start, end).filter(|range| range.start() < range.end())
    })
}

/// Bytes that [`available`] has in all.
pub fn available_bytes(info: &BootInfo) -> u64 {
    available(info).map(|range| range.end().saturating_sub(range.start())).sum()
}

/// Gives the control domain the lowest `bytes` of what is available, `acpi_bytes` of which, at the top of its memory below
/// 4 GiB, are for its ACPI tables.
///
/// # Errors
/// [`PlanError`].
pub fn plan(info: &BootInfo, bytes: u64, acpi_bytes: u64) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let mut left = bytes & !(PAGE_SIZE_U64.saturating_sub(1));
    let mut sources = Vec::new();
    for range in available(info) {
        push(&mut sources, range)?;
    }
    sources.sort_unstable_by_key(|range| range.start());
    for source in sources {
        let length = left.min(source.end().saturating_sub(source.start()));
        if let Some(part) = GpaRange::new(source.start(), length).filter(|_| length > 0) {
            push(&mut plan.ram, part)?;
            left = left.saturating_sub(length);
        }
    }
    let room = acpi_bytes.next_multiple_of(PAGE_SIZE_U64);
    let top = plan.ram.iter().filter(|range| range.end() <= GIB4).max_by_key(|range| range.end());
    plan.acpi = top.and_then(|range| GpaRange::between(range.end().checked_sub(room)?, range.end()));
    plan.map = map(info, &plan)?;
    Ok(plan)
}

impl Plan {
    /// Marks in the map what of a range nothing is known of as reserved, so that the domain puts nothing there (RDM-1).
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn keep_free(&mut self, (start, end): (u64, u64)) -> Result<(), PlanError> {
        let (mut at, known) = (start, self.map.len());
        for number in 0..=known {
            let entry = self.map.get(number).filter(|_| number < known);
            let (next, after) =
                entry.map_or((end, end), |entry| (entry.start, entry.start.saturating_add(entry.length)));
            let stop = next.min(end);
            if at < stop {
                let kind = RangeKind::Reserved.e820();
                push(&mut self.map, E820Entry { start: at, length: stop.saturating_sub(at), kind })?;
            }
            at = at.max(after);
        }
        self.map.sort_unstable_by_key(|entry| entry.start);
        if self.map.len() > MAX_ENTRIES { Err(PlanError::TooManyRanges) } else { Ok(()) }
    }
}

fn map(info: &BootInfo, plan: &Plan) -> Result<Vec<E820Entry>, PlanError> {
    let mut map = Vec::new();
    let mut add = |start: u64, end: u64, kind: RangeKind| {
        if start < end {
            push(&mut map, E820Entry { start, length: end.saturating_sub(start), kind: kind.e820() })?;
        }
        Ok(())
    };
    for range in &info.ranges {
        if range.kind != RangeKind::Ram {
            add(range.start.number(), range.end(), range.kind)?;
            continue;
        }
        add_ram(range, plan, &mut add)?;
    }
    map.sort_unstable_by_key(|entry| entry.start);
    if map.len() > MAX_ENTRIES { Err(PlanError::TooManyRanges) } else { Ok(map) }
}

/// The entries of one range of RAM: what the domain gets of it, the tables' place, and the rest as unusable.
fn add_ram(
    range: &Range,
    plan: &Plan,
    add: &mut impl FnMut(u64, u64, RangeKind) -> Result<(), PlanError>,
) -> Result<(), PlanError> {
    let (mut at, end) = (range.start.number(), range.end());
    for part in plan.ram.iter().filter(|part| part.start() < end && part.end() > range.start.number()) {
        add(at, part.start(), RangeKind::Unusable)?;
        let ram_end = plan.acpi.filter(|acpi| part.contains(*acpi)).map_or(part.end(), |acpi| acpi.start());
        add(part.start(), ram_end, RangeKind::Ram)?;
        add(ram_end, part.end(), RangeKind::AcpiReclaimable)?;
        at = part.end();
    }
    add(at, end, RangeKind::Unusable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::Maddr;

    fn info(floor: u64) -> BootInfo {
        let mut info = BootInfo::new();
        let ranges = [
            (0, 0x9_fc00, RangeKind::Ram),
            (0x9_fc00, 0x400, RangeKind::Reserved),
            (0xf_0000, 0x1_0000, RangeKind::Reserved),
            (0x10_0000, 0x7fed_f000, RangeKind::Ram),
            (0x7ffd_f000, 0x2_1000, RangeKind::Reserved),
            (0x1_0000_0000, 0x8000_0000, RangeKind::Ram),
        ];
        for (start, length, kind) in ranges {
            info.ranges.push(Range { start: Maddr::new(start), length, kind }).unwrap();
        }
        info.floor = Maddr::new(floor);
        info
    }

    #[test]
    fn the_lowest_ram_in_whole_pages() {
        let info = info(0x7c00_0000);
        let plan = plan(&info, 512 << 20, 0x3000).unwrap();
        let total: u64 = plan.ram.iter().map(|range| range.end() - range.start()).sum();
        assert_eq!(total, 512 << 20);
        assert_eq!(plan.ram[0], GpaRange::between(0, 0x9_f000).unwrap());
        assert_eq!(plan.ram[1].start(), 0x10_0000);
        let acpi = plan.acpi.unwrap();
        assert_eq!(acpi.end(), plan.ram[1].end());
        assert_eq!(acpi.end() - acpi.start(), 0x3000);
    }

    #[test]
    fn the_map_covers_all_and_calls_foreign_ram_unusable() {
        let info = info(0x7c00_0000);
        let plan = plan(&info, 512 << 20, 0x3000).unwrap();
        assert!(plan.map.windows(2).all(|pair| pair[0].start + pair[0].length <= pair[1].start), "{:x?}", plan.map);
        let ram: u64 = plan.map.iter().filter(|entry| entry.kind == 1).map(|entry| entry.length).sum();
        assert_eq!(ram, (512 << 20) - 0x3000);
        let unusable: u64 = plan.map.iter().filter(|entry| entry.kind == 5).map(|entry| entry.length).sum();
        let all: u64 = 0x9_fc00 + 0x7fed_f000 + 0x8000_0000;
        assert_eq!(unusable + (512 << 20), all);
        assert!(plan.map.iter().any(|entry| entry.start == 0x7ffd_f000 && entry.kind == 2));
    }

    #[test]
    fn what_devices_need_is_reserved_where_nothing_is_known_of_it() {
        let mut plan = plan(&info(0x7c00_0000), 512 << 20, 0x3000).unwrap();
        let before = plan.map.clone();
        let kind_at = |plan: &Plan, at: u64| {
            let found = plan.map.iter().find(|entry| (entry.start..entry.start + entry.length).contains(&at));
            found.map(|entry| entry.kind)
        };
        // From reserved over RAM's end, which both stay, into nothing.
        plan.keep_free((0x7fff_f000, 0x8000_2000)).unwrap();
        plan.keep_free((0xe_f000, 0x11_0000)).unwrap();
        plan.keep_free((0x2000_0000_0000, 0x2000_0000_1000)).unwrap();
        plan.keep_free((0x2000_0000_0000, 0x2000_0000_1000)).unwrap();
        assert_eq!(plan.map.len(), before.len() + 3, "{:x?}", plan.map);
        assert!(before.iter().all(|entry| plan.map.contains(entry)), "nothing that was known has changed");
        assert!(plan.map.windows(2).all(|pair| pair[0].start + pair[0].length <= pair[1].start), "{:x?}", plan.map);
        for at in [0x8000_0000, 0x8000_1fff, 0xe_f000, 0x2000_0000_0000] {
            assert_eq!(kind_at(&plan, at), Some(2), "{at:#x}");
        }
        assert_eq!((kind_at(&plan, 0x8000_2000), kind_at(&plan, 0xe_efff)), (None, None));
    }

    #[test]
    fn more_than_fits_low_goes_high_and_never_where_the_hypervisor_is() {
        let info = info(0x2000_0000);
        assert_eq!(available_bytes(&info), 0x9_f000 + 0x1ff0_0000 + 0x8000_0000);
        let plan = plan(&info, 1 << 30, 0x1000).unwrap();
        assert!(plan.ram.iter().all(|range| range.end() <= 0x2000_0000 || range.start() >= 0x1_0000_0000));
        let acpi = plan.acpi.unwrap();
        assert!(acpi.end() <= 0x2000_0000, "the tables stay below 4 GiB");
    }
}
