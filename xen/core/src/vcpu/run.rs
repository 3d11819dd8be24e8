//! The loop that everything passes through: pick a vCPU, let it run until something stops it, act on that, resume.
//!
//! One place writes a hypercall's result into the guest's registers; one place decides whether the vCPU goes on. What an
//! exit means is decided in `hypercall`, `fault` and `x86::exits`.

use super::{Vcpu, Wait};
use crate::domain::Domain;
use crate::fault::Handled;
use crate::guest_mem::{LinearMemory, Pages};
use crate::host::{Cpu, Host};
use crate::hypercall::{self, Caller};
use crate::outcome::{Reply, Stop};
use crate::p2m::NeedsFlush;
use crate::timer::TimerKind;
use crate::{domain, fault, sched, time, timer, x86};
use core::sync::atomic::Ordering;
use machine::codec::registers::Register;
use machine::cpu::{self, Work};
use machine::exit::Exit;
use machine::{CpuId, DomId, log};
use public_abi::Errno;
use public_abi::vcpu::Runstate;

type Hardware = machine::vcpu::Vcpu;

/// What follows an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Enter the guest again.
    Resume,
    /// Take the vCPU off the CPU.
    Leave,
}

/// A CPU's life: run what wants to run, else wait for an interrupt.
pub fn cpu_loop(host: &Host, me: CpuId) -> ! {
    loop {
        do_work(host, me);
        match sched::pick(host, me) {
            Some((domain, vcpu)) => run_slice(host, me, domain, vcpu),
            None => sched::idle(host, me),
        }
    }
}

/// Does what interrupts have noted for this CPU.
#[inline]
fn do_work(host: &Host, me: CpuId) {
    let work = cpu::take_work();
    if work.is_empty() {
        return;
    }
    if work.contains(Work::TIMER) {
        timer::run_due(host, me);
        domain::console::announce_output(host);
    }
    if work.contains(Work::CONSOLE) {
        domain::console::drain(host);
    }
}

/// Runs one vCPU until it waits, is stopped, or another's turn comes.
fn run_slice(host: &Host, me: CpuId, domain_id: DomId, index: u32) {
    let Some(cpu) = host.cpus.get(me.index()) else { return };
    let Some(domain) = host.domains.get(domain_id) else { return };
    let domain: &Domain = &domain;
    let Some(vcpu) = domain.vcpu(index) else { return };
    let Some(mut guard) = vcpu.hardware.try_lock() else {
        // Somebody reads its registers this moment: try again after the others.
        return sched::put(host, me, domain, vcpu, 0);
    };
    let hardware: &mut Hardware = &mut guard;
    let Some(door) = domain.p2m.door(me) else { return };
    let pages = Pages::new();
    sched::begin(host, me, vcpu);
    cpu::set_working_for(domain.id, u16::try_from(index).unwrap_or(u16::MAX));
    let start = cpu::timestamp();
    timer::set_slice_end(host, me, Some(start.saturating_add(sched::ticks(sched::SLICE_MICROSECONDS))));
    time::refresh_vcpu(host, domain, vcpu);
    time::runstate_changed(domain, vcpu, Runstate::Running, host.clock.now());
    let mut epoch = vcpu.p2m_epoch.load(Ordering::Relaxed);
    hardware.load();
    while may_go_on(host, cpu, me, domain, vcpu, start) {
        if x86::interrupts::prepare(host, domain, vcpu, hardware).is_err() {
            break;
        }
        if door.enter(&mut epoch) == NeedsFlush::Yes {
            hardware.flush_translations();
            vcpu.x86.forget_code();
            pages.forget();
        }
        let exit = hardware.run();
        door.leave();
        let reply = match exit {
            Exit::Hypercall => hypercall(host, domain, vcpu, hardware, &pages),
            other => handle(host, domain, vcpu, hardware, other),
        };
        if apply(host, domain, vcpu, hardware, reply) == Next::Leave {
            break;
        }
        do_work(host, me);
    }
    pages.forget();
    hardware.save();
    drop(guard);
    vcpu.p2m_epoch.store(epoch, Ordering::Relaxed);
    vcpu.x86.forget_code();
    timer::set_slice_end(host, me, None);
    time::runstate_changed(domain, vcpu, state_off_cpu(domain, vcpu), host.clock.now());
    sched::put(host, me, domain, vcpu, cpu::timestamp().saturating_sub(start));
}

/// SHUTDOWN_crash (public/sched.h).
const CRASHED: u8 = 3;

/// What a vCPU is called that has just left its CPU.
fn state_off_cpu(domain: &Domain, vcpu: &Vcpu) -> Runstate {
    let wait = vcpu.wait();
    match () {
        () if wait.contains(Wait::DOWN) || domain.lifecycle.is_stopped() => Runstate::Offline,
        () if wait.is_empty() => Runstate::Runnable,
        () => Runstate::Blocked,
    }
}

/// Whether the vCPU may enter the guest (again).
#[inline]
fn may_go_on(host: &Host, cpu: &Cpu, me: CpuId, domain: &Domain, vcpu: &Vcpu, start: u64) -> bool {
    if domain.lifecycle.is_stopped() || !vcpu.is_runnable() {
        return false;
    }
    !cpu.wants_switch() || may_keep_cpu(host, me, vcpu, start)
}

/// Whether the vCPU may stay although there was a reason to look at the queue.
#[cold]
fn may_keep_cpu(host: &Host, me: CpuId, vcpu: &Vcpu, start: u64) -> bool {
    let now = cpu::timestamp();
    if sched::should_switch(host, me, vcpu, now.saturating_sub(start)) {
        return false;
    }
    timer::set_slice_end(host, me, Some(now.saturating_add(sched::ticks(sched::SLICE_MICROSECONDS))));
    true
}

