//! PCI configuration space as the control domain sees it while its devices are hidden: there is a bus, and its host bridge.
//!
//! Without anything at 00:00.0 Linux takes the machine for one without PCI, and then every access of the firmware's ACPI code
//! to configuration space is an error, of which it prints dozens. So the mechanism of ports 0xcf8 and 0xcfc (PCI Local Bus
//! Specification 3.0, 3.2.2.3.2) works, the host bridge shows who it is and does nothing, and all other places are empty.
//! Before: `ports`. Devices, their BARs and interrupts will have their place here.

use machine::platform;

/// The address port, four bytes wide, and the first of four data ports.
pub const ADDRESS_PORT: u16 = 0xcf8;
/// See [`ADDRESS_PORT`].
pub const DATA_PORT: u16 = 0xcfc;
/// The address port's bit that turns the data ports on, and all its bits that exist.
const ENABLED: u32 = 1 << 31;
const ADDRESS_BITS: u32 = 0x80ff_fffc;
/// Bus, device and function in an address.
const PLACE: u32 = 0x00ff_ff00;
/// Registers of the host bridge that show what the machine's own has: vendor and device, class and revision, subsystem.
const SHOWN: [u32; 3] = [0x00, 0x08, 0x2c];

/// The address that the domain has latched.
#[derive(Debug, Default)]
pub struct ConfigurationPorts {
    address: u32,
}

impl ConfigurationPorts {
    /// As after a reset.
    pub const fn new() -> Self {
        Self { address: 0 }
    }

    /// Reads a port between 0xcf8 and 0xcff, `size` bytes wide; `None` for one that does not exist in that width.
    pub fn read(&self, port: u16, size: u8) -> Option<u32> {
        match port.checked_sub(DATA_PORT) {
            None => (port == ADDRESS_PORT && size == 4).then_some(self.address),
            Some(offset) if offset.checked_add(u16::from(size))? <= 4 => {
                let bits = u32::from(offset).checked_mul(8)?;
                Some(self.register()?.checked_shr(bits)? & u32::MAX.checked_shr(32_u32.checked_sub(width(size)?)?)?)
            }
            Some(_) => None,
        }
    }

    /// Writes a port. No register can be written.
    pub fn write(&mut self, port: u16, size: u8, value: u32) {
        if port == ADDRESS_PORT && size == 4 {
            self.address = value & ADDRESS_BITS;
        }
    }

    /// The register at the latched address; `None` where there is no device.
    fn register(&self) -> Option<u32> {
        if self.address & ENABLED == 0 || self.address & PLACE != 0 {
            return None;
        }
        let register = self.address & !ENABLED;
        Some(if SHOWN.contains(&register) { machine_register(register) } else { 0 })
    }
}

/// Bits of an access.
fn width(size: u8) -> Option<u32> {
    u32::from(size).checked_mul(8).filter(|bits| (1..=32).contains(bits))
}

/// A register of the machine's own host bridge. Only the hypervisor reaches these ports, and it does so under the lock of the
/// control domain's ports.
fn machine_register(register: u32) -> u32 {
    platform::port_write(ADDRESS_PORT, 4, ENABLED | register);
    platform::port_read(DATA_PORT, 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::fake::FakeMachine;

    #[test]
    fn the_host_bridge_shows_who_it_is_and_other_places_are_empty() {
        let machine = FakeMachine::builder().build();
        machine.on_cpu(0, || {
            machine.set_port(DATA_PORT, 0x29c0_8086);
            let mut ports = ConfigurationPorts::default();
            assert_eq!(ports.read(DATA_PORT, 4), None, "turned off");
            ports.write(ADDRESS_PORT, 4, 0xff00_0003);
            assert_eq!(ports.read(ADDRESS_PORT, 4), Some(0x8000_0000), "bits that do not exist are zero");
            assert_eq!(ports.read(DATA_PORT, 4), Some(0x29c0_8086));
            assert_eq!(ports.read(DATA_PORT, 2), Some(0x8086));
            assert_eq!(ports.read(DATA_PORT + 2, 2), Some(0x29c0));
            assert_eq!(ports.read(DATA_PORT + 3, 1), Some(0x29));
            assert_eq!((ports.read(DATA_PORT + 2, 4), ports.read(ADDRESS_PORT, 1)), (None, None));
            assert_eq!(machine.port_writes().last(), Some(&(ADDRESS_PORT, 4, 0x8000_0000)));
            // Base address registers, command, header type: nothing.
            for register in [0x04, 0x0c, 0x10, 0x34, 0x3c, 0xfc] {
                ports.write(ADDRESS_PORT, 4, 0x8000_0000 | register);
                assert_eq!(ports.read(DATA_PORT, 4), Some(0), "{register:#x}");
            }
            // Another function, device, bus.
            for place in [0x100, 0x800, 0x1_0000, 0x1f << 11] {
                ports.write(ADDRESS_PORT, 4, 0x8000_0000 | place);
                assert_eq!(ports.read(DATA_PORT, 4), None, "{place:#x}");
            }
        });
    }

    #[test]
    fn nothing_reaches_the_machines_own_registers() {
        let machine = FakeMachine::builder().build();
        machine.on_cpu(0, || {
            let mut ports = ConfigurationPorts::default();
            ports.write(ADDRESS_PORT, 4, 0x8000_0004);
            ports.write(DATA_PORT, 4, 0xffff_ffff);
            ports.write(ADDRESS_PORT, 1, 0x12);
            assert_eq!(ports.read(ADDRESS_PORT, 4), Some(0x8000_0004));
            assert!(machine.port_writes().is_empty());
        });
    }
}
