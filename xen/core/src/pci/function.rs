//! One function of a PCI device: what the control domain may read and write of its configuration space.
//!
//! Before this: `mod`, which has found the function. Most registers are the domain's. The exceptions: messages (`msi`, `msix`)
//! are shadowed; base addresses may not be put over RAM or the hypervisor's devices; host bridges keep what says where memory
//! and configuration space are; IOMMUs are read-only; virtual functions cannot be turned on.

use super::access::{Mechanism, Place, merge};
use super::bars::{self, Bars};
use super::capabilities;
use super::msi::Msi;
use super::msix::Msix;
use crate::interrupt::Interrupts;
use crate::interrupt::message::Message;
use core::ops::Range;
use machine::boxed::OutOfMemory;
use machine::log;

const COMMAND: u16 = 4;
const DECODES_PORTS: u32 = 1;
const DECODES_MEMORY: u32 = 2;
const CLASS: u16 = 8;
const HEADER_TYPE: u16 = 0x0c;
/// Registers from here on are the device's own.
const FIRST_OWN: u16 = 0x40;
const HOST_BRIDGE: u32 = 0x06_00;
const IOMMU: u32 = 0x08_06;

/// Ranges of addresses that no device of the domain's may be put over.
pub(super) type Blocked = [Range<u64>];

/// What a function is to the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Ordinary,
    HostBridge,
    /// Nothing of it can be written.
    ReadOnly,
}

/// A function.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) place: Place,
    kind: Kind,
    bars: Bars,
    msi: Option<Msi>,
    pub(super) msix: Option<Msix>,
    shut: heapless::Vec<Range<u16>, { capabilities::MOST_SHUT + 3 }>,
}

/// Bytes that a capability of messages can take at the most.
const MOST_BYTES: u16 = 24;

