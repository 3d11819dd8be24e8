//! Where the firmware's tables say that devices of the hypervisor's are: the local and I/O interrupt controllers, the
//! event timer, PCI configuration space, IOMMUs. (ACPI specification 6.5, 5.2.12; IA-PC HPET specification 1.0a, 3.2.4; PCI firmware
//! specification 3.0, 4.1.2.)
//!
//! Before this: `acpi` has found the tables. After it: `dom0` keeps these places from the control domain, which could
//! otherwise touch them, as it can all device memory.

use crate::iommu::firmware::Firmware;
use machine::log;

use super::acpi::{Acpi, AcpiError, HEADER_BYTES, Reader, push, read_table, u16_in, u64_in};

/// Bytes that one bus takes in memory-mapped configuration space: 32 devices with 8 functions of 4 KiB each.
const BUS_BYTES: u64 = 1 << 20;

/// A range of physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// Configuration space of some buses in memory: an entry of MCFG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buses {
    /// Where bus 0 is, or would be.
    pub base: u64,
    /// The segment.
    pub segment: u16,
    /// The first bus.
    pub first: u8,
    /// The last bus.
    pub last: u8,
}

impl Buses {
    /// What it takes of memory; `None` if that makes no sense.
    pub fn window(self) -> Option<Window> {
        let (first, last) = (u64::from(self.first), u64::from(self.last));
        let length = last.checked_sub(first)?.saturating_add(1).saturating_mul(BUS_BYTES);
        let start = self.base.checked_add(first.saturating_mul(BUS_BYTES))?;
        start.checked_add(length).map(|_| Window { start, length })
    }
}

/// What the tables say of devices that the control domain must not touch.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    /// Where processors find their local APIC, as far as the tables say.
    pub local_apic: Option<u64>,
    /// The event timer's registers.
    pub timers: alloc::vec::Vec<u64>,
    /// PCI configuration space.
    pub pci: alloc::vec::Vec<Buses>,
    /// IOMMUs.
    pub iommus: Firmware,
}

impl Acpi {
    /// Reads the tables of event timers and of configuration space. Those that are no good are handed to `complain`.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn read_devices(
        &mut self,
        read: Reader<'_>,
        complain: &mut impl FnMut(AcpiError),
    ) -> Result<(), AcpiError> {
        for number in 0..self.tables.len() {
            let Some(found) = self.tables.get(number).copied() else { break };
            if !matches!(&found.signature, b"HPET" | b"MCFG" | b"IVRS" | b"DMAR") {
                continue;
            }
            match read_table(read, found.address) {
                Ok(table) if found.signature == *b"HPET" => push(&mut self.devices.timers, timer(&table))?,
                Ok(table) if matches!(&found.signature, b"IVRS" | b"DMAR") => {
                    let leave_out = |complaint| log!(Warning, "{complaint}: left out");
                    let is_amd = found.signature == *b"IVRS";
                    let read = if is_amd { Firmware::read_ivrs } else { Firmware::read_dmar };
                    // No machine has both; if one did, the first would count.
                    if self.devices.iommus.units.is_empty() {
                        self.devices.iommus = read(&table, leave_out).map_err(|_| AcpiError::OutOfMemory)?;
                    }
                }
                Ok(table) => {
                    let entries = table.get(HEADER_BYTES.saturating_add(8)..).unwrap_or_default();
                    for entry in entries.chunks_exact(16) {
                        push(&mut self.devices.pci, configuration_space(entry))?;
                    }
                }
                Err(error) => complain(error),
            }
        }
        Ok(())
    }

    /// The local APIC's address in the MADT: its own field, or an entry of type 5 with more bits.
    pub(super) fn read_local_apic(&mut self, address: Option<u64>) {
        self.devices.local_apic = address.filter(|address| *address != 0).or(self.devices.local_apic);
    }
}

/// The address structure of the event timer's table: space 0 is memory.
fn timer(table: &[u8]) -> Option<u64> {
    (*table.get(HEADER_BYTES.saturating_add(4))? == 0).then(|| u64_in(table, HEADER_BYTES.saturating_add(8)))?
}

/// An entry of MCFG: where bus 0 of its segment would be, the segment, the first and the last bus.
fn configuration_space(entry: &[u8]) -> Option<Buses> {
    let [first, last] = u16_in(entry, 10)?.to_le_bytes();
    let buses = Buses { base: u64_in(entry, 0)?, segment: u16_in(entry, 8)?, first, last };
    buses.window().map(|_| buses)
}
