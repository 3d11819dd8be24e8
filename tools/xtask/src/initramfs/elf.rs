//! What an ELF file says about the shared libraries it needs.
//!
//! [`super::sysroot`] follows these names through unpacked packages to find everything a program needs, as the dynamic
//! loader would. Facts: System V ABI, chapter "Dynamic Linking" (DT_NEEDED, PT_INTERP).

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::{DT_NEEDED, DT_NULL, DT_STRTAB, DynamicTag, FileHeader64, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// The dynamic needs of one ELF file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Names of the shared libraries (DT_NEEDED), in the file's order.
    pub(crate) libraries: Vec<String>,
    /// The dynamic loader's absolute path (PT_INTERP); none for libraries and static programs.
    pub(crate) interpreter: Option<String>,
}

/// Whether the file begins as an ELF file does.
pub(crate) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Reads the needs of a 64-bit ELF file. A static program has none.
///
/// # Errors
/// The file is not a well-formed ELF64 file.
pub(crate) fn needs(bytes: &[u8]) -> Result<Needs> {
    let header =
        FileHeader64::<Endianness>::parse(bytes).map_err(|error| anyhow::anyhow!("not a 64-bit ELF file: {error}"))?;
    let endian = header.endian().context("ELF byte order")?;
    let segments = header.program_headers(endian, bytes).context("ELF program headers")?;
    let mut found = Needs::default();
    for segment in segments {
        match segment.p_type(endian) {
            PT_INTERP => {
                let data =
                    segment.data(endian, bytes).map_err(|()| anyhow::anyhow!("PT_INTERP lies outside of the file"))?;
                found.interpreter = Some(text(data)?);
            }
            PT_DYNAMIC => {
                let entries = segment.dynamic(endian, bytes).context("ELF dynamic section")?.unwrap_or_default();
                let entries: Vec<(DynamicTag, u64)> = entries
                    .iter()
                    .map(|entry| (entry.d_tag(endian), entry.d_val(endian)))
                    .take_while(|(tag, _)| *tag != DT_NULL)
                    .collect();
                let names = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED);
                let Some((_, table)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else {
                    bail!("the dynamic section names no string table");
                };
                for (_, offset) in names {
                    let address = table.checked_add(*offset).context("DT_NEEDED overflows")?;
                    found.libraries.push(text(at_address(segments, endian, bytes, address)?)?);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The file's bytes from a virtual address to the end of its segment.
fn at_address<'a, P: ProgramHeader<Endian = Endianness, Word = u64>>(
    segments: &[P],
    endian: Endianness,
    bytes: &'a [u8],
    address: u64,
) -> Result<&'a [u8]> {
    for segment in segments {
        if segment.p_type(endian) != PT_LOAD {
            continue;
        }
        let Some(skip) = address.checked_sub(segment.p_vaddr(endian)) else {
            continue;
        };
        if skip >= segment.p_filesz(endian) {
            continue;
        }
        let data =
            segment.data(endian, bytes).map_err(|()| anyhow::anyhow!("a PT_LOAD segment lies outside of the file"))?;
        let skip = usize::try_from(skip).context("address too large")?;
        return data.get(skip..).context("address outside of its segment");
    }
    bail!("no segment holds the address {address:#x}")
}

/// A zero-terminated string.
fn text(bytes: &[u8]) -> Result<String> {
    let end = bytes.iter().position(|byte| *byte == 0).context("a string in the ELF file has no end")?;
    Ok(std::str::from_utf8(&bytes[..end]).context("a name in the ELF file is not UTF-8")?.to_owned())
}
