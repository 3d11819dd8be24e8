//! Reaching the machine's configuration space: by ports for the first 256 bytes, in memory for what lies above, and only for
//! buses that the firmware's table lists. (PCI Local Bus Specification 3.0, 3.2.2.3.2; PCI Express Base Specification 3.0, 7.2.2.)

use crate::boot::acpi_devices::Buses;
use alloc::vec::Vec;
use machine::lock::{Lock, rank};
use machine::{Maddr, platform};

/// The address port, four bytes wide, and the first of four data ports.
pub const ADDRESS_PORT: u16 = 0xcf8;
/// See [`ADDRESS_PORT`].
pub const DATA_PORT: u16 = 0xcfc;
/// The address port's bit that turns the data ports on.
pub const ENABLED: u32 = 1 << 31;
/// Bytes that ports reach.
pub const PORT_BYTES: u16 = 0x100;
/// Bytes of a function's space.
pub const SPACE_BYTES: u16 = 0x1000;

/// A function's place in segment 0: bus in bits 15:8, device in 7:3, function in 2:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub u16);

impl Place {
    /// Its bus.
    pub const fn bus(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Device and function.
    pub const fn within_bus(self) -> u8 {
        self.0.to_be_bytes()[1]
    }

    /// From a bus and a device with a function.
    pub const fn new(bus: u8, within_bus: u8) -> Self {
        Self(u16::from_be_bytes([bus, within_bus]))
    }
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "0000:{:02x}:{:02x}.{}", self.bus(), self.within_bus() >> 3, self.within_bus() & 7)
    }
}

impl core::fmt::Debug for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{self}")
    }
}

/// The machine's two ways into configuration space.
#[derive(Debug)]
pub struct Mechanism {
    buses: Vec<Buses>,
    /// Held between writing the address port and using a data port.
    ports: Lock<(), { rank::VECTORS }>,
}

impl Mechanism {
    /// With the memory windows that the firmware lists; those of segments other than 0 are not used.
    pub const fn new(buses: Vec<Buses>) -> Self {
        Self { buses, ports: Lock::new(()) }
    }

    /// The window of segment 0 for a bus.
    fn window(&self, bus: u8) -> Option<&Buses> {
        self.buses.iter().find(|window| window.segment == 0 && (window.first..=window.last).contains(&bus))
    }

    /// Whether a bus's functions have more than 256 bytes that can be reached.
    pub fn is_extended(&self, bus: u8) -> bool {
        self.window(bus).is_some()
    }

    /// Whether the firmware lists exactly this window.
    pub fn lists(&self, wanted: Buses) -> bool {
        self.buses.contains(&wanted)
    }

    /// The function and register at an address in memory.
    pub fn register_at(&self, address: u64) -> Option<(Place, u16)> {
        let windows = self.buses.iter().filter(|window| window.segment == 0);
        windows
            .filter_map(|window| {
                let offset = address.checked_sub(window.base)?;
                let place = u16::try_from(offset >> 12).ok().map(Place)?;
                let register = u16::try_from(offset & 0xfff).ok()?;
                (window.first..=window.last).contains(&place.bus()).then_some((place, register))
            })
            .next()
    }

    fn address(&self, place: Place, register: u16) -> Option<Maddr> {
        let window = self.window(place.bus())?;
        let offset = u64::from(place.0) << 12 | u64::from(register);
        window.base.checked_add(offset).map(Maddr::new)
    }

    /// Reads `size` bytes (1, 2 or 4, inside of four aligned ones); all ones where there is nothing.
    pub fn read(&self, place: Place, register: u16, size: u8) -> u32 {
        if register >= PORT_BYTES {
            let read = self.address(place, register).and_then(|address| platform::device_read(address, size));
            return read.unwrap_or(u32::MAX) & ones(size);
        }
        let guard = self.ports.lock();
        platform::port_write(ADDRESS_PORT, 4, port_address(place, register));
        let value = platform::port_read(DATA_PORT | register & 3, size);
        drop(guard);
        value & ones(size)
    }

    /// Writes `size` bytes (1, 2 or 4, inside of four aligned ones).
    pub fn write(&self, place: Place, register: u16, size: u8, value: u32) {
        if register >= PORT_BYTES {
            // Where no window is, there is nothing to write to.
            let _written = self.address(place, register).is_some_and(|at| platform::device_write(at, size, value));
            return;
        }
        let guard = self.ports.lock();
        platform::port_write(ADDRESS_PORT, 4, port_address(place, register));
        platform::port_write(DATA_PORT | register & 3, size, value & ones(size));
        drop(guard);
    }
}

fn port_address(place: Place, register: u16) -> u32 {
    ENABLED | u32::from(place.0) << 8 | u32::from(register & 0xfc)
}

/// All ones in so many bytes.
pub fn ones(size: u8) -> u32 {
    u32::MAX.checked_shr(32_u32.saturating_sub(u32::from(size).saturating_mul(8))).unwrap_or(0)
}

/// `old`, four aligned bytes, after `size` bytes from `register` on were written.
pub fn merge(old: u32, register: u16, size: u8, value: u32) -> u32 {
    let shift = u32::from(register & 3).saturating_mul(8);
    let mask = ones(size).checked_shl(shift).unwrap_or(0);
    old & !mask | value.checked_shl(shift).unwrap_or(0) & mask
}

/// The part of four aligned bytes that a read of `size` bytes from `register` on gives.
pub fn part(whole: u32, register: u16, size: u8) -> u32 {
    whole.checked_shr(u32::from(register & 3).saturating_mul(8)).unwrap_or(0) & ones(size)
}
