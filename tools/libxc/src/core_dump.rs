//! A core dump of a domain: an ELF file with Xen's notes, as xc_domain_dumpcore of Xen writes it for guests that are
//! translated (docs/misc/dump-core-format.txt of Xen).
//!
//! The file has sections and no program headers: `.note.Xen`, `.xen_prstatus` (registers of each vCPU that is up),
//! `.xen_pages`, and `.xen_pfn`, which tells the frames that the pages are of. Which pages there are is known only when all
//! have been tried, so what stands in front of them is written last. Comes after [`crate::verbs`]; the monitor calls it.

use std::io::{Seek, SeekFrom, Write};

use image::GpaRange;
use public_abi::Errno;
use public_abi::x86::VcpuGuestContext;
use zerocopy::IntoBytes;

use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::plan::layout::{self, PAGE};
use crate::trap::{Foreign, Trap};

/// Pages that are mapped at a time.
const WINDOW: usize = 512;
/// Bytes of the file header and of a section header.
const HEADER: u64 = 64;
/// Sections: none, names, notes, registers, pages, frames.
const SECTIONS: u16 = 6;
/// Names of the sections, at the offsets that [`sections`] gives.
const NAMES: &[u8] = b"\0.shstrtab\0.note.Xen\0.xen_prstatus\0.xen_pages\0.xen_pfn\0";
/// Note types (public/elfnote.h).
const NOTE_NONE: u32 = 0x0200_0000;
const NOTE_HEADER: u32 = 0x0200_0001;
const NOTE_XEN_VERSION: u32 = 0x0200_0002;
const NOTE_FORMAT_VERSION: u32 = 0x0200_0003;
/// The magic number of a dump of a guest with nested paging.
const MAGIC: u64 = 0xf00f_ebee;
/// Version 0.1 of the format.
const FORMAT_VERSION: u64 = 1;

/// What was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// Pages.
    pub pages: u64,
    /// vCPUs.
    pub vcpus: u64,
}

/// Dumps a domain that does not run: its vCPUs, and what memory it has in `ranges`.
///
/// # Errors
/// The file cannot be written, or the domain has no vCPU that was ever up.
pub fn dump<T: Trap>(
    handle: &Handle<T>,
    domain: u16,
    ranges: &[GpaRange],
    file: &mut (impl Write + Seek),
) -> Result<Dumped> {
    let registers = registers(handle, domain)?;
    // Their length does not depend on the numbers in them.
    let notes_length = notes(handle, 0, 0)?.len() as u64;
    let notes_at = HEADER + u64::from(SECTIONS) * HEADER;
    let registers_at = notes_at + notes_length;
    let pages_at = (registers_at + registers.as_bytes().len() as u64).next_multiple_of(PAGE);

    seek(file, pages_at)?;
    let mut frames: Vec<u64> = Vec::new();
    for &range in ranges {
        let first = layout::first_gfn(range);
        let all: Vec<u64> = (first..first + layout::pages(range)).collect();
        for window in all.chunks(WINDOW) {
            copy(handle, domain, window, file, &mut frames)?;
        }
    }
    put(file, frames.as_bytes())?;
    put(file, NAMES)?;

    let dumped = Dumped { pages: frames.len() as u64, vcpus: registers.len() as u64 };
    let frames_at = pages_at + dumped.pages * PAGE;
    let places = [
        (0, 0, 0),
        (frames_at + dumped.pages * 8, NAMES.len() as u64, 0),
        (notes_at, notes_length, 0),
        (registers_at, registers.as_bytes().len() as u64, size_of::<VcpuGuestContext>() as u64),
        (pages_at, dumped.pages * PAGE, PAGE),
        (frames_at, dumped.pages * 8, 8),
    ];
    seek(file, 0)?;
    put(file, &file_header())?;
    put(file, &sections(&places))?;
    put(file, &notes(handle, dumped.vcpus, dumped.pages)?)?;
    put(file, registers.as_bytes())?;
    file.flush().map_err(writing)?;
    Ok(dumped)
}

fn writing(error: std::io::Error) -> Error {
    Error::system("writing the core dump", error)
}

fn put(file: &mut impl Write, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes).map_err(writing)
}

fn seek(file: &mut impl Seek, to: u64) -> Result<()> {
    file.seek(SeekFrom::Start(to)).map(|_| ()).map_err(writing)
}

/// Registers of the vCPUs that were ever up.
fn registers<T: Trap>(handle: &Handle<T>, domain: u16) -> Result<Vec<VcpuGuestContext>> {
    let info = handle.domain_info(domain)?;
    let most = info.ok_or_else(|| Error::Protocol(format!("there is no domain {domain}")))?.max_vcpus;
    let mut all = Vec::new();
    for vcpu in 0..most {
        match handle.vcpu_context(domain, vcpu) {
            Ok(context) => all.push(context),
            Err(error) if matches!(error.errno(), Some(Errno::ENODATA | Errno::ESRCH)) => {}
            Err(error) => return Err(error),
        }
    }
    if all.is_empty() { Err(Error::Protocol(format!("no vCPU of domain {domain} was ever up"))) } else { Ok(all) }
}

