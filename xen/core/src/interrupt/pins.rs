//! Pins of the machine's I/O interrupt controllers, each behind the vIO-APIC's pin of the same global interrupt.
//!
//! A pin is set up when the control domain unmasks its own, with the polarity and trigger that it writes there, and masked
//! when the domain masks it. A level-triggered line asks as long as its device wants something, and only the domain can calm
//! the device: so the pin is masked when it has asked, and opened again when the domain ends the interrupt.

use super::Interrupts;
use super::vectors::{Owner, Vector};
use crate::domain::Domain;
use crate::host::Host;
use crate::x86::vioapic::{PINS, PinWish, Vioapic};
use machine::platform::{self, Pin, PinState};
use machine::{DomId, Maddr, cpu};

/// A controller of the machine's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Controller {
    pub(super) address: Maddr,
    /// Its first pin's global interrupt.
    pub(super) first: u32,
    pub(super) pins: u32,
}

/// A pin's state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Its vector, kept from the first unmasking on.
    vector: Option<Vector>,
    state: PinState,
    /// How it was last set up.
    is_level: bool,
    is_active_low: bool,
    /// A level-triggered interrupt is with the domain, which has not ended it.
    is_waiting: bool,
}

impl Line {
    pub(super) const RESET: Self =
        Self { vector: None, state: PinState::Masked, is_level: false, is_active_low: false, is_waiting: false };
}

impl Interrupts {
    /// The controller of a global interrupt, and the number of its pin there. None for the console's.
    fn input(&self, pin: usize) -> Option<(Maddr, u8)> {
        let gsi = u32::try_from(pin).ok().filter(|gsi| self.console != Some(*gsi))?;
        let serves =
            |controller: &&Controller| gsi.checked_sub(controller.first).is_some_and(|at| at < controller.pins);
        let controller = self.controllers.iter().find(serves)?;
        Some((controller.address, u8::try_from(gsi.checked_sub(controller.first)?).ok()?))
    }

    /// Sets the machine's pin up as `line` says.
    fn program(&self, (controller, number): (Maddr, u8), line: &Line) {
        let Some(vector) = line.vector else { return };
        let Some(apic_id) = self.vectors.lock().destination(vector) else { return };
        let pin = Pin { number, level: line.is_level, active_low: line.is_active_low };
        platform::set_pin(controller, pin, line.state, vector.number, apic_id);
    }

    /// Opens or masks a pin.
    fn set_state(&self, input: (Maddr, u8), line: &mut Line, state: PinState) {
        if line.state != state {
            line.state = state;
            self.program(input, line);
        }
    }

    /// The control domain has changed the entry of a pin.
    pub fn follow(&self, domain: &Domain, pin: usize) {
        let (Some(vioapic), Some(input)) = (&domain.x86.vioapic, self.input(pin)) else { return };
        let mut lines = self.lines.lock();
        // Read under the lock: of two that change it at once, the last one here sees the last state.
        let (Some(line), Some(wish)) = (lines.get_mut(pin), vioapic.wish(pin)) else { return };
        // A domain that turns a pin to edge and back forgets what it was handling.
        if line.is_waiting && !wish.is_handled {
            line.is_waiting = false;
            vioapic.lower(pin);
        }
        if wish.is_masked {
            return self.set_state(input, line, PinState::Masked);
        }
        if line.vector.is_none() {
            let owner = u8::try_from(pin).map(Owner::Pin).ok();
            line.vector = owner.and_then(|owner| self.vectors.lock().allocate(owner));
            if line.vector.is_none() {
                return self.report(format_args!("no vector is left for the interrupt pin {pin}"));
            }
            vioapic.drive(pin);
        }
        let state = if line.is_waiting { PinState::Masked } else { PinState::Open };
        let is_same = (line.is_level, line.is_active_low) == (wish.is_level, wish.is_active_low);
        (line.is_level, line.is_active_low) = (wish.is_level, wish.is_active_low);
        // Setting an open pin up again might lose an edge.
        if !is_same || line.state != state {
            line.state = state;
            self.program(input, line);
        }
    }

    /// The control domain has ended the interrupts of these pins, one bit each.
    pub fn ended(&self, domain: &Domain, pins: u64) {
        let Some(vioapic) = &domain.x86.vioapic else { return };
        for pin in (0..PINS).filter(|pin| pins >> pin & 1 != 0) {
            let Some(input) = self.input(pin) else { continue };
            let mut lines = self.lines.lock();
            let Some(line) = lines.get_mut(pin).filter(|line| line.is_waiting) else { continue };
            line.is_waiting = false;
            if vioapic.wish(pin).is_some_and(|wish| !wish.is_masked) {
                self.set_state(input, line, PinState::Open);
            }
        }
    }

    /// A pin has asked: silences a level, and ends the interrupt. Gives what the domain's pin is set to, if it is to see it.
    fn silence(&self, vioapic: &Vioapic, pin: usize) -> Option<PinWish> {
        let mut lines = self.lines.lock();
        let wish = vioapic.wish(pin);
        if let (Some(line), Some(wish), Some(input)) = (lines.get_mut(pin), wish, self.input(pin)) {
            if line.is_level || wish.is_masked {
                self.set_state(input, line, PinState::Masked);
            }
            line.is_waiting = line.is_level && !wish.is_masked;
        }
        drop(lines);
        cpu::end_interrupt();
        wish.filter(|wish| !wish.is_masked)
    }
}

/// The machine's pin has interrupted this CPU.
pub(super) fn arrived(host: &Host, pin: usize) {
    let domain = host.domains.get(DomId::CONTROL);
    let Some((domain, vioapic)) = domain.as_deref().and_then(|domain| Some((domain, domain.x86.vioapic.as_ref()?)))
    else {
        return cpu::end_interrupt();
    };
    if let Some(wish) = host.interrupts.silence(vioapic, pin) {
        vioapic.set_level(host, domain, pin, true);
        if !wish.is_level {
            vioapic.set_level(host, domain, pin, false);
        }
    }
}
