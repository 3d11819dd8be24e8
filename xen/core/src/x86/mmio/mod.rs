//! Accesses to guest physical addresses without RAM: the interrupt controllers, and everywhere else ones that take writes
//! without effect, as a bus without a device does (the control domain's HPET is among those). For the control domain also PCI
//! configuration space and tables of messages (`devices`). Writes to memory that may only be read come here, too, and have no effect either.
//!
//! Before this: `fault`, which has found no RAM at the address. The instruction is looked up (`decode`), carried out here
//! with `execute`'s arithmetic, and passed over. One that is not known gets #UD: real hardware would have done something,
//! so the log says which bytes were met, once a domain.

pub mod decode;
mod devices;
pub mod execute;
mod strings;

#[cfg(test)]
mod tests;

use super::guest::DomainMemory;
use super::vioapic::Vioapic;
use super::vlapic::registers as lapic;
use super::{instruction, interrupts};
use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::{Reply, Stop};
use crate::vcpu::Vcpu;
use decode::{Arithmetic, Extend, Kind, Operand, Operation};
use execute::{mask, sign_extend};
use machine::codec::registers::Register;
use machine::exit::{Access, AccessCause, AccessKind, AccessStage};
use machine::vcpu::Vcpu as Hardware;
use machine::{Gpa, log};

/// Who accesses what.
#[derive(Clone, Copy)]
pub(super) struct Bus<'a> {
    pub(super) host: &'a Host,
    pub(super) domain: &'a Domain,
    pub(super) vcpu: &'a Vcpu,
    /// Whether there is nothing at the address, or memory that the guest may not write.
    pub(super) cause: AccessCause,
}

impl Bus<'_> {
    /// Reads up to 8 bytes of device memory.
    #[inline]
    pub(super) fn read(&self, address: u64, size: u8) -> u64 {
        if self.vcpu.x86.lapic.claims(address) {
            return lapic::mmio_read(self.vcpu, address, size);
        }
        match &self.domain.x86.vioapic {
            Some(vioapic) if Vioapic::claims(address) => vioapic.mmio_read(address, size),
            _ if self.cause == AccessCause::Rights => self.read_memory(address, size),
            _ if self.domain.is_control() => devices::read(self.host, address, size),
            _ => mask(size),
        }
    }

    /// Reads memory that may not be written, for an instruction that wanted to do both. Not across its page's end.
    fn read_memory(&self, address: u64, size: u8) -> u64 {
        let mut bytes = [0; 8];
        let is_read = bytes.get_mut(..usize::from(size)).is_some_and(|part| {
            // The guest may change the page meanwhile elsewhere; the instruction is not atomic any more. Under the map's
            // lock, because granted pages may only be touched while they are mapped.
            self.domain.p2m.reader().read(Gpa::new(address), part).is_ok()
        });
        if is_read { u64::from_le_bytes(bytes) } else { mask(size) }
    }

    /// Writes up to 8 bytes of device memory.
    pub(super) fn write(&self, hardware: &mut Hardware, address: u64, size: u8, value: u64) {
        if self.vcpu.x86.lapic.claims(address) {
            return lapic::mmio_write(self.host, self.domain, self.vcpu, hardware, address, size, value);
        }
        match &self.domain.x86.vioapic {
            Some(vioapic) if Vioapic::claims(address) => {
                vioapic.mmio_write(self.host, self.domain, address, size, value);
            }
            _ if self.cause != AccessCause::Rights && self.domain.is_control() => {
                devices::write(self.host, self.domain, address, size, value);
            }
            _ => {}
        }
    }
}

/// Carries out the instruction that accessed an address without RAM.
///
/// # Errors
/// [`Stop::Crash`] if the guest's page tables are in no RAM.
#[inline]
pub fn handle(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, access: Access) -> Reply {
    if access.stage == AccessStage::TableWalk {
        log!(Error, "{}v{}: page tables at {:?}, which is not RAM", domain.id, vcpu.index, access.gpa);
        return Err(Stop::Crash(&"page tables outside of RAM"));
    }
    if access.kind == AccessKind::Execute {
        interrupts::raise_general_protection(hardware);
        return Ok(0);
    }
    let found = {
        let mut remembered = vcpu.x86.remembered.lock();
        instruction::recognise_access(&DomainMemory(domain), &mut remembered, hardware.guest())
    };
    let (length, operation) = match found {
        instruction::Found::Is(length, operation) => (length, operation),
        // Its bytes cannot be read any more: the guest executes what is there now, or faults.
        instruction::Found::Gone => return Ok(0),
        instruction::Found::Unknown(bytes) => {
            if domain.x86.complains_first_time() {
                log!(
                    Warning,
                    "{}v{}: access to {:?} by an unknown instruction: {bytes:02x?}",
                    domain.id,
                    vcpu.index,
                    access.gpa
                );
            }
            interrupts::raise_invalid_opcode(hardware);
            return Ok(0);
        }
    };
    let bus = Bus { host, domain, vcpu, cause: access.cause };
    match operation.kind {
        Kind::StringStore | Kind::StringLoad | Kind::StringMove => strings::execute(bus, hardware, length, operation),
        _ => {
            execute_once(bus, hardware, access.gpa.number(), operation);
            instruction::advance(hardware, length);
            Ok(0)
        }
    }
}

