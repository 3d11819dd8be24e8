//! The kernel that all domains of the tests run: an ELF file with a PVH entry note, one page of instructions, and page
//! tables that map linear addresses to themselves.
//!
//! Nobody executes the instructions: a scripted processor (`processor`) points RIP at the one that it plays, and the
//! hypervisor, which is not told instruction lengths by this machine, finds its bytes there as it does on a real one.

/// Where the kernel lies: the page of instructions, then the tables.
pub const BASE: u64 = 0x10_0000;
/// The entry point, as the note says it. Nothing is there: the first instruction is elsewhere.
pub const ENTRY: u64 = BASE + 0xf00;
/// The top-level page table.
pub const PAGE_TABLES: u64 = BASE + 0x1000;
/// Where the data segment begins: a known pattern, then memory that must be clear.
pub const DATA: u64 = BASE + 0x4000;
/// Bytes of the data segment in the file, and in memory.
pub const DATA_BYTES: u64 = 0x1234;
/// See [`DATA_BYTES`].
pub const DATA_SPAN: u64 = 0x3000;
/// A page of clear memory for hypercall arguments.
pub const SCRATCH: u64 = DATA + 0x2000;
/// The first address behind the kernel.
pub const END: u64 = DATA + DATA_SPAN;

/// The places of instructions in the first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the instructions' own names")]
pub enum Instruction {
    Vmmcall,
    /// MOV RAX, [RBX]
    Load,
    /// MOV [RBX], RAX
    Store,
    Hlt,
    Cpuid,
    Rdmsr,
    Wrmsr,
    /// IN with 1, 2 and 4 bytes.
    In(u8),
    /// OUT with 1, 2 and 4 bytes.
    Out(u8),
    Pause,
}

impl Instruction {
    const ALL: [Self; 14] = [
        Self::Vmmcall,
        Self::Load,
        Self::Store,
        Self::Hlt,
        Self::Cpuid,
        Self::Rdmsr,
        Self::Wrmsr,
        Self::In(1),
        Self::In(2),
        Self::In(4),
        Self::Out(1),
        Self::Out(2),
        Self::Out(4),
        Self::Pause,
    ];

    /// Its encoding in 64-bit code (AMD APM volume 3).
    pub const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Vmmcall => &[0x0f, 0x01, 0xd9],
            Self::Load => &[0x48, 0x8b, 0x03],
            Self::Store => &[0x48, 0x89, 0x03],
            Self::Hlt => &[0xf4],
            Self::Cpuid => &[0x0f, 0xa2],
            Self::Rdmsr => &[0x0f, 0x32],
            Self::Wrmsr => &[0x0f, 0x30],
            Self::In(1) => &[0xec],
            Self::In(2) => &[0x66, 0xed],
            Self::In(_) => &[0xed],
            Self::Out(1) => &[0xee],
            Self::Out(2) => &[0x66, 0xef],
            Self::Out(_) => &[0xef],
            Self::Pause => &[0xf3, 0x90],
        }
    }

    /// Where it is.
    pub fn address(self) -> u64 {
        let place = Self::ALL.iter().position(|other| *other == self).expect("is in the list");
        BASE + place as u64 * 16
    }
}

/// The data segment's pattern.
pub fn data() -> Vec<u8> {
    (0..DATA_BYTES).map(|index| (index * 7 + 3) as u8).collect()
}

/// The page of instructions, and tables that map 512 GiB to themselves with 1 GiB pages.
fn text() -> Vec<u8> {
    const PRESENT_WRITABLE_USER: u64 = 7;
    const LARGE: u64 = 1 << 7;
    // What is not an instruction would raise #BP.
    let mut bytes = vec![0xcc; 0x1000];
    for instruction in Instruction::ALL {
        let place = (instruction.address() - BASE) as usize;
        bytes[place..place + instruction.bytes().len()].copy_from_slice(instruction.bytes());
    }
    bytes.extend(((PAGE_TABLES + 0x1000) | PRESENT_WRITABLE_USER).to_le_bytes());
    bytes.resize(0x2000, 0);
    bytes.extend((0..512u64).flat_map(|entry| (entry << 30 | PRESENT_WRITABLE_USER | LARGE).to_le_bytes()));
    bytes
}

/// The ELF file (System V ABI, chapter 4; the notes are those of Xen's public/elfnote.h).
pub fn elf() -> Vec<u8> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    let (text, data) = (text(), data());
    let notes = [note(6, b"linux\0"), note(18, &(ENTRY as u32).to_le_bytes())].concat();
    let notes_at = HEADER + 3 * PROGRAM_HEADER;
    let text_at = (notes_at + notes.len() as u64).next_multiple_of(0x1000);
    let data_at = text_at + text.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // An executable for x86-64.
    file.extend([2u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    for word in [ENTRY, HEADER, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 3, 64, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // Type, flags, then: offset, virtual and physical address, bytes in the file and in memory, alignment.
    let headers: [([u32; 2], [u64; 6]); 3] = [
        ([1, 7], [text_at, BASE, BASE, text.len() as u64, text.len() as u64, 0x1000]),
        ([1, 6], [data_at, DATA, DATA, DATA_BYTES, DATA_SPAN, 0x1000]),
        ([4, 4], [notes_at, 0, 0, notes.len() as u64, notes.len() as u64, 4]),
    ];
    for (words, longs) in headers {
        file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        file.extend(longs.iter().flat_map(|word| word.to_le_bytes()));
    }
    file.extend(notes);
    file.resize(text_at as usize, 0);
    file.extend(text);
    file.extend(data);
    file
}

/// A note of Xen's.
fn note(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [4, content.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"Xen\0");
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_image_crate_takes_for_one() {
        let file = elf();
        let kernel = image::Kernel::parse(&file).expect("is a kernel");
        assert_eq!(kernel.pvh_entry(), Ok(ENTRY as u32));
        assert_eq!((kernel.span.start(), kernel.span.end()), (BASE, END));
    }
}
