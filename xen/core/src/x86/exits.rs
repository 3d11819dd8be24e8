//! Exits that only x86 has, one arm each: carry the instruction out, then pass over it; or raise the exception that the
//! processor would.
//!
//! Before this: `vcpu::run`. After it: `cpuid`, `msr`, `ports`, `control` and `instruction`. A handler that finds the
//! instruction gone (somebody has rewritten it since it exited) does nothing at all: the guest executes what is there now.

use super::control::Refused;
use super::cpuid;
use super::encoding::{ControlForm, Instruction, Match};
use super::guest::DomainMemory;
use super::interrupts::InterruptFlag;
use super::{instruction, interrupts, msr, ports};
use crate::domain::{Domain, shutdown};
use crate::host::Host;
use crate::outcome::{Reply, Stop};
use crate::vcpu::Vcpu;
use machine::codec::registers::Register;
use machine::codec::vmcb::exit as code;
use machine::exit::X86Exit;
use machine::log;
use machine::vcpu::Vcpu as Hardware;
use public_abi::sched::ShutdownReason;

/// Exit of IRET, which is intercepted while an NMI is handled.
const IRET: u32 = 0x74;
/// Vectors of the intercepted exceptions.
const ALIGNMENT_CHECK: u8 = 17;
const MACHINE_CHECK: u8 = 18;

/// Handles an exit. `Ok` goes on with the guest.
///
/// # Errors
/// [`Stop`]: the vCPU waits, or the domain cannot go on.
#[inline]
pub fn handle(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, exit: X86Exit) -> Reply {
    match exit {
        X86Exit::Cpuid => {
            if let Some(found) = find(domain, vcpu, hardware, Instruction::Cpuid) {
                cpuid::execute(domain, vcpu, hardware);
                instruction::advance(hardware, found.length);
            }
            Ok(0)
        }
        X86Exit::MsrRead => {
            read_msr(domain, vcpu, hardware);
            Ok(0)
        }
        X86Exit::MsrWrite => {
            write_msr(host, domain, vcpu, hardware);
            Ok(0)
        }
        X86Exit::Port(access) => ports::handle(host, domain, vcpu, hardware, access),
        other => handle_rare(domain, vcpu, hardware, other),
    }
}

fn handle_rare(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, exit: X86Exit) -> Reply {
    match exit {
        X86Exit::CrWrite { number, operand } => write_control(domain, vcpu, hardware, number, operand),
        // From now until it leaves this CPU the guest has the debug registers to itself; it executes the access again.
        X86Exit::DebugRegister { .. } => hardware.grant_debug_registers(),
        X86Exit::Exception { vector: MACHINE_CHECK, .. } => {
            return Err(Stop::Crash(&"a machine check interrupted the guest"));
        }
        X86Exit::Exception { vector, error_code, .. } => {
            let error_code = (vector == ALIGNMENT_CHECK).then_some(error_code);
            interrupts::raise_again(hardware, vector, error_code);
        }
        X86Exit::Xsetbv => {
            if let Some(found) = find(domain, vcpu, hardware, Instruction::Xsetbv) {
                let allowed = domain.x86.policy().extended_states();
                let done = super::control::set_extended_control(hardware, allowed);
                finish(hardware, found, done);
            }
        }
        X86Exit::CacheFlush => flush_caches(domain, vcpu, hardware),
        // A hidden performance counter is #GP; instructions that need a hidden feature do not exist.
        X86Exit::Forbidden if exit_code(hardware) == code::RDPMC => {
            interrupts::raise_general_protection(hardware);
        }
        X86Exit::Forbidden => interrupts::raise_invalid_opcode(hardware),
        X86Exit::TaskSwitch => return Err(Stop::Crash(&"a task switch, which is not emulated")),
        X86Exit::Unknown(IRET) => interrupts::iret(vcpu, hardware),
        X86Exit::Unknown(number) => {
            log!(Error, "{}v{}: exit {number:#x}, which nobody asked for", domain.id, vcpu.index);
            return Err(Stop::Crash(&"an exit that nobody asked for"));
        }
        X86Exit::Cpuid | X86Exit::MsrRead | X86Exit::MsrWrite | X86Exit::Port(_) => {}
    }
    Ok(0)
}

fn exit_code(hardware: &Hardware) -> u32 {
    (hardware.control().exit_code & 0xffff_ffff) as u32
}

/// Finds the instruction that exited. With NRIPS its length is known; what the forms of a control-register write are, never.
#[inline]
fn find(domain: &Domain, vcpu: &Vcpu, hardware: &Hardware, wanted: Instruction) -> Option<Match> {
    let (next_rip, rip) = (hardware.control().next_rip, hardware.guest().rip);
    if domain.x86.has_next_rip && next_rip != 0 && wanted != Instruction::ControlWrite {
        let length = u8::try_from(next_rip.wrapping_sub(rip)).ok().filter(|length| (1..=15).contains(length));
        return length.map(|length| Match { length, control: None });
    }
    recognise(domain, vcpu, hardware, wanted)
}

/// Without NRIPS, or where it does not help: looks at the bytes.
fn recognise(domain: &Domain, vcpu: &Vcpu, hardware: &Hardware, wanted: Instruction) -> Option<Match> {
    let mut remembered = vcpu.x86.remembered.lock();
    instruction::recognise(&DomainMemory(domain), &mut remembered, hardware.guest(), wanted)
}

