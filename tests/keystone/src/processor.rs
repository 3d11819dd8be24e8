//! A processor that plays single instructions: what an instruction does, when it exits, and when it is executed again.
//!
//! A real processor executes what is at RIP; this one is told what to do next ([`Operation`]) and points RIP at an
//! instruction of the kernel that does that. An access that faults is made again at the next entry, unless the hypervisor
//! has moved RIP behind it: then it was emulated, and the registers have the result. A hypercall whose RIP has not moved is
//! made again with whatever is in the registers now, as by a real processor (that is how the hypervisor preempts itself).

use crate::kernel::{self, Instruction};
use machine::codec::registers::{Register, cr0, cr4, efer};
use machine::codec::vmcb::{event, exit};
use machine::exit::Exit;
use machine::fake::Guest;
use std::collections::VecDeque;

/// Code that runs at a guest's expense: what it does, again from the start if it was interrupted.
pub type Stretch = Box<dyn FnMut(&mut Guest<'_>) -> Result<(), Exit> + Send>;

/// What the processor does next.
pub enum Operation {
    /// Reads bytes at a physical address.
    Read(u64, usize),
    /// Writes bytes at a physical address.
    Write(u64, Vec<u8>),
    /// MOV RAX, [address]: an access that can be emulated.
    Load(u64),
    /// MOV [address], RAX.
    Store(u64, u64),
    /// VMMCALL with a number and arguments.
    Hypercall(u64, [u64; 6]),
    /// CPUID with leaf and subleaf.
    Cpuid(u32, u32),
    /// RDMSR.
    ReadMsr(u32),
    /// WRMSR.
    WriteMsr(u32, u64),
    /// IN from a port with 1, 2 or 4 bytes.
    In(u16, u8),
    /// OUT to a port with 1, 2 or 4 bytes.
    Out(u16, u8, u32),
    /// HLT.
    Halt,
    /// PAUSE.
    Pause,
    /// An exit that no instruction of the kernel makes, by its code; nothing comes back.
    Exit(u32),
    /// What cannot be told in instructions, such as a loop, or a change of registers that needs no exit.
    Stretch(Stretch),
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// Bytes that were read.
    Bytes(Vec<u8>),
    /// RAX; for RDMSR the whole MSR.
    Word(u64),
    /// EAX, EBX, ECX and EDX.
    Registers([u32; 4]),
    /// The instruction raised an exception: its vector and error code.
    Exception(u8, Option<u32>),
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not begun.
    Fresh,
    /// Its access faulted, or an interrupt came first.
    Faulted(u64),
    /// It has exited.
    Exited(u64),
}

/// What the processor does now, and what it was told by interrupts.
pub struct Processor {
    current: Option<(Operation, Phase)>,
    /// Vectors of interrupts that were delivered, oldest first. Handlers return at once.
    pub interrupts: VecDeque<u8>,
    /// NMIs that were delivered.
    pub nmis: u32,
}

/// Argument registers of a 64-bit hypercall (public/arch-x86/xen-x86_64.h).
const ARGUMENTS: [Register; 6] =
    [Register::Rdi, Register::Rsi, Register::Rdx, Register::R10, Register::R8, Register::R9];

impl Default for Processor {
    fn default() -> Self {
        Self::new()
    }
}

impl Processor {
    /// One that does nothing yet.
    pub fn new() -> Self {
        Self { current: None, interrupts: VecDeque::new(), nmis: 0 }
    }

    /// Whether it has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// What to do next. Nothing may be under way.
    pub fn begin(&mut self, operation: Operation) {
        assert!(self.current.is_none(), "the processor is busy");
        self.current = Some((operation, Phase::Fresh));
    }

    /// Takes the event that was delivered at this entry; to be called once for each. If it is the exception that the
    /// operation raised, that is its outcome.
    pub fn enter(&mut self, guest: &mut Guest<'_>) -> Option<Outcome> {
        let delivered = core::mem::take(&mut guest.delivered);
        if delivered & event::VALID == 0 {
            return None;
        }
        let vector = (delivered & event::VECTOR_MASK) as u8;
        match delivered & event::TYPE_MASK {
            event::INTERRUPT => self.interrupts.push_back(vector),
            event::NMI => self.nmis += 1,
            _ => {
                let error = (delivered & event::HAS_ERROR != 0).then_some((delivered >> 32) as u32);
                if self.current.take().is_some() {
                    return Some(Outcome::Exception(vector, error));
                }
                panic!("exception {vector} out of nothing at {:#x}", guest.vmcb.guest.rip);
            }
        }
        None
    }

    /// Goes on with the operation.
    ///
    /// # Errors
    /// The exit to leave the guest with; the operation is not finished.
    pub fn go_on(&mut self, guest: &mut Guest<'_>) -> Result<Outcome, Exit> {
        let Some((operation, phase)) = &mut self.current else { panic!("the processor has nothing to do") };
        let outcome = match step(operation, *phase, guest) {
            Ok(outcome) => outcome,
            Err((next, exit)) => {
                *phase = next;
                return Err(exit);
            }
        };
        self.current = None;
        Ok(outcome)
    }
}

/// Makes one attempt. An error is the exit, and what it was for.
fn step(operation: &mut Operation, phase: Phase, guest: &mut Guest<'_>) -> Result<Outcome, (Phase, Exit)> {
    match operation {
        Operation::Read(gpa, length) => {
            let mut bytes = vec![0; *length];
            guest.read(*gpa, &mut bytes).map_err(|exit| (Phase::Fresh, exit))?;
            Ok(Outcome::Bytes(bytes))
        }
        Operation::Write(gpa, bytes) => {
            guest.write(*gpa, bytes).map_err(|exit| (Phase::Fresh, exit))?;
            Ok(Outcome::Done)
        }
        Operation::Stretch(work) => {
            work(guest).map_err(|exit| (Phase::Fresh, exit))?;
            Ok(Outcome::Done)
        }
        Operation::Load(gpa) => access(guest, phase, Instruction::Load, *gpa, |guest, gpa| {
            let value = guest.read_u64(gpa)?;
            guest.set_register(Register::Rax, value);
            Ok(())
        }),
        Operation::Store(gpa, value) => access(guest, phase, Instruction::Store, *gpa, |guest, gpa| {
            guest.set_register(Register::Rax, *value);
            guest.write_u64(gpa, *value)
        }),
        other => instruction(other, phase, guest),
    }
}

fn access(
    guest: &mut Guest<'_>,
    phase: Phase,
    instruction: Instruction,
    gpa: u64,
    act: impl FnOnce(&mut Guest<'_>, u64) -> Result<(), Exit>,
) -> Result<Outcome, (Phase, Exit)> {
    if matches!(phase, Phase::Faulted(rip) if rip != guest.vmcb.guest.rip) {
        return Ok(Outcome::Word(guest.register(Register::Rax)));
    }
    guest.vmcb.guest.rip = instruction.address();
    guest.set_register(Register::Rbx, gpa);
    act(guest, gpa).map_err(|exit| (Phase::Faulted(instruction.address()), exit))?;
    guest.vmcb.guest.rip += instruction.bytes().len() as u64;
    Ok(Outcome::Word(guest.register(Register::Rax)))
}

/// Instructions that always exit.
fn instruction(operation: &Operation, phase: Phase, guest: &mut Guest<'_>) -> Result<Outcome, (Phase, Exit)> {
    if let Phase::Exited(rip) = phase {
        if guest.vmcb.guest.rip != rip {
            return Ok(result(operation, guest));
        }
        if matches!(operation, Operation::Hypercall(..)) {
            return Err((phase, guest.exit(exit::VMMCALL, 0, 0)));
        }
    }
    let at = |guest: &mut Guest<'_>, instruction: Instruction| {
        guest.vmcb.guest.rip = instruction.address();
        instruction.address()
    };
    let (rip, exit) = match operation {
        Operation::Hypercall(number, arguments) => {
            let rip = at(guest, Instruction::Vmmcall);
            guest.set_register(Register::Rax, *number);
            for (register, value) in ARGUMENTS.into_iter().zip(arguments) {
                guest.set_register(register, *value);
            }
            (rip, guest.exit(exit::VMMCALL, 0, 0))
        }
        Operation::Cpuid(leaf, subleaf) => {
            let rip = at(guest, Instruction::Cpuid);
            guest.set_register(Register::Rax, u64::from(*leaf));
            guest.set_register(Register::Rcx, u64::from(*subleaf));
            (rip, guest.exit(exit::CPUID, 0, 0))
        }
        Operation::ReadMsr(number) => {
            let rip = at(guest, Instruction::Rdmsr);
            guest.set_register(Register::Rcx, u64::from(*number));
            (rip, guest.exit(exit::MSR, 0, 0))
        }
        Operation::WriteMsr(number, value) => {
            let rip = at(guest, Instruction::Wrmsr);
            guest.set_register(Register::Rcx, u64::from(*number));
            guest.set_register(Register::Rax, value & 0xffff_ffff);
            guest.set_register(Register::Rdx, value >> 32);
            (rip, guest.exit(exit::MSR, 1, 0))
        }
        Operation::In(port, size) => {
            let rip = at(guest, Instruction::In(*size));
            (rip, port_exit(guest, *port, *size, 1, Instruction::In(*size)))
        }
        Operation::Out(port, size, value) => {
            let rip = at(guest, Instruction::Out(*size));
            guest.set_register(Register::Rax, u64::from(*value));
            (rip, port_exit(guest, *port, *size, 0, Instruction::Out(*size)))
        }
        Operation::Exit(code) => (guest.vmcb.guest.rip, guest.exit(*code, 0, 0)),
        Operation::Halt => (at(guest, Instruction::Hlt), guest.exit(exit::HLT, 0, 0)),
        Operation::Pause => (at(guest, Instruction::Pause), guest.exit(exit::PAUSE, 0, 0)),
        Operation::Read(..)
        | Operation::Write(..)
        | Operation::Load(_)
        | Operation::Store(..)
        | Operation::Stretch(_) => unreachable!("these do not always exit"),
    };
    Err((Phase::Exited(rip), exit))
}

/// EXITINFO1 of a port access: bit 0 for IN, bits 6:4 the size, the port from bit 16 on; EXITINFO2 is the next RIP
/// (AMD APM volume 2, 15.10.2).
fn port_exit(guest: &mut Guest<'_>, port: u16, size: u8, direction: u64, instruction: Instruction) -> Exit {
    guest.set_register(Register::Rdx, u64::from(port));
    let next = instruction.address() + instruction.bytes().len() as u64;
    guest.exit(exit::IOIO, u64::from(port) << 16 | u64::from(size) << 4 | direction, next)
}

/// What an instruction that exited has left in the registers.
fn result(operation: &Operation, guest: &Guest<'_>) -> Outcome {
    let low = |register| guest.register(register) & 0xffff_ffff;
    match operation {
        Operation::Hypercall(..) | Operation::In(..) => Outcome::Word(guest.register(Register::Rax)),
        Operation::Cpuid(..) => {
            let order = [Register::Rax, Register::Rbx, Register::Rcx, Register::Rdx];
            Outcome::Registers(order.map(|register| low(register) as u32))
        }
        Operation::ReadMsr(_) => Outcome::Word(low(Register::Rdx) << 32 | low(Register::Rax)),
        _ => Outcome::Done,
    }
}

/// Switches to 64-bit code with the kernel's page tables, in which linear addresses are physical ones.
pub fn enter_long_mode(guest: &mut Guest<'_>) {
    /// A 64-bit code segment: present, ring 0, code, L.
    const CODE_64: u16 = 0xa9b;
    let state = &mut guest.vmcb.guest;
    state.cr3 = kernel::PAGE_TABLES;
    state.cr4 |= cr4::PAE;
    state.set_efer(state.efer() | efer::LME | efer::LMA);
    state.cr0 |= cr0::PG | cr0::PE | cr0::WP;
    state.cs.attributes = CODE_64;
}
