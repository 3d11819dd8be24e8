//! The start-of-day block of a PVH guest: `hvm_start_info`, module list, memory map and strings as one run of bytes.
//!
//! Before this, `placement` found the address (ask [`StartInfo::size`] first: it does not depend on the address);
//! after it the caller copies the bytes there and puts the address into `%ebx`.
//!
//! Facts: Xen, public/arch-x86/hvm/start_info.h, as structures in `public_abi::x86`.

use alloc::vec::Vec;

pub use public_abi::x86::HVM_START_MAGIC as MAGIC;
use public_abi::x86::{HvmMemmapEntry, HvmModlistEntry, HvmStartInfo};
use zerocopy::IntoBytes;

use crate::bytes::widen;
use crate::{GpaRange, ImageError};

/// `struct hvm_start_info`, version 0 (which ends before the memory map) and version 1, in bytes.
const START_INFO_V0: u64 = widen(core::mem::offset_of!(HvmStartInfo, memmap_paddr));
const START_INFO_V1: u64 = widen(size_of::<HvmStartInfo>());
const MODULE_ENTRY: u64 = widen(size_of::<HvmModlistEntry>());
const MEMMAP_ENTRY: u64 = widen(size_of::<HvmMemmapEntry>());
/// All structures consist of 64-bit numbers.
const ALIGN: u64 = 8;
const FOUR_GIB: u64 = 1 << 32;

/// Version of the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Without memory map.
    V0,
    /// With memory map; what Xen makes since 4.10.
    V1,
}

impl Version {
    /// Of the start info itself, in bytes.
    const fn size(self) -> u64 {
        match self {
            Self::V0 => START_INFO_V0,
            Self::V1 => START_INFO_V1,
        }
    }
}

/// A module: the first one is the initrd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// Where it lies.
    pub range: GpaRange,
    /// Its command line without a zero; empty means none.
    pub command_line: &'a [u8],
}

/// An entry of the memory map. Types are those of E820: 1 RAM, 2 reserved, 3 ACPI, 4 NVS, 5 unusable, 6 disabled,
/// 7 persistent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMapEntry {
    /// Which addresses.
    pub range: GpaRange,
    /// `XEN_HVM_MEMMAP_TYPE_*`.
    pub kind: u32,
}

/// What to tell the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartInfo<'a> {
    /// Version of the structure.
    pub version: Version,
    /// `SIF_*` flags of public/xen.h: 1 privileged, 2 initial domain.
    pub flags: u32,
    /// The command line without a zero; empty means none.
    pub command_line: &'a [u8],
    /// The modules.
    pub modules: &'a [Module<'a>],
    /// The memory map; must be empty in version 0.
    pub memory_map: &'a [MemoryMapEntry],
    /// Physical address of the RSDP; zero means that the kernel searches or has none.
    pub rsdp: u64,
}

/// Offsets of the parts from the start of the block; zero for a part that is not there. The start info is at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The module list.
    pub modules: u64,
    /// The memory map.
    pub memory_map: u64,
    /// The command line.
    pub command_line: u64,
    /// The command lines of modules, one behind the other, each with its zero.
    pub module_strings: u64,
    /// Size of the block in bytes.
    pub size: u64,
}

