//! The ACPI tables of a PVH guest: RSDP, XSDT, FADT, FACS, MADT and a DSDT, in one page.
//!
//! They tell the guest what the memory map and CPUID do not: its vCPUs' APIC ids. There are no devices, so the DSDT holds
//! an empty `\_SB` scope and nothing else. The fixed hardware is what Xen's libacpi describes for PVH (PM1 at port 0xb000,
//! where nothing answers): guests are used to it. Formats: ACPI specification 5.0, §5.2. The plan places the page; the
//! start info carries the RSDP's address.

use super::layout::LAPIC_BASE;

/// One vCPU for the MADT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its ACPI processor UID, equal to the vCPU number.
    pub uid: u8,
    /// Its APIC id.
    pub apic_id: u8,
    /// Whether it is online at start.
    pub enabled: bool,
}

/// The tables, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// All of them, one after the other, to be written at the base address.
    pub bytes: Vec<u8>,
    /// Address of the RSDP.
    pub rsdp: u64,
    /// The RSDP itself, for guests that search for a copy of it below 1 MiB.
    pub rsdp_bytes: Vec<u8>,
}

/// Bytes of the header that all tables but RSDP and FACS start with.
const HEADER: usize = 36;
/// Where a table's checksum is.
const CHECKSUM: usize = 9;

/// FADT flags: WBINVD works, processors have C1, the RTC is no fixed event, the PM timer has 32 bits, the platform's
/// clock is to be used, and power and sleep buttons are no fixed events (they do not exist).
const FADT_FLAGS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 15;
/// FADT `IAPC_BOOT_ARCH`: there is no VGA and no CMOS RTC.
const NO_VGA_NO_CMOS_RTC: u16 = 1 << 2 | 1 << 5;
/// I/O ports of the PM1 event and control blocks in Xen's layout.
const PM1_EVENT: u16 = 0xb000;
const PM1_CONTROL: u16 = 0xb004;
/// I/O port of the general-purpose event block.
const GPE0: u16 = 0xafe0;

/// Builds the tables for `base`, which must be a multiple of 64.
pub fn tables(base: u64, processors: &[Processor]) -> Tables {
    let mut area = Area { base, bytes: vec![0; 64] };
    let facs = area.place(&facs());
    let dsdt = area.place(&dsdt());
    let fadt = area.place(&fadt(facs, dsdt));
    let madt = area.place(&madt(processors));
    let xsdt = area.place(&xsdt(&[fadt, madt]));
    let rsdp_bytes = rsdp(xsdt);
    area.bytes[..rsdp_bytes.len()].copy_from_slice(&rsdp_bytes);
    Tables { bytes: area.bytes, rsdp: base, rsdp_bytes }
}

/// The bytes so far; the first 64 are kept for the RSDP.
struct Area {
    base: u64,
    bytes: Vec<u8>,
}

impl Area {
    /// Appends a table at the next multiple of 64 (the FACS needs that, the others gain nothing by less). Its address.
    fn place(&mut self, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        address
    }
}

/// A table with the common header; `revision` is the table's own.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(signature);
    bytes.extend_from_slice(&((HEADER + body.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&[revision, 0]);
    bytes.extend_from_slice(b"Oxen\0\0");
    bytes.extend_from_slice(b"PVH\0\0\0\0\0");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(b"OXEN");
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(body);
    set_checksum(&mut bytes, CHECKSUM);
    bytes
}

/// Makes all bytes sum up to zero by the byte at `position`.
fn set_checksum(bytes: &mut [u8], position: usize) {
    bytes[position] = 0;
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[position] = sum.wrapping_neg();
}

/// Root pointer, §5.2.5.3, revision 2; without an RSDT, which only 32-bit systems of old would need.
fn rsdp(xsdt: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(36);
    bytes.extend_from_slice(b"RSD PTR \0Oxen\0\0\x02");
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&36u32.to_le_bytes());
    bytes.extend_from_slice(&xsdt.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    // The first checksum is that of ACPI 1.0's 20 bytes.
    set_checksum(&mut bytes[..20], 8);
    set_checksum(&mut bytes, 32);
    bytes
}

/// Extended system description table, §5.2.8: the addresses of all others.
fn xsdt(tables: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = tables.iter().flat_map(|address| address.to_le_bytes()).collect();
    table(b"XSDT", 1, &body)
}

/// Firmware control structure, §5.2.10: it has no checksum, and nothing in it is used.
fn facs() -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..4].copy_from_slice(b"FACS");
    bytes[4] = 64;
    bytes[32] = 1;
    bytes
}

/// Differentiated description table, §5.2.11.1, with the smallest useful AML: `Scope (\_SB) {}`.
fn dsdt() -> Vec<u8> {
    /// ScopeOp, PkgLength 6 (itself and the name), NameString.
    const SCOPE: [u8; 7] = [0x10, 0x06, b'\\', b'_', b'S', b'B', b'_'];
    table(b"DSDT", 2, &SCOPE)
}

