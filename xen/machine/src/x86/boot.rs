//! From the loader's hand-over to the core: reads what the loader says, moves the image and the modules to the top of
//! memory (the control domain's kernel may want any low address), builds the final tables, and calls the core.
//!
//! Before: `entry.s`. After: `xen/src/main.rs` through the entry that it registered.

use super::{apic, cpu, paging, serial, svm, time, traps};
use crate::boot_info::{BootInfo, Range, RangeKind};
use crate::codec::loader::{self, LoaderError};
use crate::codec::placement::highest_fit;
use crate::frame::{FrameInfo, FrameTable, Region};
use crate::log;
use crate::units::{Maddr, Mfn, PAGE_SIZE_U64};
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::ptr::addr_of;

global_asm!(include_str!("entry.s"), options(att_syntax));

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __data_start: u8;
    static __rodata_start: u8;
    static __boot_stack_guard: u8;
    static __notes_start: u8;
    static __notes_end: u8;
}

/// Virtual minus physical address of the image as it was loaded.
pub(super) const IMAGE_OFFSET: u64 = 0xffff_ffff_8000_0000;
const MIB2: u64 = 0x20_0000;
const GIB4: u64 = 0x1_0000_0000;
/// Free memory that the core finds before it has decided what the rest of RAM is for.
const FIRST_HEAP_BYTES: u64 = 4 << 20;

unsafe extern "Rust" {
    /// The core's entry, defined by the `oxen` binary.
    safe fn oxen_main(info: &'static mut BootInfo) -> !;
}

/// What the loader said: large, so it has a place of its own instead of one on the stack.
struct InfoCell(UnsafeCell<BootInfo>);
// SAFETY: only `boot_main` reaches it, once, before other CPUs run.
unsafe impl Sync for InfoCell {}
static INFO: InfoCell = InfoCell(UnsafeCell::new(BootInfo::new()));

static FRAMES: spin::Once<FrameTable> = spin::Once::new();

/// The frame table; there is none before `build_frame_table`.
#[inline]
pub(super) fn frames() -> &'static FrameTable {
    // SAFETY: initialised by the boot CPU before any other code of the hypervisor asks.
    unsafe { FRAMES.get_unchecked() }
}

fn read_low(address: u64, out: &mut [u8]) -> bool {
    let reachable = address.checked_add(out.len() as u64).is_some_and(|end| end <= GIB4);
    if reachable {
        let source = paging::direct(Maddr::new(address));
        // SAFETY: the boot tables map all of the first 4 GiB at the direct map; the loader's structures are in RAM there.
        unsafe { core::ptr::copy_nonoverlapping(source, out.as_mut_ptr(), out.len()) };
    }
    reachable
}

fn read_loader(info: &mut BootInfo, magic: u32, address: u32) -> Result<(), LoaderError> {
    let address = u64::from(address);
    match magic {
        0x2bad_b002 => loader::read_multiboot1(info, &read_low, address)?,
        0x336e_c578 => loader::read_pvh(info, &read_low, address)?,
        multiboot2::MAGIC => read_multiboot2(info, address)?,
        other => return Err(LoaderError::UnknownLoader(other)),
    }
    Ok(())
}

fn read_multiboot2(info: &mut BootInfo, address: u64) -> Result<(), LoaderError> {
    let unreadable = LoaderError::Unreadable(address);
    let start = paging::direct(Maddr::new(address)).cast::<multiboot2::BootInformationHeader>();
    // SAFETY: the loader passed this address with the Multiboot 2 magic number; the structure is in mapped RAM, and the
    // crate checks its sizes.
    let boot = unsafe { multiboot2::BootInformation::load(start) }.map_err(|_| unreadable)?;
    let copy = |text: &str| crate::boot_info::CommandLine::try_from(text);
    if let Some(name) = boot.boot_loader_name_tag().and_then(|tag| tag.name().ok()) {
        info.loader = name.chars().take(info.loader.capacity()).collect();
    }
    if let Some(text) = boot.command_line_tag().and_then(|tag| tag.cmdline().ok()) {
        match copy(text) {
            Ok(text) => info.command_line = text,
            Err(_) => info.complain(LoaderError::LongCommandLine),
        }
    }
    for module in boot.module_tags() {
        let text = copy(module.cmdline().unwrap_or("")).unwrap_or_default();
        loader::add_module(info, module.start_address().into(), module.module_size().into(), text);
    }
    info.rsdp = rsdp_copy(&boot);
    let map = boot.memory_map_tag().ok_or(LoaderError::NoMemoryMap)?;
    for area in map.memory_areas() {
        loader::add_range(info, area.start_address(), area.size(), area.typ().into());
    }
    Ok(())
}

