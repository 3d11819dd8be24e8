//! Finds what soft-off is called in the firmware's byte code: the package `\_S5`. (ACPI specification 6.5, chapter 20.2.)
//!
//! Pure over bytes, and distrustful. There is no interpreter here: the definition `Name (_S5, Package () {…})` is looked for
//! by its encoding wherever it stands, with its numbers as constants. Firmware that computes them is not understood. Before
//! this: `fadt` says where the byte code is; after it: `power` writes the values to the registers that `fadt` names.

/// DefName, 20.2.5.1.
const NAME_OP: u8 = 0x08;
/// RootChar, 20.2.2.
const ROOT: u8 = b'\\';
/// DefPackage, 20.2.5.4.
const PACKAGE_OP: u8 = 0x12;
/// The name, padded to a NameSeg.
const SOFT_OFF: &[u8] = b"_S5_";
/// SLP_TYP has three bits.
const HIGHEST_TYPE: u64 = 7;

/// What is to be written to SLP_TYP of the two PM1 control registers, 0 to 7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SleepTypes {
    /// For PM1a, and for a hardware-reduced machine's only register.
    pub a: u8,
    /// For PM1b.
    pub b: u8,
}

/// The values for soft-off that a table's byte code (what follows its header) defines. The first definition that makes sense
/// counts.
pub fn soft_off(code: &[u8]) -> Option<SleepTypes> {
    (0..code.len()).find_map(|at| definition(code.get(at..)?))
}

/// A definition that begins here.
fn definition(code: &[u8]) -> Option<SleepTypes> {
    let name = code.strip_prefix(&[NAME_OP])?;
    let name = name.strip_prefix(&[ROOT]).unwrap_or(name);
    let package = name.strip_prefix(SOFT_OFF)?.strip_prefix(&[PACKAGE_OP])?;
    let (length, own_bytes) = package_length(package)?;
    let (count, elements) = package.get(own_bytes..length)?.split_first()?;
    let (first, rest) = integer(elements)?;
    let (a, b) = match count {
        0 => return None,
        // Some firmware packs both into one number.
        1 => (first & 0xff, first >> 8),
        _ => (first, integer(rest)?.0),
    };
    let sleep_type = |value: u64| u8::try_from(value).ok().filter(|_| value <= HIGHEST_TYPE);
    Some(SleepTypes { a: sleep_type(a)?, b: sleep_type(b)? })
}

/// PkgLength (20.2.4): bytes of the package, its length included, and how many of them the length takes.
fn package_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (lead, rest) = bytes.split_first()?;
    let following = usize::from(lead >> 6);
    if following == 0 {
        return Some((usize::from(lead & 0x3f), 1));
    }
    // Bits 5:4 of the lead byte are reserved then.
    let low = (lead & 0x30 == 0).then_some(usize::from(lead & 0xf))?;
    let high = rest.get(..following)?.iter().rev().fold(0, |value: usize, byte| value << 8 | usize::from(*byte));
    Some((high << 4 | low, following.saturating_add(1)))
}

/// A constant number (20.2.3) and what follows it.
fn integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let size = match kind {
        0x00 => return Some((0, rest)),
        0x01 => return Some((1, rest)),
        0xff => return Some((u64::MAX, rest)),
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        0x0e => 8,
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(size)?;
    Some((value.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn types(a: u8, b: u8) -> Option<SleepTypes> {
        Some(SleepTypes { a, b })
    }

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn what_qemu_makes_for_q35() {
        // Scope (\) { Name (_S5, Package (4) { Zero, Zero, Zero, Zero }) }, between other definitions.
        let code =
            joined(&[b"\x10\x4d\x0a_SB_\x08_HID\x0c\x41\xd0\x0a\x08", b"\x10\x0e\\\0\x08_S5_\x12\x06\x04\0\0\0\0"]);
        assert_eq!(soft_off(&code), types(0, 0));
    }

    #[test]
    fn names_with_and_without_root_and_all_forms_of_numbers() {
        let cases: [(&[u8], Option<SleepTypes>); 12] = [
            (b"\x08_S5_\x12\x06\x04\x01\x01\0\0", types(1, 1)),
            (b"\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x07\0\0", types(5, 7)),
            (b"\x08\\_S5_\x12\x0a\x02\x0b\x03\0\x0c\x02\0\0\0", types(3, 2)),
            (b"\x08_S5_\x12\x0c\x02\x0e\x06\0\0\0\0\0\0\0\x01", types(6, 1)),
            // One number for both.
            (b"\x08_S5_\x12\x05\x01\x0b\x03\x04", types(3, 4)),
            (b"\x08_S5_\x12\x03\x01\x01", types(1, 0)),
            // Room for four, two given.
            (b"\x08_S5_\x12\x05\x04\x0a\x07\x01", types(7, 1)),
            // Other names, other operators, too few or too large numbers, computed ones.
            (b"\x08_S4_\x12\x06\x04\0\0\0\0", None),
            (b"\x08_S5_\x11\x06\x04\0\0\0\0", None),
            (b"\x08_S5_\x12\x03\x02\x01", None),
            (b"\x08_S5_\x12\x05\x04\x0a\x08\x01", None),
            (b"\x08_S5_\x12\x07\x04TYPA\x01", None),
        ];
        for (number, (code, expected)) in cases.into_iter().enumerate() {
            assert_eq!(soft_off(code), expected, "case {number}");
        }
    }

    #[test]
    fn lengths_of_one_to_four_bytes() {
        for length in [&b"\x06"[..], b"\x47\0", b"\x88\0\0", b"\xc9\0\0\0"] {
            let code = joined(&[b"\x08_S5_\x12", length, b"\x04\x0a\x05\x01\0"]);
            assert_eq!(soft_off(&code), types(5, 1), "{length:x?}");
            // One byte less than the package claims.
            assert_eq!(soft_off(&code[..code.len() - 1]), None, "{length:x?}");
        }
        // 0x123 bytes: the low four bits are in the lead byte, the rest behind it.
        let long = joined(&[b"\x08_S5_\x12\x43\x12\x02\x01\0", &[0; 0x123 - 5]]);
        assert_eq!(soft_off(&long), types(1, 0));
        assert_eq!(soft_off(b"\x08_S5_\x12\x57\0\x04\0\0\0\0"), None, "reserved bits");
    }

    #[test]
    fn the_first_definition_that_makes_sense_counts() {
        let code = joined(&[
            b"\x08_S5_\x12\x05\x04\x0a\x08\x01",
            b"\x08_S5_\x12\x04\x02\x01\x01",
            b"\x08_S5_\x12\x04\x02\0\0",
        ]);
        assert_eq!(soft_off(&code), types(1, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(code in proptest::collection::vec(any::<u8>(), 0..600)) {
            soft_off(&code);
        }

        #[test]
        fn any_bytes_behind_the_name_give_a_legal_value_or_none(tail in proptest::collection::vec(any::<u8>(), 0..24)) {
            let code = joined(&[b"\x08_S5_\x12", &tail]);
            if let Some(SleepTypes { a, b }) = soft_off(&code) {
                prop_assert!(a <= 7 && b <= 7);
            }
        }

        #[test]
        fn every_truncation_does_no_harm(cut in 0usize..17, at in 0usize..17, value: u8) {
            let mut code = *b"\x08\\_S5_\x12\x48\0\x04\x0a\x05\x0a\x07\0\0";
            if let Some(place) = code.get_mut(at) {
                *place = value;
            }
            soft_off(&code[..cut.min(code.len())]);
        }
    }
}
