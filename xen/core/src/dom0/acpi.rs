//! The control domain's ACPI tables: a root and a MADT of its own, and the firmware's other tables where they are.
//!
//! The MADT names the vCPUs and the vIO-APIC instead of the real ones. Tables that only the hypervisor may act on (IOMMU,
//! timers it owns, memory topology) are left out. (ACPI specification 6.5, 5.2.5 to 5.2.12; what Xen passes on: see
//! xen-abi.md §2.1.)

use crate::boot::acpi::{Acpi, AcpiError, HEADER_BYTES, checksum};
use alloc::vec::Vec;

/// Tables of the firmware that the control domain sees as they are.
const PASSED_ON: [[u8; 4]; 10] =
    [*b"FACP", *b"SSDT", *b"PSDT", *b"SBST", *b"SLIC", *b"MSDM", *b"MCFG", *b"WDAT", *b"FPDT", *b"S3PT"];

const RSDP_BYTES: usize = 36;
/// Where the second table begins in the block: the root pointer in a slot of its own.
const XSDT_OFFSET: usize = 64;
/// OEM id, OEM table id, OEM revision, creator id, creator revision.
const IDENTITY: &[u8; 26] = b"OXEN  OXEN    \x01\0\0\0OXEN\x01\0\0\0";

/// Address and registers of the I/O interrupt controller that the control domain sees.
#[derive(Clone, Copy, Debug)]
pub struct VirtualIoApic {
    /// Its id.
    pub id: u8,
    /// Its address.
    pub address: u32,
    /// Its first global interrupt.
    pub first_gsi: u32,
}

/// A block of tables and where the root pointer in it is.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The bytes, to be put at the address that they were built for.
    pub bytes: Vec<u8>,
    /// The root pointer's address.
    pub rsdp: u64,
}

/// Room that is enough for the tables of so many vCPUs.
pub fn bytes_needed(acpi: &Acpi, vcpus: u32) -> u64 {
    let vcpus = u64::from(vcpus).saturating_mul(16);
    let overrides = u64::try_from(acpi.overrides.len()).unwrap_or(0).saturating_mul(10);
    let tables = u64::try_from(acpi.tables.len()).unwrap_or(0).saturating_mul(8);
    vcpus.saturating_add(overrides).saturating_add(tables).saturating_add(512)
}

struct Builder(Vec<u8>);

