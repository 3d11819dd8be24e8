//! Notes that other vCPUs leave for a vCPU: stop and wait, start here, take a non-maskable interrupt.
//!
//! The vCPU reads them before each entry (`interrupts::prepare`), where its registers are at hand.

use core::sync::atomic::{AtomicU32, Ordering};

/// The notes, in one word.
#[derive(Debug)]
pub struct Startup(AtomicU32);

impl Startup {
    /// A non-maskable interrupt has come.
    pub const NMI: u32 = 1 << 0;
    /// INIT has come.
    pub const INIT: u32 = 1 << 1;
    /// A start-up message has come; its vector is in bits 15:8.
    pub const SIPI: u32 = 1 << 2;
    /// A non-maskable interrupt is being handled: others wait for IRET.
    pub const NMI_BLOCKED: u32 = 1 << 3;

    /// What the run of a vCPU must act on before its next entry.
    const START: u32 = Self::INIT | Self::SIPI;
    const VECTOR_SHIFT: u32 = 8;
    const VECTOR: u32 = 0xff << Self::VECTOR_SHIFT;

    /// None.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Adds notes.
    pub fn note(&self, notes: u32) {
        self.0.fetch_or(notes, Ordering::AcqRel);
    }

    /// Takes notes away; gives those that were there.
    pub fn take(&self, notes: u32) -> u32 {
        self.0.fetch_and(!notes, Ordering::AcqRel) & notes
    }

    /// Whether one of these notes is there.
    #[inline]
    pub fn has(&self, notes: u32) -> bool {
        self.0.load(Ordering::Acquire) & notes != 0
    }

    /// Whether INIT or a start-up message has come.
    #[inline]
    pub fn wants_start(&self) -> bool {
        self.has(Self::START)
    }

    /// Whether nothing has come.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        !self.has(Self::START | Self::NMI)
    }

    /// Whether a non-maskable interrupt waits and may be taken.
    #[inline]
    pub fn nmi_is_due(&self) -> bool {
        self.0.load(Ordering::Acquire) & (Self::NMI | Self::NMI_BLOCKED) == Self::NMI
    }

    /// Leaves a start-up message: begin at `vector` × 4096.
    pub fn note_start(&self, vector: u8) {
        let change = |notes: u32| notes & !Self::VECTOR | Self::SIPI | u32::from(vector) << Self::VECTOR_SHIFT;
        self.0.update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    /// Takes INIT and start-up notes: whether INIT came, and where to start.
    pub fn take_start(&self) -> (bool, Option<u8>) {
        let notes = self.0.fetch_and(!(Self::INIT | Self::SIPI | Self::VECTOR), Ordering::AcqRel);
        let vector = ((notes & Self::VECTOR) >> Self::VECTOR_SHIFT) as u8;
        (notes & Self::INIT != 0, (notes & Self::SIPI != 0).then_some(vector))
    }
}

impl Default for Startup {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_taken_once() {
        let startup = Startup::new();
        assert!(!startup.wants_start());
        startup.note_start(0x9a);
        assert!(startup.wants_start());
        assert_eq!(startup.take_start(), (false, Some(0x9a)));
        assert_eq!(startup.take_start(), (false, None));
        startup.note(Startup::INIT);
        startup.note_start(0xff);
        startup.note_start(0);
        assert_eq!(startup.take_start(), (true, Some(0)));
        assert!(!startup.wants_start());
    }

    #[test]
    fn a_second_nmi_waits_for_the_end_of_the_first() {
        let startup = Startup::new();
        startup.note(Startup::NMI);
        assert!(startup.nmi_is_due());
        startup.take(Startup::NMI);
        startup.note(Startup::NMI_BLOCKED);
        startup.note(Startup::NMI);
        assert!(!startup.nmi_is_due());
        startup.take(Startup::NMI_BLOCKED);
        assert!(startup.nmi_is_due());
    }
}
