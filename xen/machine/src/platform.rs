//! The machine as a whole: firmware memory, ports, other processors, the host value, and what the processors can do.

use crate::arch;
use crate::units::{CpuId, Maddr};
use core::any::Any;

/// Reads firmware's memory (ACPI tables, the BIOS area), wherever it lies. False if the range makes no sense.
#[must_use]
pub fn read_firmware(maddr: Maddr, out: &mut [u8]) -> bool {
    arch::read_firmware(maddr, out)
}

/// Reads `size` bytes (1, 2 or 4) from a port, for a hardware domain that may.
pub fn port_read(port: u16, size: u8) -> u32 {
    arch::port_read(port, size)
}

/// Writes `size` bytes (1, 2 or 4) to a port, for a hardware domain that may.
pub fn port_write(port: u16, size: u8, value: u32) {
    arch::port_write(port, size, value);
}

/// Reads `size` bytes (1, 2 or 4) from a device's register in memory. `None` if that is RAM, is not aligned, or cannot be
/// mapped.
pub fn device_read(maddr: Maddr, size: u8) -> Option<u32> {
    is_device(maddr, size).then(|| arch::device_read(maddr, size)).flatten()
}

/// Writes `size` bytes (1, 2 or 4) to a device's register in memory. False if that is RAM, is not aligned, or cannot be mapped.
#[must_use]
pub fn device_write(maddr: Maddr, size: u8, value: u32) -> bool {
    is_device(maddr, size) && arch::device_write(maddr, size, value)
}

/// Whether a whole register can be there. The core decides much, but it never writes memory past the types that guard it.
fn is_device(maddr: Maddr, size: u8) -> bool {
    let is_ram = arch::with_frames(|frames| frames.info(maddr.frame()).is_some());
    matches!(size, 1 | 2 | 4) && maddr.number().is_multiple_of(u64::from(size)) && !is_ram
}

/// First port of the serial console, which no domain may touch; it takes eight.
pub fn console_port() -> Option<u16> {
    arch::console_port()
}

/// Makes `host` what [`host`] gives on every CPU.
pub fn set_host(host: &'static (dyn Any + Send + Sync)) {
    arch::set_host(host);
}

/// The value given to [`set_host`]; `None` before that.
pub fn host() -> Option<&'static (dyn Any + Send + Sync)> {
    arch::host()
}

/// Processors that are used at the most.
pub const MAX_CPUS: usize = 64;

/// APIC ids of processors besides the first.
pub type ApicIds = heapless::Vec<u32, { MAX_CPUS - 1 }>;

/// Starts the processors with these APIC ids; each calls `entry` with its number, counted on from 1. Gives the APIC ids of
/// those that came up, in the order of their numbers.
pub fn start_other_cpus(apic_ids: impl Iterator<Item = u32>, entry: fn(CpuId) -> !) -> ApicIds {
    arch::start_other_cpus(apic_ids, entry)
}

/// This processor's APIC id.
pub fn apic_id() -> u32 {
    arch::apic_id()
}

/// Where this processor's local APIC has its registers, unless it is in x2APIC mode.
pub fn local_apic() -> Maddr {
    arch::local_apic()
}

/// Halt instead of restarting after a panic.
pub fn set_no_reboot() {
    arch::set_no_reboot();
}

/// What the linker has called this image, so that a crash can be matched with its symbols; empty if it has not.
pub fn build_id() -> &'static [u8] {
    arch::build_id()
}

/// CPUID of the real processor: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    arch::cpuid(leaf, subleaf)
}

/// Components that guests may enable in XCR0.
pub fn supported_xcr0() -> u64 {
    arch::supported_xcr0()
}

/// How a device's interrupt line arrives at an I/O interrupt controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin {
    /// The controller's pin.
    pub number: u8,
    /// Level triggered instead of edge.
    pub level: bool,
    /// Active when low.
    pub active_low: bool,
}

/// An interrupt vector that a device may have: neither an exception's nor one of the hypervisor's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceVector(u8);

impl DeviceVector {
    /// The lowest: exceptions are below 0x20.
    pub const FIRST: u8 = 0x20;
    /// The highest: the hypervisor's own have the highest priority class for themselves.
    pub const LAST: u8 = 0xef;

    /// The vector with this number; `None` if no device may have it.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= Self::FIRST && number <= Self::LAST { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Whether a pin's interrupts come through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinState {
    /// They do.
    Open,
    /// They wait (level triggered), or are lost (edge).
    Masked,
}

/// How many pins the I/O interrupt controller at this address has.
pub fn pin_count(controller: Maddr) -> u16 {
    arch::pin_count(controller)
}

/// Sets a pin of an I/O interrupt controller up: what it sends is a vector for one CPU, which is named by its APIC id.
pub fn set_pin(controller: Maddr, pin: Pin, state: PinState, vector: DeviceVector, apic_id: u8) {
    arch::set_pin(controller, pin, state, vector, apic_id);
}

/// Masks all pins of an I/O interrupt controller.
pub fn mask_interrupts(controller: Maddr) {
    arch::mask_interrupts(controller);
}

/// Lets the console interrupt this CPU when it receives: its line is a pin of a controller at this address.
pub fn route_console(controller: Maddr, pin: Pin) {
    arch::route_console(controller, pin);
}
