//! Readers of what boot loaders leave in memory: Multiboot 1 information and PVH start info, as pure functions over a way
//! to read physical memory. (Multiboot 2 is read with the crate of that name, in `x86::boot`.)
//!
//! Sources: Multiboot specification 0.6.96; Xen public/arch-x86/hvm/start_info.h.

use crate::boot_info::{BootInfo, CommandLine, Module, Range, RangeKind};
use crate::units::Maddr;

/// What can be wrong with a loader's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoaderError {
    /// The loader's magic number is none of the known ones.
    UnknownLoader(u32),
    /// There is no memory map.
    NoMemoryMap,
    /// More ranges than fit; the rest is lost.
    TooManyRanges,
    /// More ranges of RAM than the frame table has places for; the smallest are not used.
    TooManyRegions,
    /// More modules than fit; the rest is lost.
    TooManyModules,
    /// A command line longer than fits; cut.
    LongCommandLine,
    /// A structure at this address could not be read.
    Unreadable(u64),
}

impl core::fmt::Display for LoaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownLoader(magic) => write!(f, "unknown boot protocol: magic number {magic:#x}"),
            Self::NoMemoryMap => write!(f, "the boot loader gave no memory map"),
            Self::TooManyRanges => write!(f, "memory map of over {} ranges: cut", crate::boot_info::MAX_RANGES),
            Self::TooManyRegions => {
                write!(f, "over {} ranges of RAM: the smallest are not used", crate::frame::MAX_REGIONS)
            }
            Self::TooManyModules => write!(f, "over {} modules: the rest is ignored", crate::boot_info::MAX_MODULES),
            Self::LongCommandLine => {
                write!(f, "command line of over {} bytes: cut", crate::boot_info::MAX_COMMAND_LINE)
            }
            Self::Unreadable(address) => write!(f, "boot information at {address:#x} cannot be read"),
        }
    }
}

/// A way to read physical memory during boot: fills the buffer, false if the address cannot be reached.
pub type Reader<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

fn bytes<const N: usize>(read: Reader<'_>, address: u64) -> Result<[u8; N], LoaderError> {
    let mut buffer = [0; N];
    if read(address, &mut buffer) { Ok(buffer) } else { Err(LoaderError::Unreadable(address)) }
}

fn u32_at(read: Reader<'_>, address: u64) -> Result<u32, LoaderError> {
    bytes(read, address).map(u32::from_le_bytes)
}

fn u64_at(read: Reader<'_>, address: u64) -> Result<u64, LoaderError> {
    bytes(read, address).map(u64::from_le_bytes)
}

/// Copies a zero-terminated string; address 0 is the empty one. Bytes that are not ASCII become `?`.
pub fn command_line(info: &mut BootInfo, read: Reader<'_>, address: u64) -> CommandLine {
    let mut text = CommandLine::new();
    if address == 0 {
        return text;
    }
    for offset in 0.. {
        let Ok([byte]) = bytes(read, address + offset) else {
            info.complain(LoaderError::Unreadable(address + offset));
            break;
        };
        if byte == 0 {
            break;
        }
        let character = if byte.is_ascii() { char::from(byte) } else { '?' };
        if text.push(character).is_err() {
            info.complain(LoaderError::LongCommandLine);
            break;
        }
    }
    text
}

/// Adds a range to the map.
pub fn add_range(info: &mut BootInfo, start: u64, length: u64, e820: u32) {
    let range = Range { start: Maddr::new(start), length, kind: RangeKind::from_e820(e820) };
    if length != 0 && info.ranges.push(range).is_err() {
        info.complain(LoaderError::TooManyRanges);
    }
}

/// Adds a module.
pub fn add_module(info: &mut BootInfo, start: u64, length: u64, command_line: CommandLine) {
    if info.modules.push(Module { start: Maddr::new(start), length, command_line }).is_err() {
        info.complain(LoaderError::TooManyModules);
    }
}

/// Cuts the file name off a command line: loaders put it first, except GRUB 2.
fn arguments(info: &BootInfo, text: CommandLine) -> CommandLine {
    if info.loader.starts_with("GRUB 2") {
        return text;
    }
    let rest = text.trim_start().split_once(' ').map_or("", |(_, rest)| rest);
    CommandLine::try_from(rest.trim()).unwrap_or_default()
}

