//! The machine's PCI functions, all of which are the control domain's. (docs/design/0008.)
//!
//! The domain's accesses to configuration space come in by ports (`x86::ports`) and in memory (`x86::mmio`), those to tables
//! of messages by faults (`fault::device`, then `x86::mmio`). In the order of an access: `access` (the machine's own ways in),
//! `function` (what the domain may do), `msi`, `msix` (its messages, behind which stand vectors of `interrupt`);
//! `capabilities` and `bars` say what a function has.

pub mod access;
pub mod bars;
pub mod capabilities;
mod function;
mod msi;
mod msix;

#[cfg(test)]
mod tests;

use crate::boot::acpi_devices::Buses;
use crate::domain::Domain;
use crate::host::Host;
use crate::interrupt::Interrupts;
use crate::interrupt::message::Message;
use crate::memory;
use access::{Mechanism, Place, SPACE_BYTES};
use alloc::vec::Vec;
use core::ops::Range;
use function::Function;
use machine::boxed::OutOfMemory;
use machine::lock::{Lock, rank};
use machine::{Gfn, log};
use public_abi::Errno;

/// All functions.
#[derive(Debug)]
pub struct Pci {
    mechanism: Mechanism,
    /// Addresses that no function may be put over: RAM, and what the hypervisor keeps for itself.
    blocked: Vec<Range<u64>>,
    functions: Lock<Vec<Function>, { rank::MACHINE_DEVICE }>,
}

impl Pci {
    /// Without functions. `buses` is what the firmware says of configuration space in memory.
    pub const fn new(buses: Vec<Buses>, blocked: Vec<Range<u64>>) -> Self {
        Self { mechanism: Mechanism::new(buses), blocked, functions: Lock::new(Vec::new()) }
    }

    /// Finds the functions of bus 0 and of all buses behind its bridges. Others are found when the domain writes to them or
    /// reports them.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn scan(&self, interrupts: &Interrupts) -> Result<usize, OutOfMemory> {
        let mut is_reached = [false; 256];
        let mut has_been = [false; 256];
        if let Some(first) = is_reached.first_mut() {
            *first = true;
        }
        while let Some(bus) = (0..=u8::MAX).find(|bus| {
            let at = usize::from(*bus);
            is_reached.get(at) == Some(&true) && has_been.get(at) == Some(&false)
        }) {
            if let Some(been) = has_been.get_mut(usize::from(bus)) {
                *been = true;
            }
            self.scan_bus(interrupts, bus, &mut is_reached)?;
        }
        Ok(self.functions.lock().len())
    }

    fn scan_bus(&self, interrupts: &Interrupts, bus: u8, is_reached: &mut [bool; 256]) -> Result<(), OutOfMemory> {
        const MANY_FUNCTIONS: u32 = 1 << 23;
        const BRIDGE: u32 = 1 << 16;
        for device in (0..=u8::MAX).step_by(8) {
            let read = |place, register| self.mechanism.read(place, register, 4);
            let first = Place::new(bus, device);
            if read(first, 0) == u32::MAX {
                continue;
            }
            let count = if read(first, 0x0c) & MANY_FUNCTIONS == 0 { 1 } else { 8 };
            for place in (0..count).map(|number| Place::new(bus, device | number)) {
                if !self.know(interrupts, place)? {
                    continue;
                }
                if read(place, 0x0c) & 0x7f << 16 == BRIDGE {
                    let [_, secondary, last, _] = read(place, 0x18).to_le_bytes();
                    let behind = is_reached.get_mut(usize::from(secondary)..=usize::from(last));
                    behind.unwrap_or_default().fill(true);
                }
            }
        }
        Ok(())
    }

    /// Makes sure that a function is known; false if there is none.
    fn know(&self, interrupts: &Interrupts, place: Place) -> Result<bool, OutOfMemory> {
        let mut functions = self.functions.lock();
        let Err(at) = functions.binary_search_by_key(&place, |function| function.place) else { return Ok(true) };
        functions.try_reserve(1).map_err(|_| OutOfMemory)?;
        let Some(mut function) = Function::examine(&self.mechanism, place)? else { return Ok(false) };
        function.find_table(&self.mechanism, interrupts, &self.blocked);
        functions.insert(at, function);
        Ok(true)
    }

    /// The function and register at an address of configuration space in memory.
    pub fn register_at(&self, address: u64) -> Option<(Place, u16)> {
        self.mechanism.register_at(address)
    }

    /// Whether the firmware lists exactly this part of configuration space.
    pub fn lists(&self, buses: Buses) -> bool {
        self.mechanism.lists(buses)
    }

    /// Lets a function that is the hypervisor's own send a message. False if it cannot.
    pub fn give_message(&self, place: Place, message: Message) -> bool {
        let functions = self.functions.lock();
        let found = functions.iter().find(|function| function.place == place);
        found.is_some_and(|function| function.give_message(&self.mechanism, message))
    }

    /// Reads configuration space for the control domain, inside of four aligned bytes.
    pub fn read(&self, place: Place, register: u16, size: u8) -> u32 {
        if register >= SPACE_BYTES {
            return access::ones(size);
        }
        let functions = self.functions.lock();
        match functions.binary_search_by_key(&place, |function| function.place).ok().and_then(|at| functions.get(at)) {
            Some(function) => function.read(&self.mechanism, register, size),
            None => self.mechanism.read(place, register, size),
        }
    }

    /// Whether a page is hidden from the domain because a table of messages is in it.
    pub fn hides(&self, page: Gfn) -> bool {
        let functions = self.functions.lock();
        functions.iter().any(|function| function.table_pages().contains(&page.number()))
    }

    /// Reads a page that [`Pci::hides`], inside of four aligned bytes; `None` if it is none.
    pub fn memory_read(&self, address: u64, size: u8) -> Option<u32> {
        let functions = self.functions.lock();
        let page = address >> machine::PAGE_SHIFT;
        let mut tables = functions.iter().filter(|function| function.table_pages().contains(&page));
        Some(tables.find_map(|function| function.msix.as_ref())?.memory_read(address, size))
    }

    /// Writes a page that [`Pci::hides`], inside of four aligned bytes; false if it is none.
    pub fn memory_write(&self, interrupts: &Interrupts, address: u64, size: u8, value: u32) -> bool {
        let mut functions = self.functions.lock();
        let page = address >> machine::PAGE_SHIFT;
        let mut tables = functions.iter_mut().filter(|function| function.table_pages().contains(&page));
        let Some(msix) = tables.find_map(|function| function.msix.as_mut()) else { return false };
        msix.memory_write(interrupts, address, size, value);
        true
    }
}

