//! The hypervisor's console: every line of its own goes to the serial port and into a ring that `xl dmesg` reads.
//!
//! Xen's habits are kept: lines of the hypervisor start with `(XEN) `, and text of guests passes through unchanged.

use crate::arch;
use crate::lock::{Lock, rank};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};

/// Bytes that the ring keeps.
pub const RING_BYTES: usize = 16 * 1024;

/// How grave a line is (Xen's levels, `loglvl=`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Something is broken.
    Error = 0,
    /// Something is odd.
    Warning = 1,
    /// Something happened.
    Info = 2,
    /// Details for people who look for a fault.
    Debug = 3,
}

static THRESHOLD: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Prints lines up to this level from now on.
pub fn set_threshold(level: Level) {
    THRESHOLD.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of this level are printed.
pub fn enabled(level: Level) -> bool {
    level as u8 <= THRESHOLD.load(Ordering::Relaxed)
}

struct Ring {
    bytes: [u8; RING_BYTES],
    /// Bytes ever written; the ring holds the last `RING_BYTES` of them.
    produced: u64,
}

static RING: Lock<Ring, { rank::CONSOLE }> = Lock::new(Ring { bytes: [0; RING_BYTES], produced: 0 });

impl Ring {
    fn put(&mut self, text: &[u8]) {
        for byte in text {
            self.bytes[(self.produced % RING_BYTES as u64) as usize] = *byte;
            self.produced += 1;
        }
    }
}

impl Write for Ring {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        arch::console_write(text.as_bytes());
        Ok(())
    }
}

/// Prints a line of the hypervisor. Use the `log!` macro.
pub fn line(arguments: fmt::Arguments<'_>) {
    let mut ring = RING.lock();
    // Writing to the ring and the port cannot fail; a Display that fails cuts its own line short.
    ring.write_str("(XEN) ").and_then(|()| ring.write_fmt(arguments)).and_then(|()| ring.write_str("\n")).ok();
}

/// Prints text of a guest as it is. It does not go into the ring, as in Xen without `console_to_ring`: a control domain that
/// shows the ring on this console would otherwise never come to its end.
pub fn raw(text: &[u8]) {
    let _whole_lines = RING.lock();
    arch::console_write(text);
}

/// Copies what the ring holds from byte number `from` on into `out`. Gives the number of the first byte copied, which is
/// later than `from` if the ring has moved on, and how many bytes were copied.
pub fn read_ring(from: u64, out: &mut [u8]) -> (u64, usize) {
    let ring = RING.lock();
    let oldest = ring.produced.saturating_sub(RING_BYTES as u64);
    let start = from.max(oldest).min(ring.produced);
    let count = (ring.produced - start).min(out.len() as u64) as usize;
    for (offset, place) in out[..count].iter_mut().enumerate() {
        *place = ring.bytes[((start + offset as u64) % RING_BYTES as u64) as usize];
    }
    (start, count)
}

/// Bytes ever written to the ring.
pub fn produced() -> u64 {
    RING.lock().produced
}

/// A byte that somebody typed, if there is one.
pub fn receive() -> Option<u8> {
    arch::console_receive()
}

/// Prints a line at a level: `log!(Info, "…", …)`.
#[macro_export]
macro_rules! log {
    ($level:ident, $($argument:tt)*) => {
        if $crate::console::enabled($crate::console::Level::$level) {
            $crate::console::line(format_args!($($argument)*));
        }
    };
}
