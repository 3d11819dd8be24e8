//! The I/O APIC that a domain sees: pins with redirection entries, from which interrupts go to local APICs.
//! (Intel 82093AA; behaviour where that leaves a choice is Xen's: version 0x11, any access width, no EOI register.)
//!
//! What drives the pins is outside: [`Vioapic::set_level`] is the one way in. Level-triggered pins ask again when the local
//! APIC has reported the end of interrupt. Pins of the control domain that stand for the machine's are told apart
//! ([`Vioapic::drive`]): nobody sees their lines fall, so they fall at the end of interrupt, and rise when the machine's pin
//! asks again (`interrupt::pins`).

use super::vlapic::ipi::{self, Delivery, Destination};
use super::vlapic::{FIRST_VECTOR, Trigger};
use crate::domain::Domain;
use crate::host::Host;
use machine::lock::{Lock, rank};
use public_abi::Errno;
use public_abi::arch_hvm_save::HvmHwVioapic;

/// Where the control domain's MADT places it, as firmware does.
pub const DEFAULT_BASE: u64 = 0xfec0_0000;
/// Bytes that it answers.
pub const WINDOW: u64 = 0x100;
/// Pins, as many as a save record holds.
pub const PINS: usize = 48;

const VERSION: u32 = 0x11;
/// Places in the window.
const SELECT: u64 = 0x00;
const DATA: u64 = 0x10;
/// Registers behind the window.
const REGISTER_ID: u32 = 0;
const REGISTER_VERSION: u32 = 1;
const REGISTER_ARBITRATION: u32 = 2;
const REGISTER_FIRST_ENTRY: u32 = 0x10;
/// The identifier's place in its register.
const ID_SHIFT: u32 = 24;
const ID_MASK: u32 = 0xf;

/// Bits of a redirection entry.
mod entry {
    pub(super) const LOGICAL: u64 = 1 << 11;
    pub(super) const PENDING: u64 = 1 << 12;
    pub(super) const ACTIVE_LOW: u64 = 1 << 13;
    pub(super) const REMOTE_IRR: u64 = 1 << 14;
    pub(super) const LEVEL: u64 = 1 << 15;
    pub(super) const MASKED: u64 = 1 << 16;
    pub(super) const DESTINATION_SHIFT: u32 = 56;
}

#[derive(Debug)]
struct State {
    select: u32,
    id: u32,
    /// Whether each pin's line is active.
    lines: u64,
    /// Which pins stand for the machine's.
    driven: u64,
    entries: [u64; PINS],
}

/// An I/O APIC.
#[derive(Debug)]
pub struct Vioapic(Lock<State, { rank::DEVICE }>);

/// What the owner of a pin wants of whoever drives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PinWish {
    /// Nothing.
    pub is_masked: bool,
    /// Levels instead of edges.
    pub is_level: bool,
    /// A low line is active.
    pub is_active_low: bool,
    /// A level-triggered interrupt has been sent and not ended.
    pub is_handled: bool,
}

/// A message that an entry sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Message {
    destination: Destination,
    delivery: Delivery,
    vector: u8,
    trigger: Trigger,
}

impl Message {
    fn of(bits: u64) -> Self {
        let destination = Destination {
            is_logical: bits & entry::LOGICAL != 0,
            number: (bits >> entry::DESTINATION_SHIFT) as u32,
            broadcast: 0xff,
        };
        let trigger = if bits & entry::LEVEL != 0 { Trigger::Level } else { Trigger::Edge };
        let low = (bits & 0xffff_ffff) as u32;
        Self { destination, delivery: Delivery::of(low), vector: (low & 0xff) as u8, trigger }
    }

    fn send(self, host: &Host, domain: &Domain) {
        // INIT and start-up do not come from devices; an 8259 pair there is not.
        if matches!(self.delivery, Delivery::Fixed | Delivery::LowestPriority | Delivery::Nmi) {
            let is_meant = |vcpu: &crate::vcpu::Vcpu| ipi::matches(vcpu, self.destination);
            ipi::deliver_to(host, domain, is_meant, self.delivery, self.vector, self.trigger);
        }
    }
}

impl State {
    const RESET: Self = Self { select: 0, id: 0, lines: 0, driven: 0, entries: [entry::MASKED; PINS] };

    fn is_active(&self, pin: usize) -> bool {
        self.lines >> pin & 1 != 0
    }

