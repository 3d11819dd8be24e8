//! bzImages, and the way from a file to an ELF file.

mod common;

use std::borrow::Cow;

use common::{Elf, Random, SUPPORTED, bzimage, compress, with_size};
use image::bzimage::Header;
use image::{Compression, ImageError, Kernel, unpack};

const LIMIT: usize = 1 << 20;

fn kernel_file() -> (Vec<u8>, Vec<u8>) {
    let elf = Elf::linux_like().build();
    let payload = with_size(Compression::Xz, compress(Compression::Xz, &elf), elf.len());
    (bzimage(&payload, 39, 0x2cc), elf)
}

#[test]
fn the_header() {
    let (file, _) = kernel_file();
    let header = Header::parse(&file).unwrap().unwrap();
    assert_eq!(header.version, 0x20f);
    assert_eq!(header.setup_sectors, 39);
    assert_eq!(header.protected_mode_offset(), 40 * 512);
    assert_eq!(header.payload_offset, 0x2cc);
    assert_eq!((header.preferred_address, header.init_size), (0x100_0000, 0x3f9_8000));
    assert_eq!(header.payload(&file).unwrap()[..6], [0xfd, b'7', b'z', b'X', b'Z', 0]);
    // Zero sectors mean four.
    assert_eq!(Header::parse(&bzimage(&[1], 0, 0)).unwrap().unwrap().protected_mode_offset(), 5 * 512);
    assert_eq!(Header::parse(&Elf::linux_like().build()), Ok(None));
    assert_eq!(Header::parse(&[]), Ok(None));
}

#[test]
fn wrong_headers() {
    let (good, _) = kernel_file();
    let patched = |offset: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        unpack(&file, LIMIT).unwrap_err()
    };
    assert!(matches!(patched(0x202, b"HdrX"), ImageError::NotAKernel { first: [0, 0, 0, 0] }));
    assert!(matches!(patched(0x1fe, &[0]), ImageError::Field { what: "boot_flag", offset: 0x1fe, value: 0xaa00, .. }));
    assert!(matches!(patched(0x206, &[7, 2]), ImageError::Field { what: "version", offset: 0x206, value: 0x207, .. }));
    assert!(matches!(patched(0x211, &[0]), ImageError::Field { what: "loadflags", offset: 0x211, value: 0, .. }));
    assert!(matches!(patched(0x24c, &[0; 4]), ImageError::Field { what: "payload_length", offset: 0x24c, .. }));
    let truncated = |error| matches!(error, ImageError::Truncated { what: "bzImage payload", .. });
    assert!(truncated(patched(0x24c, &[0xff; 4])));
    assert!(truncated(patched(0x248, &[0xff; 4])));
    assert!(truncated(patched(0x1f1, &[0xff])));
    // The payload begins somewhere else: no compression there.
    assert!(matches!(patched(0x248, &[0xcd]), ImageError::NotAKernel { .. }));
}

#[test]
fn every_kind_of_file_gives_the_elf_file() {
    let elf = Elf::linux_like().build();
    assert!(matches!(unpack(&elf, 0), Ok(Cow::Borrowed(same)) if same == elf), "no copy, no limit");
    for compression in SUPPORTED {
        let compressed = compress(compression, &elf);
        let file = bzimage(&with_size(compression, compressed.clone(), elf.len()), 7, 16);
        assert_eq!(unpack(&file, LIMIT).unwrap(), elf, "{compression}");
        assert_eq!(unpack(&compressed, LIMIT).unwrap(), elf, "{compression}");
        Kernel::parse(&unpack(&file, LIMIT).unwrap()).unwrap();
        assert!(matches!(unpack(&file, elf.len() - 1), Err(ImageError::TooLarge { .. })), "{compression}");
    }
    let bzip2 = bzimage(b"BZh91AY&SY0000", 7, 16);
    assert_eq!(unpack(&bzip2, LIMIT), Err(ImageError::CompressionUnsupported(Compression::Bzip2)));
    // Compressed, but not a kernel.
    let text = compress(Compression::Gzip, b"text, not a kernel");
    assert_eq!(unpack(&text, LIMIT), Err(ImageError::NotAKernel { first: *b"text" }));
}

#[test]
fn cut_at_every_length() {
    let (file, _) = kernel_file();
    let end = file.len() - 100;
    for len in 0..end {
        assert!(unpack(&file[..len], LIMIT).is_err(), "{len}");
    }
    assert!(unpack(&file[..end], LIMIT).is_ok());
}

#[test]
fn mutated_files_are_refused_or_unpack() {
    let (good, elf) = kernel_file();
    let mut random = Random(99);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..4000 {
        let mut file = good.clone();
        // The setup header, or anything.
        let mut part = file[0x1f0..0x268].to_vec();
        random.mutate(&mut part);
        file.splice(0x1f0..0x268, part);
        match unpack(&file, LIMIT) {
            Ok(content) => {
                assert_eq!(content, elf);
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > 100 && refused > 100, "{accepted} {refused}");
}
