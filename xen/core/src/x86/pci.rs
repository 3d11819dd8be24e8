//! The ports of PCI's configuration mechanism, as the control domain sees them: an address that it latches, and the register that
//! the data ports then lead to. (PCI Local Bus Specification 3.0, 3.2.2.3.2.)
//!
//! Before: `ports`. After: `crate::pci`, which says what the domain may do there.

use crate::pci::access::{ADDRESS_PORT, DATA_PORT, ENABLED, Place};

/// The address port's bits that exist.
const ADDRESS_BITS: u32 = 0x80ff_fffc;

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

    /// Reads the address port; `None` for another width.
    pub fn read(&self, port: u16, size: u8) -> Option<u32> {
        (port == ADDRESS_PORT && size == 4).then_some(self.address)
    }

    /// Writes the address port; other ports and widths have no effect.
    pub fn write(&mut self, port: u16, size: u8, value: u32) {
        if port == ADDRESS_PORT && size == 4 {
            self.address = value & ADDRESS_BITS;
        }
    }

    /// Where an access to a data port leads; `None` for other ports, across their end, and while they are off.
    pub fn target(&self, port: u16, size: u8) -> Option<(Place, u16)> {
        let offset = port.checked_sub(DATA_PORT).filter(|offset| offset.saturating_add(u16::from(size)) <= 4)?;
        if self.address & ENABLED == 0 {
            return None;
        }
        let place = u16::try_from(self.address >> 8 & 0xffff).ok()?;
        let register = u16::try_from(self.address & 0xfc).ok()?;
        Some((Place(place), register | offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_ports_lead_to_the_latched_register() {
        let mut ports = ConfigurationPorts::default();
        assert_eq!(ports.target(DATA_PORT, 4), None, "turned off");
        ports.write(ADDRESS_PORT, 4, 0xff12_34fb);
        assert_eq!(ports.read(ADDRESS_PORT, 4), Some(0x8012_34f8), "bits that do not exist are zero");
        for (port, size, register) in [(DATA_PORT, 4, 0xf8), (DATA_PORT + 1, 2, 0xf9), (DATA_PORT + 3, 1, 0xfb)] {
            assert_eq!(ports.target(port, size), Some((Place(0x1234), register)));
        }
        assert_eq!((ports.target(DATA_PORT + 2, 4), ports.target(ADDRESS_PORT, 4)), (None, None));
        ports.write(ADDRESS_PORT, 1, 0x12);
        ports.write(DATA_PORT, 4, 0);
        assert_eq!((ports.read(ADDRESS_PORT, 4), ports.read(ADDRESS_PORT, 1)), (Some(0x8012_34f8), None));
    }
}