    /// What a level-triggered pin sends if it is active, unmasked and not being handled.
    fn ask(&mut self, pin: usize) -> Option<Message> {
        let is_active = self.is_active(pin);
        let bits = self.entries.get_mut(pin)?;
        if !is_active || *bits & (entry::LEVEL | entry::MASKED | entry::REMOTE_IRR) != entry::LEVEL {
            return None;
        }
        *bits |= entry::REMOTE_IRR;
        Some(Message::of(*bits))
    }

    fn set_line(&mut self, pin: usize, active: bool) -> Option<Message> {
        if pin >= PINS {
            return None;
        }
        let was_active = self.is_active(pin);
        self.lines = if active { self.lines | 1 << pin } else { self.lines & !(1 << pin) };
        let bits = *self.entries.get(pin)?;
        if bits & entry::LEVEL != 0 {
            return self.ask(pin);
        }
        (active && !was_active && bits & entry::MASKED == 0).then(|| Message::of(bits))
    }

    /// The pin whose entry's lower half is selected.
    fn selected_pin(&self) -> Option<usize> {
        let index = self.select.checked_sub(REGISTER_FIRST_ENTRY).filter(|index| index & 1 == 0)?;
        usize::try_from(index >> 1).ok().filter(|pin| *pin < PINS)
    }

    fn read(&self) -> u32 {
        match self.select {
            REGISTER_ID | REGISTER_ARBITRATION => self.id << ID_SHIFT,
            REGISTER_VERSION => VERSION | (PINS as u32 - 1) << 16,
            number => {
                let index = number.wrapping_sub(REGISTER_FIRST_ENTRY);
                let bits = usize::try_from(index >> 1).ok().and_then(|pin| self.entries.get(pin)).copied().unwrap_or(0);
                (if index & 1 != 0 { bits >> 32 } else { bits & 0xffff_ffff }) as u32
            }
        }
    }

    fn write(&mut self, value: u32) -> Option<Message> {
        match self.select {
            REGISTER_ID => self.id = value >> ID_SHIFT & ID_MASK,
            REGISTER_VERSION | REGISTER_ARBITRATION => {}
            number => {
                let index = number.wrapping_sub(REGISTER_FIRST_ENTRY);
                let pin = usize::try_from(index >> 1).ok()?;
                let bits = self.entries.get_mut(pin)?;
                if index & 1 != 0 {
                    *bits = *bits & 0xffff_ffff | u64::from(value) << 32;
                    return None;
                }
                // Delivery status and remote IRR are read-only; changing to edge ends what was being handled.
                let kept = *bits & (entry::REMOTE_IRR | !0xffff_ffff);
                *bits = kept | u64::from(value) & !(entry::PENDING | entry::REMOTE_IRR);
                if *bits & entry::LEVEL == 0 {
                    *bits &= !entry::REMOTE_IRR;
                }
                return self.ask(pin);
            }
        }
        None
    }
}

impl Vioapic {
    /// As after power-on: all pins masked.
    pub const fn new() -> Self {
        Self(Lock::new(State::RESET))
    }

    /// Whether it answers at this guest physical address.
    #[inline]
    pub const fn claims(address: u64) -> bool {
        address >= DEFAULT_BASE && address < DEFAULT_BASE + WINDOW
    }

    /// Reads `size` bytes of the window. Both registers answer with their low bytes; everything else is zero.
    pub fn mmio_read(&self, address: u64, size: u8) -> u64 {
        let state = self.0.lock();
        let value = match address & 0xff {
            SELECT => state.select,
            DATA => state.read(),
            _ => 0,
        };
        let bits = u32::from(size.min(8)) * 8;
        u64::from(value) & 1u64.checked_shl(bits).map_or(u64::MAX, |top| top - 1)
    }

    /// Writes to the window, with any width: what is not given is zero.
    pub fn mmio_write(&self, host: &Host, domain: &Domain, address: u64, size: u8, value: u64) {
        let bits = u32::from(size.min(4)) * 8;
        let value = (value & 1u64.checked_shl(bits).map_or(u64::MAX, |top| top - 1)) as u32;
        let (message, changed) = {
            let mut state = self.0.lock();
            match address & 0xff {
                SELECT => {
                    state.select = value & 0xff;
                    (None, None)
                }
                DATA => (state.write(value), state.selected_pin()),
                _ => (None, None),
            }
        };
        if let Some(message) = message {
            message.send(host, domain);
        }
        if let Some(pin) = changed
            && domain.is_control()
        {
            host.interrupts.follow(domain, pin);
        }
    }

