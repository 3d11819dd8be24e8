//! Tables as QEMU makes them, as manuals allow them, and as nobody should make them (T-RDM-3).

use super::*;
use proptest::prelude::*;
use std::vec;

/// A table with these blocks; its header is not looked at any more.
pub(crate) fn table(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut table = vec![0; FIRST_BLOCK];
    table[..4].copy_from_slice(b"IVRS");
    blocks.iter().for_each(|block| table.extend_from_slice(block));
    table
}

/// A unit's block with these device entries.
pub(crate) fn unit(kind: u8, place: u16, registers: u64, entries: &[u8]) -> Vec<u8> {
    let header = if kind == 0x10 { 24 } else { 40 };
    let mut block = vec![0; header];
    (block[0], block[1]) = (kind, 0x21);
    block[2..4].copy_from_slice(&((header + entries.len()) as u16).to_le_bytes());
    block[4..6].copy_from_slice(&place.to_le_bytes());
    block[6] = 0x40;
    block[8..16].copy_from_slice(&registers.to_le_bytes());
    block.extend_from_slice(entries);
    block
}

/// A memory block.
pub(crate) fn region(kind: u8, flags: u8, devices: (u16, u16), start: u64, length: u64) -> Vec<u8> {
    let mut block = vec![kind, flags, 32, 0];
    block.extend_from_slice(&devices.0.to_le_bytes());
    block.extend_from_slice(&devices.1.to_le_bytes());
    block.extend_from_slice(&[0; 8]);
    block.extend_from_slice(&start.to_le_bytes());
    block.extend_from_slice(&length.to_le_bytes());
    block
}

fn read(blocks: &[Vec<u8>]) -> (Firmware, Vec<Complaint>) {
    let mut complaints = vec![];
    let ivrs = Firmware::read_ivrs(&table(blocks), |complaint| complaints.push(complaint)).unwrap();
    (ivrs, complaints)
}

#[test]
fn a_unit_and_what_its_devices_want() {
    let entries = [
        [2, 0x18, 0, 0x10].as_slice(),
        &[3, 0x00, 0x01, 0x07],
        &[4, 0x20, 0x01, 0],
        &[0x42, 0x28, 0, 0x40, 0, 0x30, 0, 0],
        // The interrupt controller, under 00:14.0.
        &[0x48, 0, 0, 0xd7, 0, 0xa0, 0, 1],
        &[0, 0, 0, 0],
        // With a name of 2 bytes.
        &[0xf0, 0x38, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, b'x', b'y'],
        &[1, 0, 0, 0x01],
    ]
    .concat();
    let (ivrs, complaints) = read(&[unit(0x11, 0x0002, 0xfed8_0000, &entries)]);
    assert_eq!(complaints, []);
    let [unit] = ivrs.units.as_slice() else { panic!("{ivrs:?}") };
    assert_eq!((unit.place, unit.registers, unit.flags), (Some(2), 0xfed8_0000, 0x21));
    let wanted = [
        (0x18, 0x18, 0x10),
        (0x100, 0x120, 7),
        (0x28, 0x28, 0x40),
        (0xa0, 0xa0, 0xd7),
        (0x38, 0x38, 0x80),
        (0, 0xffff, 1),
    ];
    assert_eq!(unit.settings, wanted.map(|(first, last, bits)| (first, last, Settings(bits))));
}

#[test]
fn of_several_blocks_for_a_unit_the_highest_type_counts() {
    let entries = |bits| [1, 0, 0, bits];
    let blocks = [(0x10, 1), (0x40, 2), (0x11, 3)].map(|(kind, bits)| unit(kind, 2, 0xfed8_0000, &entries(bits)));
    let (ivrs, _) = read(&blocks);
    assert_eq!(ivrs.units.len(), 1);
    assert_eq!(ivrs.units[0].settings, [(0, 0xffff, Settings(2))]);
    let (ivrs, _) = read(&[unit(0x10, 2, 0xfed8_0000, &[]), unit(0x10, 3, 0xfed8_4000, &[])]);
    assert_eq!(ivrs.units.len(), 2);
}

