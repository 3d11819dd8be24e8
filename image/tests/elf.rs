//! ELF files: right ones, one wrong field at a time, cut at each length, mutated.

mod common;

use common::{Elf, Load, Random};
use image::elf::{MAX_SEGMENTS, Machine};
use image::{GpaRange, ImageError, Kernel, Parts};
use proptest::prelude::*;

fn range(start: u64, len: u64) -> GpaRange {
    GpaRange::new(start, len).unwrap()
}

/// The file with `bytes` at `offset`, and what the parser says to it.
fn patched(offset: usize, bytes: &[u8]) -> ImageError {
    let mut file = Elf::linux_like().build();
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    Kernel::parse(&file).unwrap_err()
}

fn bytes_of<'a>(file: &'a [u8], kernel: &Kernel<'_>, segment: usize) -> &'a [u8] {
    let segment = kernel.segments[segment];
    image::load::bytes(file, segment.offset, segment.length).unwrap()
}

/// What the parser says of a file when it gets the parts that it asks for; and how many bytes those were.
fn by_parts(file: &[u8], parts: &mut Parts) -> (Option<ImageError>, u64) {
    let mut read = 0;
    loop {
        match Kernel::parse_parts(parts) {
            Err(ImageError::NotInMemory { offset, needed, .. }) => {
                let bytes = file[offset as usize..][..needed as usize].to_vec();
                read += needed;
                parts.add(offset, bytes).unwrap();
            }
            result => return (result.err(), read),
        }
    }
}

#[test]
fn a_kernel_is_known_by_its_headers_and_notes() {
    let elf = Elf::linux_like();
    let file = elf.build();
    let mut parts = Parts::new(file.len() as u64);
    let (error, read) = by_parts(&file, &mut parts);
    assert_eq!(error, None);
    assert!(read < 600, "{read} of {} bytes", file.len());
    assert_eq!(Kernel::parse_parts(&parts), Kernel::parse(&file));
    // A part that is behind the file's end is no kernel's.
    assert!(matches!(Kernel::parse_parts(&Parts::new(3)), Err(ImageError::NotInMemory { offset: 0, needed: 3, .. })));
    assert_eq!(by_parts(&file[..3], &mut Parts::new(3)).0, Kernel::parse(&file[..3]).err());
}

#[test]
fn a_linux_like_kernel() {
    let elf = Elf::linux_like();
    let file = elf.build();
    let kernel = Kernel::parse(&file).unwrap();
    assert_eq!(kernel.machine, Machine::X86_64);
    assert_eq!(kernel.entry, 0x100_0000);
    assert_eq!(kernel.span, range(0x100_0000, 0x20_3000));
    assert_eq!(kernel.segments.len(), 2);
    assert_eq!(bytes_of(&file, &kernel, 0), elf.loads[0].bytes);
    assert_eq!(kernel.segments[0].vaddr, 0xffff_ffff_8100_0000);
    assert_eq!(kernel.segments[0].flags, 5);
    assert_eq!(kernel.segments[1].range, range(0x120_0000, 0x3000));
    assert_eq!(bytes_of(&file, &kernel, 1), [0xd7; 777]);
    assert_eq!(kernel.notes.guest_os, Some(&b"linux"[..]));
    assert_eq!(kernel.pvh_entry(), Ok(0x100_0010));
    assert_eq!(kernel.relocation(), None);
}

#[test]
fn the_other_classes_and_machines() {
    for (class64, machine, expected) in [(false, 3, Machine::I386), (true, 183, Machine::Aarch64)] {
        let elf = Elf { class64, machine, ..Elf::linux_like() };
        let file = elf.build();
        let kernel = Kernel::parse(&file).unwrap();
        assert_eq!(kernel.machine, expected);
        assert_eq!(kernel.span, range(0x100_0000, 0x20_3000));
        assert_eq!(bytes_of(&file, &kernel, 1), [0xd7; 777]);
        assert_eq!(kernel.segments[0].align, 0x20_0000);
        assert_eq!(kernel.pvh_entry(), Ok(0x100_0010));
    }
    // A 32-bit ELF for x86-64 (x32) is no kernel, nor is any other machine.
    for (class64, machine) in [(false, 62), (true, 3), (true, 40), (false, 183)] {
        let file = Elf { class64, machine, ..Elf::linux_like() }.build();
        assert!(matches!(Kernel::parse(&file), Err(ImageError::Field { what: "e_machine", offset: 18, .. })));
    }
}

