//! What guests do: steps that a test queues for a vCPU or a CPU, run one at each entry.
//!
//! A step plays one instruction or a stretch of code. It gives `Ok(exit)` when the guest leaves and the next entry shall go
//! on with the next step, and `Err(exit)` when an access faulted or an interrupt came: then the same step runs again at the
//! next entry, unless the core has moved RIP meanwhile, which means that it emulated the instruction. A hypercall whose RIP
//! the core leaves where it was is executed again, as the real instruction would be.
//!
//! A vCPU that has run out of steps, or never had any, goes on with its program, if it has one: a function that is called at
//! every entry, says how the guest leaves, and keeps track of what to do again by itself.

use super::machine::{State, current};
use super::tlb::{Fault, Walk};
use crate::codec::registers::{Register, efer};
use crate::codec::tags::{AddressSpaceTag, Flush};
use crate::codec::vmcb::{FLUSH_ALL, Vmcb, event, exit, intercept_2, v_intr};
use crate::exit::{AccessKind, Exit};
use crate::frame::{FrameInfo, Kind};
use crate::units::{CpuId, Gpa, Maddr, Mfn, PAGE_SIZE};
use crate::vcpu::GeneralRegisters;
use core::fmt;
use core::sync::atomic::Ordering;
use std::boxed::Box;
use std::collections::VecDeque;
use std::sync::Arc;

/// How a step ends.
pub type StepResult = Result<Exit, Exit>;

/// What a vCPU does at every entry once it has no steps.
pub(super) type Program = Box<dyn FnMut(&mut Guest<'_>) -> Exit + Send>;

/// One step.
pub(super) type Step = Box<dyn FnMut(&mut Guest<'_>) -> StepResult + Send>;

/// The steps of one vCPU or CPU.
#[derive(Default)]
pub(super) struct Script {
    pub(super) steps: VecDeque<Step>,
    pub(super) program: Option<Program>,
    resume: Resume,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script of {} steps, {:?}", self.steps.len(), self.resume)
    }
}

/// How the next entry goes on.
#[derive(Clone, Copy, Debug, Default)]
enum Resume {
    /// With the first step.
    #[default]
    Next,
    /// If RIP is still this, with the first step once more; else that one is finished.
    Retry(u64),
    /// If RIP is still this, with the hypercall instruction once more.
    Hypercall(u64),
}

/// Error-code bits of a nested page fault (APM volume 2, 15.25.6).
mod npf {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const RESERVED: u64 = 1 << 3;
    pub(super) const FETCH: u64 = 1 << 4;
    pub(super) const FINAL: u64 = 1 << 32;
}

/// Accesses that a guest still makes after an interrupt was sent to its CPU: interrupts take their time, and whoever does
/// not wait for the guest to leave must be found out.
const INTERRUPT_LATENCY: u32 = 16;

/// What one entry takes on a stepped machine.
const TICKS_OF_AN_ENTRY: u64 = 1000;

/// Bytes of VMMCALL.
const VMMCALL_BYTES: u64 = 3;

/// A guest in the middle of a step: its registers and its memory.
pub struct Guest<'a> {
    machine: Arc<State>,
    cpu: CpuId,
    /// The control block, guest state included.
    pub vmcb: &'a mut Vmcb,
    /// General registers other than RAX and RSP.
    pub general: &'a mut GeneralRegisters,
    /// The event that was delivered at this entry (the format of EVENTINJ), or 0.
    pub delivered: u64,
    /// Accesses since an interrupt was sent.
    interrupted: u32,
}

