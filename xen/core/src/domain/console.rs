//! Who gets what is typed on the serial line, and what of the hypervisor's log was read.
//!
//! Before: the idle loop and the exit path find `cpu::Work::CONSOLE` and call [`drain`], and now and then
//! [`announce_output`]. After: CONSOLEIO_read hands the control domain its input, sysctl readconsole hands out the log, and
//! `keys` prints what somebody asked for with a debug key. Xen's habits are kept (drivers/char/console.c): input goes to
//! the control domain, Ctrl-A three times switches between it and the hypervisor, and other Ctrl-A pass through.

pub mod keys;

use crate::host::Host;
use crate::hypercall::neighbours;
use core::sync::atomic::{AtomicU64, Ordering};
use machine::console::{self, RING_BYTES};
use machine::lock::{Lock, rank};
use machine::log;
use public_abi::virq::Virq;

/// Bytes of input that wait for the control domain at the most (Xen's SERIAL_RX_SIZE); more are lost.
pub const INPUT_BYTES: usize = 128;
/// Ctrl-A.
const SWITCH: u8 = 1;
/// How often it must be typed.
const SWITCH_COUNT: u8 = 3;

/// Where input goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listener {
    /// To the hypervisor: every byte is a debug key.
    Hypervisor,
    /// To the control domain.
    ControlDomain,
}

/// What a typed byte leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing yet.
    None,
    /// Input now goes elsewhere.
    Switched(Listener),
    /// The control domain has input: raise VIRQ_CONSOLE.
    Input,
    /// A debug key, preceded by so many Ctrl-A that are debug keys as well.
    Key(u8, u8),
}

/// The input side; pure, the lock is around it.
#[derive(Debug)]
pub struct Input {
    listener: Listener,
    switches: u8,
    queue: heapless::Deque<u8, INPUT_BYTES>,
}

impl Input {
    /// Nothing typed; the control domain listens.
    #[must_use]
    pub const fn new() -> Self {
        Self { listener: Listener::ControlDomain, switches: 0, queue: heapless::Deque::new() }
    }

    /// Takes a typed byte.
    pub fn feed(&mut self, byte: u8) -> Effect {
        if byte == SWITCH {
            self.switches = self.switches.saturating_add(1);
            if self.switches < SWITCH_COUNT {
                return Effect::None;
            }
            self.switches = 0;
            self.listener = match self.listener {
                Listener::Hypervisor => Listener::ControlDomain,
                Listener::ControlDomain => Listener::Hypervisor,
            };
            return Effect::Switched(self.listener);
        }
        let held_back = core::mem::take(&mut self.switches);
        match self.listener {
            Listener::Hypervisor => Effect::Key(held_back, byte),
            Listener::ControlDomain => {
                for _ in 0..held_back {
                    self.queue.push_back(SWITCH).ok();
                }
                // A full queue loses the byte but still tells the domain, or it might never look again.
                self.queue.push_back(byte).ok();
                Effect::Input
            }
        }
    }

    /// Takes the oldest bytes out; gives how many.
    pub fn take(&mut self, out: &mut [u8]) -> usize {
        let mut count = 0_usize;
        for place in out {
            let Some(byte) = self.queue.pop_front() else {
                break;
            };
            *place = byte;
            count = count.saturating_add(1);
        }
        count
    }
}

impl Default for Input {
    fn default() -> Self {
        Self::new()
    }
}

/// The console's state; one for the host.
#[derive(Debug)]
pub struct Console {
    /// What was typed. Never held while something is printed or raised.
    pub input: Lock<Input, { rank::DEVICE }>,
    /// Everything in the log before this byte was read and cleared.
    cleared: AtomicU64,
    /// How much of the log VIRQ_CON_RING has told of.
    announced: AtomicU64,
}

impl Console {
    /// The control domain listens, nothing was read.
    #[must_use]
    pub const fn new() -> Self {
        Self { input: Lock::new(Input::new()), cleared: AtomicU64::new(0), announced: AtomicU64::new(0) }
    }

    /// The first byte of the log that a reader gets who has read nothing, and the byte after the last.
    #[must_use]
    pub fn log_range(&self) -> (u64, u64) {
        let end = console::produced();
        let kept = u64::try_from(RING_BYTES).map_or(end, |ring| end.saturating_sub(ring));
        (self.cleared.load(Ordering::Acquire).clamp(kept, end), end)
    }

    /// Forgets the log before byte `until`.
    pub fn clear_log(&self, until: u64) {
        self.cleared.fetch_max(until, Ordering::AcqRel);
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes everything that was typed. Call it when a CPU finds `cpu::Work::CONSOLE`.
pub fn drain(host: &Host) {
    while let Some(byte) = console::receive() {
        let effect = host.console.input.lock().feed(byte);
        match effect {
            Effect::None => {}
            Effect::Input => neighbours::raise_global(host, Virq::Console),
            Effect::Switched(listener) => announce_listener(listener),
            Effect::Key(held_back, key) => {
                for _ in 0..held_back {
                    keys::press(host, SWITCH);
                }
                keys::press(host, key);
            }
        }
    }
}

/// Says on the console where input goes, in Xen's words, which scripts wait for.
pub fn announce_listener(listener: Listener) {
    let name = match listener {
        Listener::Hypervisor => "Xen",
        Listener::ControlDomain => "DOM0",
    };
    log!(Info, "*** Serial input to {name} (type 'CTRL-a' three times to switch input)");
}

/// Raises VIRQ_CON_RING if the log has grown since the last call: xenconsoled then reads on. Call it from a place that holds
/// no lock, such as the idle loop.
pub fn announce_output(host: &Host) {
    let end = console::produced();
    if host.console.announced.swap(end, Ordering::AcqRel) != end {
        neighbours::raise_global(host, Virq::ConRing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(input: &mut Input) -> Vec<u8> {
        let mut bytes = [0; 256];
        let count = input.take(&mut bytes);
        bytes[..count].to_vec()
    }

    use alloc::vec::Vec;

    #[test]
    fn three_switch_keys_change_the_listener_and_back() {
        let mut input = Input::new();
        assert_eq!(input.feed(b'x'), Effect::Input);
        assert_eq!([input.feed(1), input.feed(1)], [Effect::None; 2]);
        assert_eq!(input.feed(1), Effect::Switched(Listener::Hypervisor));
        assert_eq!(input.feed(b'h'), Effect::Key(0, b'h'));
        assert_eq!(input.feed(1), Effect::None);
        assert_eq!(input.feed(b'q'), Effect::Key(1, b'q'));
        for _ in 0..2 {
            assert_eq!(input.feed(1), Effect::None);
        }
        assert_eq!(input.feed(1), Effect::Switched(Listener::ControlDomain));
        assert_eq!(taken(&mut input), b"x", "what was typed before the switch is not lost");
    }

    #[test]
    fn fewer_switch_keys_reach_the_domain() {
        let mut input = Input::new();
        input.feed(1);
        input.feed(1);
        assert_eq!(input.feed(b'a'), Effect::Input);
        assert_eq!(taken(&mut input), [1, 1, b'a']);
        assert_eq!(taken(&mut input), []);
    }

    #[test]
    fn a_full_queue_keeps_the_oldest_and_still_announces() {
        let mut input = Input::new();
        for _ in 0..INPUT_BYTES {
            input.feed(b'o');
        }
        assert_eq!(input.feed(b'n'), Effect::Input);
        let bytes = taken(&mut input);
        assert_eq!(bytes.len(), INPUT_BYTES);
        assert!(bytes.iter().all(|byte| *byte == b'o'));
    }
}