#[test]
fn one_wrong_field_at_a_time() {
    use ImageError::{Field, TooLarge, Truncated};
    assert!(matches!(patched(0, b"elf"), ImageError::NotAKernel { first: [b'e', b'l', b'f', b'F'] }));
    assert!(matches!(patched(4, &[3]), Field { what: "EI_CLASS", offset: 4, value: 3, .. }));
    assert!(matches!(patched(5, &[2]), Field { what: "EI_DATA", offset: 5, value: 2, .. }));
    assert!(matches!(patched(6, &[0]), Field { what: "EI_VERSION", .. }));
    assert!(matches!(patched(16, &[1, 0]), Field { what: "e_type", offset: 16, value: 1, .. }));
    assert!(matches!(
        patched(32, &u64::MAX.to_le_bytes()),
        Truncated { what: "program headers", offset: u64::MAX, .. }
    ));
    assert!(matches!(patched(54, &[32, 0]), Field { offset: 54, value: 32, .. }));
    assert!(matches!(patched(56, &[0, 0]), Field { what: "e_phnum", offset: 56, value: 0, .. }));
    assert!(matches!(patched(56, &[0xff, 0xff]), TooLarge { what: "program headers", size: 65535, .. }));
}

#[test]
fn one_wrong_field_of_a_segment_at_a_time() {
    use ImageError::{Field, Truncated};
    let first_header = 64;
    // p_offset, p_paddr, p_filesz, p_memsz, p_align of the first segment
    assert!(matches!(patched(first_header + 8, &[0xff; 8]), Truncated { what: "PT_LOAD segment", .. }));
    assert!(matches!(patched(first_header + 24, &[0xff; 8]), Field { what: "p_memsz", offset: 104, value: 5000, .. }));
    assert!(matches!(patched(first_header + 32, &[0xff; 8]), Field { what: "p_filesz", offset: 96, .. }));
    assert!(matches!(patched(first_header + 40, &[0xff; 8]), Field { what: "p_memsz", .. }));
    assert!(matches!(patched(first_header + 48, &[3]), Field { what: "p_align", offset: 112, value: 0x20_0003, .. }));
    // A segment's bytes that end behind the file.
    assert!(matches!(patched(first_header + 34, &[1]), Field { what: "p_filesz", .. }));
}

#[test]
fn segments_do_not_overlap() {
    let mut elf = Elf::linux_like();
    elf.loads[1].paddr = 0x100_0000 + 4999;
    let error = Kernel::parse(&elf.build()).unwrap_err();
    assert_eq!(
        error,
        ImageError::Overlap {
            first: "PT_LOAD segment",
            first_range: range(0x100_0000, 5000),
            second: "PT_LOAD segment",
            second_range: range(0x100_0000 + 4999, 0x3000),
        }
    );
    // Touching is allowed.
    elf.loads[1].paddr = 0x100_0000 + 5000;
    assert!(Kernel::parse(&elf.build()).is_ok());
    // A 32-bit kernel must not pass 4 GiB.
    let mut elf = Elf { class64: false, machine: 3, ..Elf::linux_like() };
    elf.loads[1].paddr = 0xffff_d000;
    assert_eq!(Kernel::parse(&elf.build()).unwrap().span.end(), 1 << 32);
    elf.loads[1].paddr = 0xffff_d001;
    assert!(matches!(Kernel::parse(&elf.build()), Err(ImageError::Field { what: "p_memsz", .. })));
}

#[test]
fn there_is_a_limit_of_segments() {
    let load = |index: u64| Load { paddr: 0x10_0000 + index * 0x1000, bytes: vec![1], memsz: 2, align: 0 };
    let mut elf = Elf { loads: (0..MAX_SEGMENTS as u64).map(load).collect(), ..Elf::linux_like() };
    assert_eq!(Kernel::parse(&elf.build()).unwrap().segments.len(), MAX_SEGMENTS);
    // Segments without memory do not count.
    elf.loads.push(Load { paddr: 0, bytes: vec![], memsz: 0, align: 0 });
    assert_eq!(Kernel::parse(&elf.build()).unwrap().segments.len(), MAX_SEGMENTS);
    elf.loads.push(load(1000));
    assert!(matches!(Kernel::parse(&elf.build()), Err(ImageError::TooLarge { size: 65, limit: 64, .. })));
}

