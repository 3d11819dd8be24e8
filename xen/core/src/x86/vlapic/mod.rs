//! The local APIC of a vCPU: which interrupts are requested, which one is delivered next, and the registers around that.
//! (AMD APM volume 2, chapter 16; behaviour where the manual leaves a choice is Xen's.)
//!
//! Interrupts come in by [`post_vector`] from anywhere; `interrupts` takes the next one out before an entry; the guest
//! reaches the registers by MMIO (`registers::mmio_read`, `mmio_write`) or as MSRs. `ipi` sends to other vCPUs, `timer`
//! counts. All state is atomic: the vCPU itself is the only one that changes most of it, the others add requests.

pub mod ipi;
pub mod registers;
pub mod timer;
mod vectors;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wake_tests;

use super::control::Refused;
use crate::domain::Domain;
use crate::host::Host;
use crate::sched;
use crate::vcpu::{Vcpu, Wait};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub use timer::expired as lapic_timer_expired;
use vectors::Vectors;

/// Where the registers appear, unless the base MSR says otherwise; it cannot be moved here, as in Xen.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;
/// Bytes of the register page.
pub const WINDOW: u64 = 0x1000;
/// Vectors below are exceptions and cannot be sent.
pub const FIRST_VECTOR: u8 = 16;
/// Local vector table entries: timer, thermal, performance, LINT0, LINT1, error.
const LVT_ENTRIES: usize = 6;

/// Bits of the base MSR (APM volume 2, 16.3.1 and 16.9).
pub mod base {
    /// The boot processor.
    pub const BOOT: u64 = 1 << 8;
    /// x2APIC mode.
    pub const X2APIC: u64 = 1 << 10;
    /// Enabled.
    pub const ENABLED: u64 = 1 << 11;
    /// Where the page lies.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// Bits of a local vector table entry.
mod lvt {
    pub(super) const VECTOR: u32 = 0xff;
    pub(super) const MASKED: u32 = 1 << 16;
}

/// Bit of the spurious-interrupt register that turns the APIC on.
const SOFTWARE_ENABLE: u32 = 1 << 8;

/// How an interrupt was signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Once; forgotten after delivery.
    Edge,
    /// As long as a line is active: the end of interrupt goes back to the I/O APIC.
    Level,
}

/// What there is to deliver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// This vector, at once.
    Vector(u8),
    /// This vector, once the guest lowers its priority.
    Blocked(u8),
}

/// A local APIC.
#[derive(Debug)]
pub struct Vlapic {
    id: u32,
    base: AtomicU64,
    requested: Vectors,
    in_service: Vectors,
    level: Vectors,
    /// False only if nothing is requested: spares the scan at most entries.
    may_be_pending: AtomicBool,
    task_priority: AtomicU32,
    logical: AtomicU32,
    format: AtomicU32,
    spurious: AtomicU32,
    /// Errors as the guest reads them, and those since.
    errors: AtomicU32,
    new_errors: AtomicU32,
    command: AtomicU64,
    lvt: [AtomicU32; LVT_ENTRIES],
    pub(super) timer: timer::LapicTimer,
}

impl Vlapic {
    /// As after power-on, with this APIC id, `is_boot` for the first vCPU.
    pub const fn new(id: u32, is_boot: bool) -> Self {
        let boot = if is_boot { base::BOOT } else { 0 };
        Self {
            id,
            base: AtomicU64::new(DEFAULT_BASE | base::ENABLED | boot),
            requested: Vectors::new(),
            in_service: Vectors::new(),
            level: Vectors::new(),
            may_be_pending: AtomicBool::new(false),
            task_priority: AtomicU32::new(0),
            logical: AtomicU32::new(0),
            format: AtomicU32::new(u32::MAX),
            spurious: AtomicU32::new(0xff),
            errors: AtomicU32::new(0),
            new_errors: AtomicU32::new(0),
            command: AtomicU64::new(0),
            lvt: [const { AtomicU32::new(lvt::MASKED) }; LVT_ENTRIES],
            timer: timer::LapicTimer::new(),
        }
    }

    /// What INIT leaves: all registers as after power-on but for the id, the base MSR, and the logical id in x2APIC mode.
    /// The caller stops the timer.
    pub fn init(&self) {
        self.requested.clear();
        self.in_service.clear();
        self.level.clear();
        self.may_be_pending.store(false, Ordering::Release);
        if !self.is_x2apic() {
            self.logical.store(0, Ordering::Release);
        }
        self.format.store(u32::MAX, Ordering::Release);
        self.spurious.store(0xff, Ordering::Release);
        for register in [&self.task_priority, &self.errors, &self.new_errors] {
            register.store(0, Ordering::Release);
        }
        self.command.store(0, Ordering::Release);
        for entry in &self.lvt {
            entry.store(lvt::MASKED, Ordering::Release);
        }
        self.timer.reset();
    }

