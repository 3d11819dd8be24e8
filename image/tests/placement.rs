//! Placement: known cases, and a comparison with a search that tries every page.

use image::elf::Relocation;
use image::placement::{PAGE, Placement, Request, place, place_kernel};
use image::{GpaRange, ImageError};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn range(start: u64, len: u64) -> GpaRange {
    GpaRange::new(start, len).unwrap()
}

fn request(kernel: GpaRange, initrd_size: u64, metadata_size: u64) -> Request {
    Request { kernel, initrd_size, metadata_size }
}

#[test]
fn an_ordinary_guest() {
    let ram = [range(0, 0xa_0000), range(MIB, 512 * MIB - MIB)];
    let kernel = GpaRange::between(16 * MIB, 80 * MIB + 123).unwrap();
    let placement = place(&ram, &request(kernel, 30 * MIB + 1, 2000)).unwrap();
    let initrd = range(80 * MIB + PAGE, 30 * MIB + 1);
    assert_eq!(placement, Placement { initrd: Some(initrd), metadata: range(110 * MIB + 2 * PAGE, 2000) });
    let placement = place(&ram, &request(kernel, 0, 5000)).unwrap();
    assert_eq!(placement, Placement { initrd: None, metadata: range(80 * MIB + PAGE, 5000) });
}

#[test]
fn holes_and_ranges_that_touch() {
    // RAM that ends right behind the kernel, a hole, and a piece in two ranges.
    let ram = [range(MIB, 31 * MIB), range(48 * MIB, 16 * MIB), range(64 * MIB, 16 * MIB)];
    let kernel = range(16 * MIB, 16 * MIB - 5000);
    let placement = place(&ram, &request(kernel, 20 * MIB, 4096)).unwrap();
    assert_eq!(placement.initrd, Some(range(48 * MIB, 20 * MIB)));
    assert_eq!(placement.metadata, range(68 * MIB, 4096));
    // Nothing above the initrd is left: the block goes to the lowest place instead, not below 1 MiB.
    let placement = place(&ram, &request(kernel, 32 * MIB, 4096)).unwrap();
    assert_eq!(placement.initrd, Some(range(48 * MIB, 32 * MIB)));
    assert_eq!(placement.metadata, range(MIB, 4096));
}

#[test]
fn never_below_one_mib_nor_above_four_gib() {
    // A tiny guest kernel in the first MiB.
    let ram = [range(0, 8 * GIB)];
    let placement = place(&ram, &request(range(0x1000, 0x1000), 4096, 4096)).unwrap();
    assert_eq!(placement.initrd, Some(range(MIB, 4096)));
    let error = place(&[range(0, 0xa_0000)], &request(range(0x1000, 0x1000), 0, 4096)).unwrap_err();
    assert!(matches!(error, ImageError::NoRoom { what: "start info", size: 4096, largest: 0, .. }), "{error}");
    let kernel = range(16 * MIB, 4 * GIB - 24 * MIB);
    let error = place(&ram, &request(kernel, 8 * MIB + 1, 4096)).unwrap_err();
    assert_eq!(
        error,
        ImageError::NoRoom {
            what: "initrd",
            size: 8 * MIB + 1,
            within: GpaRange::between(4 * GIB - 8 * MIB, 4 * GIB).unwrap(),
            largest: 8 * MIB,
        }
    );
    assert!(format!("{error}").contains("8388609 bytes"), "{error}");
    assert!(place(&ram, &request(kernel, 8 * MIB, 4096)).is_ok());
    let high = range(4 * GIB - MIB, 2 * MIB);
    assert!(matches!(place(&ram, &request(high, 0, 1)), Err(ImageError::NotInRam { what: "kernel", .. })));
}

#[test]
fn wrong_input() {
    let kernel = range(16 * MIB, MIB);
    let unsorted = [range(32 * MIB, MIB), range(0, 20 * MIB)];
    assert!(matches!(place(&unsorted, &request(kernel, 0, 1)), Err(ImageError::Overlap { .. })));
    let overlapping = [range(0, 20 * MIB), range(19 * MIB, MIB)];
    assert!(matches!(place_kernel(&overlapping, kernel, None), Err(ImageError::Overlap { .. })));
    assert!(matches!(place(&[], &request(kernel, 0, 1)), Err(ImageError::NotInRam { .. })));
    // The kernel's bss reaches into a hole.
    let ram = [range(0, 16 * MIB + 4096), range(17 * MIB, GIB)];
    assert!(matches!(place(&ram, &request(kernel, 0, 1)), Err(ImageError::NotInRam { .. })));
    assert!(matches!(place(&[range(0, GIB)], &request(kernel, 0, 0)), Err(ImageError::Argument { .. })));
    let huge = place(&[range(0, GIB)], &request(kernel, u64::MAX, 1));
    assert!(matches!(huge, Err(ImageError::NoRoom { what: "initrd", size: u64::MAX, .. })));
}