/// GRUB passes a copy of the root pointer inside its own structure; that memory is reused, so only the ACPI table
/// addresses in it would stay good. The firmware's own copy is found by search on a BIOS machine, so nothing is taken here.
fn rsdp_copy(_boot: &multiboot2::BootInformation<'_>) -> Option<Maddr> {
    None
}

#[unsafe(no_mangle)]
extern "C" fn boot_main(magic: u32, address: u32) -> ! {
    // SAFETY: this function runs once, and nobody else names the cell.
    let info = unsafe { &mut *INFO.0.get() };
    if let Err(error) = read_loader(info, magic, address) {
        serial::configure("console=com1 com1=115200,8n1");
        log!(Error, "Oxen cannot start: {error}");
        super::stop()
    }
    serial::configure(&info.command_line);
    if let Err(missing) = svm::check() {
        log!(Error, "Oxen cannot start: {missing}");
        super::stop()
    }
    let Some(image) = choose_image_place(info) else {
        log!(Error, "Oxen cannot start: no room below 4 GiB for its image");
        super::stop()
    };
    move_modules(info, &image);
    let table_bytes = frame_table_bytes(info);
    let mut occupied = occupied(info, &image);
    let table = highest_fit(&info.ranges, &occupied, table_bytes, MIB2, GIB4);
    let Some(table) = table else {
        log!(Error, "Oxen cannot start: no room for a frame table of {table_bytes} bytes");
        super::stop()
    };
    occupied.push((table, table_bytes)).ok();
    let first_heap = highest_fit(&info.ranges, &occupied, FIRST_HEAP_BYTES, MIB2, GIB4);
    if let Some(start) = first_heap {
        occupied.push((start, FIRST_HEAP_BYTES)).ok();
    }
    info.image = image;
    info.floor = Maddr::new(occupied.iter().map(|(start, _)| *start).min().unwrap_or(table));
    paging::build(info, Maddr::new(table), paging::table_bytes(total_pages(info)));
    build_frame_table(info, table, table_bytes);
    if let Some(start) = first_heap {
        frames().release(Maddr::new(start).frame(), FIRST_HEAP_BYTES / PAGE_SIZE_U64);
    }
    traps::initialise();
    cpu::initialise_boot_cpu();
    svm::initialise_maps();
    svm::enable();
    apic::initialise();
    time::calibrate();
    oxen_main(info)
}

fn image_bytes() -> u64 {
    let bytes = addr_of!(__image_end) as u64 - addr_of!(__image_start) as u64;
    bytes.next_multiple_of(MIB2)
}

fn occupied(info: &BootInfo, image: &Range) -> heapless::Vec<(u64, u64), 8> {
    let mut list = heapless::Vec::new();
    // Eight places are enough: the image and at most four modules.
    list.push((image.start.number(), image.length)).ok();
    for module in &info.modules {
        list.push((module.start.number(), module.length)).ok();
    }
    list
}

fn choose_image_place(info: &BootInfo) -> Option<Range> {
    let length = image_bytes();
    let here = Range { start: Maddr::new(addr_of!(__image_start) as u64 - IMAGE_OFFSET), length, kind: RangeKind::Ram };
    let start = highest_fit(&info.ranges, &occupied(info, &here), length, MIB2, GIB4)?;
    Some(Range { start: Maddr::new(start), ..here })
}

