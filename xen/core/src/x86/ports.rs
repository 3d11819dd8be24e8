//! Port input and output: which domain reaches which port, and the IN, OUT, INS and OUTS instructions.
//!
//! The control domain is also the hardware domain: it reaches the machine's ports, except for those that belong to the
//! hypervisor or whose devices it must not see (Xen's `dom0_setup_permissions`). What nobody owns reads as ones and takes
//! writes without effect, without any exception. Other domains own no port.

use super::access::{self, AccessError};
use super::encoding::{self, MAX_LENGTH, SEGMENT_DS, SEGMENT_ES};
use super::guest::DomainMemory;
use super::instruction;
use super::interrupts;
use super::pci::ConfigurationPorts;
use super::walk::Space;
use crate::domain::{Domain, Role};
use crate::host::Host;
use crate::outcome::{Reply, Stop};
use crate::pci;
use crate::pci::access::{DATA_PORT, Place};
use crate::vcpu::Vcpu;
use machine::codec::registers::{Register, rflags};
use machine::codec::vmcb::GuestState;
use machine::exit::PortAccess;
use machine::lock::{Lock, rank};
use machine::vcpu::Vcpu as Hardware;
use machine::{log, platform};

/// Ports with a first and a last one.
pub type PortRange = (u16, u16);

/// What the control domain does not reach.
const DENIED: &[PortRange] = &[
    (0x00, 0x1f),   // ISA DMA
    (0x20, 0x21),   // interrupt controller
    (0x40, 0x43),   // interval timer
    (0x61, 0x61),   // its second channel's gate
    (0x80, 0x8f),   // ISA DMA pages
    (0x92, 0x92),   // fast A20 and reset
    (0xa0, 0xa1),   // interrupt controller
    (0xc0, 0xdf),   // ISA DMA
    (0xe9, 0xe9),   // debug console of HVM guests
    (0xf0, 0xf0),   // floating-point error
    (0x4d0, 0x4d1), // interrupt controller
    (0xcf8, 0xcff), // PCI configuration: `crate::pci` answers
];
/// The real-time clock and its memory: shared with the hypervisor.
const RTC_INDEX: u16 = 0x70;
const RTC_DATA: u16 = 0x71;
/// The counter of the interval timer's second channel, by which Linux measures the processor's speed. Nobody has an interval
/// timer, and Linux would take the ones of a port that nobody owns for a counter that stands still at 0xffff: it reads them
/// 100,000 times, each an exit, before it gives up and asks Xen's clock. At a counter that reads as 0 it gives up at once
/// (arch/x86/kernel/tsc.c, `quick_pit_calibrate`).
const TIMER_COUNTER: u16 = 0x42;
/// Ports of a serial console.
const CONSOLE_PORTS: u16 = 8;
/// Ranges that are found at boot only: the ACPI timer. (The SMI command port stays open, as in Xen: by it the control
/// domain's ACPI takes the chipset over from the firmware.)
const MORE_RANGES: usize = 8;
/// The last data port of PCI's configuration mechanism.
const LAST_DATA_PORT: u16 = DATA_PORT + 3;
/// Repetitions of a string instruction that are carried out before others get a turn.
const STRING_STEPS: u64 = 256;

/// A domain's ports.
#[derive(Debug)]
pub struct DomainPorts {
    role: Role,
    /// The latched index of the real-time clock, the latched PCI address, and further denied ranges.
    state: Lock<State, { rank::DEVICE }>,
}

#[derive(Debug, Default)]
struct State {
    rtc_index: u8,
    configuration: ConfigurationPorts,
    denied: heapless::Vec<PortRange, MORE_RANGES>,
}

impl DomainPorts {
    /// Ports by role.
    pub const fn new(role: Role) -> Self {
        Self {
            role,
            state: Lock::new(State {
                rtc_index: 0,
                configuration: ConfigurationPorts::new(),
                denied: heapless::Vec::new(),
            }),
        }
    }

    /// Takes ports away from the control domain that were found at boot. False if there are too many ranges.
    #[must_use]
    pub fn deny(&self, range: PortRange) -> bool {
        self.state.lock().denied.push(range).is_ok()
    }

