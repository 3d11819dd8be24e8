//! The capability of messages without a table. The domain reads and writes a shadow of address and data; the function has the
//! hypervisor's message, and only while it may send. One message a function: that there could be more is not shown.
//! (PCI Local Bus Specification 3.0, 6.8.1.)

use super::access::{Mechanism, Place, merge, part};
use crate::interrupt::Interrupts;
use crate::interrupt::message::Message;
use crate::interrupt::vectors::Vector;

/// The control register's place in the capability, and its bits.
const CONTROL: u16 = 2;
const ENABLE: u32 = 1;
const COUNTS: u32 = 0b111 << 1 | 0b111 << 4;
const IS_64: u32 = 1 << 7;
const HAS_MASKS: u32 = 1 << 8;

/// A capability.
#[derive(Debug)]
pub(super) struct Msi {
    place: Place,
    at: u16,
    is_64: bool,
    has_masks: bool,
    /// What the domain wants to be sent.
    message: Message,
    /// What stands for it, while it is enabled.
    vector: Option<Vector>,
}

/// A register of the capability, four bytes wide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Register {
    Control,
    AddressLow,
    AddressHigh,
    Data,
    /// Masks and pending messages.
    Other,
}

impl Msi {
    /// The capability at `at`; what firmware has left enabled is turned off. `None` if its registers would end outside of the
    /// space that has room for them.
    pub(super) fn new(mechanism: &Mechanism, place: Place, at: u16) -> Option<Self> {
        let control = mechanism.read(place, at, 4) >> 16;
        let (is_64, has_masks) = (control & IS_64 != 0, control & HAS_MASKS != 0);
        let msi = Self { place, at, is_64, has_masks, message: Message::default(), vector: None };
        if at.checked_add(msi.length())? > super::access::PORT_BYTES {
            return None;
        }
        mechanism.write(place, at.saturating_add(CONTROL), 2, control & !(ENABLE | COUNTS));
        Some(msi)
    }

    /// Bytes of the capability, in whole registers.
    pub(super) const fn length(&self) -> u16 {
        let base = if self.is_64 { 16 } else { 12 };
        if self.has_masks { base + 8 } else { base }
    }

    fn register(&self, register: u16) -> Option<Register> {
        let offset = register.checked_sub(self.at).filter(|offset| *offset < self.length())?;
        Some(match (offset & !3, self.is_64) {
            (0, _) => Register::Control,
            (4, _) => Register::AddressLow,
            (8, true) => Register::AddressHigh,
            (8, false) | (12, true) => Register::Data,
            _ => Register::Other,
        })
    }

    /// What the domain reads there; `None` outside of the capability, or what the function itself answers.
    pub(super) fn read(&self, mechanism: &Mechanism, register: u16, size: u8) -> Option<u32> {
        let whole = match self.register(register)? {
            Register::Control => self.control(mechanism),
            Register::AddressLow => u32::try_from(self.message.address & 0xffff_ffff).unwrap_or(0),
            Register::AddressHigh => u32::try_from(self.message.address >> 32).unwrap_or(0),
            Register::Data => self.message.data,
            Register::Other => return None,
        };
        Some(part(whole, register, size))
    }

    /// The capability's first register as the domain sees it.
    fn control(&self, mechanism: &Mechanism) -> u32 {
        let real = mechanism.read(self.place, self.at, 4) & !((ENABLE | COUNTS) << 16);
        if self.vector.is_some() { real | ENABLE << 16 } else { real }
    }

    /// The domain writes; false outside of the capability, and for masks, which the function itself takes.
    pub(super) fn write(&mut self, unit: (&Mechanism, &Interrupts), register: u16, size: u8, value: u32) -> bool {
        let (mechanism, interrupts) = unit;
        let Message { address, data } = self.message;
        let low = u32::try_from(address & 0xffff_ffff).unwrap_or(0);
        let high = u32::try_from(address >> 32).unwrap_or(0);
        match self.register(register) {
            None | Some(Register::Other) => return false,
            Some(Register::Control) => {
                let control = merge(self.control(mechanism), register, size, value) >> 16;
                self.set_enabled(unit, control & ENABLE != 0);
                return true;
            }
            Some(Register::AddressLow) => {
                let low = merge(low, register, size, value) & !3;
                self.message.address = u64::from(high) << 32 | u64::from(low);
            }
            Some(Register::AddressHigh) => {
                let high = merge(high, register, size, value);
                self.message.address = u64::from(high) << 32 | u64::from(low);
            }
            Some(Register::Data) => self.message.data = merge(data, register, size, value) & 0xffff,
        }
        if let Some(vector) = self.vector {
            interrupts.redirect(vector, self.message);
        }
        true
    }

    fn set_enabled(&mut self, (mechanism, interrupts): (&Mechanism, &Interrupts), is_enabled: bool) {
        let control = mechanism.read(self.place, self.at, 4) >> 16 & !(ENABLE | COUNTS);
        let write = |value| mechanism.write(self.place, self.at.saturating_add(CONTROL), 2, value);
        if !is_enabled {
            write(control);
            self.release(interrupts);
            return;
        }
        // Also if it was enabled: after a reset of the function its registers are lost.
        let real = match self.vector {
            Some(vector) => interrupts.message_of(vector),
            None => interrupts.bind(self.message).map(|(vector, real)| {
                self.vector = Some(vector);
                real
            }),
        };
        let Some(real) = real else {
            machine::log!(Warning, "{}: no interrupt vector is left for its messages", self.place);
            return;
        };
        self.program(mechanism, real);
    }

    /// Lets the function send a message of the hypervisor's.
    pub(super) fn program(&self, mechanism: &Mechanism, real: Message) {
        let control = mechanism.read(self.place, self.at, 4) >> 16 & !(ENABLE | COUNTS);
        let at = |offset: u16| self.at.saturating_add(offset);
        let data_at = if self.is_64 { 12 } else { 8 };
        mechanism.write(self.place, at(4), 4, u32::try_from(real.address & 0xffff_ffff).unwrap_or(0));
        if self.is_64 {
            mechanism.write(self.place, at(8), 4, u32::try_from(real.address >> 32).unwrap_or(0));
        }
        mechanism.write(self.place, at(data_at), 2, real.data);
        mechanism.write(self.place, at(CONTROL), 2, control | ENABLE);
    }

    /// Gives the vector back.
    pub(super) fn release(&mut self, interrupts: &Interrupts) {
        if let Some(vector) = self.vector.take() {
            interrupts.release(vector);
        }
    }
}
