//! The capability of messages by a table in memory. The domain's writes to the table's pages are caught; it reads and writes a
//! shadow, and the real table has the hypervisor's messages in the entries that may send, and all others masked.
//! (PCI Local Bus Specification 3.0, 6.8.2.)

use super::access::{Mechanism, Place, merge, part};
use crate::interrupt::Interrupts;
use crate::interrupt::message::Message;
use crate::interrupt::vectors::Vector;
use alloc::vec::Vec;
use core::ops::Range;
use machine::boxed::OutOfMemory;
use machine::{Maddr, platform};

/// The control register's place in the capability, and its bits.
const CONTROL: u16 = 2;
const ENABLE: u32 = 1 << 15;
const MASK_ALL: u32 = 1 << 14;
const LAST_ENTRY: u32 = 0x7ff;
/// Where the table is: a base address register's number, and an offset.
const TABLE: u16 = 4;
const BAR: u32 = 7;
/// Bytes of the capability, and of an entry of the table.
const LENGTH: u16 = 12;
const ENTRY_BYTES: u64 = 16;
/// An entry's last register: masked.
const MASKED: u32 = 1;

#[derive(Clone, Copy, Debug)]
struct Entry {
    message: Message,
    is_masked: bool,
    vector: Option<Vector>,
}

/// A capability and its table.
#[derive(Debug)]
pub(super) struct Msix {
    place: Place,
    at: u16,
    entries: Vec<Entry>,
    /// The base address register that the table is in, and where.
    pub(super) bar: u8,
    pub(super) offset: u64,
    /// Where the table is now; `None` while the function does not decode its memory.
    base: Option<u64>,
    is_enabled: bool,
}

