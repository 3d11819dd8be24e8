//! Real kernels: `OXEN_TEST_KERNELS` has paths with colons between them. Unset, this test checks nothing and says so.
//!
//! What a distribution's kernel for PVH must give is checked here; the facts are printed (`--nocapture`).

use std::collections::BTreeSet;

use image::decompress::appended_size;
use image::load::{Piece, pieces};
use image::placement::{Request, place};
use image::{Compression, GpaRange, Kernel, bzimage, unpack};

const LIMIT: usize = 512 << 20;

#[test]
fn real_kernels() {
    let Ok(paths) = std::env::var("OXEN_TEST_KERNELS") else {
        println!("OXEN_TEST_KERNELS is not set: no real kernel was checked");
        return;
    };
    let mut checked = 0;
    for path in paths.split(':').filter(|path| !path.is_empty()) {
        let file = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        check(path, &file);
        checked += 1;
    }
    assert_ne!(checked, 0, "OXEN_TEST_KERNELS names no file");
}

fn check(path: &str, file: &[u8]) {
    let started = std::time::Instant::now();
    let elf = unpack(file, LIMIT).unwrap_or_else(|error| panic!("{path}: {error}"));
    println!("{path}: {} bytes, ELF {} bytes, unpacked in {:?}", file.len(), elf.len(), started.elapsed());
    if let Some(header) = bzimage::Header::parse(file).unwrap() {
        let payload = header.payload(file).unwrap();
        println!("  {header:x?}");
        println!("  payload {} bytes, {}", payload.len(), Compression::detect(payload).unwrap());
        assert_eq!(appended_size(payload).unwrap() as usize, elf.len());
        // One byte less is too little.
        assert!(unpack(file, elf.len() - 1).is_err());
    }
    let kernel = Kernel::parse(&elf).unwrap_or_else(|error| panic!("{path}: {error}"));
    check_contents(&kernel);
    check_loading(&kernel);
}

/// Segments, notes and the entry.
fn check_contents(kernel: &Kernel<'_>) {
    println!("  {:?}, entry {:#x}, span {}", kernel.machine, kernel.entry, kernel.span);
    for segment in &kernel.segments {
        println!(
            "  {} filesz {:#x} vaddr {:#x} flags {} align {:#x}",
            segment.range, segment.length, segment.vaddr, segment.flags, segment.align
        );
    }
    let notes = &kernel.notes;
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| bytes.escape_ascii().to_string());
    println!(
        "  {} notes: os {:?} version {:?} xen {:?} loader {:?} features {:?}",
        notes.count,
        text(notes.guest_os),
        text(notes.guest_version),
        text(notes.xen_version),
        text(notes.loader),
        text(notes.features)
    );
    println!(
        "  PHYS32_ENTRY {:x?} PHYS32_RELOC {:x?} SUPPORTED_FEATURES {:x?} ENTRY {:x?} HYPERCALL_PAGE {:x?} INIT_P2M {:x?}",
        notes.phys32_entry,
        notes.phys32_reloc,
        notes.supported_features,
        notes.entry,
        notes.hypercall_page,
        notes.init_p2m
    );
    assert_eq!(text(notes.guest_os).as_deref(), Some("linux"));
    let entry = kernel.pvh_entry().unwrap();
    assert!(kernel.span.contains(GpaRange::new(entry.into(), 1).unwrap()));
}

/// The writes and the placement.
fn check_loading(kernel: &Kernel<'_>) {
    // The pieces cover each segment exactly once.
    let mut copied = 0;
    let mut cleared = 0;
    let mut pages = BTreeSet::new();
    for piece in pieces(kernel, kernel.span.start(), 4096).unwrap() {
        let (gpa, len) = match piece {
            Piece::Copy { gpa, len, .. } => {
                copied += len;
                (gpa, len)
            }
            Piece::Zero { gpa, len } => {
                cleared += len;
                (gpa, len)
            }
        };
        pages.extend([gpa / 4096, (gpa + len - 1) / 4096]);
    }
    assert_eq!(copied, kernel.segments.iter().map(|segment| segment.length).sum());
    assert_eq!(copied + cleared, kernel.segments.iter().map(|segment| segment.range.len()).sum());
    println!("  copies {copied} bytes, clears {cleared} bytes, touches {} pages", pages.len());

    let ram = [GpaRange::new(0, 0xa_0000).unwrap(), GpaRange::between(1 << 20, 512 << 20).unwrap()];
    let request = Request { kernel: kernel.span, initrd_size: 30 << 20, metadata_size: 4096 };
    println!("  {:x?}", place(&ram, &request).unwrap());
}
