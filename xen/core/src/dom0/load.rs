//! Writes the control domain's kernel, initramfs and start info into its memory.
//!
//! Boot modules were moved out of the way before (`machine`'s boot), so nothing here overwrites what is still to be read.

use super::{BuildError, memory::Plan};
use crate::domain::{Domain, E820Entry};
use crate::guest_mem::PhysicalMemory;
use alloc::vec::Vec;
use image::load::{Piece, bytes, pieces};
use image::placement::{Request, place};
use image::pvh::{MemoryMapEntry, Module as StartModule, StartInfo, Version};
use image::{GpaRange, Kernel};
use machine::boot_info::Module;
use machine::{Gpa, PAGE_SIZE_U64, log};

/// Decompressed kernels of at most this size are believed.
const KERNEL_LIMIT: usize = 256 << 20;
/// Start info flags: privileged, initial domain (public/xen.h, SIF_*).
const FLAGS: u32 = 0b11;

/// Where the first vCPU begins.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The address of the first instruction.
    pub instruction: u64,
    /// The address of the start info.
    pub start_info: u64,
}

/// Copies bytes to the domain's memory.
///
/// # Errors
/// If something there is not its RAM.
pub fn write(domain: &Domain, gpa: u64, bytes: &[u8]) -> Result<(), BuildError> {
    let step = |errno| BuildError::Step("writing its memory", errno);
    PhysicalMemory::new(domain).write_bytes(Gpa::new(gpa), bytes).map_err(step)
}

/// Loads everything and says where to begin.
///
/// # Errors
/// [`BuildError`], with what is wrong.
pub fn load(
    domain: &Domain,
    plan: &Plan,
    kernel_module: &Module,
    initrd: Option<&Module>,
    rsdp: u64,
) -> Result<Entry, BuildError> {
    let file = image::unpack(kernel_module.bytes(), KERNEL_LIMIT)?;
    let kernel = Kernel::parse(&file)?;
    let entry = kernel.pvh_entry()?;
    let ram = usable_ram(plan)?;
    let map = start_info_map(&plan.map)?;
    let command_line = kernel_module.command_line.as_bytes();
    let initrd_size = initrd.map_or(0, Module::length);
    // The block's size does not depend on the addresses in it.
    let dummy = GpaRange::new(PAGE_SIZE_U64, initrd_size).map(|range| StartModule { range, command_line: b"" });
    let dummy = dummy.filter(|_| initrd.is_some());
    let size = start_info(command_line, dummy.as_slice(), &map, rsdp).size()?;
    let request = Request { kernel: kernel.span, initrd_size, metadata_size: size };
    let placement = place(&ram, &request)?;
    log!(Info, "Dom0 kernel: {} entry {entry:#x}, start info {}", kernel.span, placement.metadata);
    for piece in pieces(&kernel, kernel.span.start(), PAGE_SIZE_U64)? {
        match piece {
            Piece::Copy { gpa, offset, len } => write(domain, gpa, bytes(&file, offset, len)?)?,
            Piece::Zero { gpa, len } => zero(domain, gpa, len)?,
        }
    }
    let mut module = None;
    if let (Some(initrd), Some(range)) = (initrd, placement.initrd) {
        log!(Info, "Dom0 initramfs: {range}");
        write(domain, range.start(), initrd.bytes())?;
        module = Some(StartModule { range, command_line: initrd.command_line.as_bytes() });
    }
    let at = placement.metadata.start();
    // A module's command line would change the size; Linux does not read it.
    let module = module.map(|module| StartModule { command_line: b"", ..module });
    let block = start_info(command_line, module.as_slice(), &map, rsdp).build(at)?;
    write(domain, at, &block)?;
    Ok(Entry { instruction: u64::from(entry), start_info: at })
}

fn start_info<'a>(
    command_line: &'a [u8],
    modules: &'a [StartModule<'a>],
    memory_map: &'a [MemoryMapEntry],
    rsdp: u64,
) -> StartInfo<'a> {
    StartInfo { version: Version::V1, flags: FLAGS, command_line, modules, memory_map, rsdp }
}

fn zero(domain: &Domain, gpa: u64, length: u64) -> Result<(), BuildError> {
    let zeroes = [0u8; PAGE_SIZE_U64 as usize];
    let length = usize::try_from(length).unwrap_or(0);
    write(domain, gpa, zeroes.get(..length).unwrap_or(&zeroes))
}

fn start_info_map(map: &[E820Entry]) -> Result<Vec<MemoryMapEntry>, BuildError> {
    let mut entries = Vec::new();
    entries.try_reserve_exact(map.len()).map_err(|_| BuildError::OutOfMemory)?;
    entries.extend(map.iter().filter_map(|entry| {
        Some(MemoryMapEntry { range: GpaRange::new(entry.start, entry.length)?, kind: entry.kind })
    }));
    Ok(entries)
}

/// RAM in which things may be placed: the plan's without its ACPI tables, pages only.
fn usable_ram(plan: &Plan) -> Result<Vec<GpaRange>, BuildError> {
    let mut ram = Vec::new();
    ram.try_reserve_exact(plan.ram.len()).map_err(|_| BuildError::OutOfMemory)?;
    ram.extend(plan.ram.iter().filter_map(|range| {
        let end = plan.acpi.filter(|acpi| range.contains(*acpi)).map_or(range.end(), |acpi| acpi.start());
        GpaRange::between(range.start(), end)
    }));
    Ok(ram)
}
