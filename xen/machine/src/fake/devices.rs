//! Devices of the fake machine: pins of I/O interrupt controllers, messages that interrupt, and PCI functions whose
//! configuration space is an array with a mask of what can be written.
//!
//! `arch` gives the hypervisor its side of them (ports 0xcf8 and 0xcfc, once there is a function; pins); tests have theirs here.

use super::machine::{FakeMachine, with_current};
use crate::cpu::Work;
use crate::platform::{DeviceVector, Pin, PinState};
use crate::units::{CpuId, Maddr};
use std::collections::HashMap;
use std::vec::Vec;

/// Bytes of a function's configuration space.
const SPACE: usize = 4096;
/// The configuration mechanism's ports (PCI Local Bus Specification 3.0, 3.2.2.3.2).
const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
const ENABLED: u32 = 1 << 31;

/// What was last programmed for a pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PinEntry {
    /// How its line arrives.
    pub pin: Pin,
    /// Whether it is masked.
    pub state: PinState,
    /// What it sends.
    pub vector: DeviceVector,
    /// To whom.
    pub apic_id: u8,
}

/// A PCI function.
#[derive(Clone, Debug)]
pub struct FakeFunction {
    registers: Vec<u8>,
    writable: Vec<u8>,
}

impl FakeFunction {
    /// A function with these first registers: device and vendor, class and revision. Its command register can be written.
    pub fn new(identity: u32, class: u32) -> Self {
        let function = Self { registers: Vec::from([0; SPACE]), writable: Vec::from([0; SPACE]) };
        function.with(0, identity, 0).with(4, 0, 0x0547).with(8, class, 0)
    }

    /// As before, with a register (at a multiple of four) that holds `value` and of which `writable` can be written.
    #[must_use]
    pub fn with(mut self, register: usize, value: u32, writable: u32) -> Self {
        self.registers[register..register + 4].copy_from_slice(&value.to_le_bytes());
        self.writable[register..register + 4].copy_from_slice(&writable.to_le_bytes());
        self
    }

    /// As before, with a list of capabilities that begins there.
    #[must_use]
    pub fn with_capabilities(self, first: u32) -> Self {
        self.with(4, 1 << 20, 0x0547).with(0x34, first, 0)
    }

    fn read(&self, register: usize, size: u8) -> u32 {
        let mut bytes = [0; 4];
        let count = usize::from(size);
        bytes[..count].copy_from_slice(&self.registers[register..register + count]);
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, register: usize, size: u8, value: u32) {
        for (at, new) in (register..).zip(value.to_le_bytes()).take(usize::from(size)) {
            let mask = self.writable[at];
            self.registers[at] = self.registers[at] & !mask | new & mask;
        }
    }
}

/// All devices, on the machine's desk.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pins: HashMap<(u64, u8), PinEntry>,
    functions: HashMap<u16, FakeFunction>,
    address: u32,
    memory_window: Option<u64>,
    /// Writes to existing functions: place, register, size, value.
    writes: Vec<(u16, u16, u8, u32)>,
    pub(super) ended: u64,
    pub(super) iommus: Vec<super::iommu::Unit>,
    pub(super) intel_iommus: Vec<super::iommu_intel::Unit>,
    /// What those who read past the caches find in memory: words by address, as they were when they were written back.
    pub(super) memory: HashMap<u64, u64>,
}

impl Devices {
    /// The function and the register that a data port leads to now.
    fn target(&self, port: u16) -> Option<(u16, u16)> {
        let offset = port.checked_sub(DATA_PORT).filter(|offset| *offset < 4)?;
        let place = (self.address >> 8 & 0xffff) as u16;
        (self.address & ENABLED != 0).then_some((place, (self.address & 0xfc) as u16 + offset))
    }

    /// A port's answer, if it is one of the configuration mechanism's and there is a bus.
    pub(super) fn port_read(&self, port: u16, size: u8) -> Option<u32> {
        if self.functions.is_empty() || !(ADDRESS_PORT..DATA_PORT + 4).contains(&port) {
            return None;
        }
        let found =
            self.target(port).and_then(|(place, at)| Some(self.functions.get(&place)?.read(usize::from(at), size)));
        Some(if port == ADDRESS_PORT { self.address } else { found.unwrap_or(u32::MAX) })
    }

    pub(super) fn port_write(&mut self, port: u16, size: u8, value: u32) {
        if port == ADDRESS_PORT && size == 4 {
            self.address = value;
        } else if let Some((place, register)) = self.target(port) {
            self.write(place, register, size, value);
        }
    }

