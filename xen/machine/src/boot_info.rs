//! What a boot loader tells the hypervisor, brought to one form whichever protocol it used.
//!
//! Multiboot 1 (QEMU's `-kernel`), Multiboot 2 (GRUB) and PVH start info all end here; `x86::boot` fills it and the core
//! reads it. Strings are copied, because the loader's memory is reused soon after.

use crate::codec::loader::LoaderError;
use crate::units::{Maddr, PAGE_SIZE_U64};

/// Ranges of the firmware's memory map at the most; longer maps are cut with a message.
pub const MAX_RANGES: usize = 64;
/// Modules at the most: kernel, initramfs, and a few to spare.
pub const MAX_MODULES: usize = 4;
/// Bytes of a command line at the most, the hypervisor's or a module's.
pub const MAX_COMMAND_LINE: usize = 2048;

/// A command line, copied out of the loader's memory.
pub type CommandLine = heapless::String<MAX_COMMAND_LINE>;

/// What the firmware says of a range of addresses (ACPI specification, address range types).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeKind {
    /// RAM to be used freely.
    Ram,
    /// Not to be touched, or device memory.
    Reserved,
    /// ACPI tables; RAM once they are read.
    AcpiReclaimable,
    /// Memory that firmware keeps using.
    AcpiNvs,
    /// RAM with errors, or otherwise unusable.
    Unusable,
}

impl RangeKind {
    /// From the number that E820, Multiboot and PVH memory maps share; unknown numbers are reserved.
    pub const fn from_e820(number: u32) -> Self {
        match number {
            1 => Self::Ram,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            _ => Self::Reserved,
        }
    }

    /// The number that E820 memory maps use.
    pub const fn e820(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
            Self::AcpiReclaimable => 3,
            Self::AcpiNvs => 4,
            Self::Unusable => 5,
        }
    }
}

/// A range of the firmware's memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First byte.
    pub start: Maddr,
    /// Bytes.
    pub length: u64,
    /// What is there.
    pub kind: RangeKind,
}

impl Range {
    /// The first byte behind the range.
    pub const fn end(&self) -> u64 {
        self.start.number().saturating_add(self.length)
    }

    /// The whole pages inside the range: first page number and the number after the last; empty when there are none.
    pub const fn pages(&self) -> (u64, u64) {
        let first = self.start.number().div_ceil(PAGE_SIZE_U64);
        let end = self.end() / PAGE_SIZE_U64;
        if end > first { (first, end) } else { (first, first) }
    }
}

/// A file that the boot loader put into memory. Its pages are the hypervisor's until it is dropped, then free.
#[derive(Debug)]
pub struct Module {
    pub(crate) start: Maddr,
    pub(crate) length: u64,
    /// The text behind its name in the loader's configuration.
    pub command_line: CommandLine,
}

impl Module {
    /// Where it is.
    pub fn start(&self) -> Maddr {
        self.start
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its content.
    pub fn bytes(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(0);
        let start = crate::arch::page_address(self.start.frame()).wrapping_add(self.start.offset());
        // SAFETY: the pages are RAM that the boot moved the module to and marked as the hypervisor's; this value alone
        // names them (only this crate makes one), nothing writes them, and they are not freed before it is dropped.
        unsafe { core::slice::from_raw_parts(start, length) }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        for page in 0..self.length.div_ceil(PAGE_SIZE_U64) {
            crate::frame::free(self.start.frame().saturating_add(page), 0);
        }
    }
}

/// All of it.
#[derive(Debug)]
pub struct BootInfo {
    /// Which loader: its own name where the protocol has one.
    pub loader: heapless::String<64>,
    /// The hypervisor's command line.
    pub command_line: CommandLine,
    /// The memory map as the firmware gave it.
    pub ranges: heapless::Vec<Range, MAX_RANGES>,
    /// Modules in the loader's order.
    pub modules: heapless::Vec<Module, MAX_MODULES>,
    /// Where the ACPI root pointer is, if the loader said so.
    pub rsdp: Option<Maddr>,
    /// What was wrong with the loader's data but did not stop the boot; the core prints it once there is a console.
    pub complaints: heapless::Vec<LoaderError, 8>,
    /// The lowest address that the hypervisor, its tables and the moved modules take: RAM below is free.
    pub floor: Maddr,
    /// Where the hypervisor's image was moved to.
    pub image: Range,
}

impl BootInfo {
    /// Nothing known yet.
    pub const fn new() -> Self {
        Self {
            loader: heapless::String::new(),
            command_line: heapless::String::new(),
            ranges: heapless::Vec::new(),
            modules: heapless::Vec::new(),
            rsdp: None,
            complaints: heapless::Vec::new(),
            floor: Maddr::new(0),
            image: Range { start: Maddr::new(0), length: 0, kind: RangeKind::Reserved },
        }
    }

    /// Leaves at most so many ranges of RAM, the largest ones; nobody uses the others.
    pub fn limit_ram(&mut self, most: usize) {
        let ram = |range: &Range| range.kind == RangeKind::Ram;
        let count = self.ranges.iter().filter(|range| ram(range)).count();
        if count > most {
            self.complain(LoaderError::TooManyRegions);
        }
        for _ in most..count {
            if let Some(smallest) = self.ranges.iter_mut().filter(|range| ram(range)).min_by_key(|range| range.length) {
                smallest.kind = RangeKind::Unusable;
            }
        }
    }

    /// Notes something odd; only the first few are kept.
    pub fn complain(&mut self, error: LoaderError) {
        // A full list drops the rest on purpose: the first complaints are the telling ones.
        self.complaints.push(error).ok();
    }
}

impl Default for BootInfo {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_ranges_of_ram_stay() {
        let mut info = BootInfo::new();
        let lengths = [(5, RangeKind::Ram), (1, RangeKind::Reserved), (3, RangeKind::Ram), (9, RangeKind::Ram)];
        for (length, kind) in lengths {
            info.ranges.push(Range { start: Maddr::new(0), length, kind }).unwrap();
        }
        info.limit_ram(3);
        assert!(info.complaints.is_empty());
        info.limit_ram(2);
        assert_eq!(info.complaints, [LoaderError::TooManyRegions]);
        let kinds: heapless::Vec<_, 4> = info.ranges.iter().map(|range| range.kind).collect();
        assert_eq!(kinds, [RangeKind::Ram, RangeKind::Reserved, RangeKind::Unusable, RangeKind::Ram]);
    }
}