/// Passes over the hypercall instruction. False if it is not there any more: then there was no hypercall.
#[inline]
#[must_use]
pub fn pass_hypercall(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) -> bool {
    let next_rip = hardware.control().next_rip;
    if domain.x86.has_next_rip && next_rip != 0 {
        instruction::go_on_at(hardware, next_rip);
        return true;
    }
    let Some(found) = recognise(domain, vcpu, hardware, Instruction::Vmmcall) else { return false };
    instruction::advance(hardware, found.length);
    true
}

/// Passes over an instruction that was carried out, or raises #GP.
fn finish(hardware: &mut Hardware, found: Match, done: Result<(), Refused>) {
    match done {
        Ok(()) => instruction::advance(hardware, found.length),
        Err(Refused) => interrupts::raise_general_protection(hardware),
    }
}

#[inline]
fn read_msr(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) {
    let Some(found) = find(domain, vcpu, hardware, Instruction::Rdmsr) else { return };
    let number = (hardware.register(Register::Rcx) & 0xffff_ffff) as u32;
    let done = msr::read(domain, vcpu, hardware, number).map(|value| {
        hardware.set_register(Register::Rax, value & 0xffff_ffff);
        hardware.set_register(Register::Rdx, value >> 32);
    });
    finish(hardware, found, done);
}

#[inline]
fn write_msr(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) {
    let Some(found) = find(domain, vcpu, hardware, Instruction::Wrmsr) else { return };
    let low_half = |register| hardware.register(register) & 0xffff_ffff;
    let value = low_half(Register::Rdx) << 32 | low_half(Register::Rax);
    let number = low_half(Register::Rcx) as u32;
    let done = msr::write(host, domain, vcpu, hardware, number, value);
    finish(hardware, found, done);
}

/// EXITINFO1 of a control-register write: bit 63 says that it was MOV, bits 3:0 then name the general register
/// (decode assists; APM volume 2, 15.8.1).
const OPERAND_IS_MOVE: u64 = 1 << 63;

fn write_control(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, number: u8, operand: u64) {
    let next_rip = hardware.control().next_rip;
    let found = if domain.x86.has_decode_assists && operand & OPERAND_IS_MOVE != 0 && next_rip != 0 {
        let length = u8::try_from(next_rip.wrapping_sub(hardware.guest().rip)).unwrap_or(0);
        let control = ControlForm::Move { control: number, general: (operand & 0xf) as u8 };
        Some(Match { length, control: Some(control) })
    } else {
        find(domain, vcpu, hardware, Instruction::ControlWrite)
    };
    let Some((found, form)) = found.and_then(|found| Some((found, found.control?))) else { return };
    match form {
        // Another register's write is there now: not the instruction that exited.
        ControlForm::Move { control, .. } if control != number => {}
        ControlForm::LmswMemory => {
            if domain.x86.complains_first_time() {
                log!(Warning, "{}v{}: LMSW from memory is not emulated", domain.id, vcpu.index);
            }
            interrupts::raise_invalid_opcode(hardware);
        }
        form => {
            let policy = *domain.x86.policy();
            let done = super::control::write(hardware, &policy, number, form);
            finish(hardware, found, done);
        }
    }
}

/// WBINVD and INVD: no guest has devices that see memory without the caches, so there is nothing to flush; INVD must not
/// lose what others have in the caches.
fn flush_caches(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) {
    let wanted = if exit_code(hardware) == code::INVD { Instruction::Invd } else { Instruction::Wbinvd };
    if let Some(found) = find(domain, vcpu, hardware, wanted) {
        instruction::advance(hardware, found.length);
    }
}

/// HLT: passes over it; the vCPU then waits for an interrupt. With interrupts off nothing but an NMI or INIT could end
/// that: such a vCPU is down, and a domain whose vCPUs are all down has powered itself off (as in Xen; Linux does this).
///
/// # Errors
/// [`Stop::Block`]: it waits.
pub fn halt(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) -> Reply {
    let Some(found) = find(domain, vcpu, hardware, Instruction::Hlt) else { return Ok(0) };
    instruction::advance(hardware, found.length);
    let flag = InterruptFlag::of(hardware.guest());
    if interrupts::is_pending(domain, vcpu, flag) {
        return Ok(0);
    }
    if flag == InterruptFlag::Set {
        return Err(Stop::Block(0));
    }
    shutdown::vcpu_down(host, domain, vcpu);
    Err(Stop::Yield(0))
}

/// PAUSE: passes over it; another vCPU may run first.
///
/// # Errors
/// [`Stop::Yield`].
pub fn pause(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) -> Reply {
    let Some(found) = find(domain, vcpu, hardware, Instruction::Pause) else { return Ok(0) };
    instruction::advance(hardware, found.length);
    Err(Stop::Yield(0))
}

/// Three faults in a row: the domain asks for a restart, as a PC does, unless its parameters say otherwise.
pub fn triple_fault(host: &Host, domain: &Domain) {
    let number = usize::try_from(public_abi::hvm_params::HvmParam::TripleFaultReason.number()).unwrap_or(usize::MAX);
    let wanted = domain.control.lock().hvm_params.get(number).copied().unwrap_or(0);
    let reason = u32::try_from(wanted).ok().and_then(|reason| ShutdownReason::try_from(reason).ok());
    log!(Warning, "{}: triple fault", domain.id);
    let reason = reason.filter(|reason| *reason != ShutdownReason::Poweroff).unwrap_or(ShutdownReason::Reboot);
    shutdown::shutdown(host, domain, u8::try_from(reason.number()).unwrap_or(u8::MAX));
}

#[cfg(test)]
#[path = "exits_tests.rs"]
mod tests;