/// Moves every module as high as it goes below 4 GiB, page aligned.
fn move_modules(info: &mut BootInfo, image: &Range) {
    let here = (addr_of!(__image_start) as u64 - IMAGE_OFFSET, image_bytes());
    for index in 0..info.modules.len() {
        let mut occupied = occupied(info, image);
        occupied.push(here).ok();
        let length = info.modules[index].length;
        let Some(target) = highest_fit(&info.ranges, &occupied, length, PAGE_SIZE_U64, GIB4) else { continue };
        let source = info.modules[index].start;
        // SAFETY: source and target are RAM below 4 GiB, which the boot tables map; the target overlaps no module (the
        // source included), nor the image in its old or new place.
        unsafe {
            core::ptr::copy_nonoverlapping(
                paging::direct(source),
                paging::direct(Maddr::new(target)),
                usize::try_from(length).unwrap_or(0),
            );
        }
        info.modules[index].start = Maddr::new(target);
    }
}

/// Bytes for the frame table and, before it, one page for every GiB of RAM and 64 more for the hypervisor's own tables.
fn frame_table_bytes(info: &BootInfo) -> u64 {
    let pages = total_pages(info);
    let records = pages * size_of::<FrameInfo>() as u64;
    (records.next_multiple_of(PAGE_SIZE_U64) + paging::table_bytes(pages)).next_multiple_of(MIB2)
}

fn total_pages(info: &BootInfo) -> u64 {
    ram_pages(info).map(|(first, end)| end - first).sum()
}

fn ram_pages(info: &BootInfo) -> impl Iterator<Item = (u64, u64)> {
    info.ranges.iter().filter(|range| range.kind == RangeKind::Ram).map(Range::pages).filter(|(first, end)| end > first)
}

fn build_frame_table(info: &BootInfo, start: u64, length: u64) {
    let mut next = start + paging::table_bytes(total_pages(info));
    let mut regions = heapless::Vec::new();
    for (first, end) in ram_pages(info) {
        let count = usize::try_from(end - first).unwrap_or(0);
        let place = paging::direct(Maddr::new(next)).cast::<FrameInfo>();
        for index in 0..count {
            // SAFETY: the area was reserved for exactly these records and nothing else uses it.
            unsafe { place.wrapping_add(index).write(FrameInfo::new()) };
        }
        // SAFETY: just initialised, never freed.
        let records = unsafe { core::slice::from_raw_parts(place, count) };
        next += (count * size_of::<FrameInfo>()) as u64;
        if regions.push(Region { start: Mfn::new(first), info: records }).is_err() {
            break;
        }
    }
    assert!(next <= start + length, "frame table larger than reserved");
    let table = FRAMES.call_once(|| FrameTable::new(regions));
    table.claim(info.image.start.frame(), info.image.length / PAGE_SIZE_U64);
    table.claim(Maddr::new(start).frame(), length / PAGE_SIZE_U64);
    for module in &info.modules {
        table.claim(module.start.frame(), module.length.div_ceil(PAGE_SIZE_U64));
    }
}

/// The page below the boot stack, which stays unmapped so that an overflow is a fault.
pub(super) fn stack_guard() -> u64 {
    addr_of!(__boot_stack_guard) as u64
}

/// Bounds of the image's parts with different rights: start, read-only data, writable data, end.
pub(super) fn image_bounds() -> [u64; 4] {
    [
        addr_of!(__image_start) as u64,
        addr_of!(__rodata_start) as u64,
        addr_of!(__data_start) as u64,
        addr_of!(__image_end) as u64,
    ]
}

/// What the linker has called this image; empty if it has not.
pub fn build_id() -> &'static [u8] {
    let (start, end) = (addr_of!(__notes_start), addr_of!(__notes_end));
    // SAFETY: the linker script puts both symbols around the notes, which are constants inside the image.
    crate::codec::note::build_id(unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) })
}
