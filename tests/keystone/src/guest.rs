//! Guest code, written as code: a closure that runs on a thread of its own and asks its processor for one instruction after
//! the other.
//!
//! The thread and the processor never run at the same time: the processor, which plays in the middle of the hypervisor's
//! run loop, waits for the next instruction, and the code waits for its result. So a run is the same each time. The code must
//! not wait for anything but the machine it runs on: memory, events, time.

use crate::kernel;
use crate::processor::{Operation, Outcome, Processor, enter_long_mode};
use machine::DomId;
use machine::codec::registers::rflags;
use machine::codec::vmcb::{Vmcb, exit};
use machine::exit::Exit;
use machine::fake::{FakeMachine, Guest};
use public_abi::{Errno, Request};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A processor as the code on it sees it.
pub struct Cpu {
    machine: FakeMachine,
    operations: Sender<Operation>,
    outcomes: Receiver<Answer>,
    interrupts: Vec<u8>,
    scratch: u64,
}

/// An outcome, and the interrupts that came before it.
struct Answer {
    outcome: Outcome,
    interrupts: Vec<u8>,
}

/// Why code ends whose machine is gone.
struct MachineGone;

impl Cpu {
    fn perform(&mut self, operation: Operation) -> Outcome {
        let answer = self.operations.send(operation).ok().and_then(|()| self.outcomes.recv().ok());
        // Nobody sees this panic: the test is over.
        let Some(answer) = answer else { resume_unwind(Box::new(MachineGone)) };
        self.interrupts.extend(answer.interrupts);
        answer.outcome
    }