/// Copies those pages of a window that the domain has; notes their frames.
fn copy<T: Trap>(
    handle: &Handle<T>,
    domain: u16,
    window: &[u64],
    file: &mut impl Write,
    frames: &mut Vec<u64>,
) -> Result<()> {
    let mut page = vec![0; PAGE as usize];
    let mut write = |pages: &T::Foreign, count: usize| -> Result<()> {
        (0..count).try_for_each(|index| {
            pages.read_at(index * PAGE as usize, &mut page);
            put(file, &page)
        })
    };
    if let Ok(pages) = handle.trap().foreign(domain, window) {
        write(&pages, window.len())?;
        frames.extend(window);
        return Ok(());
    }
    // Some of them are not there: it has given memory back.
    for &gfn in window {
        if let Ok(pages) = handle.trap().foreign(domain, &[gfn]) {
            write(&pages, 1)?;
            frames.push(gfn);
        }
    }
    Ok(())
}

/// The notes.
fn notes<T: Trap>(handle: &Handle<T>, vcpus: u64, pages: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    note(&mut bytes, NOTE_NONE, &[]);
    note(&mut bytes, NOTE_HEADER, [MAGIC, vcpus, pages, PAGE].as_bytes());
    note(&mut bytes, NOTE_XEN_VERSION, &handle.version_record()?);
    note(&mut bytes, NOTE_FORMAT_VERSION, FORMAT_VERSION.as_bytes());
    Ok(bytes)
}

fn note(bytes: &mut Vec<u8>, kind: u32, contents: &[u8]) {
    const NAME: &[u8] = b"Xen\0";
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice([length(NAME), length(contents), kind].as_bytes());
    bytes.extend_from_slice(NAME);
    bytes.extend_from_slice(contents);
}

/// `Elf64_Ehdr` of a core file for x86-64.
fn file_header() -> Vec<u8> {
    // Class 64, little-endian, version 1, ABI SysV; Xen puts the version into the ABI's version, too.
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 1];
    bytes.resize(16, 0);
    const CORE: u16 = 4;
    const X86_64: u16 = 62;
    bytes.extend_from_slice([CORE, X86_64].as_bytes());
    bytes.extend_from_slice(1u32.as_bytes());
    // Entry, program headers, section headers.
    bytes.extend_from_slice([0, 0, HEADER].as_bytes());
    bytes.extend_from_slice(0u32.as_bytes());
    // Sizes of this and of a program header, no program headers, size and number of section headers, where the names are.
    bytes.extend_from_slice([64u16, 56, 0, 64, SECTIONS, 1].as_bytes());
    bytes
}

/// `Elf64_Shdr` of each section: place, length, size of an entry.
fn sections(places: &[(u64, u64, u64); SECTIONS as usize]) -> Vec<u8> {
    const PROGRAM: u32 = 1;
    const STRINGS: u32 = 3;
    const NOTES: u32 = 7;
    let kinds = [0, STRINGS, NOTES, PROGRAM, PROGRAM, PROGRAM];
    let mut name = 0;
    let mut bytes = Vec::new();
    for (index, ((at, length, entry), kind)) in places.iter().zip(kinds).enumerate() {
        let align: u64 = match index {
            0 => 0,
            1 | 2 => 1,
            4 => PAGE,
            _ => 8,
        };
        bytes.extend_from_slice([name, kind].as_bytes());
        bytes.extend_from_slice([0, 0, *at, *length].as_bytes());
        bytes.extend_from_slice([0u32, 0].as_bytes());
        bytes.extend_from_slice([align, *entry].as_bytes());
        let from = name as usize;
        let end = NAMES.iter().skip(from).position(|&byte| byte == 0).unwrap_or(0);
        name += u32::try_from(end).unwrap_or(0) + 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_have_their_names() {
        let bytes = sections(&[(0, 0, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 1, 0), (5, 1, 0)]);
        assert_eq!(bytes.len(), 6 * 64);
        let names: Vec<&[u8]> = bytes
            .chunks(64)
            .map(|header| {
                let at = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
                NAMES[at..].split(|&byte| byte == 0).next().unwrap_or_default()
            })
            .collect();
        let expected: [&[u8]; 6] = [b"", b".shstrtab", b".note.Xen", b".xen_prstatus", b".xen_pages", b".xen_pfn"];
        assert_eq!(names, expected);
        assert_eq!(file_header().len(), 64);
    }
}
