//! The I/O interrupt controller, as far as the hypervisor itself needs it: one pin for its console.
//! (Intel 82093AA data sheet, which every later one follows.)

use super::apic;
use super::paging;
use super::traps::vector;
use crate::platform::Pin;
use crate::units::Maddr;

const INDEX: usize = 0x00;
const WINDOW: usize = 0x10;
const VERSION: u32 = 0x01;
const FIRST_REDIRECTION: u32 = 0x10;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;
const MASKED: u32 = 1 << 16;

fn write(base: *mut u8, register: u32, value: u32) {
    // SAFETY: `base` is a mapped register page; index and window are 32 bits wide.
    unsafe { base.wrapping_add(INDEX).cast::<u32>().write_volatile(register) };
    // SAFETY: as above.
    unsafe { base.wrapping_add(WINDOW).cast::<u32>().write_volatile(value) };
}

fn read(base: *mut u8, register: u32) -> u32 {
    // SAFETY: as in `write`.
    unsafe { base.wrapping_add(INDEX).cast::<u32>().write_volatile(register) };
    // SAFETY: as in `write`.
    unsafe { base.wrapping_add(WINDOW).cast::<u32>().read_volatile() }
}

/// Masks all pins of a controller: nobody but the hypervisor's console has a handler yet.
pub fn mask_interrupts(controller: Maddr) {
    let base = paging::device(controller, 0x20);
    let pins = (read(base, VERSION) >> 16 & 0xff) + 1;
    for pin in 0..pins {
        write(base, FIRST_REDIRECTION + pin * 2, MASKED);
    }
}

/// Sends the console's pin to this processor.
pub fn route_console(controller: Maddr, pin: Pin) {
    let base = paging::device(controller, 0x20);
    let register = FIRST_REDIRECTION + u32::from(pin.number) * 2;
    write(base, register + 1, apic::own_id() << 24);
    let level = if pin.level { LEVEL } else { 0 };
    let low = if pin.active_low { ACTIVE_LOW } else { 0 };
    write(base, register, u32::from(vector::SERIAL) | level | low);
    super::serial::enable_interrupts();
}
