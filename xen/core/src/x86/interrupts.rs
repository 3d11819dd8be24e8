//! What a vCPU is told at its next entry: exceptions that the hypervisor raises, events whose delivery an exit interrupted,
//! non-maskable interrupts, interrupts of the local APIC, the event-channel callback. (AMD APM volume 2, 15.20 and 15.21.)
//!
//! A VMCB takes one event per entry (EVENTINJ). What cannot be delivered now is waited for: with a virtual interrupt that
//! nobody ever takes, whose window exits (V_IRQ and the VINTR intercept); and where the guest's task priority is in the
//! way, with the intercept of CR8 writes. Not with V_IRQ's own priority: one emulator compares it with "not below" where
//! the manual says "above", and would exit without end.
//!
//! EXITINTINFO says which event was being delivered when the exit came. It means that only while its VALID bit is set:
//! QEMU keeps the other bits of an event that was delivered long ago. Then the event goes back into EVENTINJ, unless the
//! instruction that raised it will raise it again (software interrupts, INT3, INTO: RIP is still at them). `prepare` takes
//! EXITINTINFO away when it has looked at it, so that no exit's event is taken twice; and EVENTINJ's own VALID bit is
//! cleared by the processor (and by `machine`) at each exit, so that a delivered event is not there any more.

use super::Startup;
use super::vlapic::Pending;
use crate::domain::Domain;
use crate::event::{self as event_channel, Callback};
use crate::host::Host;
use crate::outcome::Stop;
use crate::vcpu::Vcpu;
use machine::codec::registers::rflags;
use machine::codec::vmcb::{Control, GuestState, Segment, event};
use machine::vcpu::{InterruptShadow, Vcpu as Hardware};

/// Vectors of exceptions.
const DEBUG: u8 = 1;
const NMI_VECTOR: u8 = 2;
const BREAKPOINT: u8 = 3;
const OVERFLOW: u8 = 4;
const INVALID_OPCODE: u8 = 6;
const DOUBLE_FAULT: u8 = 8;
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;

/// What becomes of two exceptions, the second raised while the first was being delivered (APM volume 2, 8.2.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Combined {
    Second,
    DoubleFault,
    Shutdown,
}

fn combine(first: u8, second: u8) -> Combined {
    let is_contributory = |vector| matches!(vector, 0 | 10..=13);
    match (first, second) {
        (DOUBLE_FAULT, second) if is_contributory(second) || second == PAGE_FAULT => Combined::Shutdown,
        (PAGE_FAULT, PAGE_FAULT) => Combined::DoubleFault,
        (PAGE_FAULT, second) if is_contributory(second) => Combined::DoubleFault,
        (first, second) if is_contributory(first) && is_contributory(second) => Combined::DoubleFault,
        _ => Combined::Second,
    }
}

const fn pack(kind: u64, vector: u8, error_code: Option<u32>) -> u64 {
    let error = match error_code {
        Some(code) => event::HAS_ERROR | (code as u64) << 32,
        None => 0,
    };
    event::VALID | kind & event::TYPE_MASK | vector as u64 | error
}

/// Puts an event into the slot. If one is there already it is an exception of the same instruction: a debug trap gives way,
/// others follow the rules for two exceptions, where what would be a shutdown is a double fault again.
pub fn queue(hardware: &mut Hardware, kind: u64, vector: u8, error_code: Option<u32>) {
    let old = hardware.control().event_injection;
    let both_exceptions =
        old & event::VALID != 0 && old & event::TYPE_MASK == event::EXCEPTION && kind == event::EXCEPTION;
    let first = (old & event::VECTOR_MASK) as u8;
    hardware.inject(match combine(first, vector) {
        Combined::DoubleFault | Combined::Shutdown if both_exceptions && first != DEBUG => {
            pack(event::EXCEPTION, DOUBLE_FAULT, Some(0))
        }
        _ => pack(kind, vector, error_code),
    });
}

/// Raises #UD.
pub fn raise_invalid_opcode(hardware: &mut Hardware) {
    queue(hardware, event::EXCEPTION, INVALID_OPCODE, None);
}

/// Raises #GP(0).
pub fn raise_general_protection(hardware: &mut Hardware) {
    queue(hardware, event::EXCEPTION, GENERAL_PROTECTION, Some(0));
}

/// Raises #PF.
pub fn raise_page_fault(hardware: &mut Hardware, fault: super::walk::PageFault) {
    hardware.guest_mut().cr2 = fault.address;
    queue(hardware, event::EXCEPTION, PAGE_FAULT, Some(fault.error_code));
}

/// Raises an exception that was intercepted, again.
pub fn raise_again(hardware: &mut Hardware, vector: u8, error_code: Option<u32>) {
    queue(hardware, event::EXCEPTION, vector, error_code);
}

/// Sends the vCPU's upcall vector again if events are pending: the local APIC has dropped it while it was off.
pub fn repeat_upcall(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    if let Some(vector) = vcpu.events.upcall.vector()
        && event_channel::upcall_pending(domain, vcpu)
    {
        super::vlapic::post_vector(host, domain, vcpu, vector);
    }
}