#[test]
fn kernels_move_only_when_they_must_and_can() {
    let span = range(16 * MIB, 60 * MIB);
    let relocation = Relocation { align: 2 * MIB, within: GpaRange::between(0, 4 * GIB).unwrap() };
    assert_eq!(place_kernel(&[range(0, GIB)], span, Some(relocation)), Ok(16 * MIB));
    let ram = [range(0, 20 * MIB), range(31 * MIB, GIB)];
    assert!(matches!(place_kernel(&ram, span, None), Err(ImageError::NotInRam { .. })));
    assert_eq!(place_kernel(&ram, span, Some(relocation)), Ok(32 * MIB));
    let within = GpaRange::between(0, 91 * MIB).unwrap();
    let error = place_kernel(&ram, span, Some(Relocation { within, ..relocation })).unwrap_err();
    assert!(matches!(error, ImageError::NoRoom { what: "kernel", largest, .. } if largest == 59 * MIB), "{error}");
    let wrong = Relocation { align: 3, ..relocation };
    assert!(matches!(place_kernel(&ram, span, Some(wrong)), Err(ImageError::Argument { .. })));
}

/// The lowest page where `size` bytes are free: tries all.
fn lowest(ram: &[GpaRange], taken: &[GpaRange], from: u64, size: u64) -> Option<u64> {
    let is_ram = |address: u64| ram.iter().any(|range| range.start() <= address && address < range.end());
    let is_free = |page: u64| {
        let wanted = range(page, size);
        taken.iter().all(|range| !range.overlaps(wanted))
            // RAM borders are at quarters of pages in this test.
            && (page..page + size).step_by(1024).chain([page + size - 1]).all(is_ram)
    };
    (from.max(MIB).next_multiple_of(PAGE)..MIB + 200 * PAGE).step_by(PAGE as usize).find(|&page| is_free(page))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn same_as_trying_every_page(
        gaps in prop::collection::vec((0u64..20, 1u64..200), 1..6),
        kernel_at in 0u64..100,
        kernel_len in 1u64..100,
        initrd_size in 0u64..100_000,
        metadata_size in 1u64..20_000,
    ) {
        let mut at = MIB - 20 * 1024;
        let mut ram = Vec::new();
        for (gap, len) in gaps {
            at += gap * 1024;
            ram.push(range(at, len * 1024));
            at += len * 1024;
        }
        let kernel = range(MIB - 20 * 1024 + kernel_at * 1024, kernel_len * 1024);
        let kernel_is_ram = {
            let is_ram = |address: u64| ram.iter().any(|range| range.start() <= address && address < range.end());
            (kernel.start()..kernel.end()).step_by(1024).all(is_ram)
        };
        let initrd = match initrd_size {
            0 => None,
            size => lowest(&ram, &[kernel], kernel.end(), size).map(|start| range(start, size)),
        };
        let taken = [kernel, initrd.unwrap_or(kernel)];
        let metadata = lowest(&ram, &taken, initrd.unwrap_or(kernel).end(), metadata_size)
            .or_else(|| lowest(&ram, &taken, 0, metadata_size))
            .map(|start| range(start, metadata_size));
        match place(&ram, &request(kernel, initrd_size, metadata_size)) {
            Ok(placement) => {
                prop_assert!(kernel_is_ram);
                prop_assert_eq!(placement.initrd, initrd);
                prop_assert_eq!(Some(placement.metadata), metadata);
            }
            Err(ImageError::NotInRam { .. }) => prop_assert!(!kernel_is_ram),
            Err(ImageError::NoRoom { what: "initrd", .. }) => prop_assert!(initrd_size != 0 && initrd.is_none()),
            Err(ImageError::NoRoom { what: "start info", .. }) => prop_assert!(metadata.is_none()),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