    /// Interrupts that were delivered since this was asked last: their vectors, oldest first.
    pub fn interrupts(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.interrupts)
    }

    /// Where the arguments of its hypercalls are put: vCPUs that run at the same time need places of their own.
    pub fn scratch(&self) -> u64 {
        self.scratch
    }

    /// See [`Cpu::scratch`].
    pub fn set_scratch(&mut self, gpa: u64) {
        self.scratch = gpa;
    }

    /// Reads RAM.
    pub fn read(&mut self, gpa: u64, length: usize) -> Vec<u8> {
        let Outcome::Bytes(bytes) = self.perform(Operation::Read(gpa, length)) else { panic!("no bytes at {gpa:#x}") };
        bytes
    }

    /// Writes RAM.
    pub fn write(&mut self, gpa: u64, bytes: &[u8]) {
        assert_eq!(self.perform(Operation::Write(gpa, bytes.to_vec())), Outcome::Done);
    }

    /// Reads a structure from RAM.
    pub fn get<T: FromBytes>(&mut self, gpa: u64) -> T {
        T::read_from_bytes(&self.read(gpa, size_of::<T>())).unwrap_or_else(|_| panic!("as many bytes as it has"))
    }

    /// Writes a structure to RAM.
    pub fn put<T: IntoBytes + Immutable>(&mut self, gpa: u64, value: &T) {
        self.write(gpa, value.as_bytes());
    }

    /// Reads a word from RAM or an emulated device.
    pub fn load(&mut self, gpa: u64) -> u64 {
        match self.perform(Operation::Load(gpa)) {
            Outcome::Word(value) => value,
            other => panic!("reading {gpa:#x}: {other:?}"),
        }
    }

    /// Writes a word to RAM or an emulated device.
    pub fn store(&mut self, gpa: u64, value: u64) {
        match self.perform(Operation::Store(gpa, value)) {
            Outcome::Word(_) => {}
            other => panic!("writing {gpa:#x}: {other:?}"),
        }
    }

    /// Makes a hypercall; what is in RAX afterwards.
    pub fn hypercall(&mut self, number: u64, arguments: [u64; 6]) -> i64 {
        match self.perform(Operation::Hypercall(number, arguments)) {
            Outcome::Word(value) => value.cast_signed(),
            other => panic!("hypercall {number}: {other:?}"),
        }
    }

    /// Makes a hypercall whose pointers are in order already.
    ///
    /// # Errors
    /// The hypervisor's.
    pub fn request(&mut self, request: &Request) -> Result<u64, Errno> {
        let (number, arguments) = request.encode();
        answer(self.hypercall(number, arguments))
    }

    /// Makes a hypercall with a structure, which is put at an address before and taken from there afterwards.
    ///
    /// # Errors
    /// The hypervisor's.
    pub fn exchange<T: FromBytes + IntoBytes + Immutable>(
        &mut self,
        place: u64,
        value: &mut T,
        request: impl FnOnce(public_abi::GuestPtr<()>) -> Request,
    ) -> Result<u64, Errno> {
        self.put(place, value);
        let result = self.request(&request(public_abi::GuestPtr::from_address(place)));
        *value = self.get(place);
        result
    }

    /// CPUID: EAX, EBX, ECX, EDX.
    pub fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        match self.perform(Operation::Cpuid(leaf, subleaf)) {
            Outcome::Registers(registers) => registers,
            other => panic!("CPUID {leaf:#x}: {other:?}"),
        }
    }

    /// RDMSR; `None` if it raises #GP.
    pub fn read_msr(&mut self, number: u32) -> Option<u64> {
        match self.perform(Operation::ReadMsr(number)) {
            Outcome::Word(value) => Some(value),
            Outcome::Exception(13, Some(0)) => None,
            other => panic!("RDMSR {number:#x}: {other:?}"),
        }
    }

    /// WRMSR; false if it raises #GP.
    pub fn write_msr(&mut self, number: u32, value: u64) -> bool {
        match self.perform(Operation::WriteMsr(number, value)) {
            Outcome::Done => true,
            Outcome::Exception(13, Some(0)) => false,
            other => panic!("WRMSR {number:#x}: {other:?}"),
        }
    }

    /// IN.
    pub fn port_in(&mut self, port: u16, size: u8) -> u32 {
        match self.perform(Operation::In(port, size)) {
            Outcome::Word(value) => value as u32,
            other => panic!("IN {port:#x}: {other:?}"),
        }
    }

    /// OUT.
    pub fn port_out(&mut self, port: u16, size: u8, value: u32) {
        assert_eq!(self.perform(Operation::Out(port, size, value)), Outcome::Done);
    }

    /// HLT; comes back after an interrupt.
    pub fn halt(&mut self) {
        assert_eq!(self.perform(Operation::Halt), Outcome::Done);
    }

    /// PAUSE.
    pub fn pause(&mut self) {
        assert_eq!(self.perform(Operation::Pause), Outcome::Done);
    }

    /// Whatever else the processor can do; the outcome is given as it is.
    pub fn operation(&mut self, operation: Operation) -> Outcome {
        self.perform(operation)
    }

    /// Looks at registers, or changes them, without an exit.
    pub fn registers<R: Send + 'static>(&mut self, look: impl FnOnce(&mut Guest<'_>) -> R + Send + 'static) -> R {
        let (sender, receiver) = channel();
        let mut look = Some(look);
        let work = move |guest: &mut Guest<'_>| {
            if let Some(look) = look.take() {
                sender.send(look(guest)).map_err(drop).ok();
            }
            Ok(())
        };
        assert_eq!(self.perform(Operation::Stretch(Box::new(work))), Outcome::Done);
        receiver.recv().unwrap_or_else(|_| panic!("the look was taken"))
    }

    /// A copy of the control block, guest state included.
    pub fn vmcb(&mut self) -> Vmcb {
        self.registers(|guest| guest.vmcb.clone())
    }

    /// Switches to 64-bit code.
    pub fn enter_long_mode(&mut self) {
        self.registers(enter_long_mode);
    }

    /// Lets interrupts come, or keeps them away.
    pub fn set_interrupts(&mut self, enabled: bool) {
        self.registers(move |guest| match enabled {
            true => guest.vmcb.guest.rflags |= rflags::IF,
            false => guest.vmcb.guest.rflags &= !rflags::IF,
        });
    }

    /// Computes for so long: time passes, and interrupts can come.
    pub fn spin(&mut self, ticks: u64) {
        /// Ticks between two instructions that touch memory.
        const STEP: u64 = 1000;
        let (machine, mut left) = (self.machine.clone(), ticks);
        let work = move |guest: &mut Guest<'_>| {
            while left > 0 {
                guest.read_u64(kernel::BASE)?;
                machine.advance(STEP.min(left));
                left = left.saturating_sub(STEP);
            }
            Ok(())
        };
        assert_eq!(self.perform(Operation::Stretch(Box::new(work))), Outcome::Done);
    }
}