    /// Whether an access goes to the machine's port. One denied byte denies it all.
    fn is_passed(&self, port: u16, size: u8) -> bool {
        let Some(last) = port.checked_add(u16::from(size).saturating_sub(1)) else { return false };
        let touches = |(first, end): PortRange| port <= end && last >= first;
        let console = platform::console_port().map(|first| (first, first.saturating_add(CONSOLE_PORTS - 1)));
        self.role == Role::Control
            && !DENIED.iter().copied().any(touches)
            && !console.is_some_and(touches)
            && !touches((RTC_INDEX, RTC_DATA))
            && !self.state.lock().denied.iter().copied().any(touches)
    }

    /// Reads a port.
    pub fn read(&self, port: u16, size: u8) -> u32 {
        let ones = 1u64.checked_shl(u32::from(size) * 8).map_or(u32::MAX, |top| (top - 1) as u32);
        if self.is_passed(port, size) {
            return platform::port_read(port, size) & ones;
        }
        match (self.role, port, size) {
            (Role::Control, RTC_INDEX, 1) => u32::from(self.state.lock().rtc_index),
            (Role::Control, RTC_DATA, 1) => self.with_clock(|| platform::port_read(RTC_DATA, 1)) & ones,
            (_, TIMER_COUNTER, 1) => 0,
            (Role::Control, 0xcf8..=0xcff, _) => self.state.lock().configuration.read(port, size).unwrap_or(ones),
            _ => ones,
        }
    }

    /// Writes a port.
    pub fn write(&self, port: u16, size: u8, value: u32) {
        if self.is_passed(port, size) {
            return platform::port_write(port, size, value);
        }
        match (self.role, port, size) {
            // Bit 7 masks NMIs on real machines: that is not the guest's to do.
            (Role::Control, RTC_INDEX, 1) => self.state.lock().rtc_index = (value & 0x7f) as u8,
            (Role::Control, RTC_DATA, 1) => self.with_clock(|| platform::port_write(RTC_DATA, 1, value)),
            (Role::Control, 0xcf8..=0xcff, _) => self.state.lock().configuration.write(port, size, value),
            _ => {}
        }
    }

    /// The register of configuration space that an access to a port leads to, for the domain that has the devices.
    fn configuration(&self, port: u16, size: u8) -> Option<(Place, u16)> {
        if self.role != Role::Control || !(DATA_PORT..=LAST_DATA_PORT).contains(&port) {
            return None;
        }
        self.state.lock().configuration.target(port, size)
    }

    /// Runs `access` with the clock's index as the guest has set it; nobody comes between the two.
    fn with_clock<R>(&self, access: impl FnOnce() -> R) -> R {
        let state = self.state.lock();
        platform::port_write(RTC_INDEX, 1, u32::from(state.rtc_index));
        let result = access();
        drop(state);
        result
    }
}

/// Reads a port of a domain's.
fn read(host: &Host, domain: &Domain, port: u16, size: u8) -> u32 {
    match domain.x86.ports.configuration(port, size) {
        Some((place, register)) => host.pci.read(place, register, size),
        None => domain.x86.ports.read(port, size),
    }
}

/// Writes a port of a domain's.
fn write(host: &Host, domain: &Domain, port: u16, size: u8, value: u32) {
    match domain.x86.ports.configuration(port, size) {
        Some((place, register)) => pci::write(host, domain, place, register, size, value),
        None => domain.x86.ports.write(port, size, value),
    }
}

/// Carries out a port instruction.
///
/// # Errors
/// [`Stop::Crash`] if the instruction cannot be emulated.
#[inline]
pub fn handle(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, access: PortAccess) -> Reply {
    if access.string {
        return handle_string(host, domain, vcpu, hardware, access);
    }
    let rax = hardware.register(Register::Rax);
    if access.write {
        write(host, domain, access.port, access.size, (rax & 0xffff_ffff) as u32);
    } else {
        let value = u64::from(read(host, domain, access.port, access.size));
        hardware.set_register(Register::Rax, merge(rax, value, access.size));
    }
    instruction::go_on_at(hardware, access.next_rip);
    Ok(0)
}