impl StartInfo<'_> {
    /// Size of the block in bytes.
    ///
    /// # Errors
    /// As [`StartInfo::layout`].
    pub fn size(&self) -> Result<u64, ImageError> {
        self.layout().map(|layout| layout.size)
    }

    /// Where the parts lie.
    ///
    /// # Errors
    /// A string contains a zero, there are more than 2^32 - 1 entries, or version 0 has a memory map.
    pub fn layout(&self) -> Result<Layout, ImageError> {
        check_string("command line", self.command_line)?;
        count("modules", self.modules.len())?;
        count("memory map entries", self.memory_map.len())?;
        if self.version == Version::V0 && !self.memory_map.is_empty() {
            let value = widen(self.memory_map.len());
            return Err(ImageError::Argument { what: "memory map", value, problem: "version 0 has none" });
        }
        let mut size = Some(self.version.size());
        let mut add = |len: Option<u64>| -> Result<u64, ImageError> {
            let start = size.unwrap_or(u64::MAX);
            size = size.zip(len).and_then(|(start, len)| start.checked_add(len));
            match (size, len) {
                (Some(_), Some(0)) => Ok(0),
                (Some(_), _) => Ok(start),
                (None, _) => Err(ImageError::TooLarge { what: "start info", size: u64::MAX, limit: FOUR_GIB }),
            }
        };
        let modules = add(widen(self.modules.len()).checked_mul(MODULE_ENTRY))?;
        let memory_map = add(widen(self.memory_map.len()).checked_mul(MEMMAP_ENTRY))?;
        let command_line = add(string_size(self.command_line))?;
        let mut strings = 0u64;
        for module in self.modules {
            check_string("module command line", module.command_line)?;
            strings = strings.saturating_add(string_size(module.command_line).unwrap_or(u64::MAX));
        }
        let module_strings = add(Some(strings))?;
        Ok(Layout { modules, memory_map, command_line, module_strings, size: size.unwrap_or(u64::MAX) })
    }

    /// The bytes of the block for the address `gpa`.
    ///
    /// # Errors
    /// As [`StartInfo::layout`]; `gpa` is zero, not a multiple of 8 or the block does not end below 4 GiB; a module is
    /// at address zero; out of memory.
    pub fn build(&self, gpa: u64) -> Result<Vec<u8>, ImageError> {
        let layout = self.layout()?;
        let fits = GpaRange::new(gpa, layout.size).is_some_and(|range| range.end() <= FOUR_GIB);
        if gpa == 0 || gpa & (ALIGN - 1) != 0 || !fits {
            return Err(ImageError::Argument {
                what: "start info address",
                value: gpa,
                problem: "must be nonzero, a multiple of 8, and the block must end below 4 GiB",
            });
        }
        // A part that is not there has address zero.
        let address = |offset: u64| {
            if offset == 0 { 0 } else { gpa.saturating_add(offset) }
        };
        let mut block = Block::with_capacity(layout.size)?;

        let info = HvmStartInfo {
            magic: MAGIC,
            version: match self.version {
                Version::V0 => 0,
                Version::V1 => 1,
            },
            flags: self.flags,
            nr_modules: count("modules", self.modules.len())?,
            modlist_paddr: address(layout.modules),
            cmdline_paddr: address(layout.command_line),
            rsdp_paddr: self.rsdp,
            memmap_paddr: address(layout.memory_map),
            memmap_entries: count("memory map entries", self.memory_map.len())?,
            reserved: 0,
        };
        let kept = crate::bytes::narrow(self.version.size(), "start info")?;
        block.bytes(info.as_bytes().get(..kept).unwrap_or_default());
        self.put_modules(&mut block, address(layout.module_strings))?;
        for entry in self.memory_map {
            let entry =
                HvmMemmapEntry { addr: entry.range.start(), size: entry.range.len(), kind: entry.kind, reserved: 0 };
            block.bytes(entry.as_bytes());
        }
        block.string(self.command_line);
        for module in self.modules {
            block.string(module.command_line);
        }
        Ok(block.bytes)
    }

    fn put_modules(&self, block: &mut Block, mut string: u64) -> Result<(), ImageError> {
        for module in self.modules {
            if module.range.start() == 0 {
                // The header says that nothing is at zero; a guest would take the module as absent.
                return Err(ImageError::Argument { what: "module address", value: 0, problem: "must not be zero" });
            }
            let size = string_size(module.command_line).unwrap_or(0);
            let entry = HvmModlistEntry {
                paddr: module.range.start(),
                size: module.range.len(),
                cmdline_paddr: if size == 0 { 0 } else { string },
                reserved: 0,
            };
            block.bytes(entry.as_bytes());
            string = string.saturating_add(size);
        }
        Ok(())
    }
}

/// The bytes so far. The capacity was reserved for the whole block, so that nothing allocates here.
struct Block {
    bytes: Vec<u8>,
}

impl Block {
    fn with_capacity(size: u64) -> Result<Self, ImageError> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(crate::bytes::narrow(size, "start info")?)
            .map_err(|_| ImageError::OutOfMemory { what: "start info", bytes: size })?;
        Ok(Self { bytes })
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn string(&mut self, string: &[u8]) {
        if !string.is_empty() {
            self.bytes.extend_from_slice(string);
            self.bytes.push(0);
        }
    }
}

/// With its zero; an empty string is not there at all.
fn string_size(string: &[u8]) -> Option<u64> {
    if string.is_empty() { Some(0) } else { widen(string.len()).checked_add(1) }
}

fn check_string(what: &'static str, string: &[u8]) -> Result<(), ImageError> {
    match string.iter().position(|&byte| byte == 0) {
        Some(at) => Err(ImageError::Argument { what, value: widen(at), problem: "is the offset of a zero in it" }),
        None => Ok(()),
    }
}

fn count(what: &'static str, len: usize) -> Result<u32, ImageError> {
    u32::try_from(len).map_err(|_| ImageError::TooLarge { what, size: widen(len), limit: u32::MAX.into() })
}
