//! The 16550 serial port as the console (National Semiconductor PC16550D data sheet).

use super::cpu;
use super::ports::{input_8, output_8};
use crate::codec::serial::Settings;
use crate::lock::{Lock, rank};
use core::sync::atomic::{AtomicU16, Ordering};

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const DIVISOR_ACCESS: u8 = 1 << 7;
const RECEIVED: u8 = 1 << 0;
const CAN_SEND: u8 = 1 << 5;

/// The port's base; 0 while there is no console.
static BASE: AtomicU16 = AtomicU16::new(0);

static INPUT: Lock<heapless::Deque<u8, 256>, { rank::CONSOLE }> = Lock::new(heapless::Deque::new());

/// Sets up the port that the command line names, if it names one.
pub(super) fn configure(command_line: &str) {
    let Some(settings) = Settings::from_command_line(command_line) else { return };
    let base = settings.base;
    output_8(base + INTERRUPT_ENABLE, 0);
    output_8(base + LINE_CONTROL, settings.line_control);
    if let Some(divisor) = settings.divisor {
        output_8(base + LINE_CONTROL, settings.line_control | DIVISOR_ACCESS);
        output_8(base + DATA, divisor as u8);
        output_8(base + INTERRUPT_ENABLE, (divisor >> 8) as u8);
        output_8(base + LINE_CONTROL, settings.line_control);
    }
    output_8(base + FIFO_CONTROL, 0b111);
    output_8(base + MODEM_CONTROL, 0b1011);
    BASE.store(base, Ordering::Relaxed);
}

/// The port's base, so that no domain gets at it.
pub fn console_port() -> Option<u16> {
    Some(BASE.load(Ordering::Relaxed)).filter(|base| *base != 0)
}

/// Lets the port interrupt when it receives.
pub(super) fn enable_interrupts() {
    if let Some(base) = console_port() {
        output_8(base + INTERRUPT_ENABLE, 1);
    }
}

fn send(base: u16, byte: u8) {
    while input_8(base + LINE_STATUS) & CAN_SEND == 0 {
        cpu::relax();
    }
    output_8(base + DATA, byte);
}

/// Sends text, with a carriage return before each line feed.
pub fn console_write(text: &[u8]) {
    let Some(base) = console_port() else { return };
    for byte in text {
        if *byte == b'\n' {
            send(base, b'\r');
        }
        send(base, *byte);
    }
}

/// Takes what the port received into the queue; what does not fit is lost.
pub(super) fn interrupt() {
    let Some(base) = console_port() else { return };
    let Some(mut queue) = INPUT.try_lock() else { return };
    while input_8(base + LINE_STATUS) & RECEIVED != 0 {
        let byte = input_8(base + DATA);
        queue.push_back(byte).ok();
    }
}

/// A received byte, if there is one.
pub fn console_receive() -> Option<u8> {
    interrupt();
    INPUT.lock().pop_front()
}
