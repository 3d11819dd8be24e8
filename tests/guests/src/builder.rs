//! A toolstack for one tiny PVH guest: makes the domain, loads an ELF file that lies in memory, shows its console.
//!
//! For a control domain. The steps and their order are libxl's; what a tiny guest has no use for is left out (xenstore, ACPI
//! tables, grants that are there from the start). Used by `bin/launcher`.

use public_abi::arch_hvm_save::{HvmHwCpu, HvmHwMtrr, HvmSaveHeader};
use public_abi::domctl::DomctlOp;
use public_abi::domctl_domain::{
    ArchDomainConfig, CreateDomain, CreateDomainFlags, EmulationFlags, HvmContext, MaxMem, MaxVcpus, PagingMempool,
};
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{AllocUnbound, EventChannelOp};
use public_abi::hvm_params::HvmParam;
use public_abi::hvm_save::{Records, SaveCode, SaveDescriptor, SaveRecord};
use public_abi::memory::{
    AddToPhysmapBatch, E820Entry, E820Type, ForeignMemoryMap, MapSpace, MemoryMap, MemoryOp, MemoryReservation,
    RemoveFromPhysmap,
};
use public_abi::x86::{HVM_START_MAGIC, HvmMemmapEntry, HvmStartInfo};
use public_abi::{Errno, GuestPtr};
use rt::memory;
use rt::paging::{self, PRESENT, WRITABLE};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::{call, check};

const PAGE: u64 = 4096;
/// Where the guest's frames are mapped one after the other: guest frames above all RAM, and addresses of our own.
const WINDOW_FRAME: u64 = 1 << 24;
const WINDOW: u64 = 0x0000_0500_0000_0000;
const WINDOW_PAGES: u64 = 64;
/// The console ring's frame follows the window.
const CONSOLE_FRAME: u64 = WINDOW_FRAME + WINDOW_PAGES;
const CONSOLE_WINDOW: u64 = WINDOW + WINDOW_PAGES * PAGE;
/// The special pages of a PVH guest: eight from here on; xenstore's is the fifth, the console's the last.
const SPECIAL: u64 = 0xf_eff8;
const SPECIAL_PAGES: u64 = 8;
const STORE: u64 = SPECIAL + 4;
const CONSOLE: u64 = SPECIAL + 7;
/// Where ACPI tables are: the root pointer, and what it points to behind it.
const ACPI: u64 = 0xfc00_0000;
const ROOT_BYTES: u64 = 36;
/// Bytes for page tables that libxl would set aside for a small guest.
const POOL_BYTES: u64 = 4 << 20;

/// What a guest gets.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// vCPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub mebibytes: u64,
}

/// A guest that was built.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its domain.
    pub domid: u16,
    /// Its port of the console ring.
    pub console_port: u32,
}