/// What a hypercall answered.
///
/// # Errors
/// The hypervisor's.
pub fn answer(rax: i64) -> Result<u64, Errno> {
    u64::try_from(rax).map_err(|_| {
        let number = i32::try_from(rax.unsigned_abs()).unwrap_or(0);
        Errno::try_from(number).unwrap_or_else(|_| panic!("a hypercall answered {rax}, which is no error"))
    })
}

/// The code's end of a processor, on the machine's side.
struct Code {
    operations: Receiver<Operation>,
    outcomes: Sender<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl Code {
    /// The next instruction; `None` if the code has ended.
    fn next(&mut self) -> Option<Operation> {
        let operation = self.operations.recv().ok();
        if operation.is_none()
            && let Some(Err(reason)) = self.thread.take().map(JoinHandle::join)
        {
            // A check in the code has failed: so has the test.
            resume_unwind(reason);
        }
        operation
    }
}

/// Lets a vCPU run code. When the code has ended, the vCPU halts with interrupts off: it goes down.
pub fn run(machine: &FakeMachine, domain: DomId, vcpu: u16, code: impl FnOnce(&mut Cpu) + Send + 'static) {
    let (operation_sender, operations) = channel();
    let (outcomes, outcome_receiver) = channel();
    let mut cpu = Cpu {
        machine: machine.clone(),
        operations: operation_sender,
        outcomes: outcome_receiver,
        interrupts: Vec::new(),
        scratch: kernel::SCRATCH,
    };
    let thread = std::thread::Builder::new().name(format!("d{}v{vcpu}", domain.0));
    let thread = thread.spawn(move || {
        let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| code(&mut cpu)));
        if let Err(reason) = end
            && !reason.is::<MachineGone>()
        {
            resume_unwind(reason);
        }
    });
    let mut code = Code { operations, outcomes, thread: Some(thread.expect("a thread")) };
    let mut processor = Processor::new();
    let mut is_over = false;
    machine.program_vcpu(domain, vcpu, move |guest| {
        let interrupted = processor.enter(guest);
        if let Some(outcome) = interrupted {
            tell(&mut code, &mut processor, outcome);
        }
        loop {
            if processor.is_idle() {
                match code.next().filter(|_| !is_over) {
                    Some(operation) => processor.begin(operation),
                    None => {
                        is_over = true;
                        return end(guest);
                    }
                }
            }
            match processor.go_on(guest) {
                Ok(outcome) => tell(&mut code, &mut processor, outcome),
                Err(exit) => return exit,
            }
        }
    });
}

fn tell(code: &mut Code, processor: &mut Processor, outcome: Outcome) {
    let answer = Answer { outcome, interrupts: processor.interrupts.drain(..).collect() };
    // Code that has ended hears nothing any more.
    code.outcomes.send(answer).ok();
}

/// HLT with interrupts off.
fn end(guest: &mut Guest<'_>) -> Exit {
    guest.vmcb.guest.rflags &= !rflags::IF;
    guest.vmcb.guest.rip = kernel::Instruction::Hlt.address();
    guest.exit(exit::HLT, 0, 0)
}