impl Guest<'_> {
    /// A general register.
    pub fn register(&self, register: Register) -> u64 {
        match register {
            Register::Rax => self.vmcb.guest.rax,
            Register::Rsp => self.vmcb.guest.rsp,
            other => self.general[other as usize],
        }
    }

    /// Sets a general register.
    pub fn set_register(&mut self, register: Register, value: u64) {
        match register {
            Register::Rax => self.vmcb.guest.rax = value,
            Register::Rsp => self.vmcb.guest.rsp = value,
            other => self.general[other as usize] = value,
        }
    }

    /// The CPU that the guest runs on.
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// An exit with this code (`codec::vmcb::exit`) and information.
    pub fn exit(&mut self, code: u32, info_1: u64, info_2: u64) -> Exit {
        self.vmcb.control.exit_code = u64::from(code);
        self.vmcb.control.exit_info_1 = info_1;
        self.vmcb.control.exit_info_2 = info_2;
        Exit::decode(&self.vmcb.control)
    }

    /// The hypercall instruction of a 64-bit guest with this number and these arguments. The next step finds the result in
    /// RAX.
    pub fn hypercall(&mut self, number: u64, arguments: &[u64]) -> Exit {
        const ORDER: [Register; 6] =
            [Register::Rdi, Register::Rsi, Register::Rdx, Register::R10, Register::R8, Register::R9];
        self.set_register(Register::Rax, number);
        for (register, value) in ORDER.into_iter().zip(arguments) {
            self.set_register(register, *value);
        }
        self.exit(exit::VMMCALL, 0, 0)
    }

    /// What the debug address registers hold, which armed breakpoints compare with whatever DR7's owner meant.
    pub fn debug_registers(&self) -> [u64; 4] {
        self.machine.cpu(self.cpu).debug_registers()
    }

    /// Reads guest physical memory.
    ///
    /// # Errors
    /// The exit to leave with: a nested page fault, or an interrupt that came first.
    pub fn read(&mut self, gpa: u64, out: &mut [u8]) -> Result<(), Exit> {
        let mut done = 0;
        while done < out.len() {
            let (maddr, length) = self.reach(gpa + done as u64, AccessKind::Read, out.len() - done)?;
            let part = &mut out[done..done + length];
            if !self.machine.ram.read(maddr, part) {
                part.fill(0xff);
            }
            done += length;
        }
        Ok(())
    }

    /// Writes guest physical memory. Bytes before the page that faults have been written.
    ///
    /// # Errors
    /// As [`Guest::read`].
    pub fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Exit> {
        let mut done = 0;
        while done < bytes.len() {
            let (maddr, length) = self.reach(gpa + done as u64, AccessKind::Write, bytes.len() - done)?;
            let part = &bytes[done..done + length];
            if !self.machine.ram.write(maddr, part) {
                self.machine.record_device_write(maddr, part);
            }
            done += length;
        }
        Ok(())
    }

    /// Reads a little-endian 64-bit word.
    ///
    /// # Errors
    /// As [`Guest::read`].
    pub fn read_u64(&mut self, gpa: u64) -> Result<u64, Exit> {
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a little-endian 64-bit word.
    ///
    /// # Errors
    /// As [`Guest::read`].
    pub fn write_u64(&mut self, gpa: u64, value: u64) -> Result<(), Exit> {
        self.write(gpa, &value.to_le_bytes())
    }

    /// Changes a 64-bit word in one step, as an instruction with a LOCK prefix does. The word before; all ones and no
    /// change where no RAM is.
    ///
    /// # Errors
    /// As [`Guest::write`]. Panics if the word is not aligned.
    pub fn update_u64(&mut self, gpa: u64, change: impl Fn(u64) -> u64) -> Result<u64, Exit> {
        assert!(gpa.is_multiple_of(8), "{gpa:#x} is no place of a word");
        let (maddr, _) = self.reach(gpa, AccessKind::Write, 8)?;
        let word = self.machine.ram.word(maddr);
        Ok(word.map_or(u64::MAX, |word| {
            let change = |before| Some(change(before));
            word.try_update(Ordering::AcqRel, Ordering::Acquire, change).unwrap_or(u64::MAX)
        }))
    }

    /// Fetches an instruction byte.
    ///
    /// # Errors
    /// As [`Guest::read`].
    pub fn fetch(&mut self, gpa: u64) -> Result<u8, Exit> {
        let (maddr, _) = self.reach(gpa, AccessKind::Execute, 1)?;
        let mut byte = [0xff];
        let _is_ram = self.machine.ram.read(maddr, &mut byte);
        Ok(byte[0])
    }

    /// Takes the virtual interrupt that the control block offers, if the guest's interrupt flag is set.
    pub fn take_virtual_interrupt(&mut self) -> Option<u8> {
        let offered = self.vmcb.control.v_intr & v_intr::IRQ != 0;
        let enabled = self.vmcb.guest.rflags & crate::codec::registers::rflags::IF != 0;
        (offered && enabled && self.vmcb.control.interrupt_shadow & 1 == 0).then(|| {
            self.vmcb.control.v_intr &= !v_intr::IRQ;
            (self.vmcb.control.v_intr >> v_intr::VECTOR_SHIFT) as u8
        })
    }

    /// Translates, and says how many of `wanted` bytes lie in the same page.
    fn reach(&mut self, gpa: u64, kind: AccessKind, wanted: usize) -> Result<(Maddr, usize), Exit> {
        self.machine.check_running();
        let cpu = self.machine.cpu(self.cpu);
        if cpu.has_interrupt() {
            self.interrupted += 1;
            if self.interrupted > INTERRUPT_LATENCY {
                cpu.take_interrupt();
                return Err(self.exit(exit::INTR, 0, 0));
            }
            std::thread::yield_now();
        }
        let gpa = Gpa::new(gpa);
        let root = Maddr::new(self.vmcb.control.nested_cr3).frame();
        let walk = Walk { ram: &self.machine.ram, frames: &self.machine.frames, tag: self.vmcb.control.asid, root };
        let found = cpu.translation().tlb.translate(&walk, gpa, kind);
        match found {
            Ok(mfn) => {
                self.check_target(gpa, mfn);
                let maddr = mfn.address().checked_add(gpa.offset() as u64).expect("offsets stay inside the page");
                Ok((maddr, wanted.min(PAGE_SIZE - gpa.offset())))
            }
            Err(fault) => Err(self.fault(gpa, kind, fault)),
        }
    }

    /// A guest may reach its own and shared RAM, and device memory. Anything else was freed under it.
    fn check_target(&self, gpa: Gpa, mfn: Mfn) {
        let state = self.machine.frames.info(mfn).map(FrameInfo::state);
        let good = state.is_none_or(|state| matches!(state.kind, Kind::Guest | Kind::Shared) && state.count > 0);
        assert!(good, "a guest reaches {mfn:?} at {gpa:?}, but that is {state:?}: freed before the flush?");
    }

    fn fault(&mut self, gpa: Gpa, kind: AccessKind, fault: Fault) -> Exit {
        let access = match kind {
            AccessKind::Read => 0,
            AccessKind::Write => npf::WRITE,
            AccessKind::Execute => npf::FETCH,
        };
        let cause = match fault {
            Fault::NotPresent => 0,
            Fault::Rights => npf::PRESENT,
            Fault::Reserved => npf::PRESENT | npf::RESERVED,
        };
        self.exit(exit::NPF, npf::FINAL | npf::USER | access | cause, gpa.number())
    }
}