    /// The APIC id.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The base MSR.
    #[inline]
    pub fn base(&self) -> u64 {
        self.base.load(Ordering::Acquire)
    }

    /// Whether the base MSR enables it.
    #[inline]
    pub fn is_enabled(&self) -> bool {
        self.base() & base::ENABLED != 0
    }

    /// Whether it is in x2APIC mode.
    #[inline]
    pub fn is_x2apic(&self) -> bool {
        self.base() & (base::ENABLED | base::X2APIC) == base::ENABLED | base::X2APIC
    }

    /// Whether it takes interrupts: enabled by the base MSR and by the spurious-interrupt register.
    #[inline]
    pub fn is_accepting(&self) -> bool {
        self.is_enabled() && self.spurious.load(Ordering::Acquire) & SOFTWARE_ENABLE != 0
    }

    /// Whether the register page is seen at this guest physical address.
    #[inline]
    pub fn claims(&self, address: u64) -> bool {
        let base = self.base();
        base & (base::ENABLED | base::X2APIC) == base::ENABLED && address & !(WINDOW - 1) == base & base::ADDRESS
    }

    /// Sets the base MSR.
    ///
    /// # Errors
    /// [`Refused`] for reserved bits, a moved page, or a change of mode that the manual does not have.
    pub fn set_base(&self, value: u64, has_x2apic: bool) -> Result<(), Refused> {
        let known = base::ADDRESS | base::ENABLED | base::BOOT | if has_x2apic { base::X2APIC } else { 0 };
        let old = self.base();
        let is_xapic = value & (base::ENABLED | base::X2APIC) == base::ENABLED;
        if value & !known != 0 || is_xapic && value & base::ADDRESS != DEFAULT_BASE {
            return Err(Refused);
        }
        let mode = base::ENABLED | base::X2APIC;
        match (old & mode, value & mode) {
            // The two ways that skip a step, and x2APIC without the APIC.
            (0, base::ENABLED) => self.init(),
            (old, new) if old == new => {}
            (base::ENABLED, new) if new == mode => self.logical.store(x2apic_logical(self.id), Ordering::Release),
            (_, 0) => {}
            _ => return Err(Refused),
        }
        self.base.store(value, Ordering::Release);
        Ok(())
    }

    /// Sets the base MSR to what a save record says, whatever the mode was.
    ///
    /// # Errors
    /// [`Refused`] for reserved bits, a moved page, or x2APIC mode without the APIC.
    pub fn restore_base(&self, value: u64, has_x2apic: bool) -> Result<(), Refused> {
        let known = base::ADDRESS | base::ENABLED | base::BOOT | if has_x2apic { base::X2APIC } else { 0 };
        let mode = value & (base::ENABLED | base::X2APIC);
        let is_moved = mode == base::ENABLED && value & base::ADDRESS != DEFAULT_BASE;
        if value & !known != 0 || is_moved || mode == base::X2APIC {
            return Err(Refused);
        }
        self.base.store(value, Ordering::Release);
        if self.is_x2apic() {
            self.logical.store(x2apic_logical(self.id), Ordering::Release);
        }
        Ok(())
    }

    /// Sets the registers that `register` gives by offset, each with the bits that it has; the timer is not among them.
    pub fn restore_registers(&self, register: impl Fn(u16) -> u32) {
        use registers::{LVT_BITS, offset};
        let store = |place: &AtomicU32, value| place.store(value, Ordering::Release);
        store(&self.task_priority, register(offset::TPR) & 0xff);
        if !self.is_x2apic() {
            store(&self.logical, register(offset::LDR) & 0xff00_0000);
        }
        store(&self.format, register(offset::DFR) | 0x0fff_ffff);
        store(&self.spurious, register(offset::SPURIOUS) & 0x3ff);
        store(&self.errors, register(offset::ESR) & 0xff);
        let command = u64::from(register(offset::ICR_HIGH)) << 32 | u64::from(register(offset::ICR) & !(1 << 12));
        self.command.store(command, Ordering::Release);
        let mask = if register(offset::SPURIOUS) & SOFTWARE_ENABLE == 0 { lvt::MASKED } else { 0 };
        for ((entry, bits), at) in self.lvt.iter().zip(LVT_BITS).zip((offset::LVT_TIMER..).step_by(16)) {
            store(entry, register(at) & bits | mask);
        }
        for (set, first) in
            [(&self.in_service, offset::ISR), (&self.level, offset::TMR), (&self.requested, offset::IRR)]
        {
            for (index, at) in (first..).step_by(16).take(8).enumerate() {
                set.set_register(index, register(at));
            }
        }
        self.may_be_pending.store(true, Ordering::Release);
    }