/// The step that failed, and the hypercall's result.
pub type Failure = (&'static str, i64);

fn step(name: &'static str, result: i64) -> Result<(), Failure> {
    if result == 0 { Ok(()) } else { Err((name, result)) }
}

/// Builds a guest from the ELF file at `file`; it is still paused.
///
/// # Errors
/// [`Failure`]; the domain, if it was made, is left for [`destroy`].
pub fn build(file: u64, wishes: Wishes) -> Result<Guest, (Failure, Option<u16>)> {
    let domid = create(wishes).map_err(|failure| (failure, None))?;
    fill(domid, file, wishes).map_err(|failure| (failure, Some(domid)))
}

fn create(wishes: Wishes) -> Result<u16, Failure> {
    let mut request = CreateDomain {
        handle: *b"a tiny guest\0\0\0\0",
        flags: (CreateDomainFlags::HVM | CreateDomainFlags::HAP).bits(),
        max_vcpus: wishes.vcpus,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 1,
        arch: ArchDomainConfig { emulation_flags: EmulationFlags::PVH.bits(), misc_flags: 0 },
        ..Default::default()
    };
    let (result, domid) = call::domctl(DomctlOp::CreateDomain, 0, &mut request);
    step("createdomain", result).map(|()| domid)
}

fn fill(domid: u16, file: u64, wishes: Wishes) -> Result<Guest, Failure> {
    let order = |name, result: (i64, u16)| step(name, result.0);
    order("max_vcpus", call::domctl(DomctlOp::MaxVcpus, domid, &mut MaxVcpus { max: wishes.vcpus }))?;
    let max_memkb = wishes.mebibytes * 1024 + 1024;
    order("max_mem", call::domctl(DomctlOp::MaxMem, domid, &mut MaxMem { max_memkb }))?;
    let mut pool = PagingMempool { size: POOL_BYTES };
    order("set_paging_mempool_size", call::domctl(DomctlOp::SetPagingMempoolSize, domid, &mut pool))?;
    let store_port = unbound_port(domid)?;
    let console_port = unbound_port(domid)?;
    populate(domid, (0..wishes.mebibytes / 2).map(|block| block << 9), 9)?;
    populate(domid, SPECIAL..SPECIAL + SPECIAL_PAGES, 0)?;
    populate(domid, core::iter::once(ACPI / PAGE), 0)?;
    let map = memory_map(domid, wishes)?;
    let (entry, end) = load(domid, file)?;
    let start_info = (end + PAGE - 1) & !(PAGE - 1);
    write_acpi(domid)?;
    write_start_info(domid, start_info, &map)?;
    for (parameter, value) in [
        (HvmParam::TimerMode, 1),
        (HvmParam::StorePfn, STORE),
        (HvmParam::StoreEvtchn, store_port.into()),
        (HvmParam::ConsolePfn, CONSOLE),
        (HvmParam::ConsoleEvtchn, console_port.into()),
    ] {
        step("set_param", call::set_parameter_of(domid, parameter, value))?;
    }
    // Each load takes all vCPUs down; the last one leaves the first vCPU up.
    for vcpu in 0..wishes.vcpus {
        set_memory_types(domid, vcpu as u16)?;
    }
    set_registers(domid, entry, start_info)?;
    show(domid, &[CONSOLE], CONSOLE_FRAME)?;
    paging::map(CONSOLE_WINDOW, CONSOLE_FRAME * PAGE, PRESENT | WRITABLE);
    Ok(Guest { domid, console_port })
}

/// The address at which the console ring of the last guest that was built is seen.
#[must_use]
pub const fn console_ring() -> u64 {
    CONSOLE_WINDOW
}

/// Destroys a domain, after letting go of its pages.
///
/// # Errors
/// [`Failure`].
pub fn destroy(domid: u16) -> Result<(), Failure> {
    for frame in WINDOW_FRAME..=CONSOLE_FRAME {
        let mut request = RemoveFromPhysmap { domid: DOMID_SELF, gpfn: frame, ..Default::default() };
        let result = call::memory(MemoryOp::RemoveFromPhysmap, &mut request);
        // Not every page of the window was used.
        if result != 0 && result != check::error(Errno::ENOENT) && result != check::error(Errno::EINVAL) {
            return Err(("remove_from_physmap", result));
        }
    }
    step("destroydomain", call::domctl_plain(DomctlOp::DestroyDomain, domid))
}

fn unbound_port(dom: u16) -> Result<u32, Failure> {
    let mut request = AllocUnbound { dom, remote_dom: DOMID_SELF, port: 0 };
    step("alloc_unbound", call::event(EventChannelOp::AllocUnbound, &mut request)).map(|()| request.port)
}

fn populate(domid: u16, frames: impl Iterator<Item = u64>, extent_order: u32) -> Result<(), Failure> {
    for frame in frames {
        let mut list = [frame];
        let extent_start = GuestPtr::from_address(call::address(&mut list));
        let mut request = MemoryReservation { extent_start, nr_extents: 1, extent_order, domid, ..Default::default() };
        step("populate_physmap", call::memory(MemoryOp::PopulatePhysmap, &mut request) - 1)?;
    }
    Ok(())
}

/// The guest's memory map: its RAM, and the special pages.
fn memory_map(domid: u16, wishes: Wishes) -> Result<[HvmMemmapEntry; 2], Failure> {
    let entry = |addr, size, kind: E820Type| HvmMemmapEntry { addr, size, kind: kind.number(), ..Default::default() };
    let ram = entry(0, wishes.mebibytes << 20, E820Type::Ram);
    let map = [ram, entry(SPECIAL * PAGE, SPECIAL_PAGES * PAGE, E820Type::Reserved)];
    let mut list = map.map(|entry| {
        let kind = E820Type::try_from(entry.kind).unwrap_or(E820Type::Reserved);
        E820Entry::new(entry.addr, entry.size, kind)
    });
    let buffer = GuestPtr::from_address(call::address(&mut list));
    let map_of = MemoryMap { nr_entries: 2, buffer, ..Default::default() };
    let mut request = ForeignMemoryMap { domid, map: map_of, ..Default::default() };
    step("set_memory_map", call::memory(MemoryOp::SetMemoryMap, &mut request)).map(|()| map)
}

/// Maps frames of another domain at ours from `at` on.
fn show(foreign_domid: u16, frames: &[u64], at: u64) -> Result<(), Failure> {
    let mut sources = [0_u64; WINDOW_PAGES as usize];
    let mut targets = [0_u64; WINDOW_PAGES as usize];
    let mut errors = [0_i32; WINDOW_PAGES as usize];
    for (((source, target), frame), number) in sources.iter_mut().zip(&mut targets).zip(frames).zip(0..) {
        (*source, *target) = (*frame, at + number);
    }
    let mut request = AddToPhysmapBatch {
        domid: DOMID_SELF,
        space: MapSpace::GmfnForeign.number() as u16,
        size: frames.len() as u16,
        foreign_domid,
        idxs: GuestPtr::from_address(call::address(&mut sources)),
        gpfns: GuestPtr::from_address(call::address(&mut targets)),
        errs: GuestPtr::from_address(call::address(&mut errors)),
    };
    step("foreign map", call::memory(MemoryOp::AddToPhysmapBatch, &mut request))?;
    errors.iter().try_for_each(|error| step("foreign map of a page", i64::from(*error)))
}

/// Copies `length` bytes at our `source` to a guest's memory.
fn copy_to(domid: u16, target: u64, source: u64, length: u64) -> Result<(), Failure> {
    let (mut done, mut frames) = (0, [0; WINDOW_PAGES as usize]);
    while done < length {
        let first = (target + done) / PAGE;
        let count = ((target + length).div_ceil(PAGE) - first).min(WINDOW_PAGES);
        frames.iter_mut().zip(first..).for_each(|(place, frame)| *place = frame);
        let frames = frames.get(..count as usize).unwrap_or_default();
        show(domid, frames, WINDOW_FRAME)?;
        for page in 0..count {
            paging::map(WINDOW + page * PAGE, (WINDOW_FRAME + page) * PAGE, PRESENT | WRITABLE);
        }
        let end = ((first + count) * PAGE - target).min(length);
        let place = WINDOW + (target + done) % PAGE;
        copy(place, source + done, end - done);
        done = end;
    }
    Ok(())
}

fn copy(target: u64, source: u64, length: u64) {
    let words = if (target | source) % 8 == 0 { length / 8 } else { 0 };
    (0..words).for_each(|word| memory::write(target + word * 8, memory::read::<u64>(source + word * 8)));
    (words * 8..length).for_each(|at| memory::write(target + at, memory::read::<u8>(source + at)));
}

/// Loads a 64-bit ELF file; gives its PVH entry and the end of what it takes.
fn load(domid: u16, file: u64) -> Result<(u64, u64), Failure> {
    const LOAD: u32 = 1;
    const NOTE: u32 = 4;
    if memory::read::<u32>(file) != u32::from_le_bytes(*b"\x7fELF") || memory::read::<u8>(file + 4) != 2 {
        return Err(("no 64-bit ELF file", 0));
    }
    let headers = file + memory::read::<u64>(file + 32);
    let size = u64::from(memory::read::<u16>(file + 54));
    let count = u64::from(memory::read::<u16>(file + 56));
    let (mut entry, mut end) = (None, 0);
    for header in (0..count).map(|index| headers + index * size) {
        let field = |offset: u64| memory::read::<u64>(header + offset);
        let (offset, address, in_file, in_memory) = (field(8), field(24), field(32), field(40));
        match memory::read::<u32>(header) {
            LOAD => {
                // What the file does not have is zero already.
                copy_to(domid, address, file + offset, in_file)?;
                end = end.max(address + in_memory);
            }
            NOTE => entry = entry.or(entry_note(file + offset, in_file)),
            _ => {}
        }
    }
    entry.map(|entry| (entry, end)).ok_or(("no PVH entry note", 0))
}

/// The PVH entry among some notes (XEN_ELFNOTE_PHYS32_ENTRY).
fn entry_note(mut note: u64, length: u64) -> Option<u64> {
    const ENTRY: u32 = 18;
    let end = note + length;
    while note + 12 <= end {
        let [name, description, kind] = [0, 4, 8].map(|offset| memory::read::<u32>(note + offset));
        let value = note + 12 + u64::from(name.next_multiple_of(4));
        if kind == ENTRY && name == 4 && memory::read::<u32>(note + 12) == u32::from_le_bytes(*b"Xen\0") {
            return Some(memory::read::<u32>(value).into());
        }
        note = value + u64::from(description.next_multiple_of(4));
    }
    None
}

/// A root pointer of revision 2, and an empty list of tables.
fn write_acpi(domid: u16) -> Result<(), Failure> {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    let mut list = *b"XSDT\x24\0\0\0\x01\0TINY  GUEST   \x01\0\0\0TINY\x01\0\0\0";
    list[9] = sum(&list);
    let mut root = *b"RSD PTR \0TINY  \x02\0\0\0\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let (first, second) = root.split_at_mut(20);
    first[8] = sum(first);
    second[4..12].copy_from_slice(&(ACPI + ROOT_BYTES).to_le_bytes());
    root[32] = sum(&root);
    write(domid, ACPI, &root)?;
    write(domid, ACPI + ROOT_BYTES, &list)
}

fn write_start_info(domid: u16, at: u64, map: &[HvmMemmapEntry; 2]) -> Result<(), Failure> {
    let table = at + size_of::<HvmStartInfo>() as u64;
    let info = HvmStartInfo {
        magic: HVM_START_MAGIC,
        version: 1,
        memmap_paddr: table,
        memmap_entries: map.len() as u32,
        rsdp_paddr: ACPI,
        ..Default::default()
    };
    write(domid, at, &info)?;
    write(domid, table, map)
}

fn write<T: IntoBytes + Immutable>(domid: u16, at: u64, value: &T) -> Result<(), Failure> {
    let bytes = value.as_bytes();
    copy_to(domid, at, bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64)
}

/// Records, one after the other, in a page.
struct Sequence {
    page: u64,
    length: u64,
}

impl Sequence {
    fn push(&mut self, code: SaveCode, instance: u16, contents: &[u8]) {
        let descriptor = SaveDescriptor { typecode: code.number() as u16, instance, length: contents.len() as u32 };
        for part in [descriptor.as_bytes(), contents] {
            memory::write_bytes(self.page + self.length, part);
            self.length += part.len() as u64;
        }
    }
}

/// A record of a domain as it is now.
fn record<R: SaveRecord>(domid: u16) -> Result<R, Failure> {
    const ROOM: usize = 8 * PAGE as usize;
    let mut bytes = [0_u8; ROOM];
    let buffer = GuestPtr::from_address(call::address(&mut bytes));
    let mut request = HvmContext { size: ROOM as u32, buffer, ..Default::default() };
    step("gethvmcontext", call::domctl(DomctlOp::GetHvmContext, domid, &mut request).0)?;
    Records::new(&bytes).filter_map(Result::ok).find_map(|record| record.get()).ok_or(("no such record", 0))
}

/// Loads one record of a vCPU into a domain.
fn load_record(domid: u16, code: SaveCode, vcpu: u16, contents: &[u8]) -> Result<(), Failure> {
    let header: HvmSaveHeader = record(domid)?;
    let mut sequence = Sequence { page: memory_page(), length: 0 };
    sequence.push(SaveCode::Header, 0, header.as_bytes());
    sequence.push(code, vcpu, contents);
    sequence.push(SaveCode::End, 0, &[]);
    let buffer = GuestPtr::from_address(sequence.page);
    let mut request = HvmContext { size: sequence.length as u32, buffer, ..Default::default() };
    step("sethvmcontext", call::domctl(DomctlOp::SetHvmContext, domid, &mut request).0)
}

/// Makes write-back the memory type of everything.
fn set_memory_types(domid: u16, vcpu: u16) -> Result<(), Failure> {
    let mut types: HvmHwMtrr = record(domid)?;
    types.msr_mtrr_def_type = 0xc06;
    load_record(domid, SaveCode::Mtrr, vcpu, types.as_bytes())
}

/// The first vCPU's registers as a PVH kernel finds them: 32-bit protected mode with flat segments, RBX at the start info.
fn set_registers(domid: u16, entry: u64, start_info: u64) -> Result<(), Failure> {
    let mut registers = HvmHwCpu::new_zeroed();
    (registers.rip, registers.rbx, registers.cr0) = (entry, start_info, 0x11);
    (registers.cs_limit, registers.ds_limit) = (u32::MAX, u32::MAX);
    (registers.es_limit, registers.ss_limit, registers.tr_limit) = (u32::MAX, u32::MAX, 0x67);
    (registers.cs_arbytes, registers.ds_arbytes) = (0xc9b, 0xc93);
    (registers.es_arbytes, registers.ss_arbytes, registers.tr_arbytes) = (0xc93, 0xc93, 0x8b);
    (registers.dr6, registers.dr7) = (0xffff_0ff0, 0x400);
    load_record(domid, SaveCode::Cpu, 0, registers.as_bytes())
}

/// A page for records, the same one each time.
fn memory_page() -> u64 {
    static PAGE_TAKEN: spin::Once<u64> = spin::Once::new();
    *PAGE_TAKEN.call_once(|| memory::take_pages(1))
}
