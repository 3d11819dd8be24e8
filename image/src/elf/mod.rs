//! ELF executables as kernels: which bytes go to which physical addresses, and what the Xen notes say.
//!
//! Before this, `unpack` found the ELF file; after it come `placement` and `load`. The parser is our own although
//! crates exist (`object`, `goblin`): they report errors without field and offset, and of their work only two
//! structures and a loop are needed. Layouts: ELF-64 Object File Format 1.5 and the System V gABI, chapters 4 and 5.

mod header;

use alloc::vec::Vec;

use crate::bytes::{Bytes, first_four, widen};
use crate::file::{File, Parts};
use crate::notes::Notes;
use crate::{GpaRange, ImageError};
use header::{Layout, identify, table, word};
pub use header::{Machine, is_elf};

/// The largest number of PT_LOAD segments accepted; Linux has five.
pub const MAX_SEGMENTS: usize = 64;
/// The largest number of program headers looked at.
pub const MAX_PROGRAM_HEADERS: u16 = 512;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const SHT_NOTE: u32 = 7;
/// `PHYS32_RELOC` without an alignment, when no segment has one of at least a page (public/elfnote.h).
const DEFAULT_RELOC_ALIGN: u64 = 0x20_0000;
const PAGE: u64 = 4096;
/// Bytes of the header in the class that has the longer one.
const LARGEST_HEADER: u64 = 64;

/// A PT_LOAD segment with at least one byte in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it goes: from `p_paddr`, `p_memsz` bytes.
    pub range: GpaRange,
    /// `p_vaddr`.
    pub vaddr: u64,
    /// `p_flags`: 1 execute, 2 write, 4 read.
    pub flags: u32,
    /// `p_align` in bytes: a power of two, or zero.
    pub align: u64,
    /// Where in the file the bytes are that go to the start of the range. They are in the file.
    pub offset: u64,
    /// How many there are, not more than the range has; the rest of it is zero.
    pub length: u64,
}

/// A kernel; its notes are borrowed from the ELF file. All segments are checked: in the file, no wrap, no overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel<'a> {
    /// The processor it is for.
    pub machine: Machine,
    /// `e_entry`: the entry in the kernel's own sense, usually virtual. PVH does not use it.
    pub entry: u64,
    /// At least one, in the order of the file.
    pub segments: Vec<Segment>,
    /// From the lowest byte of a segment to the highest; may have holes.
    pub span: GpaRange,
    /// The Xen notes.
    pub notes: Notes<'a>,
}

/// Where a relocatable PVH kernel may be loaded, with the defaults of public/elfnote.h filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Alignment of the start of the image in bytes, a power of two.
    pub align: u64,
    /// The addresses in which the whole image must lie.
    pub within: GpaRange,
}

