//! Powering off on the fake machine: which registers are written, in which order, with what, and what the log says if
//! nothing comes of it.

use super::fadt::tests::table;
use super::*;
use crate::boot::acpi::checksum;
use alloc::vec;
use alloc::vec::Vec;
use machine::fake::FakeMachine;

const FADT: u64 = 0x9_6000;
const DSDT: u64 = 0x9_7000;
const SSDT: u64 = 0x9_8000;

/// A table with this body, its length and checksum right.
fn finished(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.resize(HEADER_BYTES, 0);
    table.extend(body);
    let length = u32::try_from(table.len()).unwrap();
    table[4..8].copy_from_slice(&length.to_le_bytes());
    table[9] = 0u8.wrapping_sub(checksum(&table));
    table
}

/// Runs a test on a machine whose FADT has these fields and whose DSDT (or SSDT) this byte code.
fn with_tables(fields: &[(usize, &[u8])], dsdt: &[u8], ssdt: &[u8], test: impl FnOnce(&FakeMachine, Power)) {
    let machine = FakeMachine::builder().build();
    machine.on_cpu(0, || {
        let mut fadt = table(276, fields);
        fadt[40..44].copy_from_slice(&u32::try_from(DSDT).unwrap().to_le_bytes());
        machine.set_firmware(FADT, &finished(b"FACP", &fadt[HEADER_BYTES..]));
        machine.set_firmware(DSDT, &finished(b"DSDT", dsdt));
        machine.set_firmware(SSDT, &finished(b"SSDT", ssdt));
        let tables = [(*b"FACP", FADT), (*b"SSDT", SSDT)].map(|(signature, address)| acpi::Table {
            signature,
            address,
            length: 0,
        });
        let acpi = Acpi { tables: tables.to_vec(), ..Acpi::default() };
        let read = |address: u64, out: &mut [u8]| platform::read_firmware(machine::Maddr::new(address), out);
        test(&machine, Power::read(&read, &acpi, |error| panic!("{error}")));
    });
}

/// PM1a at 0x604 and PM1b at 0x704; the chipset is switched over by writing 2 to port 0xb2.
const PC: &[(usize, &[u8])] = &[(48, &[0xb2, 0, 0, 0, 2]), (64, &[4, 6, 0, 0]), (68, &[4, 7, 0, 0])];
/// 5 for PM1a, 7 for PM1b.
const SOFT_OFF: &[u8] = b"\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x07\0\0";

#[test]
fn both_registers_get_the_kind_and_then_the_order() {
    with_tables(PC, SOFT_OFF, b"", |machine, power| {
        // In ACPI mode; bit 2 is another's and stays, what was in the kind goes.
        machine.set_port(0x604, 1 | 4 | 3 << 10);
        machine.set_port(0x704, 0);
        power.off();
        let expected =
            [(0x604, 2, 5 | 5 << 10), (0x604, 2, 5 | 5 << 10 | 1 << 13), (0x704, 2, 7 << 10), (0x704, 2, 0x3c00)];
        assert_eq!(machine.port_writes(), expected);
        assert!(machine.console().contains("(XEN) ACPI: powering off has had no effect\n"), "{}", machine.console());
        assert!(machine.now() >= 3_000_000_000, "it has waited");
    });
}

#[test]
fn the_chipset_is_taken_over_first() {
    with_tables(PC, SOFT_OFF, b"", |machine, power| {
        machine.set_port(0x604, 0);
        machine.set_port(0x704, 0);
        power.off();
        assert_eq!(machine.port_writes()[..2], [(0xb2, 1, 2), (0x604, 2, 5 << 10)]);
        assert!(machine.console().contains("does not hand over the chipset"), "{}", machine.console());
    });
}

#[test]
fn a_hardware_reduced_machine_has_one_register_in_memory() {
    let fields: &[(usize, &[u8])] =
        &[(64, &[4, 6, 0, 0]), (112, &[0, 0, 0x10, 0]), (244, &[0, 8, 0, 1, 0, 0, 0, 0xfe, 0, 0, 0, 0])];
    with_tables(fields, SOFT_OFF, b"", |machine, power| {
        power.off();
        assert_eq!(machine.port_writes(), [], "PM1 does not exist there");
        assert_eq!(machine.device_writes(), [(machine::Maddr::new(0xfe00_0000), vec![5 << 2 | 1 << 5])]);
    });
}

#[test]
fn a_register_in_ram_is_not_written() {
    let fields: &[(usize, &[u8])] = &[(112, &[0, 0, 0x10, 0]), (244, &[0, 8, 0, 1, 0, 0x10, 0, 0, 0, 0, 0, 0])];
    with_tables(fields, SOFT_OFF, b"", |machine, power| {
        power.off();
        assert_eq!(machine.device_writes(), []);
        assert!(machine.console().contains("cannot be written"), "{}", machine.console());
    });
}

#[test]
fn the_definition_may_be_in_another_table() {
    with_tables(PC, b"\x10\x0e\\\0", SOFT_OFF, |machine, power| {
        machine.set_port(0x604, 1);
        power.off();
        assert_eq!(machine.port_writes()[0], (0x604, 2, 1 | 5 << 10));
    });
}

#[test]
fn without_a_definition_or_a_register_nothing_is_written() {
    for (fields, code, words) in [(PC, &b"\x08_S4_\x12\x04\x02\0\0"[..], "no \\_S5"), (&[], SOFT_OFF, "no register")] {
        with_tables(fields, code, b"", |machine, power| {
            power.off();
            assert_eq!(machine.port_writes(), []);
            assert!(machine.console().contains(words), "{}", machine.console());
        });
    }
}

#[test]
fn without_tables_there_is_no_way() {
    let machine = FakeMachine::builder().build();
    machine.on_cpu(0, || {
        Power::read(&|_, _| false, &Acpi::default(), |_| {}).off();
        assert_eq!(machine.port_writes(), []);
    });
}