impl Msix {
    /// The capability at `at`; what firmware has left enabled is turned off. `None` if it does not fit.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub(super) fn new(mechanism: &Mechanism, place: Place, at: u16) -> Result<Option<Self>, OutOfMemory> {
        if at.checked_add(LENGTH).is_none_or(|end| end > super::access::PORT_BYTES) {
            return Ok(None);
        }
        let control = mechanism.read(place, at, 4) >> 16;
        let table = mechanism.read(place, at.saturating_add(TABLE), 4);
        let count = usize::try_from(control & LAST_ENTRY).unwrap_or(0).saturating_add(1);
        let mut entries = Vec::new();
        entries.try_reserve_exact(count).map_err(|_| OutOfMemory)?;
        entries.resize(count, Entry { message: Message::default(), is_masked: true, vector: None });
        mechanism.write(place, at.saturating_add(CONTROL), 2, control & !(ENABLE | MASK_ALL));
        let bar = u8::try_from(table & BAR).unwrap_or(u8::MAX);
        let offset = u64::from(table & !BAR);
        Ok(Some(Self { place, at, entries, bar, offset, base: None, is_enabled: false }))
    }

    /// Bytes of the table.
    pub(super) fn table_bytes(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(0).saturating_mul(ENTRY_BYTES)
    }

    /// Where the table is.
    pub(super) fn table(&self) -> Option<Range<u64>> {
        self.base.map(|base| base..base.saturating_add(self.table_bytes()))
    }

    /// The table is somewhere else now, or nowhere.
    pub(super) fn set_base(&mut self, interrupts: &Interrupts, base: Option<u64>) {
        if self.base != base {
            self.base = base;
            self.apply_all(interrupts);
        }
    }

    /// Whether a register belongs to the capability.
    pub(super) fn has(&self, register: u16) -> bool {
        register.checked_sub(self.at).is_some_and(|offset| offset < LENGTH)
    }

    /// The domain writes to the capability.
    pub(super) fn write(&mut self, unit: (&Mechanism, &Interrupts), register: u16, size: u8, value: u32) {
        let (mechanism, interrupts) = unit;
        if register.wrapping_sub(self.at) >= 4 {
            return;
        }
        let old = mechanism.read(self.place, self.at, 4);
        let wanted = merge(old, register, size, value) >> 16 & (ENABLE | MASK_ALL);
        let control = old >> 16 & !(ENABLE | MASK_ALL) | wanted;
        self.is_enabled = wanted & ENABLE != 0;
        // Entries are in order before the function may send, and it is quiet before they are given up.
        if self.is_enabled {
            self.apply_all(interrupts);
        }
        mechanism.write(self.place, self.at.saturating_add(CONTROL), 2, control);
        if !self.is_enabled {
            self.release(interrupts);
        }
    }

    fn apply_all(&mut self, interrupts: &Interrupts) {
        for index in 0..self.entries.len() {
            self.apply(interrupts, index);
        }
    }

    /// Brings the real entry in line with what the domain wants.
    fn apply(&mut self, interrupts: &Interrupts, index: usize) {
        let (Some(base), Some(entry)) = (self.base, self.entries.get_mut(index)) else { return };
        let at = base.saturating_add(u64::try_from(index).unwrap_or(0).saturating_mul(ENTRY_BYTES));
        let write = |offset: u64, value: u32| {
            // Checked before the base was set: it is no RAM and nothing of the hypervisor's.
            let _written = platform::device_write(Maddr::new(at.saturating_add(offset)), 4, value);
        };
        if !self.is_enabled || entry.is_masked {
            return write(12, MASKED);
        }
        let real = match entry.vector {
            Some(vector) => interrupts.message_of(vector),
            None => interrupts.bind(entry.message).map(|(vector, real)| {
                entry.vector = Some(vector);
                real
            }),
        };
        let Some(real) = real else {
            machine::log!(Warning, "{}: no interrupt vector is left for message {index}", self.place);
            return write(12, MASKED);
        };
        write(12, MASKED);
        write(0, u32::try_from(real.address & 0xffff_ffff).unwrap_or(0));
        write(4, u32::try_from(real.address >> 32).unwrap_or(0));
        write(8, real.data);
        write(12, 0);
    }

    /// What the domain reads in the table, four aligned bytes at `offset`.
    fn shadow(&self, offset: u64) -> Option<u32> {
        let entry = self.entries.get(usize::try_from(offset / ENTRY_BYTES).ok()?)?;
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        Some(match offset & 12 {
            0 => half(entry.message.address),
            4 => half(entry.message.address >> 32),
            8 => entry.message.data,
            _ => u32::from(entry.is_masked),
        })
    }

    /// The domain reads in a page of the table, inside of four aligned bytes.
    pub(super) fn memory_read(&self, address: u64, size: u8) -> u32 {
        let place = address & !3;
        let shadow = self.table().filter(|table| table.contains(&place)).and_then(|table| {
            let register = u16::try_from(address & 3).ok()?;
            Some(part(self.shadow(place.checked_sub(table.start)?)?, register, size))
        });
        // Other registers of the device in the same page.
        shadow.or_else(|| platform::device_read(Maddr::new(address), size)).unwrap_or(u32::MAX)
    }

    /// The domain writes to a page of the table, inside of four aligned bytes.
    pub(super) fn memory_write(&mut self, interrupts: &Interrupts, address: u64, size: u8, value: u32) {
        let place = address & !3;
        let Some(table) = self.table().filter(|table| table.contains(&place)) else {
            let _written = platform::device_write(Maddr::new(address), size, value);
            return;
        };
        let offset = place.saturating_sub(table.start);
        let (Some(old), Ok(index)) = (self.shadow(offset), usize::try_from(offset / ENTRY_BYTES)) else { return };
        let new = merge(old, u16::try_from(address & 3).unwrap_or(0), size, value);
        let Some(entry) = self.entries.get_mut(index) else { return };
        let address = entry.message.address;
        match offset & 12 {
            0 => entry.message.address = address & !0xffff_ffff | u64::from(new & !3),
            4 => entry.message.address = address & 0xffff_ffff | u64::from(new) << 32,
            8 => entry.message.data = new,
            _ => {
                entry.is_masked = new & MASKED != 0;
                return self.apply(interrupts, index);
            }
        }
        if let Some(vector) = entry.vector {
            interrupts.redirect(vector, entry.message);
        }
    }

    /// Gives all vectors back; the entries stay as the domain has written them.
    pub(super) fn release(&mut self, interrupts: &Interrupts) {
        for entry in &mut self.entries {
            if let Some(vector) = entry.vector.take() {
                interrupts.release(vector);
            }
        }
        self.is_enabled = false;
        self.apply_all(interrupts);
    }
}
