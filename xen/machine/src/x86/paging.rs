//! The hypervisor's own address space.
//!
//! Three windows: all RAM at `DIRECT` (writable, never executable), device registers at `DEVICES` (uncached, mapped when
//! asked for), and the image at the top with the rights its parts need. Stacks get a window of their own, with unmapped
//! pages between them.

use super::boot::{IMAGE_OFFSET, image_bounds, stack_guard};
use crate::boot_info::{BootInfo, RangeKind};
use crate::frame::{self, Fill, Kind};
use crate::lock::{Lock, rank};
use crate::units::{DomId, Maddr, Mfn, PAGE_SIZE_U64};
use core::arch::asm;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU64, Ordering};

const DIRECT: u64 = 0xffff_8000_0000_0000;
const DEVICES: u64 = 0xffff_c000_0000_0000;
/// Where stacks are mapped; see `cpu`.
pub(super) const STACKS: u64 = 0xffff_e000_0000_0000;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const UNCACHED: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const MIB2: u64 = 0x20_0000;
const GIB1: u64 = 0x4000_0000;

/// What a mapping is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Data,
    Constants,
    Code,
    Device,
}

impl Use {
    const fn bits(self) -> u64 {
        match self {
            Self::Data => PRESENT | WRITABLE | NO_EXECUTE,
            Self::Constants => PRESENT | NO_EXECUTE,
            Self::Code => PRESENT,
            Self::Device => PRESENT | WRITABLE | NO_EXECUTE | WRITE_THROUGH | UNCACHED,
        }
    }
}

/// The root table's physical address, and the pages for tables that are still unused during boot.
static ROOT: AtomicU64 = AtomicU64::new(0);
static SPARE_NEXT: AtomicU64 = AtomicU64::new(0);
static SPARE_END: AtomicU64 = AtomicU64::new(0);
/// One change at a time.
static CHANGE: Lock<(), { rank::CONSOLE - 1 }> = Lock::new(());

/// Where the hypervisor sees a byte of RAM.
#[inline]
pub(super) fn direct(maddr: Maddr) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut((DIRECT + maddr.number()) as usize)
}

/// The physical address of something that the direct map shows. The pointer's provenance is exposed, because whoever gets the
/// physical address reaches the thing through the direct map: the compiler must not think that it stays unchanged.
pub(super) fn physical<T>(place: *const T) -> Maddr {
    let address = place.expose_provenance() as u64;
    if address >= IMAGE_OFFSET {
        Maddr::new(address - image_bounds()[0] + IMAGE_START.load(Ordering::Relaxed))
    } else {
        Maddr::new(address - DIRECT)
    }
}

static IMAGE_START: AtomicU64 = AtomicU64::new(0);

/// Bytes of table pages set aside for `pages` of RAM: one page for each GiB (split in 2 MiB pages) and 64 more.
pub(super) fn table_bytes(pages: u64) -> u64 {
    (pages.div_ceil(GIB1 / PAGE_SIZE_U64) + 64) * PAGE_SIZE_U64
}

/// A page of those set aside for the boot, zeroed.
pub(super) fn spare_page() -> Option<Mfn> {
    let next = SPARE_NEXT.load(Ordering::Relaxed);
    (next < SPARE_END.load(Ordering::Relaxed)).then(|| {
        SPARE_NEXT.store(next + PAGE_SIZE_U64, Ordering::Relaxed);
        // SAFETY: a page of the area that `build` set aside, used by nobody yet.
        unsafe { core::ptr::write_bytes(direct(Maddr::new(next)), 0, PAGE_SIZE_U64 as usize) };
        Maddr::new(next).frame()
    })
}

fn spare_table() -> Option<Maddr> {
    let spare = spare_page().map(Mfn::address);
    spare.or_else(|| frame::allocate(0, Kind::Hypervisor, DomId(0), Fill::Zero).map(Mfn::address))
}

