//! The pieces of a kernel: carried out on a model of guest memory they must give what the segments say.

mod common;

use common::{Elf, Load};
use image::load::{Piece, pieces, pvh_entry_at, span_at};
use image::{ImageError, Kernel};
use proptest::prelude::*;

/// Carries out the pieces on memory that was full of 0xee, `base` being the address of its first byte.
fn carry_out(file: &[u8], kernel: &Kernel<'_>, start: u64, chunk: u64, base: u64, len: usize) -> Vec<u8> {
    let mut memory = vec![0xee; len];
    for piece in pieces(kernel, start, chunk).unwrap() {
        let (gpa, size) = match piece {
            Piece::Copy { gpa, len, .. } => (gpa, len),
            Piece::Zero { gpa, len } => (gpa, len),
        };
        assert_ne!(size, 0);
        assert_eq!(gpa / chunk, (gpa + size - 1) / chunk, "crosses a border");
        let place = &mut memory[(gpa - base) as usize..][..size as usize];
        assert!(place.iter().all(|&byte| byte == 0xee), "written twice");
        match piece {
            Piece::Copy { offset, len, .. } => place.copy_from_slice(image::load::bytes(file, offset, len).unwrap()),
            Piece::Zero { .. } => place.fill(0),
        }
    }
    memory
}

fn expected(elf: &Elf, base: u64, len: usize) -> Vec<u8> {
    let mut memory = vec![0xee; len];
    for load in &elf.loads {
        let place = &mut memory[(load.paddr - base) as usize..][..load.memsz as usize];
        place.fill(0);
        place[..load.bytes.len()].copy_from_slice(&load.bytes);
    }
    memory
}

#[test]
fn a_kernel_where_it_was_linked_and_elsewhere() {
    let elf = Elf::linux_like();
    let file = elf.build();
    let kernel = Kernel::parse(&file).unwrap();
    let base = kernel.span.start();
    let wanted = expected(&elf, base, 0x20_3000);
    for chunk in [1, 4096, 1 << 21, 1 << 63] {
        assert!(carry_out(&file, &kernel, base, chunk, base, 0x20_3000) == wanted, "{chunk}");
        assert!(carry_out(&file, &kernel, 0x7ff123, chunk, 0x7ff123, 0x20_3000) == wanted, "{chunk}");
    }
    assert_eq!(pvh_entry_at(&kernel, 0x40_0000), Ok(0x40_0010));
    assert_eq!(pvh_entry_at(&kernel, base), kernel.pvh_entry());
    assert!(matches!(pvh_entry_at(&kernel, 1 << 32), Err(ImageError::Argument { what: "PVH entry point", .. })));
}

#[test]
fn impossible_arguments() {
    let file = Elf::linux_like().build();
    let kernel = Kernel::parse(&file).unwrap();
    for chunk in [0, 3, u64::MAX] {
        assert!(matches!(pieces(&kernel, 0, chunk), Err(ImageError::Argument { what: "chunk size", .. })));
    }
    let last = u64::MAX - kernel.span.len();
    assert!(pieces(&kernel, last, 4096).is_ok());
    assert_eq!(span_at(&kernel, last).unwrap().end(), u64::MAX);
    assert!(matches!(pieces(&kernel, last + 1, 4096), Err(ImageError::Argument { what: "load address", .. })));
    // At the very top the iterator must end.
    assert!(pieces(&kernel, last, 4096).unwrap().count() < 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_segments(
        gaps in prop::collection::vec((0u64..3000, 0u64..3000, 0usize..3000), 1..6),
        shift in 0u64..10_000,
        chunk_bits in 0u32..16,
    ) {
        let mut at = 0x1000;
        let mut loads = Vec::new();
        for (index, (gap, extra, filesz)) in gaps.into_iter().enumerate() {
            at += gap;
            loads.push(Load { paddr: at, bytes: vec![index as u8 + 1; filesz], memsz: filesz as u64 + extra, align: 1 });
            at += filesz as u64 + extra;
        }
        prop_assume!(loads.iter().any(|load| load.memsz != 0));
        let elf = Elf { loads, ..Elf::linux_like() };
        let file = elf.build();
        let kernel = Kernel::parse(&file).unwrap();
        let base = kernel.span.start();
        let len = kernel.span.len() as usize;
        let mut elf = elf.clone();
        elf.loads.retain(|load| load.memsz != 0);
        let wanted = expected(&elf, base, len);
        prop_assert!(carry_out(&file, &kernel, shift, 1 << chunk_bits, shift, len) == wanted);
    }
}