    /// Sets the level of a pin's input. Polarity is the driver's matter: `active` means asserted.
    pub fn set_level(&self, host: &Host, domain: &Domain, pin: usize, active: bool) {
        let message = self.0.lock().set_line(pin, active);
        if let Some(message) = message {
            message.send(host, domain);
        }
    }

    /// What the domain wants of a pin; `None` if there is no such pin.
    pub fn wish(&self, pin: usize) -> Option<PinWish> {
        let bits = *self.0.lock().entries.get(pin)?;
        Some(PinWish {
            is_masked: bits & entry::MASKED != 0,
            is_level: bits & entry::LEVEL != 0,
            is_active_low: bits & entry::ACTIVE_LOW != 0,
            is_handled: bits & entry::REMOTE_IRR != 0,
        })
    }

    /// A pin stands for one of the machine's from now on.
    pub fn drive(&self, pin: usize) {
        self.0.lock().driven |= 1u64.checked_shl(u32::try_from(pin).unwrap_or(u32::MAX)).unwrap_or(0);
    }

    /// A pin's line falls, without a look at who waits for that.
    pub fn lower(&self, pin: usize) {
        self.0.lock().lines &= !1u64.checked_shl(u32::try_from(pin).unwrap_or(u32::MAX)).unwrap_or(0);
    }

    /// A local APIC has ended a level-triggered interrupt: pins with this vector ask again if they are still active. Gives those
    /// of them that stand for the machine's.
    pub fn end_of_interrupt(&self, host: &Host, domain: &Domain, vector: u8) -> u64 {
        let mut ended = 0;
        if vector < FIRST_VECTOR {
            return ended;
        }
        for pin in 0..PINS {
            let message = {
                let mut state = self.0.lock();
                let driven = state.driven & 1 << pin;
                match state.entries.get_mut(pin) {
                    Some(bits) if *bits & 0xff == u64::from(vector) && *bits & entry::REMOTE_IRR != 0 => {
                        *bits &= !entry::REMOTE_IRR;
                        state.lines &= !driven;
                        ended |= driven;
                        state.ask(pin)
                    }
                    _ => None,
                }
            };
            if let Some(message) = message {
                message.send(host, domain);
            }
        }
        ended
    }

    /// The state as a save record.
    pub fn save(&self) -> HvmHwVioapic {
        let state = self.0.lock();
        HvmHwVioapic { base_address: DEFAULT_BASE, ioregsel: state.select, id: state.id, redirtbl: state.entries }
    }

    /// Takes a save record's state. Lines keep their levels: their drivers restore them.
    ///
    /// # Errors
    /// `EINVAL` for another place than ours, or an identifier that does not exist.
    pub fn load(&self, record: &HvmHwVioapic) -> Result<(), Errno> {
        if record.base_address != DEFAULT_BASE || record.id > ID_MASK {
            return Err(Errno::EINVAL);
        }
        let mut state = self.0.lock();
        state.select = record.ioregsel & 0xff;
        state.id = record.id;
        state.entries = record.redirtbl.map(|bits| bits & !entry::PENDING);
        Ok(())
    }
}

impl Default for Vioapic {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Role;
    use crate::vcpu::Vcpu;
    use crate::x86::testing::with_domain;
    use crate::x86::vlapic::{Pending, registers};

    fn with_vioapic(work: impl FnOnce(&Host, &Domain, &Vcpu, &Vioapic)) {
        with_domain(Role::Control, 1, |_, host, domain| {
            let vcpu = domain.vcpu(0).unwrap();
            let mut hardware = vcpu.hardware.try_lock().unwrap();
            registers::write(host, domain, vcpu, &mut hardware, registers::offset::SPURIOUS, 0x1ff);
            work(host, domain, vcpu, domain.x86.vioapic.as_ref().unwrap());
        });
    }