/// Drives the I/O APIC's pin that stands for the event-channel callback, if the guest wants it by a pin: active while vCPU 0
/// has events pending.
pub fn drive_callback_pin(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    let Some(vioapic) = &domain.x86.vioapic else { return };
    if vcpu.index != 0 {
        return;
    }
    let Some((callback, active)) = event_channel::callback_line(domain) else { return };
    let pin = match callback {
        Callback::Gsi(pin) => usize::from(pin),
        // How Xen's machine wires the four INTx lines of 32 devices to pins 16 to 47.
        Callback::PciIntx { device, pin } => {
            let line = usize::from(device) * 4 + usize::from(device >> 3) + usize::from(pin);
            16 + line % 32
        }
        Callback::Vector(_) | Callback::None => return,
    };
    vioapic.set_level(host, domain, pin, active);
}

/// Puts an event whose delivery the last exit interrupted back into the slot.
///
/// # Errors
/// The unit value: three faults in a row, the guest shuts down.
fn requeue(hardware: &mut Hardware) -> Result<(), ()> {
    let interrupted = hardware.take_interrupted_event();
    hardware.inject(combined(hardware.control().event_injection, interrupted)?);
    Ok(())
}

/// The event that a vCPU that is off its CPU gets at its next entry: what is in the slot, and what the last exit
/// interrupted. After three faults in a row it is the second once more, so that whoever restores the vCPU sees them, too.
pub fn event_in_delivery(control: &Control) -> u64 {
    let double_fault = pack(event::EXCEPTION, DOUBLE_FAULT, Some(0));
    combined(control.event_injection, control.exit_int_info).unwrap_or(double_fault)
}

/// What stands in the slot when an interrupted event is put back, with `new` in it.
///
/// # Errors
/// The unit value: three faults in a row, the guest shuts down.
fn combined(new: u64, interrupted: u64) -> Result<u64, ()> {
    if interrupted & event::VALID == 0 {
        return Ok(new);
    }
    let vector = (interrupted & event::VECTOR_MASK) as u8;
    let is_exception = |event_bits: u64| event_bits & event::TYPE_MASK == event::EXCEPTION;
    let is_raised_again = match interrupted & event::TYPE_MASK {
        event::SOFTWARE => true,
        event::EXCEPTION => matches!(vector, BREAKPOINT | OVERFLOW),
        _ => false,
    };
    if is_raised_again {
        return Ok(new);
    }
    if new & event::VALID == 0 {
        return Ok(interrupted);
    }
    if is_exception(interrupted) && is_exception(new) {
        return match combine(vector, (new & event::VECTOR_MASK) as u8) {
            Combined::Second => Ok(new),
            Combined::DoubleFault => Ok(pack(event::EXCEPTION, DOUBLE_FAULT, Some(0))),
            Combined::Shutdown => Err(()),
        };
    }
    Ok(new)
}

/// What is to be delivered, from where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Nothing,
    Nmi,
    /// The domain's callback: no local APIC takes part.
    Callback(u8),
    Lapic(u8),
    /// Of the local APIC, but the task priority is too high.
    LapicBlocked,
}

#[inline]
fn source(domain: &Domain, vcpu: &Vcpu) -> Source {
    if vcpu.x86.startup.nmi_is_due() {
        return Source::Nmi;
    }
    if let Some(vector) = event_channel::callback_vector(domain, vcpu) {
        return Source::Callback(vector);
    }
    match vcpu.x86.lapic.pending() {
        Pending::Nothing => Source::Nothing,
        Pending::Vector(vector) => Source::Lapic(vector),
        Pending::Blocked(_) => Source::LapicBlocked,
    }
}

/// RFLAGS.IF of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptFlag {
    /// It takes maskable interrupts.
    Set,
    /// It does not.
    Clear,
}

impl InterruptFlag {
    /// As the guest's registers have it.
    #[inline]
    pub const fn of(state: &GuestState) -> Self {
        if state.rflags & rflags::IF == 0 { Self::Clear } else { Self::Set }
    }
}

/// Whether something waits that ends HLT and the like: a start-up message, an NMI, or, if the guest takes them, an
/// interrupt. Who marks a vCPU as blocked asks after that, so that what came in between is not lost.
pub fn is_pending(domain: &Domain, vcpu: &Vcpu, flag: InterruptFlag) -> bool {
    if vcpu.x86.startup.wants_start() {
        return true;
    }
    match source(domain, vcpu) {
        Source::Nmi => true,
        Source::Callback(_) | Source::Lapic(_) => flag == InterruptFlag::Set,
        Source::Nothing | Source::LapicBlocked => false,
    }
}

