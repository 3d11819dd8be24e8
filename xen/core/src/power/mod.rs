//! Powering the machine off by ACPI, without an interpreter for the firmware's byte code: registers from the FADT, values
//! from the package `\_S5`. (ACPI specification 6.5: 4.8.3.2.1, PM1 control; 4.8.3.7, sleep control; 16.1, sleeping.)
//!
//! Before this: `boot` has read the firmware's tables and calls [`Power::read`]; `domain::shutdown` calls [`Power::off`]
//! when the control domain has powered off. A control domain that has ACPI of its own writes the registers itself and never
//! comes here. What only the firmware's own methods do (`_PTS`) is left undone: they would need an interpreter.

pub mod aml;
pub mod fadt;

use crate::boot::acpi::{self, Acpi, AcpiError, HEADER_BYTES, Reader};
use aml::SleepTypes;
use fadt::{Fadt, Place};
use machine::{cpu, log, platform};

/// PM1 control: the chipset raises its events as interrupts for the system, not for the firmware.
const SCI_ENABLED: u32 = 1 << 0;
/// PM1 control: the kind of sleep.
const SLEEP_TYPE_SHIFT: u32 = 10;
const SLEEP_TYPE_MASK: u32 = 0b111 << SLEEP_TYPE_SHIFT;
/// PM1 control: sleep now.
const SLEEP_ENABLE: u32 = 1 << 13;
/// Sleep control of hardware-reduced machines: the kind of sleep, and now.
const REDUCED_TYPE_SHIFT: u32 = 2;
const REDUCED_ENABLE: u32 = 1 << 5;
/// How long the firmware may take to hand over the chipset, and the chipset to power off, in milliseconds.
const PATIENCE_MILLISECONDS: u32 = 3000;

/// How this machine can be powered off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Power {
    fadt: Fadt,
    types: Option<SleepTypes>,
}

impl Power {
    /// Finds registers and values. Tables that are no good are handed to `complain`.
    pub fn read(read: Reader<'_>, acpi: &Acpi, mut complain: impl FnMut(AcpiError)) -> Self {
        let Some(found) = acpi.find(b"FACP") else { return Self::default() };
        let fadt = match acpi::read_table(read, found.address) {
            Ok(table) => Fadt::parse(&table),
            Err(error) => {
                complain(error);
                return Self::default();
            }
        };
        // The definition may also be in a table that adds to the DSDT.
        let more = acpi.tables.iter().filter(|table| table.signature == *b"SSDT").map(|table| table.address);
        let types = core::iter::once(fadt.dsdt).filter(|address| *address != 0).chain(more).find_map(|address| {
            let table = acpi::read_table(read, address).map_err(&mut complain).ok()?;
            aml::soft_off(table.get(HEADER_BYTES..)?)
        });
        Self { fadt, types }
    }

    /// Powers off. Comes back only if that cannot be done here, or has had no effect; the log then says why.
    pub fn off(&self) {
        let Some(types) = self.types else {
            return log!(Warning, "ACPI: no way to power off: the firmware defines no \\_S5");
        };
        let control = self.fadt.pm1a_control.filter(|_| !self.fadt.is_hardware_reduced);
        if control.is_none() && self.fadt.sleep_control.is_none() {
            return log!(Warning, "ACPI: no way to power off: the FADT names no register for it");
        }
        if let Some(control) = control {
            self.enable(control);
            sleep(control, types.a);
            if let Some(control) = self.fadt.pm1b_control {
                sleep(control, types.b);
            }
            within_patience(|| false);
        }
        if let Some(control) = self.fadt.sleep_control {
            write(control, 1, u32::from(types.a) << REDUCED_TYPE_SHIFT | REDUCED_ENABLE);
            within_patience(|| false);
        }
        log!(Warning, "ACPI: powering off has had no effect");
    }

    /// Takes the chipset over from the firmware, unless that has happened before or there is nothing to take over.
    fn enable(&self, control: Place) {
        let is_enabled = || read(control, 2) & SCI_ENABLED != 0;
        let Some((port, value)) = self.fadt.enable.filter(|_| !is_enabled()) else { return };
        platform::port_write(port, 1, u32::from(value));
        if !within_patience(is_enabled) {
            log!(Warning, "ACPI: the firmware does not hand over the chipset; powering off all the same");
        }
    }
}

/// Writes a kind of sleep to a PM1 control register: first the kind alone, as chipsets want it, then with the order to go.
fn sleep(control: Place, kind: u8) {
    let others = read(control, 2) & !(SLEEP_TYPE_MASK | SLEEP_ENABLE);
    let value = others | u32::from(kind) << SLEEP_TYPE_SHIFT;
    write(control, 2, value);
    write(control, 2, value | SLEEP_ENABLE);
}

fn read(place: Place, size: u8) -> u32 {
    match place {
        Place::Port(port) => platform::port_read(port, size),
        Place::Memory(maddr) => platform::device_read(maddr, size).unwrap_or(0),
    }
}

fn write(place: Place, size: u8, value: u32) {
    match place {
        Place::Port(port) => platform::port_write(port, size, value),
        Place::Memory(maddr) => {
            if !platform::device_write(maddr, size, value) {
                log!(Warning, "ACPI: a register at {maddr:?} cannot be written");
            }
        }
    }
}

/// Waits until `done` says so, but not for ever; gives what it said last.
fn within_patience(done: impl Fn() -> bool) -> bool {
    for _ in 0..PATIENCE_MILLISECONDS {
        if done() {
            return true;
        }
        cpu::pass(cpu::timestamp_khz());
    }
    done()
}

#[cfg(test)]
mod tests;