    #[test]
    fn registers_and_widths() {
        with_vioapic(|host, domain, _, vioapic| {
            let write = |at, size, value| vioapic.mmio_write(host, domain, DEFAULT_BASE + at, size, value);
            let read = |at, size| vioapic.mmio_read(DEFAULT_BASE + at, size);
            write(SELECT, 1, 0xffff_ff01);
            assert_eq!(read(SELECT, 4), 1);
            assert_eq!([read(DATA, 4), read(DATA, 2), read(DATA, 1)], [0x2f_0011, 0x11, 0x11]);
            write(SELECT, 4, 0);
            write(DATA, 4, 0xff00_0000);
            assert_eq!(read(DATA, 8), 0x0f00_0000);
            write(SELECT, 4, 0x10 + 2 * 47);
            assert_eq!(read(DATA, 4), 0x1_0000, "masked after reset");
            write(DATA, 4, u64::MAX);
            assert_eq!(read(DATA, 4), 0xffff_afff, "status bits are read-only");
            write(SELECT, 4, 0x10 + 2 * 48);
            write(DATA, 4, 5);
            assert_eq!(read(DATA, 4), 0, "no such pin");
            assert_eq!(read(0x40, 4), 0, "version 0x11 has no EOI register");
        });
    }

    fn program(vioapic: &Vioapic, host: &Host, domain: &Domain, pin: u64, low: u64) {
        vioapic.mmio_write(host, domain, DEFAULT_BASE, 4, 0x11 + 2 * pin);
        vioapic.mmio_write(host, domain, DEFAULT_BASE + DATA, 4, 0);
        vioapic.mmio_write(host, domain, DEFAULT_BASE, 4, 0x10 + 2 * pin);
        vioapic.mmio_write(host, domain, DEFAULT_BASE + DATA, 4, low);
    }

    #[test]
    fn edges_fire_once() {
        with_vioapic(|host, domain, vcpu, vioapic| {
            let lapic = &vcpu.x86.lapic;
            vioapic.set_level(host, domain, 4, true);
            assert_eq!(lapic.pending(), Pending::Nothing, "masked");
            program(vioapic, host, domain, 4, 0x34);
            assert_eq!(lapic.pending(), Pending::Nothing, "the edge is past");
            vioapic.set_level(host, domain, 4, false);
            vioapic.set_level(host, domain, 4, true);
            assert_eq!(lapic.pending(), Pending::Vector(0x34));
            lapic.accept(0x34);
            assert_eq!(lapic.end_of_interrupt(), None, "edges need no end");
        });
    }

    #[test]
    fn levels_ask_again_until_they_fall() {
        with_vioapic(|host, domain, vcpu, vioapic| {
            let lapic = &vcpu.x86.lapic;
            program(vioapic, host, domain, 16, 0x8055);
            for _ in 0..2 {
                vioapic.set_level(host, domain, 16, true);
                assert_eq!(lapic.pending(), Pending::Vector(0x55));
                lapic.accept(0x55);
                vioapic.set_level(host, domain, 16, true);
                assert_eq!(lapic.pending(), Pending::Nothing, "remote IRR");
                let vector = lapic.end_of_interrupt().unwrap();
                domain.x86.end_of_interrupt(host, domain, vector);
                assert_eq!(lapic.pending(), Pending::Vector(0x55), "still active");
                lapic.accept(0x55);
                vioapic.set_level(host, domain, 16, false);
                let vector = lapic.end_of_interrupt().unwrap();
                domain.x86.end_of_interrupt(host, domain, vector);
                assert_eq!(lapic.pending(), Pending::Nothing);
            }
            // Unmasking an active line fires.
            program(vioapic, host, domain, 16, 0x1_8055);
            vioapic.set_level(host, domain, 16, true);
            assert_eq!(lapic.pending(), Pending::Nothing);
            program(vioapic, host, domain, 16, 0x8055);
            assert_eq!(lapic.pending(), Pending::Vector(0x55));
            vioapic.set_level(host, domain, 99, true);
        });
    }

    #[test]
    fn records_are_checked() {
        with_vioapic(|host, domain, _, vioapic| {
            program(vioapic, host, domain, 9, 0x8039);
            let record = vioapic.save();
            assert_eq!(record.redirtbl[9], 0x8039);
            let other = Vioapic::new();
            other.load(&record).unwrap();
            assert_eq!(other.save(), record);
            assert_eq!(other.load(&HvmHwVioapic { base_address: 0, ..record }), Err(Errno::EINVAL));
            assert_eq!(other.load(&HvmHwVioapic { id: 16, ..record }), Err(Errno::EINVAL));
        });
    }
}
