//! Where kernel, initrd and start-of-day block go in the guest's RAM. Pure arithmetic on ranges.
//!
//! Before this, `elf` knows the kernel's span and `pvh` the size of its block; after it `load` makes the writes.
//!
//! Xen's history with this (each was a bug once): metadata over the kernel's bss, an initrd over a hole of the memory
//! map, a block in the first MiB where the kernel puts its real-mode trampoline. So: everything lies in one piece of
//! RAM, the kernel's whole span counts, and nothing but the kernel goes below 1 MiB.

use crate::elf::Relocation;
use crate::{GpaRange, ImageError};

/// Alignment of the initrd and the block, in bytes.
pub const PAGE: u64 = 4096;
/// Nothing but the kernel itself is placed below: firmware areas and the kernel's trampolines.
const LOW_MEMORY: u64 = 1 << 20;
/// A PVH kernel starts in 32-bit mode and must reach everything.
const FOUR_GIB: u64 = 1 << 32;

/// What is to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where the kernel is, in full (with its bss).
    pub kernel: GpaRange,
    /// Size of the initrd in bytes; zero when there is none.
    pub initrd_size: u64,
    /// Size of the start-of-day block in bytes; at least one.
    pub metadata_size: u64,
}

/// Where things go. No two of the kernel and these overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The initrd, exactly its size from a page border; `None` when there is none.
    pub initrd: Option<GpaRange>,
    /// The block, exactly its size from a page border.
    pub metadata: GpaRange,
}

/// Chooses addresses: the initrd first, at the lowest place above the kernel; then the block, at the lowest place above
/// the initrd, else anywhere from 1 MiB on. All of it below 4 GiB.
///
/// `ram` is the guest's usable RAM: sorted, without overlaps. Ranges that touch count as one.
///
/// # Errors
/// `ram` is not sorted, the kernel is not in one piece of RAM below 4 GiB, or there is no room; then the error has the
/// size wanted, the addresses searched and the largest free piece.
pub fn place(ram: &[GpaRange], request: &Request) -> Result<Placement, ImageError> {
    check_sorted(ram)?;
    let kernel = request.kernel;
    if kernel.end() > FOUR_GIB || !pieces_of_ram(ram).any(|piece| piece.contains(kernel)) {
        return Err(ImageError::NotInRam { what: "kernel", range: kernel });
    }
    if request.metadata_size == 0 {
        return Err(ImageError::Argument { what: "start info size", value: 0, problem: "must not be zero" });
    }
    let above = |start: u64| between(start.clamp(LOW_MEMORY, FOUR_GIB), FOUR_GIB);

    let initrd = match request.initrd_size {
        0 => None,
        size => Some(find(ram, &[kernel], above(kernel.end()), size, PAGE).or_no_room("initrd")?),
    };
    let taken = [kernel, initrd.unwrap_or(kernel)];
    let first_choice = above(initrd.unwrap_or(kernel).end());
    let metadata = find(ram, &taken, first_choice, request.metadata_size, PAGE)
        .or_else(|_| find(ram, &taken, above(LOW_MEMORY), request.metadata_size, PAGE))
        .or_no_room("start info")?;
    Ok(Placement { initrd, metadata })
}

/// Chooses where a kernel goes: where it was linked when that is RAM, else, when it can be relocated, the lowest
/// aligned address that its note allows, from 1 MiB on. The result is the address of the lowest byte of `span`.
///
/// # Errors
/// `ram` is not sorted, or there is no such place.
pub fn place_kernel(ram: &[GpaRange], span: GpaRange, relocation: Option<Relocation>) -> Result<u64, ImageError> {
    check_sorted(ram)?;
    if span.end() <= FOUR_GIB && pieces_of_ram(ram).any(|piece| piece.contains(span)) {
        return Ok(span.start());
    }
    let Some(relocation) = relocation else {
        return Err(ImageError::NotInRam { what: "kernel", range: span });
    };
    if !relocation.align.is_power_of_two() {
        let value = relocation.align;
        return Err(ImageError::Argument { what: "kernel alignment", value, problem: "not a power of two" });
    }
    let start = relocation.within.start().clamp(LOW_MEMORY, FOUR_GIB);
    let within = between(start, relocation.within.end().min(FOUR_GIB));
    Ok(find(ram, &[], within, span.len(), relocation.align).or_no_room("kernel")?.start())
}

/// A search without success: what [`ImageError::NoRoom`] says without the name.
struct NoRoom {
    size: u64,
    within: GpaRange,
    largest: u64,
}

trait OrNoRoom {
    fn or_no_room(self, what: &'static str) -> Result<GpaRange, ImageError>;
}

impl OrNoRoom for Result<GpaRange, NoRoom> {
    fn or_no_room(self, what: &'static str) -> Result<GpaRange, ImageError> {
        self.map_err(|NoRoom { size, within, largest }| ImageError::NoRoom { what, size, within, largest })
    }
}

/// The lowest aligned place for `size` bytes in RAM, in `within`, apart from `taken`.
fn find(ram: &[GpaRange], taken: &[GpaRange], within: GpaRange, size: u64, align: u64) -> Result<GpaRange, NoRoom> {
    let mut largest = 0;
    for piece in pieces_of_ram(ram).filter_map(|piece| piece.intersection(within)) {
        // Walk the free gaps of the piece: from a border to the next taken range.
        let mut from = piece.start();
        while let Some(start) = from.checked_next_multiple_of(align).filter(|&start| start < piece.end()) {
            if let Some(in_the_way) = taken.iter().find(|range| range.start() <= start && start < range.end()) {
                from = in_the_way.end();
                continue;
            }
            // The next taken range above, or the end of the piece.
            let end =
                taken.iter().map(|range| range.start()).filter(|&other| other > start).fold(piece.end(), u64::min);
            let free = between(start, end);
            if free.len() >= size
                && let Some(found) = GpaRange::new(start, size)
            {
                return Ok(found);
            }
            largest = free.len().max(largest);
            from = end;
        }
    }
    Err(NoRoom { size, within, largest })
}

/// `ram` with ranges that touch made one.
fn pieces_of_ram(ram: &[GpaRange]) -> impl Iterator<Item = GpaRange> + '_ {
    let mut rest = ram.iter().copied().filter(|range| !range.is_empty()).peekable();
    core::iter::from_fn(move || {
        let mut piece = rest.next()?;
        while let Some(next) = rest.next_if(|next| next.start() == piece.end()) {
            piece = between(piece.start(), next.end());
        }
        Some(piece)
    })
}

fn check_sorted(ram: &[GpaRange]) -> Result<(), ImageError> {
    for (one, next) in ram.iter().zip(ram.iter().skip(1)) {
        if next.start() < one.end() {
            return Err(ImageError::Overlap {
                first: "RAM range",
                first_range: *one,
                second: "next RAM range",
                second_range: *next,
            });
        }
    }
    Ok(())
}

/// An empty range at `start` when the end is below it.
fn between(start: u64, end: u64) -> GpaRange {
    GpaRange::between(start, end.max(start)).unwrap_or(GpaRange::EMPTY)
}
