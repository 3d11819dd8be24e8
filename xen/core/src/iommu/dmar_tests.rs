//! Tables as QEMU makes them, as manuals allow them, and as nobody should make them (T-RDM-3).

use super::*;
use proptest::prelude::*;
use std::vec;

/// A table with these structures; its header is not looked at any more.
pub(crate) fn table(structures: &[Vec<u8>]) -> Vec<u8> {
    let mut table = vec![0; FIRST_STRUCTURE];
    table[..4].copy_from_slice(b"DMAR");
    table[36] = 47;
    structures.iter().for_each(|structure| table.extend_from_slice(structure));
    table
}

/// A unit for all devices.
pub(crate) fn unit(registers: u64) -> Vec<u8> {
    let mut structure = vec![0, 0, 16, 0, 1, 0, 0, 0];
    structure.extend_from_slice(&registers.to_le_bytes());
    structure
}

/// A scope with one function.
fn function(path: &[u8]) -> Vec<u8> {
    let mut scope = vec![1, 6 + path.len() as u8, 0, 0, 0, 0];
    scope.extend_from_slice(path);
    scope
}

/// Memory for devices.
pub(crate) fn memory(first: u64, last: u64, scope: &[u8]) -> Vec<u8> {
    let mut structure = vec![1, 0, 24 + scope.len() as u8, 0, 0, 0, 0, 0];
    structure.extend_from_slice(&first.to_le_bytes());
    structure.extend_from_slice(&last.to_le_bytes());
    structure.extend_from_slice(scope);
    structure
}

fn read(structures: &[Vec<u8>]) -> (Firmware, Vec<Complaint>) {
    let mut complaints = vec![];
    let dmar = Firmware::read_dmar(&table(structures), |complaint| complaints.push(complaint)).unwrap();
    (dmar, complaints)
}

#[test]
fn units_and_the_memory_of_devices() {
    let mut wide = unit(0xfed9_0000);
    wide[5] = 2;
    let ats = vec![2, 0, 8, 0, 1, 0, 0, 0];
    let usb = function(&[0x14, 0]);
    let (dmar, complaints) = read(&[
        unit(0xfed9_1000),
        ats,
        wide,
        memory(0x7b80_0000, 0x7fff_ffff, &function(&[2, 0])),
        memory(0x7ac5_1000, 0x7ac7_0fff, &[usb.clone(), function(&[0x1d, 7])].concat()),
        memory(0x7000_0000, 0x7000_0000, &[]),
        memory(0x6000_0000, 0x6000_1000, &function(&[1, 0, 0, 0])),
    ]);
    assert_eq!(complaints, []);
    assert_eq!(dmar.maker, Maker::Intel);
    let units: Vec<_> = dmar.units.iter().map(|unit| (unit.registers, unit.bytes, unit.place)).collect();
    assert_eq!(units, [(0xfed9_1000, 0x1000, None), (0xfed9_0000, 0x4000, None)]);
    let regions: Vec<_> = dmar.regions.iter().map(|region| (region.devices, region.start, region.pages)).collect();
    assert_eq!(
        regions,
        [
            ((0x10, 0x10), 0x7_b800, 0x4800),
            ((0xa0, 0xef), 0x7_ac51, 0x20),
            // The last byte is one of it: a page, and two (memory-engine.md, RDM-2).
            ((0, 0xffff), 0x7_0000, 1),
            ((0, 0xffff), 0x6_0000, 2),
        ]
    );
    assert!(dmar.regions.iter().all(|region| region.rights == (true, true)));
}

#[test]
fn what_makes_no_sense_is_left_out_and_the_rest_counts() {
    let mut segment = unit(0xfed9_2000);
    segment[6] = 1;
    let mut of_segment = memory(0x1000, 0x1fff, &[]);
    of_segment[6] = 1;
    let bad = [
        unit(0),
        unit(0xfed9_0800),
        unit(!0xfff),
        segment,
        of_segment,
        vec![0, 0, 8, 0, 0, 0, 0, 0],
        vec![1, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        memory(0x2000, 0x1fff, &[]),
        memory(0x2000, 1 << 48, &[]),
        unit(0xfed9_0000),
    ];
    for structure in bad {
        let (dmar, complaints) = read(&[unit(0xfed9_0000), structure.clone(), memory(0x3000, 0x3fff, &[])]);
        assert_eq!((dmar.units.len(), dmar.regions.len()), (1, 1), "{structure:x?}");
        assert_eq!(complaints.len(), 1, "{structure:x?}");
        assert_eq!(complaints[0].at, FIRST_STRUCTURE + 16);
    }
    for cut in [vec![0, 0, 3, 0], vec![0, 0, 200, 0]] {
        let (dmar, complaints) = read(&[unit(0xfed9_0000), cut]);
        assert_eq!((dmar.units.len(), complaints.len()), (1, 1));
        assert_eq!(
            std::format!("{}", complaints[0]),
            "the ACPI table DMAR at offset 0x40: a structure does not end inside of it"
        );
    }
    // Scopes that end early, or claim to be longer than they are, name nobody in particular.
    for scope in [vec![1], vec![1, 0], vec![1, 200, 0, 0, 0, 0, 1, 2], vec![1, 6, 0, 0, 0, 0]] {
        let (dmar, _) = read(&[memory(0x3000, 0x3fff, &scope)]);
        assert_eq!(dmar.regions[0].devices, (0, 0xffff), "{scope:x?}");
    }
}

proptest! {
    #[test]
    fn noise_is_harmless(mut noise in prop::collection::vec(any::<u8>(), 0..200), kinds in prop::collection::vec(0u8..3, 8)) {
        // Most of the noise would end at the first length.
        for (at, kind) in noise.chunks_mut(25).zip(kinds) {
            if let [first, second, length, high, ..] = at {
                (*first, *second, *length, *high) = (kind, 0, 25, 0);
            }
        }
        let dmar = Firmware::read_dmar(&table(&[noise]), |_| {}).unwrap();
        for unit in &dmar.units {
            prop_assert!(unit.registers % 0x1000 == 0 && unit.registers + unit.bytes <= 1 << 48);
        }
        for region in &dmar.regions {
            let (start, end) = region.bytes();
            prop_assert!(start < end && end <= 1 << 48 && region.devices.0 <= region.devices.1);
        }
    }
}