fn entry(table: Maddr, address: u64, level: u32) -> *mut u64 {
    let index = (address >> (12 + 9 * (level - 1)) & 511) as usize;
    direct(table).cast::<u64>().wrapping_add(index)
}

fn load(place: *mut u64) -> u64 {
    // SAFETY: `entry` points into a table page, which the direct map shows.
    unsafe { place.read_volatile() }
}

fn store(place: *mut u64, value: u64) {
    // SAFETY: as in `load`; changes are made under `CHANGE` or before other CPUs run.
    unsafe { place.write_volatile(value) }
}

/// Maps `[start, start + length)` to `target` in the largest pages that fit. False when memory for tables is out.
fn map(start: u64, target: Maddr, length: u64, usage: Use) -> bool {
    let huge = super::cpu::has_gib_pages();
    let (mut at, mut to, end) = (start, target.number(), start + length);
    while at < end {
        let fits = |size: u64| (at | to).is_multiple_of(size) && end - at >= size;
        let level = match () {
            () if huge && fits(GIB1) => 3,
            () if fits(MIB2) => 2,
            () => 1,
        };
        if !map_one(at, to, level, usage) {
            return false;
        }
        let size = PAGE_SIZE_U64 << (9 * (level - 1));
        at += size;
        to += size;
    }
    true
}

fn map_one(at: u64, to: u64, level: u32, usage: Use) -> bool {
    let mut table = Maddr::new(ROOT.load(Ordering::Relaxed));
    for upper in (level + 1..=4).rev() {
        let place = entry(table, at, upper);
        let mut value = load(place);
        if value & PRESENT == 0 {
            let Some(child) = spare_table() else { return false };
            value = child.number() | PRESENT | WRITABLE;
            store(place, value);
        } else if value & LARGE != 0 {
            return true;
        }
        table = Maddr::new(value & ADDRESS);
    }
    let large = if level > 1 { LARGE } else { 0 };
    store(entry(table, at, level), to | usage.bits() | large);
    true
}

/// Builds the final tables from `tables` on, moves the image to its place and switches to it.
pub(super) fn build(info: &BootInfo, tables: Maddr, bytes: u64) {
    SPARE_NEXT.store(tables.number(), Ordering::Relaxed);
    SPARE_END.store(tables.number() + bytes, Ordering::Relaxed);
    let root = spare_table().map_or(0, Maddr::number);
    ROOT.store(root, Ordering::Relaxed);
    let mut complete = root != 0;
    for range in
        info.ranges.iter().filter(|range| range.kind != RangeKind::Unusable && range.kind != RangeKind::Reserved)
    {
        let start = range.start.number() & !(PAGE_SIZE_U64 - 1);
        let end = range.end().next_multiple_of(PAGE_SIZE_U64);
        complete &= map(DIRECT + start, Maddr::new(start), end - start, Use::Data);
    }
    let [start, constants, data, end] = image_bounds();
    let base = info.image.start.number();
    let guard = stack_guard();
    let parts = [
        (start, constants, Use::Code),
        (constants, data, Use::Constants),
        (data, guard, Use::Data),
        (guard + PAGE_SIZE_U64, end, Use::Data),
    ];
    for (from, to, usage) in parts {
        complete &= map(from, Maddr::new(base + (from - start)), to - from, usage);
    }
    assert!(complete, "no memory for the hypervisor's own tables");
    IMAGE_START.store(base, Ordering::Relaxed);
    let (source, length) = (start - IMAGE_OFFSET, end - start);
    // SAFETY: the new tables map code, stack and data at the addresses they have now; the copy is the last thing that the
    // old image does, and nothing is pushed between copying and switching. The boot tables map source and target alike.
    unsafe {
        asm!(
            "rep movsq",
            "mov cr3, {root}",
            root = in(reg) root,
            inout("rcx") length / 8 => _,
            inout("rsi") DIRECT + source => _,
            inout("rdi") DIRECT + base => _,
            options(nostack),
        );
    }
    // SAFETY: everything mapped from here on is meant to be used with write protection and global pages off.
    unsafe { asm!("mov rax, cr4", "and rax, {mask}", "mov cr4, rax", mask = in(reg) !(1u64 << 7), out("rax") _) };
}