/// A register after its low `size` bytes were written: 4 bytes clear the upper half, fewer leave the rest.
#[inline]
pub const fn merge(register: u64, value: u64, size: u8) -> u64 {
    match size {
        1 => register & !0xff | value & 0xff,
        2 => register & !0xffff | value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    }
}

/// How a string instruction counts: width of its addresses, and the segment that it reads from.
struct Shape {
    mask: u64,
    segment: u8,
}

/// Address size from EXITINFO1, bits 9:7. The segment of OUTS is in its prefixes.
fn shape(domain: &Domain, hardware: &Hardware, access: PortAccess) -> Shape {
    let mask = match hardware.control().exit_info_1 >> 7 & 0b111 {
        0b001 => 0xffff,
        0b010 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let state = hardware.guest();
    let mut bytes = [0; MAX_LENGTH];
    let count = if access.write {
        instruction::fetch(&DomainMemory(domain), &Space::of(state), instruction::linear(state), &mut bytes)
    } else {
        0
    };
    let found = encoding::prefixes(bytes.get(..count).unwrap_or_default(), state.is_64_bit());
    Shape { mask, segment: if access.write { found.segment.unwrap_or(SEGMENT_DS) } else { SEGMENT_ES } }
}

/// INS and OUTS. After some repetitions RIP still stands at the instruction with what is left in RCX: interrupts come in,
/// and the guest executes it again.
fn handle_string(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, access: PortAccess) -> Reply {
    let Shape { mask, segment } = shape(domain, hardware, access);
    let pointer = if access.write { Register::Rsi } else { Register::Rdi };
    // A 32-bit address size clears the upper halves of the registers that it counts with, a 16-bit one keeps the rest.
    let put = |old: u64, new: u64| if mask == 0xffff { old & !0xffff | new & 0xffff } else { new & mask };
    let step = u64::from(access.size);
    for _ in 0..STRING_STEPS {
        let count = hardware.register(Register::Rcx) & mask;
        if access.repeat && count == 0 {
            break;
        }
        let state = hardware.guest();
        let at = hardware.register(pointer);
        let linear = access::linear(state, segment, at & mask);
        let moved = move_once(host, domain, state, access, linear);
        if let Err(error) = moved {
            return refuse(domain, vcpu, hardware, error);
        }
        let next = if state.rflags & rflags::DF == 0 { at.wrapping_add(step) } else { at.wrapping_sub(step) };
        hardware.set_register(pointer, put(at, next));
        if !access.repeat {
            break;
        }
        let register = hardware.register(Register::Rcx);
        hardware.set_register(Register::Rcx, put(register, count.wrapping_sub(1)));
    }
    if !access.repeat || hardware.register(Register::Rcx) & mask == 0 {
        instruction::go_on_at(hardware, access.next_rip);
    }
    Ok(0)
}

/// Moves one item between memory and port. Memory is checked before the port is read: what a device gives up is not lost.
fn move_once(
    host: &Host,
    domain: &Domain,
    state: &GuestState,
    port: PortAccess,
    linear: u64,
) -> Result<(), AccessError> {
    let memory = DomainMemory(domain);
    let size = usize::from(port.size).min(4);
    let mut item = [0; 4];
    let not_ram = AccessError::NotRam(machine::Gpa::new(linear));
    if port.write {
        access::read(&memory, state, linear, item.get_mut(..size).ok_or(not_ram)?)?;
        write(host, domain, port.port, port.size, u32::from_le_bytes(item));
        return Ok(());
    }
    access::check_write(&memory, state, linear, size)?;
    item = read(host, domain, port.port, port.size).to_le_bytes();
    access::write(&memory, state, linear, item.get(..size).ok_or(not_ram)?)
}

/// What a failed memory access of an emulated instruction leads to.
fn refuse(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, error: AccessError) -> Reply {
    match error {
        AccessError::Fault(fault) => interrupts::raise_page_fault(hardware, fault),
        AccessError::NotCanonical => interrupts::raise_general_protection(hardware),
        AccessError::NotRam(gpa) => {
            log!(Error, "{}v{}: string port access with memory at {gpa:?}, which is not RAM", domain.id, vcpu.index);
            return Err(Stop::Crash(&"a string port access with memory that is not RAM"));
        }
    }
    Ok(0)
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