impl fmt::Debug for Guest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guest at {:#x} on CPU {}", self.vmcb.guest.rip, self.cpu.0)
    }
}

/// Runs a guest until its script leaves: the fake machine's VMRUN.
pub(super) fn run(vmcb: &mut Vmcb, general: &mut GeneralRegisters, tag: &mut AddressSpaceTag) -> Exit {
    let (machine, id) = current();
    machine.check_running();
    machine.relaxed.store(0, Ordering::Relaxed);
    if machine.is_stepped {
        // Nobody else makes time pass, and a guest that never leaves by itself must not keep its CPU for ever.
        machine.advance(TICKS_OF_AN_ENTRY);
    }
    super::allocation::exempt(|| {
        let cpu = machine.cpu(id);
        let (new, flush) = cpu.translation().renew(*tag);
        *tag = new;
        vmcb.control.asid = tag.number();
        if flush == Flush::All {
            vmcb.control.tlb_control = FLUSH_ALL;
        }
        let mut guest = Guest { machine: machine.clone(), cpu: id, vmcb, general, delivered: 0, interrupted: 0 };
        let tlb_control = core::mem::take(&mut guest.vmcb.control.tlb_control);
        if !is_valid(&guest) {
            // As real hardware may: without the flush that was asked for.
            cpu.translation().end_round();
            return guest.exit(exit::INVALID, 0, 0);
        }
        match tlb_control {
            0 => {}
            FLUSH_ALL => cpu.translation().tlb.flush_all(),
            _ => cpu.translation().tlb.flush_tag(guest.vmcb.control.asid),
        }
        if cpu.take_interrupt() {
            return guest.exit(exit::INTR, 0, 0);
        }
        guest.vmcb.control.exit_int_info = 0;
        if guest.vmcb.control.event_injection & event::VALID != 0 {
            guest.delivered = guest.vmcb.control.event_injection;
            guest.vmcb.control.event_injection = 0;
            machine.record_delivery(id, guest.delivered);
        }
        let key = machine.script_key(id);
        let mut script = machine.take_script(key);
        let exit = script.enter(&mut guest);
        machine.put_script(key, script);
        exit
    })
}

/// What VMRUN checks and this hypervisor could get wrong (APM volume 2, 15.5.1).
fn is_valid(guest: &Guest<'_>) -> bool {
    let vmcb = &guest.vmcb;
    let root = Maddr::new(vmcb.control.nested_cr3).frame();
    let has_root = guest.machine.frames.info(root).is_some_and(|info| info.state().kind == Kind::Table);
    vmcb.guest.efer & efer::SVME != 0
        && vmcb.control.intercept_2 & intercept_2::VMRUN != 0
        && vmcb.control.asid != 0
        && has_root
}

impl Script {
    fn enter(&mut self, guest: &mut Guest<'_>) -> Exit {
        match core::mem::take(&mut self.resume) {
            Resume::Hypercall(rip) if rip == guest.vmcb.guest.rip => {
                self.resume = Resume::Hypercall(rip);
                return guest.exit(exit::VMMCALL, 0, 0);
            }
            Resume::Retry(rip) if rip != guest.vmcb.guest.rip => {
                self.steps.pop_front();
            }
            _ => {}
        }
        let Some(mut step) = self.steps.pop_front() else {
            return match &mut self.program {
                Some(program) => program(guest),
                // Nothing left to do: the guest halts.
                None => guest.exit(exit::HLT, 0, 0),
            };
        };
        match step(guest) {
            Ok(exit) => {
                if exit == Exit::Hypercall {
                    self.resume = Resume::Hypercall(guest.vmcb.guest.rip);
                    guest.vmcb.control.next_rip = guest.vmcb.guest.rip.wrapping_add(VMMCALL_BYTES);
                }
                exit
            }
            Err(exit) => {
                self.steps.push_front(step);
                self.resume = Resume::Retry(guest.vmcb.guest.rip);
                exit
            }
        }
    }

    /// Adds what somebody queued while the script was out for a step.
    pub(super) fn append(&mut self, mut more: Self) {
        self.steps.append(&mut more.steps);
        self.program = more.program.or(self.program.take());
    }
}