impl Function {
    /// Looks at the function at a place; `None` if there is none.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub(super) fn examine(mechanism: &Mechanism, place: Place) -> Result<Option<Self>, OutOfMemory> {
        let read = |register: u16| mechanism.read(place, register, 4);
        if matches!(read(0) & 0xffff, 0 | 0xffff) {
            return Ok(None);
        }
        let mut found = capabilities::find(&read, mechanism.is_extended(place.bus()));
        let kind = match read(CLASS) >> 16 {
            HOST_BRIDGE => Kind::HostBridge,
            IOMMU => Kind::ReadOnly,
            _ if found.is_hopeless => Kind::ReadOnly,
            _ => Kind::Ordinary,
        };
        let bars = if kind == Kind::Ordinary { Self::measure(mechanism, place) } else { Bars::new() };
        let mut shut = heapless::Vec::new();
        let mut shut_at = |at: u16, length: u16| {
            // There is room for as many as `capabilities` can find.
            let _is_shut = shut.push(at..at.saturating_add(length)).is_ok();
        };
        let turn_off = |at: u16| {
            let header = read(at);
            let enable = if header & 0xff == capabilities::MSI { 1 } else { 1 << 15 };
            mechanism.write(place, at.saturating_add(2), 2, header >> 16 & !enable);
        };
        let msi = found.msi.and_then(|at| Msi::new(mechanism, place, at));
        let msix = match found.msix {
            Some(at) => Msix::new(mechanism, place, at)?.filter(|msix| fits(msix, &bars)),
            None => None,
        };
        for at in found.msi.filter(|_| msi.is_none()).into_iter().chain(found.msix.filter(|_| msix.is_none())) {
            log!(Warning, "{place}: its capability at {at:#x} makes no sense and stays off");
            turn_off(at);
            shut_at(at, MOST_BYTES);
        }
        for at in &found.more {
            turn_off(*at);
            shut_at(*at, MOST_BYTES);
        }
        if let Some(at) = found.virtual_functions.take() {
            shut_at(at, 4);
        }
        Ok(Some(Self { place, kind, bars, msi, msix, shut }))
    }

    /// Measures base addresses with the function's decoding off for as long as that takes.
    fn measure(mechanism: &Mechanism, place: Place) -> Bars {
        let header_type = u8::try_from(mechanism.read(place, HEADER_TYPE, 4) >> 16 & 0xff).unwrap_or(u8::MAX);
        let command = mechanism.read(place, COMMAND, 2);
        mechanism.write(place, COMMAND, 2, command & !(DECODES_PORTS | DECODES_MEMORY));
        let read = |register: u16| mechanism.read(place, register, 4);
        let bars = bars::measure(header_type, &read, &|at, value| mechanism.write(place, at, 4, value));
        mechanism.write(place, COMMAND, 2, command);
        bars
    }

    /// What the domain reads, inside of four aligned bytes.
    pub(super) fn read(&self, mechanism: &Mechanism, register: u16, size: u8) -> u32 {
        let shadow = self.msi.as_ref().and_then(|msi| msi.read(mechanism, register, size));
        shadow.unwrap_or_else(|| mechanism.read(self.place, register, size))
    }

    /// The domain writes, inside of four aligned bytes.
    pub(super) fn write(
        &mut self,
        unit: (&Mechanism, &Interrupts),
        blocked: &Blocked,
        register: u16,
        size: u8,
        value: u32,
    ) {
        let (mechanism, interrupts) = unit;
        if !self.may_write(register) {
            return;
        }
        if self.msi.as_mut().is_some_and(|msi| msi.write(unit, register, size, value)) {
            return;
        }
        if let Some(msix) = self.msix.as_mut().filter(|msix| msix.has(register)) {
            return msix.write(unit, register, size, value);
        }
        let places = register & !3 == COMMAND
            || self.bars.iter().any(|bar| (bar.register..bar.register + 8).contains(&register));
        if !places {
            return mechanism.write(self.place, register, size, value);
        }
        if self.is_allowed(mechanism, blocked, register, size, value) {
            mechanism.write(self.place, register, size, value);
        } else {
            log!(Warning, "{}: Dom0 may not put it over RAM or the hypervisor's devices", self.place);
        }
        self.find_table(mechanism, interrupts, blocked);
    }

    fn may_write(&self, register: u16) -> bool {
        let is_own = register >= FIRST_OWN || (bars::FIRST..0x34).contains(&register);
        match self.kind {
            Kind::ReadOnly => false,
            Kind::HostBridge if is_own => false,
            _ => !self.shut.iter().any(|range| range.contains(&(register & !3)) || range.contains(&register)),
        }
    }

    /// Whether the function, after this write, decodes no address that it must not.
    fn is_allowed(&self, mechanism: &Mechanism, blocked: &Blocked, register: u16, size: u8, value: u32) -> bool {
        let read = |at: u16| {
            let old = mechanism.read(self.place, at, 4);
            if at == register & !3 { merge(old, register, size, value) } else { old }
        };
        read(COMMAND) & DECODES_MEMORY == 0
            || !self.bars.iter().filter_map(|bar| bar.range(&read)).any(|range| overlaps(blocked, &range))
    }

    /// Looks where the table of messages is now.
    pub(super) fn find_table(&mut self, mechanism: &Mechanism, interrupts: &Interrupts, blocked: &Blocked) {
        let Some(msix) = &mut self.msix else { return };
        let read = |at: u16| mechanism.read(self.place, at, 4);
        let decodes = read(COMMAND) & DECODES_MEMORY != 0;
        let bar = self.bars.iter().find(|bar| bar.number == msix.bar).filter(|_| decodes);
        let range = bar.and_then(|bar| bar.range(&read)).filter(|range| !overlaps(blocked, range));
        msix.set_base(interrupts, range.map(|range| range.start.saturating_add(msix.offset)));
    }

    /// The pages of the table, which the domain does not reach itself.
    pub(super) fn table_pages(&self) -> Range<u64> {
        let table = self.msix.as_ref().and_then(Msix::table).unwrap_or(0..0);
        table.start >> machine::PAGE_SHIFT..table.end.div_ceil(machine::PAGE_SIZE_U64)
    }

    /// Lets the function, which the domain cannot write to, send the hypervisor's own message. False if it cannot.
    pub(super) fn give_message(&self, mechanism: &Mechanism, message: Message) -> bool {
        let msi = self.msi.as_ref().filter(|_| self.kind == Kind::ReadOnly);
        msi.map(|msi| msi.program(mechanism, message)).is_some()
    }

    /// The function is gone, or given up.
    pub(super) fn release(&mut self, interrupts: &Interrupts) {
        if let Some(msi) = &mut self.msi {
            msi.release(interrupts);
        }
        if let Some(msix) = &mut self.msix {
            msix.set_base(interrupts, None);
            msix.release(interrupts);
        }
    }
}

/// Whether a table lies inside of the memory that it says it is in.
fn fits(msix: &Msix, bars: &Bars) -> bool {
    let end = msix.offset.saturating_add(msix.table_bytes());
    bars.iter().any(|bar| bar.number == msix.bar && bar.number < 6 && end <= bar.length)
}

fn overlaps(blocked: &Blocked, range: &Range<u64>) -> bool {
    blocked.iter().any(|other| other.start < range.end && range.start < other.end)
}
