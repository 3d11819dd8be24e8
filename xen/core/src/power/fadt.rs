//! The Fixed ACPI Description Table, as far as powering off needs it: where its registers are. (ACPI specification 6.5,
//! 5.2.9; address structures: 5.2.3.2.)
//!
//! Pure over the table's bytes. Before this: `boot::acpi` has found and checked the table. After it: `aml` finds the values,
//! `power` writes them.

use machine::Maddr;

/// A place that a fixed register is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A port.
    Port(u16),
    /// Device memory.
    Memory(Maddr),
}

/// What the table says. A register that is not there is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fadt {
    /// The DSDT's address, 0 if there is none.
    pub dsdt: u64,
    /// The port and the value that take the chipset from the firmware's hands into ACPI mode.
    pub enable: Option<(u16, u8)>,
    /// PM1a control, 2 bytes.
    pub pm1a_control: Option<Place>,
    /// PM1b control, 2 bytes.
    pub pm1b_control: Option<Place>,
    /// Sleep control of hardware-reduced machines, 1 byte.
    pub sleep_control: Option<Place>,
    /// Whether the PM1 registers do not exist, whatever their fields hold.
    pub is_hardware_reduced: bool,
}

/// Bit of the flags: HW_REDUCED_ACPI.
const HARDWARE_REDUCED: u32 = 1 << 20;
/// Address space identifiers of address structures.
const MEMORY: u8 = 0;
const PORTS: u8 = 1;

fn bytes<const N: usize>(table: &[u8], at: usize) -> Option<[u8; N]> {
    table.get(at..)?.first_chunk().copied()
}

fn word(table: &[u8], at: usize) -> u32 {
    bytes(table, at).map_or(0, u32::from_le_bytes)
}

fn long(table: &[u8], at: usize) -> u64 {
    bytes(table, at).map_or(0, u64::from_le_bytes)
}

/// A port in a field of four bytes; 0 means that there is none.
fn port(table: &[u8], at: usize) -> Option<u16> {
    u16::try_from(word(table, at)).ok().filter(|port| *port != 0)
}

/// An address structure: space, width, offset, access size, address. Only whole registers in ports or memory are understood.
fn structure(table: &[u8], at: usize) -> Option<Place> {
    let address = long(table, at.checked_add(4)?);
    match *table.get(at)? {
        _ if address == 0 => None,
        MEMORY => Some(Place::Memory(Maddr::new(address))),
        PORTS => u16::try_from(address).ok().map(Place::Port),
        _ => None,
    }
}

impl Fadt {
    /// Reads the table. Fields beyond its end are taken as zero: old revisions are shorter.
    pub fn parse(table: &[u8]) -> Self {
        let wide_dsdt = long(table, 140);
        let enable_value = table.get(52).copied().unwrap_or(0);
        Self {
            dsdt: if wide_dsdt == 0 { u64::from(word(table, 40)) } else { wide_dsdt },
            enable: port(table, 48).filter(|_| enable_value != 0).map(|port| (port, enable_value)),
            pm1a_control: structure(table, 172).or_else(|| port(table, 64).map(Place::Port)),
            pm1b_control: structure(table, 184).or_else(|| port(table, 68).map(Place::Port)),
            sleep_control: structure(table, 244),
            is_hardware_reduced: word(table, 112) & HARDWARE_REDUCED != 0,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// A table of `length` bytes with these bytes at these offsets.
    pub(in super::super) fn table(length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut table = vec![0; length];
        for (at, bytes) in fields {
            table[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        table
    }

    #[test]
    fn what_qemu_makes_for_q35() {
        let table = table(
            244,
            &[
                (40, &0x7ffe_0040u32.to_le_bytes()),
                (48, &[0xb2, 0, 0, 0, 2, 3]),
                (64, &0x604u32.to_le_bytes()),
                (140, &0x7ffe_0040u64.to_le_bytes()),
                (172, &[1, 16, 0, 0, 4, 6, 0, 0, 0, 0, 0, 0]),
            ],
        );
        let expected = Fadt {
            dsdt: 0x7ffe_0040,
            enable: Some((0xb2, 2)),
            pm1a_control: Some(Place::Port(0x604)),
            ..Fadt::default()
        };
        assert_eq!(Fadt::parse(&table), expected);
    }

    #[test]
    fn revision_1_has_the_narrow_fields_only() {
        let table = table(116, &[(40, &[1, 2, 3, 4]), (64, &[0, 0x18, 0, 0]), (68, &[0, 0x1a, 0, 0])]);
        let fadt = Fadt::parse(&table);
        assert_eq!(fadt.dsdt, 0x0403_0201);
        assert_eq!((fadt.pm1a_control, fadt.pm1b_control), (Some(Place::Port(0x1800)), Some(Place::Port(0x1a00))));
        assert_eq!((fadt.enable, fadt.sleep_control), (None, None));
    }

    #[test]
    fn a_hardware_reduced_machine() {
        let sleep = [0, 8, 0, 1, 0, 0, 0, 0xfe, 0, 0, 0, 0];
        let table = table(276, &[(112, &[0, 0, 0x10, 0]), (244, &sleep)]);
        let fadt = Fadt::parse(&table);
        assert!(fadt.is_hardware_reduced);
        assert_eq!(fadt.sleep_control, Some(Place::Memory(Maddr::new(0xfe00_0000))));
    }

    #[test]
    fn spaces_and_ports_that_make_no_sense_are_no_register() {
        for structure in [[2, 16, 0, 0, 4, 6, 0, 0, 0, 0, 0, 0], [1, 16, 0, 0, 4, 6, 1, 0, 0, 0, 0, 0], [0; 12]] {
            let table = table(244, &[(172, &structure), (64, &0x1_0000u32.to_le_bytes())]);
            assert_eq!(Fadt::parse(&table).pm1a_control, None);
        }
    }

    #[test]
    fn any_length_does_no_harm() {
        let full = vec![0xff; 276];
        for length in 0..=full.len() {
            Fadt::parse(&full[..length]);
        }
    }
}
