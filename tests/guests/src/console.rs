//! Printing: through console_io where the hypervisor lets us, and through the PV console ring where there is one.
//!
//! A release build of Xen refuses console_io to an unprivileged guest; the control domain has no ring.

use core::fmt::{self, Arguments, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use public_abi::Hypercall;
use public_abi::console_io::ConsoleIoOp;
use public_abi::hvm_params::HvmParam;
use public_abi::io::console::{OUT_SIZE, XenconsInterface};
use rt::memory;

use crate::{call, clock};

const LINE: usize = 240;
/// How long a full ring is waited for before output is dropped.
const RING_PATIENCE_MS: u64 = 5_000;

static RING: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);
static HYPERVISOR_REFUSES: AtomicBool = AtomicBool::new(false);

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::line(format_args!($($argument)*)) };
}

/// Finds the ring.
pub fn init() {
    let frame = call::get_parameter(HvmParam::ConsolePfn).unwrap_or(0);
    let port = call::get_parameter(HvmParam::ConsoleEvtchn).unwrap_or(0);
    // The 64-bit entry code maps the first 4 GiB only.
    if frame != 0 && port != 0 && frame < 1 << 20 {
        PORT.store(port as u32, Ordering::SeqCst);
        RING.store(frame << 12, Ordering::SeqCst);
    }
}

struct Line {
    bytes: [u8; LINE],
    used: usize,
}

impl Line {
    fn put(&mut self, byte: u8) {
        if self.used == LINE {
            self.flush();
        }
        if let Some(slot) = self.bytes.get_mut(self.used) {
            *slot = byte;
            self.used += 1;
        }
    }

    fn flush(&mut self) {
        let text = self.bytes.get(..self.used).unwrap_or_default();
        to_hypervisor(text);
        to_ring(text);
        self.used = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}

/// Prints a line; `println!` is the usual way.
pub fn line(text: Arguments<'_>) {
    let mut line = Line { bytes: [0; LINE], used: 0 };
    // The line cannot fail; a Display that fails cuts its own text short.
    line.write_fmt(text).ok();
    line.put(b'\n');
    line.flush();
}

fn to_hypervisor(text: &[u8]) {
    if HYPERVISOR_REFUSES.load(Ordering::Relaxed) {
        return;
    }
    let address = text.as_ptr().expose_provenance() as u64;
    let arguments = [u64::from(ConsoleIoOp::Write.number()), text.len() as u64, address, 0, 0];
    if call::raw(Hypercall::ConsoleIo, arguments) < 0 {
        HYPERVISOR_REFUSES.store(true, Ordering::Relaxed);
    }
}

fn to_ring(text: &[u8]) {
    let ring = RING.load(Ordering::SeqCst);
    if ring == 0 {
        return;
    }
    let consumed = memory::atomic_32(ring + core::mem::offset_of!(XenconsInterface, out_cons) as u64);
    let produced = memory::atomic_32(ring + core::mem::offset_of!(XenconsInterface, out_prod) as u64);
    let bytes = ring + core::mem::offset_of!(XenconsInterface, output) as u64;
    for byte in text {
        let index = produced.load(Ordering::SeqCst);
        let full = || index.wrapping_sub(consumed.load(Ordering::SeqCst)) >= OUT_SIZE as u32;
        if full() {
            call::send(PORT.load(Ordering::SeqCst));
            if !clock::within(RING_PATIENCE_MS, || !full()) {
                return;
            }
        }
        memory::write(bytes + u64::from(index) % OUT_SIZE as u64, *byte);
        produced.store(index.wrapping_add(1), Ordering::SeqCst);
    }
    call::send(PORT.load(Ordering::SeqCst));
}

/// Waits, not for long, until the reader of the ring has read all.
pub fn drain() {
    let ring = RING.load(Ordering::SeqCst);
    if ring != 0 {
        let consumed = memory::atomic_32(ring + core::mem::offset_of!(XenconsInterface, out_cons) as u64);
        let produced = memory::atomic_32(ring + core::mem::offset_of!(XenconsInterface, out_prod) as u64);
        clock::within(RING_PATIENCE_MS, || consumed.load(Ordering::SeqCst) == produced.load(Ordering::SeqCst));
    }
}

/// The port of the ring, 0 without one: it is in use and must be left alone.
#[must_use]
pub fn port() -> u32 {
    PORT.load(Ordering::SeqCst)
}
