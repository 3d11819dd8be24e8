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
use crate::outcome::{Cursor, Reply, Stop};
use crate::p2m::NeedsFlush;
use crate::sched::turn::Turn;
use crate::timer::TimerKind;
use crate::x86::interrupts::InterruptFlag;
use crate::{domain, event, fault, interrupt, sched, time, timer, x86};
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

/// A CPU's life.
pub fn cpu_loop(host: &Host, me: CpuId) -> ! {
    loop {
        turn(host, me);
    }
}

/// One turn of a CPU's life: run what wants to run, for a slice at the most, else wait for an interrupt. Tests that play
/// several CPUs on one thread take the turns themselves.
pub fn turn(host: &Host, me: CpuId) {
    do_work(host, me);
    match sched::pick(host, me) {
        Some((domain, vcpu)) => run_slice(host, me, domain, vcpu),
        None => sched::idle(host, me),
    }
}

/// Does what interrupts have noted for this CPU.
#[inline]
fn do_work(host: &Host, me: CpuId) {
    let work = cpu::take_work();
    if work.is_empty() {
        return;
    }
    if work.contains(Work::DEVICE) {
        interrupt::pass_on(host, me);
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
fn run_slice(host: &Host, me: CpuId, domain: DomId, index: u32) {
    let Some(cpu) = host.cpus.get(me.index()) else { return };
    let Some(domain) = host.domains.get(domain) else { return };
    let domain: &Domain = &domain;
    let Some(vcpu) = domain.vcpu(index) else { return };
    let Some(door) = domain.p2m.door(me) else { return };
    sched::begin(host, me, vcpu);
    let Some(mut guard) = vcpu.hardware.try_lock().filter(|_| vcpu.sched.may_run_on(me)) else {
        // Somebody reads its registers this moment, or has sent it elsewhere: try again after the others.
        return sched::put(host, me, domain, vcpu, 0);
    };
    let hardware: &mut Hardware = &mut guard;
    if vcpu.x86.is_halted() && stays_halted(domain, vcpu, hardware) {
        drop(guard);
        time::runstate_changed(domain, vcpu, state_off_cpu(domain, vcpu), host.clock.now());
        return sched::put(host, me, domain, vcpu, 0);
    }
    let Some(mut turn) = Turn::begin(host, me, domain, vcpu, cpu::timestamp()) else {
        drop(guard);
        return sched::put(host, me, domain, vcpu, 0);
    };
    cpu::set_working_for(domain.id, u16::try_from(index).unwrap_or(u16::MAX));
    x86::vlapic::timer::watch(host, vcpu);
    time::refresh_vcpu(host, domain, vcpu);
    time::runstate_changed(domain, vcpu, Runstate::Running, host.clock.now());
    let mut epoch = vcpu.p2m_epoch.load(Ordering::Relaxed);
    hardware.load();
    let pages = Pages::new();
    while may_go_on(host, cpu, me, domain, vcpu, &mut turn) {
        if x86::interrupts::prepare(host, domain, vcpu, hardware).is_err() {
            break;
        }
        let before = epoch;
        if door.enter(&mut epoch) == NeedsFlush::Yes {
            hardware.flush_translations();
            forget_what_changed(domain, vcpu, &pages, before, epoch);
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
    time::runstate_changed(domain, vcpu, state_off_cpu(domain, vcpu), host.clock.now());
    let ran = turn.end(host, me, domain, cpu::timestamp());
    sched::put(host, me, domain, vcpu, ran);
}

/// Gives up what the vCPU remembers of the domain's memory, as far as it may have changed from one epoch to another. Most often
/// that is one page, which the guest itself has just given back.
fn forget_what_changed(domain: &Domain, vcpu: &Vcpu, pages: &Pages, before: u64, now: u64) {
    if let Some(frame) = domain.p2m.only_change(before, now) {
        vcpu.x86.forget_code_in(frame, before, now);
        pages.forget_frame(frame, before, now);
    } else {
        vcpu.x86.forget_code();
        pages.forget();
    }
}

/// Whether a vCPU in HLT, whose turn it is, has been woken for nothing: by an interrupt that its task priority holds back, for
/// example. It then waits on: a processor leaves HLT for an interrupt that it takes, and for nothing else.
fn stays_halted(domain: &Domain, vcpu: &Vcpu, hardware: &Hardware) -> bool {
    vcpu.add_wait(Wait::BLOCKED);
    // Whoever made something pending before the flag was set saw a vCPU that waits for nothing, and did not wake it.
    let has_ended = x86::interrupts::is_pending(domain, vcpu, InterruptFlag::of(hardware.guest()));
    if has_ended {
        vcpu.clear_wait(Wait::BLOCKED);
        vcpu.x86.set_halted(false);
    }
    !has_ended
}

/// SHUTDOWN_crash (public/sched.h).
const CRASHED: u8 = 3;

/// What a vCPU is called that has just left its CPU.
fn state_off_cpu(domain: &Domain, vcpu: &Vcpu) -> Runstate {
    let wait = vcpu.wait();
    match () {
        () if wait.contains(Wait::DOWN) || domain.lifecycle.is_stopped() => Runstate::Offline,
        () if (wait - Wait::PARKED).is_empty() => Runstate::Runnable,
        () => Runstate::Blocked,
    }
}

/// Whether the vCPU may enter the guest (again). If there is a reason to, its turn is looked at.
#[inline]
fn may_go_on(host: &Host, cpu: &Cpu, me: CpuId, domain: &Domain, vcpu: &Vcpu, turn: &mut Turn) -> bool {
    if domain.lifecycle.is_stopped() || !vcpu.is_runnable() {
        return false;
    }
    !cpu.wants_switch() || turn.may_stay(host, me, domain, vcpu, cpu::timestamp())
}

/// Finds out what an exit other than a hypercall asks for, and does it.
#[inline]
fn handle(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, exit: Exit) -> Reply {
    match exit {
        Exit::Hypercall | Exit::Interrupt => Ok(0),
        Exit::X86(exit) => x86::exits::handle(host, domain, vcpu, hardware, exit),
        Exit::Stage2Fault(access) => match fault::handle(domain, &access, |page| host.pci.hides(page)) {
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
    let rip = hardware.guest().rip;
    if !x86::exits::pass_hypercall(domain, vcpu, hardware) {
        return Ok(0);
    }
    if !hardware.is_64_bit() {
        return hypercall_32(host, domain, vcpu, hardware, rip);
    }
    let reply = if hardware.guest().cpl == 0 {
        let memory = LinearMemory::keeping(domain, hardware, pages);
        let caller = Caller { host, domain, vcpu, memory, interrupts: InterruptFlag::of(hardware.guest()) };
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
    let reply = if hardware.guest().cpl == 0 {
        let memory = LinearMemory::new(domain, hardware);
        let caller = Caller { host, domain, vcpu, memory, interrupts: InterruptFlag::of(hardware.guest()) };
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
            hardware.guest_mut().rip = rip;
            for (argument, value) in cursor.into_iter().flat_map(Cursor::changes) {
                if let Some(register) = order.get(usize::from(argument)) {
                    hardware.set_register(*register, value);
                }
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
            // A poll that an interrupt has ended must not end this, too.
            event::poll::stop(domain, vcpu);
            vcpu.x86.set_halted(true);
            if stays_halted(domain, vcpu, hardware) { Next::Leave } else { Next::Resume }
        }
        Err(Stop::Crash(reason)) => {
            crash(host, domain, vcpu, hardware, reason);
            Next::Leave
        }
    }
}

#[cold]
fn crash(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &Hardware, reason: &str) {
    let (rip, exit) = (hardware.guest().rip, Exit::decode(hardware.control()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Role;
    use crate::x86::testing::with_guest;
    use machine::codec::registers::rflags;

    #[test]
    fn a_halt_ends_by_what_the_guest_takes_and_by_nothing_else() {
        with_guest(Role::Guest, &[0xf4], |_, host, domain, vcpu, hardware| {
            hardware.guest_mut().rflags |= rflags::IF;
            vcpu.x86.lapic.set_task_priority(0x50);
            // Software-enabled, as a guest's kernel does first.
            x86::vlapic::registers::mmio_write(host, domain, vcpu, hardware, 0xfee0_00f0, 4, 0x1ff);
            let halted = apply(host, domain, vcpu, hardware, Err(Stop::Block(0)));
            assert_eq!((halted, vcpu.x86.is_halted(), vcpu.is_runnable()), (Next::Leave, true, false));
            // Something that the task priority holds back wakes the vCPU, but it does not leave HLT.
            x86::vlapic::post_vector(host, domain, vcpu, 0x41);
            assert!(vcpu.is_runnable());
            assert!(stays_halted(domain, vcpu, hardware));
            assert_eq!((vcpu.x86.is_halted(), vcpu.is_runnable()), (true, false));
            x86::vlapic::post_vector(host, domain, vcpu, 0x61);
            assert!(!stays_halted(domain, vcpu, hardware));
            assert_eq!((vcpu.x86.is_halted(), vcpu.is_runnable()), (false, true));
        });
    }
}
