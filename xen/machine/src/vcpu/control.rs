//! What the core may ask of the control half of a VMCB: events to deliver, exits to be told of, the clock's offset.
//!
//! None of it gives a guest power over the machine: events go to the guest itself, and exits are only asked for on top of the
//! standing ones that [`Vcpu::try_new`] has set, and taken back again. Before this: the core's `x86::interrupts`. After it: VMRUN,
//! in `arch::run`.

use super::Vcpu;
use crate::codec::vmcb::{event, intercept_1, v_intr};

/// The guest's interrupt shadow (APM volume 2, 15.21.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptShadow {
    /// Interrupts come when RFLAGS.IF lets them.
    No = 0,
    /// They keep away for one instruction.
    OneInstruction = 1,
}

/// The write intercept of CR8.
const CR8: u16 = 1 << 8;
/// A virtual interrupt of the highest priority, for which no task priority is too high.
const WINDOW: u64 = v_intr::IRQ | v_intr::IGNORE_TPR | 0xf << v_intr::PRIORITY_SHIFT;

impl Vcpu {
    /// Puts an event (bits of [`event`]; 0 for none) into the slot for delivery at the next entry; whatever was there is
    /// replaced. The processor refuses events that do not exist.
    #[inline]
    pub fn inject(&mut self, event: u64) {
        self.vmcb.control.event_injection = event;
    }

    /// Whether an event waits in the slot.
    #[inline]
    pub fn has_injection(&self) -> bool {
        self.vmcb.control.event_injection & event::VALID != 0
    }

    /// Takes the event away whose delivery the last exit interrupted. It counts only with [`event::VALID`] set.
    #[inline]
    pub fn take_interrupted_event(&mut self) -> u64 {
        core::mem::take(&mut self.vmcb.control.exit_int_info)
    }

    /// Sets whether interrupts keep away for one instruction, as after STI and MOV to SS.
    #[inline]
    pub fn set_interrupt_shadow(&mut self, shadow: InterruptShadow) {
        self.vmcb.control.interrupt_shadow = shadow as u64;
    }

    /// The task priority class (CR8, 0 to 15) that the processor compares with virtual interrupts' and that the guest may have
    /// changed without an exit.
    #[inline]
    pub fn task_priority(&self) -> u8 {
        (self.vmcb.control.v_intr & 0xf) as u8
    }

    /// Sets the task priority class as a write to CR8 does; only the low four bits count.
    #[inline]
    pub fn set_task_priority(&mut self, class: u64) {
        let v_intr = &mut self.vmcb.control.v_intr;
        *v_intr = *v_intr & !v_intr::TPR_MASK | class & 0xf;
    }

    /// Sets what the guest's time stamp counter is ahead of the machine's, in ticks, modulo 2^64.
    #[inline]
    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb.control.tsc_offset = offset;
    }

    /// Asks for an exit as soon as the guest takes interrupts: with a virtual interrupt that nobody ever takes.
    #[inline]
    pub fn open_interrupt_window(&mut self) {
        self.vmcb.control.v_intr |= WINDOW;
        self.vmcb.control.intercept_1 |= intercept_1::VINTR;
    }

    /// Asks for an exit when the guest sets its task priority.
    #[inline]
    pub fn watch_task_priority(&mut self) {
        self.vmcb.control.intercept_cr_write |= CR8;
    }

    /// Asks for neither of [`Vcpu::open_interrupt_window`] and [`Vcpu::watch_task_priority`] any more.
    #[inline]
    pub fn close_interrupt_window(&mut self) {
        let control = &mut self.vmcb.control;
        control.v_intr &= !WINDOW;
        control.intercept_1 &= !intercept_1::VINTR;
        control.intercept_cr_write &= !CR8;
    }

    /// Whether one of the two is asked for.
    #[inline]
    pub fn awaits_interrupt_window(&self) -> bool {
        self.vmcb.control.v_intr & v_intr::IRQ != 0 || self.vmcb.control.intercept_cr_write & CR8 != 0
    }

    /// Asks for an exit when the guest executes IRET.
    #[inline]
    pub fn watch_iret(&mut self) {
        self.vmcb.control.intercept_1 |= intercept_1::IRET;
    }

    /// Asks for no such exit any more.
    #[inline]
    pub fn ignore_iret(&mut self) {
        self.vmcb.control.intercept_1 &= !intercept_1::IRET;
    }
}