mod multiboot1 {
    pub(super) const FLAG_COMMAND_LINE: u32 = 1 << 2;
    pub(super) const FLAG_MODULES: u32 = 1 << 3;
    pub(super) const FLAG_MEMORY_MAP: u32 = 1 << 6;
    pub(super) const FLAG_LOADER_NAME: u32 = 1 << 9;
    pub(super) const COMMAND_LINE: u64 = 16;
    pub(super) const MODULE_COUNT: u64 = 20;
    pub(super) const MODULES: u64 = 24;
    pub(super) const MAP_LENGTH: u64 = 44;
    pub(super) const MAP: u64 = 48;
    pub(super) const LOADER_NAME: u64 = 64;
}

/// Reads Multiboot 1 information at `address` into `info`.
pub fn read_multiboot1(info: &mut BootInfo, read: Reader<'_>, address: u64) -> Result<(), LoaderError> {
    use multiboot1::*;
    let flags = u32_at(read, address)?;
    let pointer = |offset| u32_at(read, address + offset).map(u64::from);
    if flags & FLAG_LOADER_NAME != 0 {
        let name = pointer(LOADER_NAME)?;
        let name = command_line(info, read, name);
        info.loader = name.chars().take(info.loader.capacity()).collect();
    }
    if flags & FLAG_COMMAND_LINE != 0 {
        let text = pointer(COMMAND_LINE)?;
        let text = command_line(info, read, text);
        info.command_line = arguments(info, text);
    }
    if flags & FLAG_MODULES != 0 {
        for index in 0..pointer(MODULE_COUNT)? {
            let entry = pointer(MODULES)? + index * 16;
            let start = u64::from(u32_at(read, entry)?);
            let end = u64::from(u32_at(read, entry + 4)?);
            let text = u64::from(u32_at(read, entry + 8)?);
            let text = command_line(info, read, text);
            let text = arguments(info, text);
            add_module(info, start, end.saturating_sub(start), text);
        }
    }
    if flags & FLAG_MEMORY_MAP == 0 {
        return Err(LoaderError::NoMemoryMap);
    }
    let (mut entry, length) = (pointer(MAP)?, pointer(MAP_LENGTH)?);
    let end = entry + length;
    while entry + 24 <= end {
        let size = u64::from(u32_at(read, entry)?);
        let (start, length) = (u64_at(read, entry + 4)?, u64_at(read, entry + 12)?);
        add_range(info, start, length, u32_at(read, entry + 20)?);
        entry += size + 4;
    }
    Ok(())
}

/// The magic number of PVH start info.
const PVH_MAGIC: u32 = 0x336e_c578;

