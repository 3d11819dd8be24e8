//! The parts of an ELF header that the two classes lay out differently, and finding the tables it points to.
//!
//! The parent module reads the entries of the tables. Facts: System V gABI, chapter 4, "ELF Header".

use crate::ImageError;
use crate::bytes::Bytes;
use crate::file::File;

const MAGIC: &[u8] = b"\x7fELF";
const EI_CLASS: u64 = 4;
const EI_DATA: u64 = 5;
const EI_VERSION: u64 = 6;
const ELFCLASS32: u8 = 1;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const EV_CURRENT: u8 = 1;
const E_TYPE: u64 = 16;
const E_MACHINE: u64 = 18;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// Offsets of the fields that differ between the two classes.
pub(super) struct Layout {
    /// Bytes of an address, an offset or a size.
    pub(super) word: u64,
    pub(super) e_entry: u64,
    pub(super) e_phoff: u64,
    pub(super) e_shoff: u64,
    pub(super) e_phentsize: u64,
    pub(super) e_phnum: u64,
    pub(super) e_shentsize: u64,
    pub(super) e_shnum: u64,
    pub(super) phdr_size: u64,
    pub(super) p_flags: u64,
    pub(super) p_offset: u64,
    pub(super) p_vaddr: u64,
    pub(super) p_paddr: u64,
    pub(super) p_filesz: u64,
    pub(super) p_memsz: u64,
    pub(super) p_align: u64,
    pub(super) shdr_size: u64,
    pub(super) sh_offset: u64,
    pub(super) sh_size: u64,
    pub(super) sh_addralign: u64,
}

#[rustfmt::skip]
const ELF64: Layout = Layout {
    word: 8, e_entry: 24, e_phoff: 32, e_shoff: 40, e_phentsize: 54, e_phnum: 56, e_shentsize: 58, e_shnum: 60,
    phdr_size: 56, p_flags: 4, p_offset: 8, p_vaddr: 16, p_paddr: 24, p_filesz: 32, p_memsz: 40, p_align: 48,
    shdr_size: 64, sh_offset: 24, sh_size: 32, sh_addralign: 48,
};
#[rustfmt::skip]
const ELF32: Layout = Layout {
    word: 4, e_entry: 24, e_phoff: 28, e_shoff: 32, e_phentsize: 42, e_phnum: 44, e_shentsize: 46, e_shnum: 48,
    phdr_size: 32, p_flags: 24, p_offset: 4, p_vaddr: 8, p_paddr: 12, p_filesz: 16, p_memsz: 20, p_align: 28,
    shdr_size: 40, sh_offset: 16, sh_size: 20, sh_addralign: 32,
};

/// The processor the kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// EM_386, ELF32.
    I386,
    /// EM_X86_64, ELF64.
    X86_64,
    /// EM_AARCH64, ELF64.
    Aarch64,
}

/// Does the file begin as an ELF file does?
#[must_use]
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

/// Machine and class, after everything in the header that has only one right value.
pub(super) fn identify(bytes: Bytes<'_>) -> Result<(Machine, &'static Layout), ImageError> {
    let wrong =
        |what, offset, value: u16, problem| Err(ImageError::Field { what, offset, value: value.into(), problem });
    let class = bytes.u8(EI_CLASS, "EI_CLASS")?;
    let data = bytes.u8(EI_DATA, "EI_DATA")?;
    if data != ELFDATA2LSB {
        return wrong("EI_DATA", EI_DATA, data.into(), "not little endian");
    }
    let version = bytes.u8(EI_VERSION, "EI_VERSION")?;
    if version != EV_CURRENT {
        return wrong("EI_VERSION", EI_VERSION, version.into(), "not 1");
    }
    let kind = bytes.u16(E_TYPE, "e_type")?;
    if kind != ET_EXEC && kind != ET_DYN {
        return wrong("e_type", E_TYPE, kind, "neither ET_EXEC nor ET_DYN");
    }
    let machine = bytes.u16(E_MACHINE, "e_machine")?;
    match (class, machine) {
        (ELFCLASS32, EM_386) => Ok((Machine::I386, &ELF32)),
        (ELFCLASS64, EM_X86_64) => Ok((Machine::X86_64, &ELF64)),
        (ELFCLASS64, EM_AARCH64) => Ok((Machine::Aarch64, &ELF64)),
        (ELFCLASS32 | ELFCLASS64, _) => {
            wrong("e_machine", E_MACHINE, machine, "not i386 (ELF32), x86-64 or AArch64 (ELF64)")
        }
        _ => wrong("EI_CLASS", EI_CLASS, class.into(), "neither 32-bit nor 64-bit"),
    }
}

/// A header table: all of it is in the file. `bytes` is the ELF header.
#[expect(clippy::too_many_arguments, reason = "two fields of the header, and what they must be")]
pub(super) fn table<'a>(
    file: File<'a>,
    bytes: Bytes<'a>,
    offset_field: u64,
    size_field: u64,
    count: u16,
    expected_size: u64,
    layout: &Layout,
    what: &'static str,
) -> Result<Bytes<'a>, ImageError> {
    if count == 0 {
        return bytes.part(0, 0, what);
    }
    let entry_size = bytes.u16(size_field, what)?;
    if u64::from(entry_size) != expected_size {
        return Err(ImageError::Field {
            what,
            offset: size_field,
            value: entry_size.into(),
            problem: "is the size of an entry, and not the one of this class",
        });
    }
    let offset = word(bytes, layout, offset_field, what)?;
    file.part(offset, u64::from(count).saturating_mul(expected_size), what)
}

/// An address, offset or size of the class.
pub(super) fn word(bytes: Bytes<'_>, layout: &Layout, offset: u64, what: &'static str) -> Result<u64, ImageError> {
    if layout.word == 4 { bytes.u32(offset, what).map(u64::from) } else { bytes.u64(offset, what) }
}