    /// Requests a vector. True if the vCPU should be told: it takes interrupts, and this one was not requested.
    #[inline]
    pub fn request(&self, vector: u8, trigger: Trigger) -> bool {
        if !self.is_accepting() {
            return false;
        }
        match trigger {
            Trigger::Edge => self.level.remove(vector),
            Trigger::Level => self.level.insert(vector),
        };
        let is_new = self.requested.insert(vector);
        // After the request itself: whoever finds the hint false has found the request missing after clearing it. And before
        // the caller looks whether the vCPU sleeps: a vCPU that goes to sleep says so first and looks at the hint afterwards,
        // so of the two stores one must be seen. A plain store may be overtaken by the load that follows it.
        self.may_be_pending.store(true, Ordering::SeqCst);
        is_new
    }

    /// The task priority register.
    #[inline]
    pub fn task_priority(&self) -> u8 {
        (self.task_priority.load(Ordering::Relaxed) & 0xff) as u8
    }

    /// Sets the task priority register.
    #[inline]
    pub fn set_task_priority(&self, value: u8) {
        self.task_priority.store(u32::from(value), Ordering::Relaxed);
    }

    /// The processor priority: the higher class of the task's and of the interrupt in service.
    #[inline]
    pub fn processor_priority(&self) -> u8 {
        let task = self.task_priority();
        let service = self.in_service.highest().unwrap_or(0);
        if task >> 4 >= service >> 4 { task } else { service & 0xf0 }
    }

    /// Whether surely nothing is requested.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        !self.may_be_pending.load(Ordering::SeqCst)
    }

    /// The highest requested vector, and whether its priority class is above the processor's.
    #[inline]
    pub fn pending(&self) -> Pending {
        if !self.may_be_pending.load(Ordering::SeqCst) {
            return Pending::Nothing;
        }
        self.scan()
    }

    fn scan(&self) -> Pending {
        let Some(vector) = self.requested.highest() else {
            self.may_be_pending.store(false, Ordering::SeqCst);
            // A request may have come between the scan and the store.
            if self.requested.highest().is_some() {
                self.may_be_pending.store(true, Ordering::SeqCst);
            }
            return Pending::Nothing;
        };
        if !self.is_accepting() {
            return Pending::Nothing;
        }
        if vector >> 4 > self.processor_priority() >> 4 { Pending::Vector(vector) } else { Pending::Blocked(vector) }
    }

    /// Puts a vector from requested into service: it is being delivered.
    #[inline]
    pub fn accept(&self, vector: u8) {
        self.requested.remove(vector);
        self.in_service.insert(vector);
    }

    /// Ends the interrupt in service. Gives its vector if it was level-triggered, for the I/O APIC.
    #[inline]
    pub fn end_of_interrupt(&self) -> Option<u8> {
        let vector = self.in_service.highest()?;
        self.in_service.remove(vector);
        self.level.remove(vector).then_some(vector)
    }

    /// Notes an error (a bit of the error status register). Gives the error interrupt's vector if it is to be raised.
    fn note_error(&self, bit: u32) -> Option<u8> {
        let is_new = self.new_errors.fetch_or(bit, Ordering::AcqRel) & bit == 0;
        let entry = self.lvt.last().map_or(lvt::MASKED, |entry| entry.load(Ordering::Acquire));
        (is_new && entry & lvt::MASKED == 0).then_some((entry & lvt::VECTOR) as u8)
    }
}

/// The logical id in x2APIC mode: cluster in the upper half, one bit of 16 in the lower.
const fn x2apic_logical(id: u32) -> u32 {
    id >> 4 << 16 | 1 << (id & 0xf)
}

/// Sends an edge-triggered vector to a vCPU, and sees that it notices.
#[inline]
pub fn post_vector(host: &Host, domain: &Domain, vcpu: &Vcpu, vector: u8) {
    post(host, domain, vcpu, vector, Trigger::Edge);
}

/// As [`post_vector`], with a choice of trigger.
#[inline]
pub fn post(host: &Host, domain: &Domain, vcpu: &Vcpu, vector: u8, trigger: Trigger) {
    if vector < FIRST_VECTOR {
        if let Some(vector) = vcpu.x86.lapic.note_error(error::RECEIVED_ILLEGAL_VECTOR)
            && vector >= FIRST_VECTOR
        {
            deliver(host, domain, vcpu, vector, Trigger::Edge);
        }
        return;
    }
    deliver(host, domain, vcpu, vector, trigger);
}

#[inline]
fn deliver(host: &Host, domain: &Domain, vcpu: &Vcpu, vector: u8, trigger: Trigger) {
    if vcpu.x86.lapic.request(vector, trigger) {
        sched::wake(host, domain, vcpu, Wait::BLOCKED);
        sched::kick(host, vcpu);
    }
}

/// Bits of the error status register.
mod error {
    pub(super) const SENT_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub(super) const RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
    #[cfg(test)]
    pub(super) const ILLEGAL_REGISTER: u32 = 1 << 7;
}
