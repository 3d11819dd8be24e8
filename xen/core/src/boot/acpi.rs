//! Reads the firmware's ACPI tables as far as a hypervisor needs them: which processors, which interrupt controllers, and
//! which tables the control domain shall see. (ACPI specification 6.5, chapter 5.2.)
//!
//! Pure over a way to read physical memory, and distrustful: lengths and checksums are checked, and a table that lies is
//! left out with a message. `dom0::acpi` builds the control domain's own tables from what is found here.

use super::acpi_devices::Devices;
use alloc::vec::Vec;
use machine::boot_info::ROOT_BYTES;

/// Reads physical memory into the buffer; false if it cannot.
pub type Reader<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

/// The largest table that is believed.
const MAX_TABLE_BYTES: u32 = 4 << 20;
/// Header of every table.
pub const HEADER_BYTES: usize = 36;

/// A table found through the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// Four characters.
    pub signature: [u8; 4],
    /// Where it is.
    pub address: u64,
    /// Bytes, header included.
    pub length: u32,
}

/// An interrupt controller for the lines of devices (MADT type 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// Its id.
    pub id: u8,
    /// Where its registers are.
    pub address: u32,
    /// The first global interrupt that it serves.
    pub first_gsi: u32,
}

/// An ISA interrupt that is connected in an unusual way (MADT type 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Override {
    /// The ISA interrupt.
    pub source: u8,
    /// The global interrupt that it appears at.
    pub gsi: u32,
    /// Polarity (bits 1:0) and trigger (bits 3:2) as the MADT encodes them.
    pub flags: u16,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Acpi {
    /// All tables that the root names.
    pub tables: Vec<Table>,
    /// APIC ids of usable processors, in the table's order.
    pub apic_ids: Vec<u32>,
    /// I/O interrupt controllers.
    pub io_apics: Vec<IoApic>,
    /// Unusual ISA interrupts.
    pub overrides: Vec<Override>,
    /// Where further devices of the hypervisor's are.
    pub devices: Devices,
}

/// Why tables cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcpiError {
    /// There is no root pointer.
    NoRoot,
    /// The table at this address cannot be read, or its length makes no sense.
    Unreadable(u64),
    /// The table at this address has a wrong checksum.
    Checksum(u64),
    /// No memory for a copy.
    OutOfMemory,
}

impl core::fmt::Display for AcpiError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoRoot => write!(f, "no ACPI root pointer found"),
            Self::Unreadable(address) => write!(f, "the ACPI table at {address:#x} cannot be read"),
            Self::Checksum(address) => write!(f, "the ACPI table at {address:#x} has a wrong checksum"),
            Self::OutOfMemory => write!(f, "no memory to read ACPI tables"),
        }
    }
}

fn bytes<const N: usize>(read: Reader<'_>, address: u64) -> Result<[u8; N], AcpiError> {
    let mut buffer = [0; N];
    if read(address, &mut buffer) { Ok(buffer) } else { Err(AcpiError::Unreadable(address)) }
}

pub(crate) fn u16_in(table: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*table.get(at..)?.first_chunk()?))
}

fn u32_in(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*table.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_in(table: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*table.get(at..)?.first_chunk()?))
}