/// Finds out what an exit other than a hypercall asks for, and does it.
#[inline]
fn handle(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, exit: Exit) -> Reply {
    match exit {
        Exit::Hypercall | Exit::Interrupt => Ok(0),
        Exit::X86(exit) => x86::exits::handle(host, domain, vcpu, hardware, exit),
        Exit::Stage2Fault(access) => match fault::handle(domain, &access) {
            Handled::Resume => Ok(0),
            Handled::Emulate => x86::mmio::handle(host, domain, vcpu, hardware, access),
            Handled::Crash(reason) => Err(Stop::Crash(reason)),
        },
        Exit::Halt => x86::exits::halt(host, domain, vcpu, hardware),
        Exit::Pause => x86::exits::pause(domain, vcpu, hardware),
        Exit::InterruptWindow => Ok(0),
        Exit::Shutdown => {
            x86::exits::triple_fault(host, domain);
            Ok(0)
        }
        Exit::Invalid => Err(Stop::Crash(&"the hardware refused its state")),
    }
}

/// A hypercall: its registers to a request, the answer to RAX. A call that is not finished leaves RIP where it was.
#[inline]
fn hypercall(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, pages: &Pages) -> Reply {
    let rip = hardware.vmcb().rip;
    if !x86::exits::pass_hypercall(domain, vcpu, hardware) {
        return Ok(0);
    }
    if !hardware.is_64_bit() {
        return hypercall_32(host, domain, vcpu, hardware, rip);
    }
    let reply = if hardware.vmcb().cpl == 0 {
        let caller = Caller { host, domain, vcpu, memory: LinearMemory::keeping(domain, hardware, pages) };
        let registers = ARGUMENTS.map(|register| hardware.register(register));
        hypercall::dispatch(&caller, hardware.register(Register::Rax), registers)
    } else {
        Err(Stop::Error(Errno::EPERM))
    };
    answer(hardware, rip, &ARGUMENTS, reply)
}

/// A hypercall of 32-bit code.
#[cold]
fn hypercall_32(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, rip: u64) -> Reply {
    let reply = if hardware.vmcb().cpl == 0 {
        let caller = Caller { host, domain, vcpu, memory: LinearMemory::new(domain, hardware) };
        let registers = ARGUMENTS_32.map(|register| hardware.register(register));
        hypercall::compat::dispatch(&caller, hardware.register(Register::Rax), registers)
    } else {
        Err(Stop::Error(Errno::EPERM))
    };
    answer(hardware, rip, &ARGUMENTS_32, reply)
}

/// Writes a hypercall's answer into the guest's registers: the one place that does.
#[inline]
fn answer(hardware: &mut Hardware, rip: u64, order: &[Register; 6], reply: Reply) -> Reply {
    let value = match reply {
        Ok(value) => {
            hardware.set_register(Register::Rax, value);
            return Ok(0);
        }
        Err(Stop::Block(value) | Stop::Yield(value)) => value,
        Err(Stop::Error(errno)) => i64::from(errno.number()).wrapping_neg().cast_unsigned(),
        Err(Stop::Restart(cursor)) => {
            hardware.vmcb_mut().rip = rip;
            if let Some((register, cursor)) = cursor.and_then(|c| Some((*order.get(usize::from(c.argument))?, c))) {
                hardware.set_register(register, cursor.value);
            }
            return reply;
        }
        Err(Stop::Crash(_)) => return reply,
    };
    hardware.set_register(Register::Rax, value);
    reply
}

/// Argument registers of a 64-bit hypercall, in order (Xen public/arch-x86/xen-x86_64.h).
const ARGUMENTS: [Register; 6] =
    [Register::Rdi, Register::Rsi, Register::Rdx, Register::R10, Register::R8, Register::R9];

/// Argument registers of a 32-bit hypercall, in order (Xen public/arch-x86/xen-x86_32.h).
const ARGUMENTS_32: [Register; 6] =
    [Register::Rbx, Register::Rcx, Register::Rdx, Register::Rsi, Register::Rdi, Register::Rbp];

/// Draws the consequence of an answer.
#[inline]
fn apply(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &Hardware, reply: Reply) -> Next {
    match reply {
        // An error of a hypercall is in the guest's register already; elsewhere there is nobody to tell.
        Ok(_) | Err(Stop::Error(_) | Stop::Restart(_)) => Next::Resume,
        Err(Stop::Yield(_)) => Next::Leave,
        Err(Stop::Block(_)) => {
            vcpu.add_wait(Wait::BLOCKED);
            // Whoever made something pending before the flag was set saw a running vCPU and did not wake it: look again.
            if x86::interrupts::is_pending(domain, vcpu) {
                vcpu.clear_wait(Wait::BLOCKED);
                return Next::Resume;
            }
            Next::Leave
        }
        Err(Stop::Crash(reason)) => {
            crash(host, domain, vcpu, hardware, reason);
            Next::Leave
        }
    }
}

#[cold]
fn crash(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &Hardware, reason: &str) {
    let vmcb = hardware.vmcb();
    let (rip, exit) = (vmcb.rip, Exit::decode(vmcb));
    log!(Error, "{}v{} crashed at {rip:#x}: {reason} ({exit:?})", domain.id, vcpu.index);
    domain::shutdown::shutdown(host, domain, CRASHED);
}

/// A vCPU's timer has run out; called by `timer` on the CPU on which it was set.
pub fn timer_expired(host: &Host, domain: &Domain, vcpu: &Vcpu, kind: TimerKind) {
    match kind {
        TimerKind::Lapic => x86::vlapic::timer::expired(host, domain, vcpu),
        other => time::timers::expired(host, domain, vcpu, other),
    }
}