/// Reads PVH start info at `address` into `info`.
pub fn read_pvh(info: &mut BootInfo, read: Reader<'_>, address: u64) -> Result<(), LoaderError> {
    let magic = u32_at(read, address)?;
    if magic != PVH_MAGIC {
        return Err(LoaderError::UnknownLoader(magic));
    }
    let version = u32_at(read, address + 4)?;
    let (modules, module_list) = (u32_at(read, address + 12)?, u64_at(read, address + 16)?);
    info.loader = heapless::String::try_from("PVH").unwrap_or_default();
    let text = u64_at(read, address + 24)?;
    info.command_line = command_line(info, read, text);
    info.rsdp = match u64_at(read, address + 32)? {
        0 => None,
        rsdp => Some(Maddr::new(rsdp)),
    };
    for index in 0..u64::from(modules) {
        let entry = module_list + index * 32;
        let (start, length) = (u64_at(read, entry)?, u64_at(read, entry + 8)?);
        let text = u64_at(read, entry + 16)?;
        let text = command_line(info, read, text);
        add_module(info, start, length, text);
    }
    if version == 0 {
        return Err(LoaderError::NoMemoryMap);
    }
    let (map, entries) = (u64_at(read, address + 40)?, u32_at(read, address + 48)?);
    for index in 0..u64::from(entries) {
        let entry = map + index * 24;
        add_range(info, u64_at(read, entry)?, u64_at(read, entry + 8)?, u32_at(read, entry + 16)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn reader(memory: &[u8]) -> impl Fn(u64, &mut [u8]) -> bool + '_ {
        move |address, out| {
            let start = address as usize;
            memory.get(start..start + out.len()).map(|bytes| out.copy_from_slice(bytes)).is_some()
        }
    }

    fn put(memory: &mut Vec<u8>, at: usize, bytes: &[u8]) {
        if memory.len() < at + bytes.len() {
            memory.resize(at + bytes.len(), 0);
        }
        memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    #[test]
    fn multiboot1_information_is_read() {
        let mut memory = vec![0; 4096];
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        put(&mut memory, 0x100, &words(&[1 << 2 | 1 << 3 | 1 << 6 | 1 << 9]));
        put(&mut memory, 0x110, &words(&[0x300, 1, 0x340]));
        put(&mut memory, 0x12c, &words(&[48, 0x400]));
        put(&mut memory, 0x140, &words(&[0x380]));
        put(&mut memory, 0x300, b"oxen console=com1 dom0_mem=512M\0");
        put(&mut memory, 0x340, &words(&[0x10_0000, 0x10_2000, 0x360, 0]));
        put(&mut memory, 0x360, b"vmlinuz console=hvc0\0");
        put(&mut memory, 0x380, b"qemu\0");
        put(&mut memory, 0x400, &words(&[20, 0, 0, 0x9fc00, 0, 1, 20, 0xf0000, 0, 0x10000, 0, 2]));
        let mut info = BootInfo::new();
        read_multiboot1(&mut info, &reader(&memory), 0x100).unwrap();
        assert_eq!(info.loader.as_str(), "qemu");
        assert_eq!(info.command_line.as_str(), "console=com1 dom0_mem=512M");
        assert_eq!(info.modules.len(), 1);
        assert_eq!(info.modules[0].length, 0x2000);
        assert_eq!(info.modules[0].command_line.as_str(), "console=hvc0");
        assert_eq!(info.ranges.len(), 2);
        assert_eq!(info.ranges[0].kind, RangeKind::Ram);
        assert_eq!((info.ranges[1].start.number(), info.ranges[1].kind), (0xf0000, RangeKind::Reserved));
        // Dropping a module gives its pages back, and there is no machine here that has them.
        core::mem::forget(info);
    }

    #[test]
    fn a_truncated_structure_is_an_error_not_a_guess() {
        let mut memory = vec![0; 0x110];
        put(&mut memory, 0x100, &(1u32 << 6).to_le_bytes());
        let mut info = BootInfo::new();
        assert_eq!(read_multiboot1(&mut info, &reader(&memory), 0x100), Err(LoaderError::Unreadable(0x130)));
        put(&mut memory, 0x100, &0u32.to_le_bytes());
        assert_eq!(read_multiboot1(&mut info, &reader(&memory), 0x100), Err(LoaderError::NoMemoryMap));
    }

    #[test]
    fn pvh_start_info_is_read() {
        let mut memory = vec![0; 4096];
        put(&mut memory, 0x100, &PVH_MAGIC.to_le_bytes());
        put(&mut memory, 0x104, &1u32.to_le_bytes());
        put(&mut memory, 0x10c, &1u32.to_le_bytes());
        for (at, value) in [(0x110, 0x200u64), (0x118, 0x300), (0x120, 0xf5000), (0x128, 0x240)] {
            put(&mut memory, at, &value.to_le_bytes());
        }
        put(&mut memory, 0x130, &1u32.to_le_bytes());
        for (at, value) in [(0x200, 0x50_0000u64), (0x208, 0x1234), (0x240, 0x10_0000), (0x248, 0x4000_0000)] {
            put(&mut memory, at, &value.to_le_bytes());
        }
        put(&mut memory, 0x250, &1u32.to_le_bytes());
        put(&mut memory, 0x300, b"loglvl=all\0");
        let mut info = BootInfo::new();
        read_pvh(&mut info, &reader(&memory), 0x100).unwrap();
        assert_eq!(info.command_line.as_str(), "loglvl=all");
        assert_eq!(info.rsdp, Some(Maddr::new(0xf5000)));
        assert_eq!((info.modules[0].start.number(), info.modules[0].length), (0x50_0000, 0x1234));
        assert_eq!(info.ranges[0].length, 0x4000_0000);
        core::mem::forget(info);
    }

    #[test]
    fn pages_of_a_range_are_whole() {
        let range = |start, length| Range { start: Maddr::new(start), length, kind: RangeKind::Ram };
        assert_eq!(range(0, 0x9fc00).pages(), (0, 0x9f));
        assert_eq!(range(0x800, 0x800).pages(), (1, 1));
        assert_eq!(range(0x800, 0x1800).pages(), (1, 2));
    }
}