/// The root table, for the other CPUs.
pub(super) fn root() -> Maddr {
    Maddr::new(ROOT.load(Ordering::Relaxed))
}

/// Maps device registers that the hypervisor cannot do without, and gives where they are seen. The mapping stays.
pub(super) fn device(maddr: Maddr, length: u64) -> *mut u8 {
    match try_device(maddr, length) {
        Some(place) => place,
        None => panic!("device registers at {maddr:?} cannot be mapped"),
    }
}

/// As [`device`]; `None` if there is no memory for tables, or the window ends before that address (32 TiB).
pub(super) fn try_device(maddr: Maddr, length: u64) -> Option<*mut u8> {
    let end = maddr.checked_add(length)?.number().checked_next_multiple_of(PAGE_SIZE_U64)?;
    let start = maddr.number() & !(PAGE_SIZE_U64 - 1);
    let guard = CHANGE.lock();
    let mapped = end <= STACKS - DEVICES && map(DEVICES + start, Maddr::new(start), end - start, Use::Device);
    drop(guard);
    mapped.then(|| core::ptr::with_exposed_provenance_mut((DEVICES + maddr.number()) as usize))
}

/// Reads firmware's memory: tables that lie in reserved ranges as well as in RAM. False if the range makes no sense.
pub fn read_firmware(maddr: Maddr, out: &mut [u8]) -> bool {
    let Some(end) = maddr.checked_add(out.len() as u64).filter(|end| end.number() < 1 << 46) else { return false };
    let (start, end) = (maddr.number() & !(PAGE_SIZE_U64 - 1), end.number().next_multiple_of(PAGE_SIZE_U64));
    let guard = CHANGE.lock();
    let mapped = (start..end)
        .step_by(PAGE_SIZE_U64 as usize)
        .all(|page| is_mapped(DIRECT + page) || map(DIRECT + page, Maddr::new(page), PAGE_SIZE_U64, Use::Constants));
    drop(guard);
    if mapped {
        for (offset, byte) in out.iter_mut().enumerate() {
            // SAFETY: mapped by the lines above; firmware memory is read byte by byte and never referenced.
            *byte = unsafe { direct(maddr).wrapping_add(offset).read_volatile() };
        }
    }
    mapped
}

fn is_mapped(at: u64) -> bool {
    let mut table = root();
    for level in (1..=4).rev() {
        let value = load(entry(table, at, level));
        if value & PRESENT == 0 {
            return false;
        }
        if level == 1 || value & LARGE != 0 {
            return true;
        }
        table = Maddr::new(value & ADDRESS);
    }
    false
}

/// The page of the hypervisor's own RAM that holds a byte seen through the direct map.
pub(super) fn page_of(place: *const u8) -> Mfn {
    physical(place).frame()
}

/// Maps pages of the hypervisor's own at an address of its own choice (stacks).
pub(super) fn map_own(at: u64, mfn: Mfn) -> bool {
    let guard = CHANGE.lock();
    let mapped = map(at, mfn.address(), PAGE_SIZE_U64, Use::Data);
    drop(guard);
    mapped
}

/// Maps the first 2 MiB one to one, executable, while other CPUs start; and takes that away again.
pub(super) fn set_low_identity(on: bool) {
    let guard = CHANGE.lock();
    if on {
        assert!(map_one(0, 0, 2, Use::Code), "no memory for the start of other processors");
    } else {
        store(entry(root(), 0, 4), 0);
    }
    drop(guard);
    // SAFETY: reloading the root drops all translations of this CPU, the low one included.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) };
}

/// Where a static of the image is seen physically.
pub(super) fn physical_of_static<T>(place: &'static T) -> Maddr {
    physical(addr_of!(*place))
}