#[test]
fn memory_that_devices_need() {
    let (ivrs, complaints) = read(&[
        region(0x20, 0b111, (0, 0), 0x7000_0000, 0x2000),
        // RDM-1: bit 1 is reading, bit 2 writing (Xen has them the other way round).
        region(0x21, 0b011, (0x18, 0), 0x7000_4123, 1),
        region(0x22, 0b101, (0x20, 0x30), 0x7000_5fff, 2),
        region(0x20, 0b1000, (0, 0), 0x7100_0000, 0x1000),
        region(0x20, 0b111, (0, 0), 0x7000_0000, 0x2000),
    ]);
    assert_eq!(complaints, []);
    let expected = [
        ((0, 0xffff), 0x7_0000, 2, (true, true)),
        ((0x18, 0x18), 0x7_0004, 1, (true, false)),
        ((0x20, 0x30), 0x7_0005, 2, (false, true)),
        ((0, 0xffff), 0x7_1000, 1, (true, true)),
    ];
    let found: Vec<_> = ivrs.regions.iter().map(|r| (r.devices, r.start, r.pages, r.rights)).collect();
    assert_eq!(found, expected);
    assert_eq!(ivrs.regions[0].bytes(), (0x7000_0000, 0x7000_2000));
}

#[test]
fn what_makes_no_sense_is_left_out_with_a_reason() {
    let good = unit(0x10, 2, 0xfed8_0000, &[]);
    let mut other_segment = unit(0x10, 3, 0xfed8_4000, &[]);
    other_segment[16] = 1;
    let bad = [
        unit(0x10, 3, 0, &[]),
        unit(0x10, 3, 0xfed8_1000, &[]),
        unit(0x10, 3, !0x3fff, &[]),
        other_segment,
        vec![0x10, 0, 8, 0, 0, 0, 0, 0],
        vec![0x20, 0, 8, 0, 0, 0, 0, 0],
        region(0x20, 0b111, (0, 0), 0x7000_0000, 0),
        region(0x20, 0b111, (0, 0), u64::MAX - 0xfff, 0x2000),
        region(0x20, 0b111, (0, 0), 0x7000_0000, u64::MAX),
        region(0x20, 0b111, (0, 0), (1 << 48) - 0x1000, 0x2000),
        region(0x22, 0b111, (5, 4), 0x7000_0000, 0x1000),
        region(0x20, 0b001, (0, 0), 0x7000_0000, 0x1000),
    ];
    for block in bad {
        let (ivrs, complaints) = read(&[block.clone(), good.clone()]);
        assert_eq!((ivrs.units.len(), ivrs.regions.len()), (1, 0), "{block:x?}");
        assert_eq!(complaints.len(), 1, "{block:x?}");
        assert_eq!(complaints[0].at, FIRST_BLOCK);
    }
    // The unit is used, but not what its entries say from there on.
    for entries in [[2, 0, 0, 5, 0x42, 0, 0, 0].as_slice(), &[2, 0, 0, 5, 4, 0, 0, 0], &[2, 0, 0, 5, 0xf0, 0, 0, 0]] {
        let (ivrs, complaints) = read(&[unit(0x10, 2, 0xfed8_0000, entries)]);
        assert_eq!(ivrs.units[0].settings, [(0, 0, Settings(5))]);
        assert_eq!(complaints.len(), 1);
    }
    for (block, length) in [(vec![0x10, 0, 3, 0], 0), (vec![0x10, 0, 0xff, 0xff], 0), (vec![0x10], 0)] {
        let (ivrs, _) = read(&[block]);
        assert_eq!(ivrs.units.len(), length);
    }
}

proptest! {
    #[test]
    fn no_table_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), kinds in prop::collection::vec(0usize..6, 1..9)) {
        let mut table = bytes;
        // Likely beginnings of blocks.
        for (at, kind) in kinds.iter().enumerate() {
            let at = FIRST_BLOCK + at * 48;
            if let Some(place) = table.get_mut(at..at + 4) {
                place.copy_from_slice(&[[0x10, 0x11, 0x40, 0x20, 0x21, 0x22][*kind], 7, 48, 0]);
            }
        }
        let ivrs = Firmware::read_ivrs(&table, |_| {}).unwrap();
        for unit in &ivrs.units {
            prop_assert!(unit.registers != 0 && unit.registers % 0x4000 == 0);
            prop_assert!(unit.settings.iter().all(|(first, last, _)| first <= last));
        }
        for region in &ivrs.regions {
            let (start, end) = region.bytes();
            prop_assert!(start < end && end <= 1 << 48 && region.devices.0 <= region.devices.1);
        }
    }
}
