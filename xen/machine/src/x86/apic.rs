//! The processor's own interrupt controller: timer, interrupts between processors, acknowledgement.
//!
//! xAPIC registers through memory, or x2APIC through MSRs if firmware left it on (AMD APM volume 2, chapter 16).

use super::traps::vector;
use super::{cpu, paging, ports, svm, time};
use crate::codec::apic::Mode;
use crate::codec::registers::msr;
use crate::cpu::Work;
use crate::units::{CpuId, Maddr};
use core::sync::atomic::{AtomicPtr, Ordering, fence};

const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const COMMAND_LOW: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const TIMER: u32 = 0x320;
const LINE_0: u32 = 0x350;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;
const MASKED: u32 = 1 << 16;
const DELIVERY_BUSY: u32 = 1 << 12;

/// Command: deliver as INIT, or as start-up with a page number, or as NMI; level asserted.
pub(super) const COMMAND_INIT: u32 = 5 << 8 | 1 << 14;
pub(super) const COMMAND_START: u32 = 6 << 8 | 1 << 14;
pub(super) const COMMAND_NMI: u32 = 4 << 8 | 1 << 14;

/// The register page; null in x2APIC mode.
static REGISTERS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

fn read(register: u32) -> u32 {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base.is_null() {
        return svm::read_msr(msr::X2APIC_FIRST + (register >> 4)) as u32;
    }
    // SAFETY: the register page is mapped by `initialise`; registers are 32 bits wide at 16-byte steps.
    unsafe { base.wrapping_add(register as usize).cast::<u32>().read_volatile() }
}

fn write(register: u32, value: u32) {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base.is_null() {
        return svm::write_msr(msr::X2APIC_FIRST + (register >> 4), u64::from(value));
    }
    // SAFETY: as in `read`.
    unsafe { base.wrapping_add(register as usize).cast::<u32>().write_volatile(value) };
}

/// The mode of all APICs: the boot CPU's.
static MODE: spin::Once<Mode> = spin::Once::new();

/// Finds and enables the boot CPU's APIC.
pub(super) fn initialise() {
    let mode = *MODE.call_once(|| Mode::of(svm::read_msr(msr::APIC_BASE)));
    if let Mode::Page(address) = mode {
        REGISTERS.store(paging::device(Maddr::new(address), 0x1000), Ordering::Relaxed);
    }
    silence_8259();
    enable();
}

/// Whether a command can be sent to this processor alone.
pub(super) fn reaches(apic_id: u32) -> bool {
    MODE.get().is_some_and(|mode| mode.reaches(apic_id))
}

/// Where this processor's register page is, by its APIC_BASE register.
pub fn local_apic() -> Maddr {
    Maddr::new(svm::read_msr(msr::APIC_BASE) & 0x000f_ffff_ffff_f000)
}

/// Masks the pair of 8259 controllers: nothing here listens to them, and firmware leaves them on vectors of exceptions.
fn silence_8259() {
    ports::output_8(0x21, 0xff);
    ports::output_8(0xa1, 0xff);
}

/// Enables this processor's APIC in the boot CPU's mode, with the timer in one-shot mode and masked, and all interrupts let in:
/// what the hypervisor does not want now it holds off with its interrupt flag.
pub(super) fn enable() {
    if let Some(mode) = MODE.get() {
        for base in mode.writes(svm::read_msr(msr::APIC_BASE)) {
            svm::write_msr(msr::APIC_BASE, base);
        }
    }
    write(TASK_PRIORITY, 0);
    write(SPURIOUS, 1 << 8 | u32::from(vector::SPURIOUS));
    write(LINE_0, MASKED);
    write(TIMER_DIVIDE, 0b1011);
    write(TIMER, MASKED | u32::from(vector::TIMER));
    cpu::record_apic_id();
}

/// This processor's APIC id.
pub fn own_id() -> u32 {
    let id = read(ID);
    if REGISTERS.load(Ordering::Relaxed).is_null() { id } else { id >> 24 }
}

/// Ends the interrupt that is being handled.
pub fn acknowledge() {
    write(END_OF_INTERRUPT, 0);
}

/// Sends a command to one processor.
pub(super) fn send(apic_id: u32, command: u32) {
    // Who is interrupted must see what was written before: the registers' volatile stores and MSRs order nothing else.
    fence(Ordering::SeqCst);
    if REGISTERS.load(Ordering::Relaxed).is_null() {
        return svm::write_msr(msr::X2APIC_FIRST + (COMMAND_LOW >> 4), u64::from(apic_id) << 32 | u64::from(command));
    }
    while read(COMMAND_LOW) & DELIVERY_BUSY != 0 {
        cpu::relax();
    }
    write(COMMAND_HIGH, apic_id << 24);
    write(COMMAND_LOW, command);
}

/// Notes a kick for a processor and interrupts it; a processor's kick to itself is only noted.
pub fn kick(target: CpuId) {
    cpu::note_work_for(target, Work::KICK.bits());
    if target != cpu::current_cpu()
        && let Some(other) = cpu::per_cpu(target)
    {
        send(other.apic_id.load(Ordering::Relaxed), u32::from(vector::KICK) | 1 << 14);
    }
}

/// Starts the timer with the largest count, for calibration; gives what is left.
pub(super) fn start_counting() {
    write(TIMER, MASKED | u32::from(vector::TIMER));
    write(TIMER_INITIAL, u32::MAX);
}

/// What is left of the count.
pub(super) fn remaining_count() -> u32 {
    read(TIMER_CURRENT)
}

/// Arms the timer for a time stamp, or disarms it.
pub fn set_timer(deadline: Option<u64>) {
    let Some(deadline) = deadline else {
        write(TIMER_INITIAL, 0);
        return;
    };
    let ticks = deadline.saturating_sub(cpu::read_tsc());
    let count = time::apic_count(ticks).clamp(1, u64::from(u32::MAX)) as u32;
    write(TIMER, u32::from(vector::TIMER));
    write(TIMER_INITIAL, count);
}