/// The sum of all bytes modulo 256, which is 0 for a good table.
pub fn checksum(table: &[u8]) -> u8 {
    table.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Reads a whole table and checks it.
///
/// # Errors
/// Names the address and what is wrong.
pub fn read_table(read: Reader<'_>, address: u64) -> Result<Vec<u8>, AcpiError> {
    let header: [u8; HEADER_BYTES] = bytes(read, address)?;
    let length = u32_in(&header, 4).unwrap_or(0);
    let length = usize::try_from(length).ok().filter(|length| *length >= HEADER_BYTES);
    let length = length.filter(|length| *length <= MAX_TABLE_BYTES as usize).ok_or(AcpiError::Unreadable(address))?;
    let mut table = Vec::new();
    table.try_reserve_exact(length).map_err(|_| AcpiError::OutOfMemory)?;
    table.resize(length, 0);
    if !read(address, &mut table) {
        return Err(AcpiError::Unreadable(address));
    }
    if checksum(&table) == 0 { Ok(table) } else { Err(AcpiError::Checksum(address)) }
}

/// Looks for the root pointer where PC firmware puts it: the extended BIOS data area and 0xe0000 to 0xfffff.
pub fn find_root(read: Reader<'_>) -> Option<u64> {
    let segment: [u8; 2] = bytes(read, 0x40e).ok()?;
    let ebda = u64::from(u16::from_le_bytes(segment)) << 4;
    let areas = [(ebda, ebda.saturating_add(1024)), (0xe_0000, 0x10_0000)];
    areas
        .into_iter()
        .filter(|(start, _)| *start != 0)
        .flat_map(|(start, end)| (start..end).step_by(16))
        .find(|at| bytes::<20>(read, *at).is_ok_and(|root| root.starts_with(b"RSD PTR ") && checksum(&root) == 0))
}

/// Copies the root pointer that is at an address.
///
/// # Errors
/// [`AcpiError::Unreadable`].
pub fn read_root(read: Reader<'_>, address: u64) -> Result<[u8; ROOT_BYTES], AcpiError> {
    bytes(read, address)
}

/// Reads the list of tables that a root pointer leads to, and the MADT. Tables that are no good are handed to `complain`.
///
/// # Errors
/// When the root is of no use.
pub fn read_tables(
    read: Reader<'_>,
    root: &[u8; ROOT_BYTES],
    mut complain: impl FnMut(AcpiError),
) -> Result<Acpi, AcpiError> {
    let (first, _) = root.split_at(20);
    if !root.starts_with(b"RSD PTR ") || checksum(first) != 0 {
        return Err(AcpiError::NoRoot);
    }
    let mut acpi = Acpi::default();
    // Revision 0 has no XSDT, and what stands in its place is not to be believed.
    let revision = root.get(15).copied().unwrap_or(0);
    let xsdt = u64_in(root, 24).filter(|address| revision >= 2 && *address != 0);
    let (list, wide) = match xsdt.map(|address| read_table(read, address)) {
        Some(Ok(table)) => (table, true),
        _ => (read_table(read, u64::from(u32_in(root, 16).unwrap_or(0)))?, false),
    };
    let step = if wide { 8 } else { 4 };
    for at in (HEADER_BYTES..list.len()).step_by(step) {
        let address = if wide { u64_in(&list, at) } else { u32_in(&list, at).map(u64::from) };
        let Some(address) = address else { break };
        let header: [u8; HEADER_BYTES] = match bytes(read, address) {
            Ok(header) => header,
            Err(error) => {
                complain(error);
                continue;
            }
        };
        let signature = header.first_chunk().copied().unwrap_or_default();
        let length = u32_in(&header, 4).unwrap_or(0);
        acpi.tables.try_reserve(1).map_err(|_| AcpiError::OutOfMemory)?;
        acpi.tables.push(Table { signature, address, length });
    }
    if let Some(madt) = acpi.find(b"APIC") {
        match read_table(read, madt.address) {
            Ok(table) => acpi.read_madt(&table)?,
            Err(error) => complain(error),
        }
    }
    acpi.read_devices(read, &mut complain)?;
    Ok(acpi)
}

impl Acpi {
    /// The first table with this signature.
    pub fn find(&self, signature: &[u8; 4]) -> Option<Table> {
        self.tables.iter().copied().find(|table| table.signature == *signature)
    }

    /// The global interrupt that an ISA interrupt appears at, and its MADT flags.
    pub fn isa_interrupt(&self, source: u8) -> (u32, u16) {
        let other = self.overrides.iter().find(|other| other.source == source);
        other.map_or((u32::from(source), 0), |other| (other.gsi, other.flags))
    }

    fn read_madt(&mut self, madt: &[u8]) -> Result<(), AcpiError> {
        const ENABLED: u32 = 1;
        self.read_local_apic(u32_in(madt, HEADER_BYTES).map(u64::from));
        let mut rest = madt.get(HEADER_BYTES.saturating_add(8)..).unwrap_or(&[]);
        while let [kind, length, ..] = *rest {
            let Some((entry, next)) = rest.split_at_checked(usize::from(length)).filter(|_| length >= 2) else { break };
            rest = next;
            match kind {
                0 => {
                    let id = entry.get(3).copied().map(u32::from);
                    self.add_processor(id.filter(|_| u32_in(entry, 4).is_some_and(|flags| flags & ENABLED != 0)))?;
                }
                9 => {
                    let id = u32_in(entry, 4);
                    self.add_processor(id.filter(|_| u32_in(entry, 8).is_some_and(|flags| flags & ENABLED != 0)))?;
                }
                1 => {
                    let found = (|| {
                        Some(IoApic { id: *entry.get(2)?, address: u32_in(entry, 4)?, first_gsi: u32_in(entry, 8)? })
                    })();
                    push(&mut self.io_apics, found)?;
                }
                2 => {
                    let found = (|| {
                        Some(Override { source: *entry.get(3)?, gsi: u32_in(entry, 4)?, flags: u16_in(entry, 8)? })
                    })();
                    push(&mut self.overrides, found)?;
                }
                5 => self.read_local_apic(u64_in(entry, 4)),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_processor(&mut self, id: Option<u32>) -> Result<(), AcpiError> {
        let new = id.filter(|id| !self.apic_ids.contains(id));
        push(&mut self.apic_ids, new)
    }
}

pub(super) fn push<T>(list: &mut Vec<T>, item: Option<T>) -> Result<(), AcpiError> {
    if let Some(item) = item {
        list.try_reserve(1).map_err(|_| AcpiError::OutOfMemory)?;
        list.push(item);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    /// A table with header, length and checksum put right.
    fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut table = vec![0; HEADER_BYTES];
        table[..4].copy_from_slice(signature);
        table.extend_from_slice(body);
        let length = table.len() as u32;
        table[4..8].copy_from_slice(&length.to_le_bytes());
        table[9] = 0u8.wrapping_sub(checksum(&table));
        table
    }

    fn put(memory: &mut [u8], at: usize, bytes: &[u8]) {
        memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A firmware with an RSDT-only root, as SeaBIOS makes it for QEMU.
    fn firmware() -> Vec<u8> {
        let mut memory = vec![0; 0x10_0000];
        let mut root = *b"RSD PTR \0BOCHS \0\0\0\0\0";
        root[16..20].copy_from_slice(&0x5000u32.to_le_bytes());
        root[8] = 0u8.wrapping_sub(checksum(&root));
        put(&mut memory, 0xf_5ad0, &root);
        // Garbage behind a revision 0 root, where revision 2 has the XSDT's address.
        put(&mut memory, 0xf_5ad0 + 24, &0xdead_beefu64.to_le_bytes());
        let addresses: Vec<u8> =
            [0x6000u32, 0x7000, 0x8000, 0x9000].iter().flat_map(|address| address.to_le_bytes()).collect();
        put(&mut memory, 0x5000, &table(b"RSDT", &addresses));
        put(&mut memory, 0x6000, &table(b"FACP", &[0; 80]));
        let mut madt = vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
        madt.extend([0, 8, 0, 0, 1, 0, 0, 0]);
        madt.extend([0, 8, 1, 1, 1, 0, 0, 0]);
        madt.extend([0, 8, 2, 2, 0, 0, 0, 0]);
        madt.extend([9, 16, 0, 0, 7, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
        madt.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        madt.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
        put(&mut memory, 0x7000, &table(b"APIC", &madt));
        let hpet = [0x01, 0xa2, 0x86, 0x80, 0, 64, 0, 0, 0, 0, 0xd1, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0];
        put(&mut memory, 0x8000, &table(b"HPET", &hpet));
        let mut mcfg = vec![0; 8];
        mcfg.extend([0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0]);
        mcfg.extend([0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0x40, 0x7f, 0, 0, 0, 0]);
        put(&mut memory, 0x9000, &table(b"MCFG", &mcfg));
        memory
    }

    fn reader(memory: &[u8]) -> impl Fn(u64, &mut [u8]) -> bool + '_ {
        move |address, out| {
            let start = address as usize;
            memory.get(start..start.saturating_add(out.len())).map(|bytes| out.copy_from_slice(bytes)).is_some()
        }
    }

    fn read_at(memory: &[u8], complain: impl FnMut(AcpiError)) -> Result<Acpi, AcpiError> {
        let read = reader(memory);
        read_tables(&read, &read_root(&read, 0xf_5ad0)?, complain)
    }

    #[test]
    fn an_rsdt_only_root_is_enough() {
        let memory = firmware();
        let read = reader(&memory);
        let root = read_root(&read, find_root(&read).unwrap()).unwrap();
        let acpi = read_tables(&read, &root, |error| panic!("{error}")).unwrap();
        assert_eq!(acpi.apic_ids, [0, 1, 0x107], "disabled processors are left out");
        assert_eq!(acpi.io_apics, [IoApic { id: 0, address: 0xfec0_0000, first_gsi: 0 }]);
        assert_eq!(acpi.overrides, [Override { source: 0, gsi: 2, flags: 0 }]);
        assert_eq!(acpi.find(b"FACP").unwrap().address, 0x6000);
        assert_eq!(acpi.find(b"DMAR"), None);
    }

    #[test]
    fn a_copy_of_the_root_is_as_good_as_the_root() {
        // As UEFI and GRUB have it: no root below 1 MiB, and a copy without its upper half.
        let mut memory = firmware();
        let mut copy = [0; ROOT_BYTES];
        copy[..20].copy_from_slice(&memory[0xf_5ad0..0xf_5ad0 + 20]);
        memory[0xf_0000..].fill(0);
        assert_eq!(find_root(&reader(&memory)), None);
        let acpi = read_tables(&reader(&memory), &copy, |error| panic!("{error}")).unwrap();
        assert_eq!(acpi.apic_ids, [0, 1, 0x107]);
    }

    #[test]
    fn devices_of_the_hypervisors_are_found() {
        use super::super::acpi_devices::Window;
        let memory = firmware();
        let mut acpi = read_at(&memory, |error| panic!("{error}")).unwrap();
        assert_eq!(acpi.devices.local_apic, Some(0xfee0_0000));
        assert_eq!(acpi.devices.timers, [0xfed1_0000]);
        let pci = [(0xb000_0000, 256 << 20), (0x1_0400_0000, 64 << 20)].map(|(start, length)| Window { start, length });
        let found: Vec<_> = acpi.devices.pci.iter().filter_map(|buses| buses.window()).collect();
        assert_eq!(found, pci, "the second has no bus below 64");
        assert_eq!((acpi.devices.pci[0].segment, acpi.devices.pci[0].last), (0, 255));
        // An entry with more bits than the table's own field has.
        let mut madt = vec![0; HEADER_BYTES];
        madt.extend([0, 0, 0xe0, 0xfe, 1, 0, 0, 0, 5, 12, 0, 0, 0, 0, 0, 0xd0, 0x12, 0, 0, 0]);
        acpi.read_madt(&madt).unwrap();
        assert_eq!(acpi.devices.local_apic, Some(0x12_d000_0000));
    }

    #[test]
    fn a_broken_madt_is_reported() {
        let mut memory = firmware();
        memory[0x7010] ^= 1;
        let mut complaints = vec![];
        let acpi = read_at(&memory, |error| complaints.push(error)).unwrap();
        assert_eq!(complaints, [AcpiError::Checksum(0x7000)]);
        assert!(acpi.apic_ids.is_empty());
    }

    #[test]
    fn truncated_and_lying_tables_do_no_harm() {
        let good = firmware();
        for at in
            (0x5000..0x5030).chain(0x7000..0x7060).chain(0x8000..0x8040).chain(0x9000..0x9050).chain(0xf_5ad0..0xf_5af0)
        {
            for value in [0, 1, 0x7f, 0xff] {
                let mut memory = good.clone();
                memory[at] = value;
                // Any answer will do, as long as there is one.
                drop(read_at(&memory, |_| {}));
            }
        }
        assert_eq!(read_at(&good[..0x6010], |_| {}).err(), Some(AcpiError::Unreadable(0xf_5ad0)));
    }
}
