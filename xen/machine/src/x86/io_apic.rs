//! The I/O interrupt controllers: a pin for the hypervisor's console, and pins that the core hands out.
//! (Intel 82093AA data sheet, which every later one follows.)
//!
//! Which pin is whose, and when it is masked, `xen-core` decides (`interrupt`); vectors come in through `traps`.

use super::apic;
use super::paging;
use super::traps::vector;
use crate::lock::{Lock, rank};
use crate::platform::{DeviceVector, Pin, PinState};
use crate::units::Maddr;

const INDEX: usize = 0x00;
const WINDOW: usize = 0x10;
const VERSION: u32 = 0x01;
const FIRST_REDIRECTION: u32 = 0x10;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;
const MASKED: u32 = 1 << 16;

/// A register is reached by its number in one place and its content in another: nobody comes between.
static REGISTERS: Lock<(), { rank::IO_APIC }> = Lock::new(());

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
    let guard = REGISTERS.lock();
    for pin in 0..count(base) {
        write(base, FIRST_REDIRECTION + pin * 2, MASKED);
    }
    drop(guard);
}

/// Pins of the controller whose registers are at `base`.
fn count(base: *mut u8) -> u32 {
    (read(base, VERSION) >> 16 & 0xff) + 1
}

/// How many pins a controller has.
pub fn pin_count(controller: Maddr) -> u16 {
    let base = paging::device(controller, 0x20);
    let guard = REGISTERS.lock();
    let pins = count(base) as u16;
    drop(guard);
    pins
}

/// The lower half of a pin's entry: fixed delivery to a physical destination.
fn entry(pin: Pin, vector: u8) -> u32 {
    let level = if pin.level { LEVEL } else { 0 };
    let low = if pin.active_low { ACTIVE_LOW } else { 0 };
    u32::from(vector) | level | low
}

/// Sets a pin up. It is masked while its entry's halves do not belong together.
pub fn set_pin(controller: Maddr, pin: Pin, state: PinState, vector: DeviceVector, apic_id: u8) {
    let base = paging::device(controller, 0x20);
    let register = FIRST_REDIRECTION + u32::from(pin.number) * 2;
    let low = entry(pin, vector.number());
    let guard = REGISTERS.lock();
    write(base, register, low | MASKED);
    write(base, register + 1, u32::from(apic_id) << 24);
    if state == PinState::Open {
        write(base, register, low);
    }
    drop(guard);
}

/// Sends the console's pin to this processor.
pub fn route_console(controller: Maddr, pin: Pin) {
    let base = paging::device(controller, 0x20);
    let register = FIRST_REDIRECTION + u32::from(pin.number) * 2;
    let guard = REGISTERS.lock();
    write(base, register + 1, apic::own_id() << 24);
    write(base, register, entry(pin, vector::SERIAL));
    drop(guard);
    super::serial::enable_interrupts();
}