/// The value of the operand that is not in memory.
#[inline]
fn operand(hardware: &Hardware, operand: Operand) -> u64 {
    match operand {
        Operand::None => 0,
        Operand::Register(number) => hardware.register(Register::from_encoding(number)),
        Operand::HighByte(number) => hardware.register(Register::from_encoding(number)) >> 8,
        Operand::Immediate(number) => number,
    }
}

/// Writes `size` bytes of a register operand; 4 bytes clear the upper half.
#[inline]
fn set_operand(hardware: &mut Hardware, operand: Operand, size: u8, value: u64) {
    match operand {
        Operand::Register(number) => {
            let register = Register::from_encoding(number);
            let old = hardware.register(register);
            hardware.set_register(register, super::ports::merge(old, value, size));
        }
        Operand::HighByte(number) => {
            let register = Register::from_encoding(number);
            let old = hardware.register(register);
            hardware.set_register(register, old & !0xff00 | (value & 0xff) << 8);
        }
        Operand::None | Operand::Immediate(_) => {}
    }
}

/// Carries out anything but a string instruction.
#[inline]
fn execute_once(bus: Bus<'_>, hardware: &mut Hardware, address: u64, operation: Operation) {
    let Operation { kind, size, operand: other, .. } = operation;
    match kind {
        Kind::Load(extend) => {
            let value = bus.read(address, size);
            let (value, width) = match extend {
                Extend::No => (value, size),
                Extend::Zero(width) => (value, width),
                Extend::Sign(width) => (sign_extend(value, size), width),
            };
            set_operand(hardware, other, width, value);
        }
        Kind::Store => {
            let value = operand(hardware, other) & mask(size);
            bus.write(hardware, address, size, value);
        }
        kind => modify(bus, hardware, address, operation, kind),
    }
}

/// Instructions that read, compute, and mostly write.
fn modify(bus: Bus<'_>, hardware: &mut Hardware, address: u64, operation: Operation, kind: Kind) {
    let Operation { size, operand: other, .. } = operation;
    let memory = bus.read(address, size);
    let (value, rflags) = (operand(hardware, other) & mask(size), hardware.guest().rflags);
    let (written, rflags) = match kind {
        Kind::Modify(arithmetic) => {
            let (result, rflags) = execute::arithmetic(arithmetic, size, memory, value, rflags);
            let stores = !matches!(arithmetic, Arithmetic::Cmp | Arithmetic::Test);
            (stores.then_some(result), rflags)
        }
        Kind::Accumulate(arithmetic) => {
            let (result, rflags) = execute::arithmetic(arithmetic, size, value, memory, rflags);
            if arithmetic != Arithmetic::Cmp {
                set_operand(hardware, other, size, result);
            }
            (None, rflags)
        }
        Kind::Exchange => {
            set_operand(hardware, other, size, memory);
            (Some(value), rflags)
        }
        Kind::ExchangeAdd => {
            let (sum, rflags) = execute::arithmetic(Arithmetic::Add, size, memory, value, rflags);
            set_operand(hardware, other, size, memory);
            (Some(sum), rflags)
        }
        Kind::CompareExchange => {
            let accumulator = hardware.register(Register::Rax);
            let (_, rflags) = execute::arithmetic(Arithmetic::Cmp, size, accumulator, memory, rflags);
            if rflags & execute::ZERO != 0 {
                (Some(value), rflags)
            } else {
                set_operand(hardware, Operand::Register(0), size, memory);
                (Some(memory), rflags)
            }
        }
        Kind::Increment { down } => {
            let (result, rflags) = execute::increment(size, memory, down, rflags);
            (Some(result), rflags)
        }
        Kind::Not => (Some(!memory & mask(size)), rflags),
        Kind::Negate => {
            let (result, rflags) = execute::negate(size, memory, rflags);
            (Some(result), rflags)
        }
        Kind::BitTest(change) => {
            let (result, rflags) = execute::bit_test(change, size, memory, value, rflags);
            ((change != decode::BitChange::Keep).then_some(result), rflags)
        }
        Kind::Load(_) | Kind::Store | Kind::StringStore | Kind::StringLoad | Kind::StringMove => (None, rflags),
    };
    hardware.guest_mut().rflags = rflags;
    if let Some(written) = written {
        bus.write(hardware, address, size, written);
    }
}