/// Writes configuration space for the control domain, inside of four aligned bytes. Pages that a table of messages comes to lie
/// in are taken out of its map.
pub fn write(host: &Host, domain: &Domain, place: Place, register: u16, size: u8, value: u32) {
    let pci = &host.pci;
    if register >= SPACE_BYTES || pci.know(&host.interrupts, place) != Ok(true) {
        return;
    }
    let pages = {
        let mut functions = pci.functions.lock();
        let found = functions.binary_search_by_key(&place, |function| function.place);
        let Some(function) = found.ok().and_then(|at| functions.get_mut(at)) else { return };
        let before = function.table_pages();
        function.write((&pci.mechanism, &host.interrupts), &pci.blocked, register, size, value);
        let after = function.table_pages();
        if before == after { 0..0 } else { after }
    };
    // Whoever touches such a page now finds it hidden.
    pages.for_each(|page| memory::unmap_device(domain, Gfn::new(page)));
}

/// The control domain reports a function.
///
/// # Errors
/// `ENODEV` if there is none; `ENOMEM`.
pub fn add(host: &Host, domain: &Domain, place: Place) -> Result<(), Errno> {
    match host.pci.know(&host.interrupts, place) {
        Ok(true) => {}
        Ok(false) => return Err(Errno::ENODEV),
        Err(OutOfMemory) => return Err(Errno::ENOMEM),
    }
    let pages = {
        let functions = host.pci.functions.lock();
        let found = functions.iter().find(|function| function.place == place);
        found.map_or(0..0, Function::table_pages)
    };
    pages.for_each(|page| memory::unmap_device(domain, Gfn::new(page)));
    Ok(())
}

/// The control domain says that a function is gone: its interrupts are given back.
///
/// # Errors
/// `ENODEV` if there was none.
pub fn remove(host: &Host, place: Place) -> Result<(), Errno> {
    let mut functions = host.pci.functions.lock();
    let at = functions.binary_search_by_key(&place, |function| function.place).map_err(|_| Errno::ENODEV)?;
    functions.remove(at).release(&host.interrupts);
    log!(Debug, "{place}: removed");
    Ok(())
}