/// Makes the VMCB ready for entry. The last step before `run`, with the vCPU loaded.
///
/// # Errors
/// [`Stop::Crash`] or another end of the domain after a triple fault; [`Stop::Yield`] if the vCPU must not run after all.
#[inline]
pub fn prepare(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) -> Result<(), Stop> {
    if vcpu.x86.startup.wants_start() {
        start(host, domain, vcpu, hardware);
    }
    if hardware.control().exit_int_info & event::VALID != 0 && requeue(hardware).is_err() {
        super::exits::triple_fault(host, domain);
        return Err(Stop::Yield(0));
    }
    // CR8 may have been written without an exit. In the lower half of the register the guest has nothing to say then.
    let class = hardware.task_priority();
    if vcpu.x86.lapic.task_priority() >> 4 != class {
        vcpu.x86.lapic.set_task_priority(class << 4);
    }
    // At most entries there is nothing to tell, and nothing was asked for before.
    let is_quiet = !event_channel::has_callback(domain) && vcpu.x86.lapic.is_quiet() && vcpu.x86.startup.is_quiet();
    if !is_quiet || hardware.awaits_interrupt_window() {
        tell(host, domain, vcpu, hardware);
    }
    Ok(())
}

/// Tells the vCPU what there is, or takes back what was asked for when there was something.
fn tell(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) {
    drive_callback_pin(host, domain, vcpu);
    match source(domain, vcpu) {
        Source::Nothing => hardware.close_interrupt_window(),
        source => offer(domain, vcpu, hardware, source),
    }
}

/// Delivers what `source` says, or asks for an exit when that becomes possible.
fn offer(domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware, source: Source) {
    let is_free = !hardware.has_injection() && hardware.control().interrupt_shadow & 1 == 0;
    let takes_interrupts = is_free && hardware.guest().rflags & rflags::IF != 0;
    hardware.close_interrupt_window();
    match source {
        Source::Nmi if is_free => {
            hardware.inject(pack(event::NMI, NMI_VECTOR, None));
            vcpu.x86.startup.take(Startup::NMI);
            vcpu.x86.startup.note(Startup::NMI_BLOCKED);
            hardware.watch_iret();
        }
        Source::Callback(vector) if takes_interrupts => {
            hardware.inject(pack(event::INTERRUPT, vector, None));
        }
        Source::Lapic(vector) if takes_interrupts => {
            vcpu.x86.lapic.accept(vector);
            hardware.inject(pack(event::INTERRUPT, vector, None));
        }
        Source::Nmi | Source::Callback(_) | Source::Lapic(_) => hardware.open_interrupt_window(),
        Source::LapicBlocked => hardware.watch_task_priority(),
        Source::Nothing => {}
    }
    // More may be waiting behind what was just delivered: then the guest must be asked again soon. The callback is no
    // more, for it stays pending until the guest has handled it.
    let more = match self::source(domain, vcpu) {
        Source::Callback(_) => !matches!(source, Source::Callback(_)),
        Source::Lapic(_) => true,
        Source::Nothing | Source::Nmi | Source::LapicBlocked => false,
    };
    if more {
        hardware.open_interrupt_window();
    }
}

/// The guest returns from an NMI: the next one may come, after the IRET itself.
pub fn iret(vcpu: &Vcpu, hardware: &mut Hardware) {
    vcpu.x86.startup.take(Startup::NMI_BLOCKED);
    hardware.ignore_iret();
    // The shadow keeps interrupts away for one instruction, which is the IRET.
    hardware.set_interrupt_shadow(InterruptShadow::OneInstruction);
}

/// Acts on INIT and start-up messages.
#[cold]
fn start(host: &Host, domain: &Domain, vcpu: &Vcpu, hardware: &mut Hardware) {
    let (is_reset, begin) = vcpu.x86.startup.take_start();
    if is_reset {
        reset_loaded(hardware);
        reset_interrupts(host, vcpu, hardware);
    }
    if let Some(vector) = begin {
        reset_loaded(hardware);
        begin_at(hardware, vector);
        super::msr::synchronise_timestamp(host, domain, vcpu, hardware);
    }
}

/// What INIT does besides resetting the registers: to the local APIC, and to what the vCPU waits for.
fn reset_interrupts(host: &Host, vcpu: &Vcpu, hardware: &mut Hardware) {
    vcpu.x86.lapic.init();
    vcpu.x86.startup.take(Startup::NMI | Startup::NMI_BLOCKED);
    super::vlapic::timer::stop(host, vcpu);
    hardware.close_interrupt_window();
    hardware.ignore_iret();
    hardware.set_task_priority(0);
}

/// Acts now on an INIT that a vCPU which is off its CPU has not seen yet. Its registers are about to be set from outside, and
/// would be reset again at its next entry.
pub fn settle(host: &Host, vcpu: &Vcpu, hardware: &mut Hardware) {
    let (is_reset, _) = vcpu.x86.startup.take_start();
    if is_reset {
        reset_interrupts(host, vcpu, hardware);
    }
}

/// Resets the registers of a vCPU whose vector registers are on the CPU.
fn reset_loaded(hardware: &mut Hardware) {
    hardware.save();
    hardware.reset();
    hardware.load();
}

/// Lets a vCPU that was just reset begin in real mode at `vector` × 4096.
fn begin_at(hardware: &mut Hardware, vector: u8) {
    let state = hardware.guest_mut();
    let selector = u16::from(vector) << 8;
    state.cs = Segment { selector, attributes: 0x9b, limit: 0xffff, base: u64::from(selector) << 4 };
    state.rip = 0;
}

#[cfg(test)]
#[path = "interrupts_tests.rs"]
mod tests;