#[test]
fn cut_at_every_length() {
    for class64 in [true, false] {
        let machine = if class64 { 62 } else { 3 };
        let file = Elf { class64, machine, ..Elf::linux_like() }.build();
        for len in 0..file.len() {
            assert!(Kernel::parse(&file[..len]).is_err(), "{len}");
        }
        assert!(Kernel::parse(&file).is_ok());
    }
}

/// What must hold for anything the parser accepts.
fn check(kernel: &Kernel<'_>) {
    assert!(!kernel.segments.is_empty() && kernel.segments.len() <= MAX_SEGMENTS);
    for (index, segment) in kernel.segments.iter().enumerate() {
        assert!(segment.length <= segment.range.len());
        assert!(kernel.span.contains(segment.range));
        for other in &kernel.segments[index + 1..] {
            assert!(!segment.range.overlaps(other.range));
        }
    }
    assert!(kernel.segments.iter().any(|segment| segment.range.start() == kernel.span.start()));
    assert!(kernel.segments.iter().any(|segment| segment.range.end() == kernel.span.end()));
    if let Ok(entry) = kernel.pvh_entry() {
        assert!(kernel.span.contains(range(entry.into(), 1)));
    }
    for piece in image::load::pieces(kernel, kernel.span.start(), 1 << 40).unwrap() {
        let (image::load::Piece::Copy { gpa, .. } | image::load::Piece::Zero { gpa, .. }) = piece;
        assert!(gpa >= kernel.span.start() && gpa < kernel.span.end());
    }
}

#[test]
fn mutated_files_are_refused_or_consistent() {
    let mut random = Random(42);
    let mut accepted = 0;
    for round in 0..40_000 {
        let class64 = round % 2 == 0;
        let mut elf = Elf { class64, machine: if class64 { 62 } else { 3 }, ..Elf::linux_like() };
        elf.notes_in_section = round % 3 == 0;
        let mut file = elf.build();
        // The headers and notes, which is what is parsed.
        let mut head = file[..300].to_vec();
        random.mutate(&mut head);
        file.splice(..300, head);
        let kernel = Kernel::parse(&file);
        let mut parts = Parts::new(file.len() as u64);
        assert_eq!(by_parts(&file, &mut parts).0, kernel.as_ref().err().copied(), "in parts or whole");
        if let Ok(kernel) = kernel {
            assert_eq!(Kernel::parse_parts(&parts).as_ref(), Ok(&kernel));
            check(&kernel);
            accepted += 1;
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segments_anywhere(
        starts in prop::collection::vec((0u64..0x40_0000, 0u64..0x5000, 0usize..600), 1..8),
        class64 in any::<bool>(),
    ) {
        let loads: Vec<Load> = starts
            .iter()
            .map(|&(paddr, extra, filesz)| Load { paddr, bytes: vec![3; filesz], memsz: filesz as u64 + extra, align: 16 })
            .collect();
        let ranges: Vec<GpaRange> = loads.iter().map(|load| range(load.paddr, load.memsz)).filter(|range| !range.is_empty()).collect();
        let overlap = (0..ranges.len()).any(|one| (0..one).any(|two| ranges[one].overlaps(ranges[two])));
        let machine = if class64 { 62 } else { 3 };
        let file = Elf { class64, machine, loads, ..Elf::linux_like() }.build();
        match Kernel::parse(&file) {
            Ok(kernel) => {
                prop_assert!(!overlap && !ranges.is_empty());
                prop_assert_eq!(kernel.segments.iter().map(|segment| segment.range).collect::<Vec<_>>(), ranges);
                check(&kernel);
            }
            Err(ImageError::Overlap { .. }) => prop_assert!(overlap),
            Err(ImageError::Field { what: "e_phnum", .. }) => prop_assert!(ranges.is_empty()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
