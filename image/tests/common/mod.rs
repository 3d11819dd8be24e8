//! Makes the images that the tests read: tiny ELF files, bzImages and compressed payloads. Every test file uses a part
//! of this.
#![allow(dead_code, reason = "each test file is its own crate and uses some of the helpers")]

use image::Compression;

/// A segment for [`Elf`].
#[derive(Clone, Debug)]
pub struct Load {
    pub paddr: u64,
    pub bytes: Vec<u8>,
    pub memsz: u64,
    pub align: u64,
}

/// An ELF file to be made: headers, then the notes, then the segments' bytes.
#[derive(Clone, Debug)]
pub struct Elf {
    pub class64: bool,
    pub machine: u16,
    pub loads: Vec<Load>,
    pub notes: Vec<u8>,
    /// Put the notes into a section instead of a segment.
    pub notes_in_section: bool,
}

impl Elf {
    /// An x86-64 kernel like Linux: text with a PVH entry, and data with a bss.
    pub fn linux_like() -> Self {
        let text: Vec<u8> = (0..5000u32).map(|n| (n * 7) as u8).collect();
        Self {
            class64: true,
            machine: 62,
            loads: vec![
                Load { paddr: 0x100_0000, memsz: 5000, bytes: text, align: 0x20_0000 },
                Load { paddr: 0x120_0000, memsz: 0x3000, bytes: vec![0xd7; 777], align: 0x1000 },
            ],
            notes: [note(6, b"linux\0"), note(18, &0x100_0010u64.to_le_bytes())].concat(),
            notes_in_section: false,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let (ehdr, phent, shent) = if self.class64 { (64, 56, 64) } else { (52, 32, 40) };
        let has_note_segment = !self.notes_in_section && !self.notes.is_empty();
        let count = self.loads.len() + usize::from(has_note_segment);
        let notes_at = ehdr + count * phent;
        let mut at = notes_at + self.notes.len();
        let mut file = vec![0x7f, b'E', b'L', b'F', 1 + u8::from(self.class64), 1, 1, 0];
        file.resize(16, 0);
        put(&mut file, &[2u16.to_le_bytes(), self.machine.to_le_bytes()].concat());
        put(&mut file, &1u32.to_le_bytes());
        let section_at = at + self.loads.iter().map(|load| load.bytes.len()).sum::<usize>();
        self.word(&mut file, 0x100_0000);
        self.word(&mut file, ehdr as u64);
        self.word(&mut file, if self.notes_in_section { section_at as u64 } else { 0 });
        put(&mut file, &0u32.to_le_bytes());
        let sections = u16::from(self.notes_in_section);
        for half in [ehdr as u16, phent as u16, count as u16, shent as u16, sections, 0] {
            put(&mut file, &half.to_le_bytes());
        }
        assert_eq!(file.len(), ehdr);
        for load in &self.loads {
            self.program_header(&mut file, 1, at, load.paddr, load.bytes.len(), load.memsz, load.align);
            at += load.bytes.len();
        }
        if has_note_segment {
            self.program_header(&mut file, 4, notes_at, 0, self.notes.len(), self.notes.len() as u64, 4);
        }
        assert_eq!(file.len(), notes_at);
        put(&mut file, &self.notes);
        for load in &self.loads {
            put(&mut file, &load.bytes);
        }
        if self.notes_in_section {
            // sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link, sh_info, sh_addralign, sh_entsize
            put(&mut file, &[0u32.to_le_bytes(), 7u32.to_le_bytes()].concat());
            for value in [0, 0, notes_at as u64, self.notes.len() as u64] {
                self.word(&mut file, value);
            }
            put(&mut file, &[0; 8]);
            self.word(&mut file, 4);
            self.word(&mut file, 0);
        }
        file
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a program header")]
    fn program_header(
        &self,
        file: &mut Vec<u8>,
        kind: u32,
        offset: usize,
        paddr: u64,
        filesz: usize,
        memsz: u64,
        align: u64,
    ) {
        let flags = 5u32;
        put(file, &kind.to_le_bytes());
        if self.class64 {
            put(file, &flags.to_le_bytes());
        }
        for value in [offset as u64, paddr.wrapping_add(0xffff_ffff_8000_0000), paddr, filesz as u64, memsz] {
            self.word(file, value);
        }
        if !self.class64 {
            put(file, &flags.to_le_bytes());
        }
        self.word(file, align);
    }

    fn word(&self, file: &mut Vec<u8>, value: u64) {
        if self.class64 {
            put(file, &value.to_le_bytes());
        } else {
            put(file, &(value as u32).to_le_bytes());
        }
    }
}

fn put(file: &mut Vec<u8>, bytes: &[u8]) {
    file.extend_from_slice(bytes);
}

/// A note with the name "Xen".
pub fn note(kind: u32, desc: &[u8]) -> Vec<u8> {
    named_note(b"Xen\0", kind, desc)
}

pub fn named_note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in [name.len() as u32, desc.len() as u32, kind] {
        put(&mut bytes, &value.to_le_bytes());
    }
    for part in [name, desc] {
        put(&mut bytes, part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A bzImage around a payload (with whatever is appended to it already).
pub fn bzimage(payload: &[u8], setup_sects: u8, payload_offset: u32) -> Vec<u8> {
    let sectors = if setup_sects == 0 { 4 } else { usize::from(setup_sects) };
    let mut file = vec![0; (sectors + 1) * 512];
    file[0x1f1] = setup_sects;
    file[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    file[0x211] = 1;
    file[0x248..0x24c].copy_from_slice(&payload_offset.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
    file[0x260..0x264].copy_from_slice(&0x3f9_8000u32.to_le_bytes());
    file.resize(file.len() + payload_offset as usize, 0x90);
    put(&mut file, payload);
    put(&mut file, &[0xcc; 100]);
    file
}

/// Appends the size as Linux's build does; gzip has it already.
pub fn with_size(compression: Compression, mut compressed: Vec<u8>, size: usize) -> Vec<u8> {
    if compression != Compression::Gzip {
        put(&mut compressed, &(size as u32).to_le_bytes());
    }
    compressed
}

/// All formats that can be decoded.
pub const SUPPORTED: [Compression; 7] = [
    Compression::Gzip,
    Compression::Xz,
    Compression::Zstd,
    Compression::Lz4Legacy,
    Compression::Lz4Frame,
    Compression::Lzma,
    Compression::Lzo,
];

/// Bytes that look a little like a kernel: code with repetitions, text, noise, zeros.
pub fn sample(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9u32;
    let mut bytes = Vec::with_capacity(size + 64);
    while bytes.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match (state >> 29) & 3 {
            // A call with a relative address, for the x86 branch filter.
            0 => put(&mut bytes, &[&[0xe8][..], &(state >> 16).to_le_bytes()].concat()),
            1 => put(&mut bytes, b"the quick brown kernel "),
            2 => put(&mut bytes, &state.to_le_bytes()),
            _ => bytes.resize(bytes.len() + 48, 0),
        }
    }
    bytes.truncate(size);
    bytes
}

/// Compresses, without the appended size.
pub fn compress(compression: Compression, data: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Gzip => {
            let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3];
            put(&mut file, &miniz_oxide::deflate::compress_to_vec(data, 6));
            put(&mut file, &crc32fast::hash(data).to_le_bytes());
            put(&mut file, &(data.len() as u32).to_le_bytes());
            file
        }
        Compression::Xz => xz(data, lzma_rust2::CheckType::Crc32, true),
        Compression::Zstd => ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest),
        Compression::Lz4Legacy => {
            let mut file = vec![0x02, 0x21, 0x4c, 0x18];
            for block in data.chunks(8 << 20) {
                let compressed = lz4_flex::block::compress(block);
                put(&mut file, &(compressed.len() as u32).to_le_bytes());
                put(&mut file, &compressed);
            }
            file
        }
        Compression::Lz4Frame => lz4_frame(data),
        Compression::Lzma => {
            use lzma_rust2::Write;
            let options = lzma_rust2::LzmaOptions::with_preset(3);
            let mut writer = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
            writer.write_all(data).unwrap();
            writer.finish().unwrap()
        }
        Compression::Lzo => lzop(data),
        Compression::Bzip2 => b"BZh91AY&SY".to_vec(),
    }
}

pub fn xz(data: &[u8], check: lzma_rust2::CheckType, x86: bool) -> Vec<u8> {
    use lzma_rust2::Write;
    let mut options = lzma_rust2::XzOptions::with_preset(3);
    options.set_check_sum_type(check);
    if x86 {
        options.prepend_pre_filter(lzma_rust2::FilterType::BcjX86, 0);
    }
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(data).unwrap();
    writer.finish().unwrap()
}

/// A frame with linked blocks of 64 KiB, all checksums and the content size.
fn lz4_frame(data: &[u8]) -> Vec<u8> {
    let hash = |bytes: &[u8]| twox_hash::XxHash32::oneshot(0, bytes);
    let mut file = vec![0x04, 0x22, 0x4d, 0x18, 0b0101_1100, 0x40];
    put(&mut file, &(data.len() as u64).to_le_bytes());
    let header_checksum = (hash(&file[4..]) >> 8) as u8;
    file.push(header_checksum);
    let mut at = 0;
    for block in data.chunks(64 << 10) {
        let history = &data[at.max(64 << 10) - (64 << 10)..at];
        let compressed = lz4_flex::block::compress_with_dict(block, history);
        let stored = compressed.len() >= block.len();
        let bytes = if stored { block } else { &compressed };
        put(&mut file, &(bytes.len() as u32 | u32::from(stored) << 31).to_le_bytes());
        put(&mut file, bytes);
        put(&mut file, &hash(bytes).to_le_bytes());
        at += block.len();
    }
    put(&mut file, &0u32.to_le_bytes());
    put(&mut file, &hash(data).to_le_bytes());
    file
}

/// As lzop 1.04 does it: Adler32 of the data, blocks of 256 KiB.
fn lzop(data: &[u8]) -> Vec<u8> {
    let mut file = vec![0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a];
    let adler = |bytes: &[u8]| adler2::adler32_slice(bytes).to_be_bytes();
    // version, library, needed, method, level, flags (Adler32 of data), mode, time (low, high), name "k"
    put(&mut file, &[0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 1, 5, 0, 0, 0, 1]);
    put(&mut file, &[0; 12]);
    put(&mut file, &[1, b'k']);
    let checksum = adler(&file[9..]);
    put(&mut file, &checksum);
    for block in data.chunks(256 << 10) {
        let compressed = lzokay::compress::compress(block).unwrap();
        let bytes = if compressed.len() < block.len() { &compressed } else { block };
        put(&mut file, &(block.len() as u32).to_be_bytes());
        put(&mut file, &(bytes.len() as u32).to_be_bytes());
        put(&mut file, &adler(block));
        put(&mut file, bytes);
    }
    put(&mut file, &[0; 4]);
    file
}

/// A small generator of random numbers for the mutation tests: the same on every run, so that a failure repeats.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// Changes one to four bytes, of which about half are in the first 96, or cuts the data.
    pub fn mutate(&mut self, data: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let range = if self.below(2) == 0 { data.len().min(96) } else { data.len() };
            let at = self.below(range);
            let Some(byte) = data.get_mut(at) else { return };
            match self.below(8) {
                0..4 => *byte ^= 1 << self.below(8),
                4 => *byte = 0xff,
                5 => *byte = 0,
                6 => *byte = self.below(256) as u8,
                _ => data.truncate(at),
            }
        }
    }
}