impl Builder {
    fn add(&mut self, bytes: &[u8]) -> Result<(), AcpiError> {
        self.0.try_reserve(bytes.len()).map_err(|_| AcpiError::OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn pad_to(&mut self, length: usize) -> Result<(), AcpiError> {
        while self.0.len() < length {
            self.add(&[0])?;
        }
        Ok(())
    }

    /// Begins a table: signature, a length to be filled in, revision, and who made it.
    fn begin(&mut self, signature: &[u8; 4], revision: u8) -> Result<usize, AcpiError> {
        let start = self.0.len();
        self.add(signature)?;
        self.add(&[0, 0, 0, 0, revision, 0])?;
        self.add(IDENTITY)?;
        Ok(start)
    }

    /// Ends a table that began at `start`: length and checksum.
    fn end(&mut self, start: usize) {
        let length = u32::try_from(self.0.len().saturating_sub(start)).unwrap_or(0).to_le_bytes();
        let Some(table) = self.0.get_mut(start..) else { return };
        if let Some(place) = table.get_mut(4..8) {
            place.copy_from_slice(&length);
        }
        let sum = checksum(table);
        if let Some(place) = table.get_mut(9) {
            *place = place.wrapping_sub(sum);
        }
    }
}

/// Builds the tables for address `at`: `vcpus` processors with x2APIC ids twice their number.
///
/// # Errors
/// Out of memory.
pub fn build(acpi: &Acpi, vcpus: u32, io_apic: VirtualIoApic, at: u64) -> Result<Tables, AcpiError> {
    let mut block = Builder(Vec::new());
    block.pad_to(XSDT_OFFSET)?;
    let xsdt = block.begin(b"XSDT", 1)?;
    let passed: Vec<u64> = {
        let mut list = Vec::new();
        list.try_reserve_exact(acpi.tables.len()).map_err(|_| AcpiError::OutOfMemory)?;
        list.extend(acpi.tables.iter().filter(|table| PASSED_ON.contains(&table.signature)).map(|table| table.address));
        list
    };
    let entries = passed.len().saturating_add(1).saturating_mul(8);
    let madt_offset = block.0.len().saturating_add(entries).next_multiple_of(16);
    let address = |offset: usize| at.saturating_add(u64::try_from(offset).unwrap_or(0));
    block.add(&address(madt_offset).to_le_bytes())?;
    for table in &passed {
        block.add(&table.to_le_bytes())?;
    }
    block.end(xsdt);
    block.pad_to(madt_offset)?;
    add_madt(&mut block, acpi, vcpus, io_apic)?;
    let root = root_pointer(address(XSDT_OFFSET));
    if let Some(place) = block.0.get_mut(..RSDP_BYTES) {
        place.copy_from_slice(&root);
    }
    Ok(Tables { bytes: block.0, rsdp: at })
}

fn add_madt(block: &mut Builder, acpi: &Acpi, vcpus: u32, io_apic: VirtualIoApic) -> Result<(), AcpiError> {
    let madt = block.begin(b"APIC", 4)?;
    // The local controller's address, and no flags: the one for a pair of 8259 would make Linux look for its timer there.
    block.add(&0xfee0_0000u32.to_le_bytes())?;
    block.add(&0u32.to_le_bytes())?;
    block.add(&[1, 12, io_apic.id, 0])?;
    block.add(&io_apic.address.to_le_bytes())?;
    block.add(&io_apic.first_gsi.to_le_bytes())?;
    for number in 0..vcpus {
        block.add(&[9, 16, 0, 0])?;
        block.add(&number.saturating_mul(2).to_le_bytes())?;
        block.add(&1u32.to_le_bytes())?;
        block.add(&number.to_le_bytes())?;
    }
    for other in &acpi.overrides {
        block.add(&[2, 10, 0, other.source])?;
        block.add(&other.gsi.to_le_bytes())?;
        block.add(&other.flags.to_le_bytes())?;
    }
    block.end(madt);
    Ok(())
}

/// A root pointer of revision 2.
fn root_pointer(xsdt: u64) -> [u8; RSDP_BYTES] {
    let mut root = [0; RSDP_BYTES];
    let (first, second) = root.split_at_mut(20);
    first.copy_from_slice(b"RSD PTR \0OXEN  \x02\0\0\0\0");
    if let Some(place) = first.get_mut(8) {
        *place = 0u8.wrapping_sub(b"RSD PTR \0OXEN  \x02\0\0\0\0".iter().fold(0, |sum, byte| sum.wrapping_add(*byte)));
    }
    if let Some((length, rest)) = second.split_first_chunk_mut::<4>() {
        *length = 36u32.to_le_bytes();
        if let Some(place) = rest.first_chunk_mut::<8>() {
            *place = xsdt.to_le_bytes();
        }
    }
    let sum = checksum(&root);
    if let Some(place) = root.get_mut(32) {
        *place = 0u8.wrapping_sub(sum);
    }
    root
}

const _: () = assert!(HEADER_BYTES == 10 + 26);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::acpi::{self, IoApic, Override, Table};

    #[test]
    fn the_tables_read_back() {
        let native = Acpi {
            tables: alloc::vec![
                Table { signature: *b"FACP", address: 0x3000, length: 244 },
                Table { signature: *b"DMAR", address: 0x4000, length: 80 },
            ],
            apic_ids: alloc::vec![0, 1],
            io_apics: alloc::vec![],
            overrides: alloc::vec![Override { source: 9, gsi: 9, flags: 0xd }],
            ..Acpi::default()
        };
        let io_apic = VirtualIoApic { id: 0, address: 0xfec0_0000, first_gsi: 0 };
        let tables = build(&native, 2, io_apic, 0x10_0000).unwrap();
        assert!(u64::try_from(tables.bytes.len()).unwrap() <= bytes_needed(&native, 2));
        let mut facp = [0u8; 36];
        facp[..4].copy_from_slice(b"FACP");
        let read = |address: u64, out: &mut [u8]| {
            let source = match address.checked_sub(0x10_0000) {
                Some(offset) => tables.bytes.get(usize::try_from(offset).unwrap()..),
                None => (address == 0x3000).then_some(&facp[..]),
            };
            source.and_then(|bytes| bytes.get(..out.len())).map(|bytes| out.copy_from_slice(bytes)).is_some()
        };
        let root = acpi::read_root(&read, tables.rsdp).unwrap();
        let found = acpi::read_tables(&read, &root, |error| panic!("{error}")).unwrap();
        assert_eq!(found.apic_ids, [0, 2]);
        assert_eq!(found.io_apics, [IoApic { id: 0, address: 0xfec0_0000, first_gsi: 0 }]);
        assert_eq!(found.overrides, native.overrides);
        assert_eq!(found.tables.len(), 2, "DMAR stays with the hypervisor");
        assert_eq!(found.find(b"FACP").unwrap().address, 0x3000);
        assert_eq!(checksum(&tables.bytes[..36]), 0, "the extended checksum holds");
    }
}
