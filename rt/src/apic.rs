//! The local APIC, by memory or by MSRs, whichever mode it is in.
//!
//! Registers are named by their offset in the memory form (AMD APM volume 2, section 16.3); x2APIC's MSR is
//! 0x800 + offset / 16.

use crate::{memory, msr};

const MSR_APIC_BASE: u32 = 0x1b;
const BASE_X2APIC: u64 = 1 << 10;
/// Where the registers are in memory.
pub const APIC_MEMORY: u64 = 0xfee0_0000;

/// Identifier.
pub const ID: u32 = 0x20;
/// Version.
pub const VERSION: u32 = 0x30;
/// Task priority.
pub const TPR: u32 = 0x80;
/// Processor priority.
pub const PPR: u32 = 0xa0;
/// End of interrupt.
pub const EOI: u32 = 0xb0;
/// Logical destination.
pub const LDR: u32 = 0xd0;
/// Destination format.
pub const DFR: u32 = 0xe0;
/// Spurious vector and enable bit (8).
pub const SPURIOUS: u32 = 0xf0;
/// In service, eight registers.
pub const ISR: u32 = 0x100;
/// Trigger mode, eight registers.
pub const TMR: u32 = 0x180;
/// Requested, eight registers.
pub const IRR: u32 = 0x200;
/// Error status.
pub const ESR: u32 = 0x280;
/// Interrupt command, lower half.
pub const ICR: u32 = 0x300;
/// Interrupt command, upper half.
pub const ICR_HIGH: u32 = 0x310;
/// Local vector table: timer.
pub const LVT_TIMER: u32 = 0x320;
/// Local vector table: error.
pub const LVT_ERROR: u32 = 0x370;
/// Timer: initial count.
pub const TIMER_INITIAL: u32 = 0x380;
/// Timer: current count.
pub const TIMER_CURRENT: u32 = 0x390;
/// Timer: divider.
pub const TIMER_DIVIDE: u32 = 0x3e0;

/// Bit of the local vector table: masked.
pub const LVT_MASKED: u32 = 1 << 16;
/// Bit of the timer's entry: periodic.
pub const LVT_PERIODIC: u32 = 1 << 17;
/// Command: to the sender itself.
pub const SHORTHAND_SELF: u32 = 1 << 18;
/// Command: to all but the sender.
pub const SHORTHAND_OTHERS: u32 = 3 << 18;
/// Command: to all.
pub const SHORTHAND_ALL: u32 = 2 << 18;
/// Command: level is asserted.
pub const ASSERT: u32 = 1 << 14;
/// Command: non-maskable interrupt.
pub const DELIVERY_NMI: u32 = 4 << 8;
/// Command: INIT.
pub const DELIVERY_INIT: u32 = 5 << 8;
/// Command: start at the page in the vector field.
pub const DELIVERY_STARTUP: u32 = 6 << 8;

/// Whether the registers are MSRs.
#[must_use]
pub fn is_x2apic() -> bool {
    msr::read(MSR_APIC_BASE) & BASE_X2APIC != 0
}

/// The MSR of a register.
#[must_use]
pub const fn msr_of(register: u32) -> u32 {
    0x800 + (register >> 4)
}

/// Reads a register.
#[must_use]
pub fn read(register: u32) -> u32 {
    if is_x2apic() { msr::read(msr_of(register)) as u32 } else { memory::read(APIC_MEMORY + u64::from(register)) }
}

/// Writes a register.
pub fn write(register: u32, value: u32) {
    if is_x2apic() {
        msr::write(msr_of(register), u64::from(value));
    } else {
        memory::write(APIC_MEMORY + u64::from(register), value);
    }
}

/// Changes to x2APIC mode, from which only a reset or disabling leads back.
pub fn enable_x2apic() {
    msr::write(MSR_APIC_BASE, msr::read(MSR_APIC_BASE) | BASE_X2APIC);
}

/// Lets the APIC deliver interrupts.
pub fn enable() {
    write(SPURIOUS, 0x1ff);
}

/// This processor's identifier.
#[must_use]
pub fn id() -> u32 {
    if is_x2apic() { read(ID) } else { read(ID) >> 24 }
}

/// Sends an interrupt command to the APIC with the identifier `destination`, or to a shorthand in `command`.
pub fn send(destination: u32, command: u32) {
    if is_x2apic() {
        msr::write(msr_of(ICR), u64::from(destination) << 32 | u64::from(command));
    } else {
        write(ICR_HIGH, destination << 24);
        write(ICR, command);
    }
}

fn bit(register: u32, vector: u8) -> bool {
    let value = read(register + u32::from(vector / 32) * 16);
    value >> (vector % 32) & 1 != 0
}

/// Whether an interrupt is being served. With the APIC disabled, nothing is.
#[must_use]
pub fn in_service(vector: u8) -> bool {
    msr::read(MSR_APIC_BASE) & (1 << 11) != 0 && bit(ISR, vector)
}

/// Whether an interrupt waits for delivery.
#[must_use]
pub fn requested(vector: u8) -> bool {
    bit(IRR, vector)
}

/// Ends the service of the most urgent interrupt.
pub fn end_of_interrupt() {
    write(EOI, 0);
}