    fn write(&mut self, place: u16, register: u16, size: u8, value: u32) {
        if let Some(function) = self.functions.get_mut(&place) {
            self.writes.push((place, register, size, value));
            function.write(usize::from(register), size, value);
        }
    }

    /// The function and the register at an address of memory-mapped configuration space.
    fn mapped(&self, maddr: Maddr) -> Option<(u16, u16)> {
        let offset = maddr.number().checked_sub(self.memory_window?).filter(|offset| *offset < 256 << 20)?;
        Some(((offset >> 12) as u16, (offset & 0xfff) as u16))
    }

    pub(super) fn memory_read(&self, maddr: Maddr, size: u8) -> Option<u32> {
        let (place, register) = self.mapped(maddr)?;
        let ones = u32::MAX >> (32 - u32::from(size) * 8);
        Some(self.functions.get(&place).map_or(ones, |function| function.read(usize::from(register), size)))
    }

    pub(super) fn memory_write(&mut self, maddr: Maddr, size: u8, value: u32) {
        if let Some((place, register)) = self.mapped(maddr) {
            self.write(place, register, size, value);
        }
    }

    pub(super) fn set_pin(&mut self, controller: Maddr, entry: PinEntry) {
        self.pins.insert((controller.number(), entry.pin.number), entry);
    }
}

impl FakeMachine {
    /// Puts a function on the bus: bus number in bits 15:8, device in 7:3, function in 2:0.
    pub fn add_function(&self, place: u16, function: FakeFunction) {
        self.with_devices(|devices| devices.functions.insert(place, function));
    }

    /// Takes a function off the bus.
    pub fn remove_function(&self, place: u16) {
        self.with_devices(|devices| devices.functions.remove(&place));
    }

    /// What a function's register (at a multiple of four) really holds.
    pub fn function_register(&self, place: u16, register: u16) -> u32 {
        self.with_devices(|devices| {
            devices.functions.get(&place).map_or(u32::MAX, |f| f.read(usize::from(register), 4))
        })
    }

    /// Writes that have reached functions: place, register, size, value.
    pub fn function_writes(&self) -> Vec<(u16, u16, u8, u32)> {
        self.with_devices(|devices| devices.writes.clone())
    }

    /// Lets configuration space be seen in memory, too, from that address on.
    pub fn set_configuration_window(&self, start: u64) {
        self.with_devices(|devices| devices.memory_window = Some(start));
    }

    /// What was last programmed for a pin; `None` if nothing ever was.
    pub fn pin(&self, controller: u64, number: u8) -> Option<PinEntry> {
        self.with_devices(|devices| devices.pins.get(&(controller, number)).copied())
    }

    /// A pin's line becomes active: whether that interrupts a CPU.
    pub fn pulse(&self, controller: u64, number: u8) -> bool {
        let entry = self.pin(controller, number).filter(|entry| entry.state == PinState::Open);
        entry.is_some_and(|entry| self.interrupt(entry.apic_id, entry.vector.number()))
    }

    /// A device writes a message: whether that interrupts a CPU.
    pub fn send_message(&self, address: u64, data: u32) -> bool {
        address >> 20 == 0xfee && self.interrupt((address >> 12 & 0xff) as u8, (data & 0xff) as u8)
    }

    /// Interrupts of devices that the hypervisor has ended.
    pub fn ended_interrupts(&self) -> u64 {
        self.with_devices(|devices| devices.ended)
    }

    /// APIC ids are twice the CPUs' numbers, as `arch::apic_id` has it.
    fn interrupt(&self, apic_id: u8, vector: u8) -> bool {
        let is_known = apic_id.is_multiple_of(2) && self.has_cpu(u16::from(apic_id / 2));
        if let Some(vector) = DeviceVector::new(vector).filter(|_| is_known) {
            self.note_vector(CpuId(u16::from(apic_id / 2)), vector.number());
            self.note_work(u16::from(apic_id / 2), Work::DEVICE);
            return true;
        }
        false
    }
}

impl Devices {
    /// What a function has in its capability of messages at `at`, with 64-bit addresses; `None` while it is off.
    pub(super) fn message(&self, place: u16, at: usize) -> Option<(u64, u32)> {
        let function = self.functions.get(&place).filter(|function| function.read(at + 2, 2) & 1 != 0)?;
        let address = u64::from(function.read(at + 8, 4)) << 32 | u64::from(function.read(at + 4, 4));
        Some((address, function.read(at + 12, 2)))
    }
}

pub(super) fn with_current_devices<R>(work: impl FnOnce(&mut Devices) -> R) -> R {
    super::allocation::exempt(|| with_current(|machine, _| work(&mut machine.desk().devices)))
}