/// Fixed description table, §5.2.9, revision 5.
fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    let mut fields = Fields { bytes: vec![0; 268 - HEADER] };
    // Below 4 GiB both addresses fit the 32-bit fields, which older guests read.
    fields.put(36, &(facs as u32).to_le_bytes());
    fields.put(40, &(dsdt as u32).to_le_bytes());
    fields.put(46, &9u16.to_le_bytes());
    fields.put(56, &u32::from(PM1_EVENT).to_le_bytes());
    fields.put(64, &u32::from(PM1_CONTROL).to_le_bytes());
    fields.put(80, &u32::from(GPE0).to_le_bytes());
    // PM1_EVT_LEN, PM1_CNT_LEN, then GPE0_BLK_LEN.
    fields.put(88, &[4, 2, 0, 0, 4]);
    // C2 and C3 latencies beyond 100 and 1000 us mean that there are no such states.
    fields.put(96, &0x0fffu16.to_le_bytes());
    fields.put(98, &0x0fffu16.to_le_bytes());
    fields.put(109, &NO_VGA_NO_CMOS_RTC.to_le_bytes());
    fields.put(112, &FADT_FLAGS.to_le_bytes());
    fields.put(132, &facs.to_le_bytes());
    fields.put(140, &dsdt.to_le_bytes());
    fields.put(148, &io_address(32, PM1_EVENT));
    fields.put(172, &io_address(16, PM1_CONTROL));
    table(b"FACP", 5, &fields.bytes)
}

/// The body of a table whose fields are placed by their offset in the whole table.
struct Fields {
    bytes: Vec<u8>,
}

impl Fields {
    fn put(&mut self, offset: usize, value: &[u8]) {
        let start = offset - HEADER;
        self.bytes[start..start + value.len()].copy_from_slice(value);
    }
}

/// A generic address structure in I/O space, §5.2.3.1.
fn io_address(bits: u8, port: u16) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0] = 1;
    bytes[1] = bits;
    bytes[4..6].copy_from_slice(&port.to_le_bytes());
    bytes
}

/// Multiple APIC description table, §5.2.12: one local APIC entry per vCPU, and no I/O APIC, since there is none.
fn madt(processors: &[Processor]) -> Vec<u8> {
    let mut body = Vec::with_capacity(8 + 8 * processors.len());
    body.extend_from_slice(&LAPIC_BASE.to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes());
    for processor in processors {
        body.extend_from_slice(&[0, 8, processor.uid, processor.apic_id]);
        body.extend_from_slice(&u32::from(processor.enabled).to_le_bytes());
    }
    table(b"APIC", 3, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(tables: &'a Tables, base: u64, signature: &[u8; 4]) -> &'a [u8] {
        let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let table_at = |address: u64| {
            let start = usize::try_from(address - base).expect("in the area");
            let length = u32::from_le_bytes(tables.bytes[start + 4..start + 8].try_into().expect("four bytes"));
            &tables.bytes[start..start + length as usize]
        };
        let xsdt = table_at(u64_at(&tables.bytes, 24));
        for entry in xsdt[HEADER..].chunks(8) {
            let table = table_at(u64_at(entry, 0));
            if &table[..4] == signature {
                return table;
            }
            if &table[..4] == b"FACP" && signature == b"DSDT" {
                return table_at(u64_at(table, 140));
            }
        }
        panic!("no such table");
    }

    #[test]
    fn tables_are_found_from_the_rsdp_and_sum_to_zero() {
        let base = 0xfc00_0000;
        let processors: Vec<_> = (0..128).map(|id| Processor { uid: id, apic_id: id * 2, enabled: id < 3 }).collect();
        let tables = tables(base, &processors);
        assert!(tables.bytes.len() <= 4096, "{}", tables.bytes.len());
        assert_eq!(&tables.bytes[..8], b"RSD PTR ");
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&tables.bytes[..20]), sum(&tables.bytes[..36])), (0, 0));
        for signature in [b"FACP", b"APIC", b"DSDT"] {
            assert_eq!(sum(find(&tables, base, signature)), 0);
        }
        let madt = find(&tables, base, b"APIC");
        assert_eq!(madt.len(), 44 + 128 * 8);
        assert_eq!(&madt[44 + 8 * 2..44 + 8 * 4], [0, 8, 2, 4, 1, 0, 0, 0, 0, 8, 3, 6, 0, 0, 0, 0]);
        assert_eq!(find(&tables, base, b"FACP").len(), 268);
        let facs = u64::from_le_bytes(find(&tables, base, b"FACP")[132..140].try_into().expect("eight bytes"));
        assert_eq!(facs % 64, 0);
    }
}