impl<'a> Kernel<'a> {
    /// Parses the file.
    ///
    /// # Errors
    /// Not a little-endian executable for one of the machines, a field out of range, segments that overlap or wrap,
    /// a malformed note.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        Self::parse_file(File::Whole(file))
    }

    /// Parses a file of which only parts are in memory: headers and notes will do.
    ///
    /// # Errors
    /// As [`Kernel::parse`], and [`ImageError::NotInMemory`] for the next part that is wanted.
    pub fn parse_parts(parts: &'a Parts) -> Result<Self, ImageError> {
        Self::parse_file(File::Parts(parts))
    }

    fn parse_file(file: File<'a>) -> Result<Self, ImageError> {
        let bytes = file.part(0, file.len().min(LARGEST_HEADER), "ELF header")?;
        if !is_elf(bytes.as_slice()) {
            return Err(ImageError::NotAKernel { first: first_four(bytes.as_slice()) });
        }
        let (machine, layout) = identify(bytes)?;
        let entry = word(bytes, layout, layout.e_entry, "e_entry")?;
        let mut kernel = Self { machine, entry, segments: Vec::new(), span: GpaRange::EMPTY, notes: Notes::default() };

        let count = bytes.u16(layout.e_phnum, "e_phnum")?;
        if count > MAX_PROGRAM_HEADERS {
            return Err(too_large("program headers", count.into(), MAX_PROGRAM_HEADERS.into()));
        }
        let table =
            table(file, bytes, layout.e_phoff, layout.e_phentsize, count, layout.phdr_size, layout, "program headers")?;
        for index in 0..u64::from(count) {
            let header = table.part(index.saturating_mul(layout.phdr_size), layout.phdr_size, "program header")?;
            match header.u32(0, "p_type")? {
                PT_LOAD => kernel.add_segment(file, header, layout)?,
                PT_NOTE => {
                    let (area, align) = note_segment(file, header, layout)?;
                    kernel.notes.scan(area, align)?;
                }
                _ => {}
            }
        }
        kernel.span = span(&kernel.segments).ok_or(ImageError::Field {
            what: "e_phnum",
            offset: layout.e_phnum,
            value: count.into(),
            problem: "no program header is a PT_LOAD with memory",
        })?;
        if kernel.notes.count == 0 {
            kernel.scan_note_sections(file, bytes, layout)?;
        }
        Ok(kernel)
    }

    /// The physical address where a PVH start begins, for a kernel at the addresses it was linked for.
    ///
    /// # Errors
    /// There is no `PHYS32_ENTRY` note, or it points to bytes that are not of the kernel.
    pub fn pvh_entry(&self) -> Result<u32, ImageError> {
        let entry = self.notes.phys32_entry.ok_or(ImageError::NoNote { what: "PHYS32_ENTRY" })?;
        let in_segment = |segment: &Segment| {
            u64::from(entry).checked_sub(segment.range.start()).is_some_and(|distance| distance < segment.length)
        };
        if self.segments.iter().any(in_segment) {
            Ok(entry)
        } else {
            Err(ImageError::Argument {
                what: "PHYS32_ENTRY",
                value: entry.into(),
                problem: "is not an address in the bytes of a segment",
            })
        }
    }

    /// Where else the kernel may be loaded; `None` when it must be at the addresses it was linked for.
    #[must_use]
    pub fn relocation(&self) -> Option<Relocation> {
        let note = self.notes.phys32_reloc?;
        let largest = self.segments.iter().map(|segment| segment.align).max().unwrap_or(0);
        let default = if largest >= PAGE { largest } else { DEFAULT_RELOC_ALIGN };
        // The note has the last byte's address, ranges have the one behind it.
        let end = u64::from(note.max.unwrap_or(u32::MAX)).saturating_add(1);
        let start = u64::from(note.min.unwrap_or(0)).min(end);
        Some(Relocation {
            align: note.align.map_or(default, u64::from),
            within: GpaRange::between(start, end).unwrap_or(GpaRange::EMPTY),
        })
    }

    fn add_segment(&mut self, file: File<'a>, header: Bytes<'a>, layout: &Layout) -> Result<(), ImageError> {
        let field = |offset, what| word(header, layout, offset, what);
        let (offset, paddr) = (field(layout.p_offset, "p_offset")?, field(layout.p_paddr, "p_paddr")?);
        let (filesz, memsz) = (field(layout.p_filesz, "p_filesz")?, field(layout.p_memsz, "p_memsz")?);
        let align = field(layout.p_align, "p_align")?;
        let wrong = |offset, what, value, problem| {
            Err(ImageError::Field { what, offset: header.position(offset), value, problem })
        };
        if filesz > memsz {
            return wrong(layout.p_filesz, "p_filesz", filesz, "larger than p_memsz");
        }
        if align != 0 && !align.is_power_of_two() {
            return wrong(layout.p_align, "p_align", align, "not a power of two");
        }
        if memsz == 0 {
            return Ok(());
        }
        let highest = if layout.word == 4 { 1 << 32 } else { u64::MAX };
        let Some(range) = GpaRange::new(paddr, memsz).filter(|range| range.end() <= highest) else {
            return wrong(layout.p_memsz, "p_memsz", memsz, "the segment wraps around the address space");
        };
        file.check(offset, filesz, "PT_LOAD segment")?;
        if let Some(other) = self.segments.iter().find(|other| other.range.overlaps(range)) {
            return Err(ImageError::Overlap {
                first: "PT_LOAD segment",
                first_range: other.range,
                second: "PT_LOAD segment",
                second_range: range,
            });
        }
        if self.segments.len() >= MAX_SEGMENTS {
            return Err(too_large(
                "PT_LOAD segments",
                widen(self.segments.len()).saturating_add(1),
                widen(MAX_SEGMENTS),
            ));
        }
        self.segments
            .try_reserve(1)
            .map_err(|_| ImageError::OutOfMemory { what: "segment list", bytes: widen(size_of::<Segment>()) })?;
        let vaddr = field(layout.p_vaddr, "p_vaddr")?;
        let flags = header.u32(layout.p_flags, "p_flags")?;
        self.segments.push(Segment { range, vaddr, flags, align, offset, length: filesz });
        Ok(())
    }

    /// For kernels that were linked without a PT_NOTE: Xen's loader looks into the sections then, too.
    fn scan_note_sections(&mut self, file: File<'a>, bytes: Bytes<'a>, layout: &Layout) -> Result<(), ImageError> {
        if word(bytes, layout, layout.e_shoff, "e_shoff")? == 0 {
            return Ok(());
        }
        let count = bytes.u16(layout.e_shnum, "e_shnum")?;
        let table =
            table(file, bytes, layout.e_shoff, layout.e_shentsize, count, layout.shdr_size, layout, "section headers")?;
        for index in 0..u64::from(count) {
            let header = table.part(index.saturating_mul(layout.shdr_size), layout.shdr_size, "section header")?;
            if header.u32(4, "sh_type")? == SHT_NOTE {
                let offset = word(header, layout, layout.sh_offset, "sh_offset")?;
                let size = word(header, layout, layout.sh_size, "sh_size")?;
                let align = word(header, layout, layout.sh_addralign, "sh_addralign")?;
                self.notes.scan(file.part(offset, size, "SHT_NOTE section")?, align)?;
            }
        }
        Ok(())
    }
}

fn note_segment<'a>(file: File<'a>, header: Bytes<'a>, layout: &Layout) -> Result<(Bytes<'a>, u64), ImageError> {
    let offset = word(header, layout, layout.p_offset, "p_offset")?;
    let size = word(header, layout, layout.p_filesz, "p_filesz")?;
    let align = word(header, layout, layout.p_align, "p_align")?;
    Ok((file.part(offset, size, "PT_NOTE segment")?, align))
}

fn span(segments: &[Segment]) -> Option<GpaRange> {
    let start = segments.iter().map(|segment| segment.range.start()).min()?;
    let end = segments.iter().map(|segment| segment.range.end()).max()?;
    GpaRange::between(start, end)
}

const fn too_large(what: &'static str, size: u64, limit: u64) -> ImageError {
    ImageError::TooLarge { what, size, limit }
}
