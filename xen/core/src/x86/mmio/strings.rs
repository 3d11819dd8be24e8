//! MOVS, STOS and LODS on device memory: either side may be RAM or a device.

use super::Bus;
use super::decode::{Kind, Operation};
use super::execute::mask;
use crate::outcome::Reply;
use crate::x86::access::{self, AccessError};
use crate::x86::encoding::SEGMENT_ES;
use crate::x86::guest::DomainMemory;
use crate::x86::{instruction, interrupts, ports};
use machine::codec::registers::{Register, rflags};
use machine::vcpu::Vcpu as Hardware;

/// Repetitions that are carried out before others get a turn.
const STEPS: usize = 64;

/// The guest gets an exception instead of the access.
enum Refusal {
    PageFault(crate::x86::walk::PageFault),
    GeneralProtection,
}

impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Fault(fault) => Self::PageFault(fault),
            // A device has been tried for the third by now.
            AccessError::NotCanonical | AccessError::NotRam(_) => Self::GeneralProtection,
        }
    }
}

/// Carries out a string instruction. After some repetitions RIP still stands at it, with what is left in RCX: interrupts
/// come in, and the guest executes it again.
pub(super) fn execute(bus: Bus<'_>, hardware: &mut Hardware, length: u8, operation: Operation) -> Reply {
    let width = mask(operation.address_size);
    for _ in 0..STEPS {
        let count = hardware.register(Register::Rcx) & width;
        if operation.repeat && count == 0 {
            break;
        }
        match step(bus, hardware, operation) {
            Ok(()) => {}
            Err(Refusal::PageFault(fault)) => {
                interrupts::raise_page_fault(hardware, fault);
                return Ok(0);
            }
            Err(Refusal::GeneralProtection) => {
                interrupts::raise_general_protection(hardware);
                return Ok(0);
            }
        }
        if !operation.repeat {
            break;
        }
        put(hardware, Register::Rcx, count.wrapping_sub(1), operation);
    }
    if !operation.repeat || hardware.register(Register::Rcx) & width == 0 {
        instruction::advance(hardware, length);
    }
    Ok(0)
}

/// Sets a counting register: 2-byte addresses leave the upper part, 4-byte ones clear it.
fn put(hardware: &mut Hardware, register: Register, value: u64, operation: Operation) {
    let old = hardware.register(register);
    hardware.set_register(register, ports::merge(old, value, operation.address_size));
}

/// One repetition.
fn step(bus: Bus<'_>, hardware: &mut Hardware, operation: Operation) -> Result<(), Refusal> {
    let size = operation.size;
    let state = hardware.guest();
    let width = mask(operation.address_size);
    let source = access::linear(state, operation.segment, hardware.register(Register::Rsi) & width);
    let target = access::linear(state, SEGMENT_ES, hardware.register(Register::Rdi) & width);
    let is_down = state.rflags & rflags::DF != 0;
    match operation.kind {
        Kind::StringLoad => {
            let value = read(bus, hardware, source, size)?;
            let old = hardware.register(Register::Rax);
            hardware.set_register(Register::Rax, ports::merge(old, value, size));
        }
        Kind::StringMove => {
            // The target is checked first: what a device gives up when it is read must not be lost.
            check(bus, hardware, target, size)?;
            let value = read(bus, hardware, source, size)?;
            write(bus, hardware, target, size, value)?;
        }
        _ => {
            let value = hardware.register(Register::Rax) & mask(size);
            write(bus, hardware, target, size, value)?;
        }
    }
    let mut move_on = |register| {
        let old = hardware.register(register);
        let by = u64::from(size);
        put(hardware, register, if is_down { old.wrapping_sub(by) } else { old.wrapping_add(by) }, operation);
    };
    if operation.kind != Kind::StringStore {
        move_on(Register::Rsi);
    }
    if operation.kind != Kind::StringLoad {
        move_on(Register::Rdi);
    }
    Ok(())
}

fn read(bus: Bus<'_>, hardware: &Hardware, linear: u64, size: u8) -> Result<u64, Refusal> {
    let mut bytes = [0; 8];
    let Some(part) = bytes.get_mut(..usize::from(size)) else { return Err(Refusal::GeneralProtection) };
    match access::read(&DomainMemory(bus.domain), hardware.guest(), linear, part) {
        Ok(()) => Ok(u64::from_le_bytes(bytes)),
        Err(AccessError::NotRam(gpa)) => Ok(bus.read(gpa.number(), size)),
        Err(error) => Err(error.into()),
    }
}

fn write(bus: Bus<'_>, hardware: &mut Hardware, linear: u64, size: u8, value: u64) -> Result<(), Refusal> {
    let bytes = value.to_le_bytes();
    let Some(part) = bytes.get(..usize::from(size)) else { return Err(Refusal::GeneralProtection) };
    match access::write(&DomainMemory(bus.domain), hardware.guest(), linear, part) {
        Ok(()) => Ok(()),
        Err(AccessError::NotRam(gpa)) => {
            bus.write(hardware, gpa.number(), size, value);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn check(bus: Bus<'_>, hardware: &Hardware, linear: u64, size: u8) -> Result<(), Refusal> {
    match access::check_write(&DomainMemory(bus.domain), hardware.guest(), linear, usize::from(size)) {
        Ok(()) | Err(AccessError::NotRam(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
