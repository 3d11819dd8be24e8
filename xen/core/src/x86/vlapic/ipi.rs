//! Interprocessor interrupts: what the interrupt command register sends, and to whom.
//!
//! INIT and SIPI do not touch the target: it may be running. They leave a note in its `Startup`, and the target acts on the
//! note itself before its next entry (`interrupts::prepare`), where its registers are at hand.

use super::{FIRST_VECTOR, Trigger, deliver, error, post};
use crate::domain::Domain;
use crate::host::Host;
use crate::sched;
use crate::vcpu::{Vcpu, Wait};
use crate::x86::Startup;
use core::sync::atomic::Ordering;

/// Whom a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Destination {
    /// Logical ids are compared, not APIC ids.
    pub is_logical: bool,
    /// The number: 8 bits from xAPICs and I/O APICs, 32 from x2APICs.
    pub number: u32,
    /// The number that means everybody: 0xff or 0xffffffff.
    pub broadcast: u32,
}

/// How a message is delivered: bits 10:8 of commands and of redirection entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the manual's own names")]
pub enum Delivery {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    Startup,
    External,
    Reserved,
}

impl Delivery {
    /// Decodes bits 10:8.
    pub const fn of(register: u32) -> Self {
        match register >> 8 & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            7 => Self::External,
            _ => Self::Reserved,
        }
    }
}

/// Bits of the command register's low half.
mod command {
    pub(super) const LOGICAL: u32 = 1 << 11;
    pub(super) const ASSERT: u32 = 1 << 14;
    pub(super) const LEVEL: u32 = 1 << 15;
    pub(super) const SHORTHAND_SHIFT: u32 = 18;
}

/// Whether a vCPU's APIC is meant.
pub fn matches(vcpu: &Vcpu, destination: Destination) -> bool {
    let lapic = &vcpu.x86.lapic;
    if destination.number == destination.broadcast {
        return true;
    }
    if !destination.is_logical {
        return lapic.id() == destination.number;
    }
    let (logical, number) = (lapic.logical.load(Ordering::Acquire), destination.number);
    if lapic.is_x2apic() {
        return logical >> 16 == number >> 16 && logical & number & 0xffff != 0;
    }
    let (logical, number) = (logical >> 24, number & 0xff);
    match lapic.format.load(Ordering::Acquire) >> 28 {
        0xf => logical & number != 0,
        0 => logical >> 4 == number >> 4 && logical & number & 0xf != 0,
        _ => false,
    }
}

/// Sends by the command register of `sender`: `low` as written, `high` the destination (in bits 31:24 of an xAPIC).
pub fn send(host: &Host, domain: &Domain, sender: &Vcpu, low: u32, high: u32) {
    let is_x2apic = sender.x86.lapic.is_x2apic();
    let destination = Destination {
        is_logical: low & command::LOGICAL != 0,
        number: if is_x2apic { high } else { high >> 24 },
        broadcast: if is_x2apic { u32::MAX } else { 0xff },
    };
    let vector = (low & 0xff) as u8;
    let delivery = Delivery::of(low);
    if matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) && vector < FIRST_VECTOR {
        if let Some(vector) = sender.x86.lapic.note_error(error::SENT_ILLEGAL_VECTOR)
            && vector >= FIRST_VECTOR
        {
            deliver(host, domain, sender, vector, Trigger::Edge);
        }
        return;
    }
    // INIT level de-assert does nothing on processors since the Pentium 4.
    if delivery == Delivery::Init && low & (command::LEVEL | command::ASSERT) == command::LEVEL {
        return;
    }
    let is_meant = |vcpu: &Vcpu| match low >> command::SHORTHAND_SHIFT & 3 {
        0 => matches(vcpu, destination),
        1 => vcpu.index == sender.index,
        2 => true,
        _ => vcpu.index != sender.index,
    };
    deliver_to(host, domain, is_meant, delivery, vector, Trigger::Edge);
}

/// Delivers to the vCPUs that `is_meant` picks: to all of them, or for lowest priority to one.
pub fn deliver_to(
    host: &Host,
    domain: &Domain,
    is_meant: impl Fn(&Vcpu) -> bool,
    delivery: Delivery,
    vector: u8,
    trigger: Trigger,
) {
    let targets = domain.vcpus().iter().filter(|vcpu| is_meant(vcpu));
    match delivery {
        Delivery::Fixed => targets.for_each(|vcpu| post(host, domain, vcpu, vector, trigger)),
        Delivery::LowestPriority => {
            let candidates = targets.filter(|vcpu| vcpu.x86.lapic.is_accepting());
            if let Some(vcpu) = candidates.min_by_key(|vcpu| vcpu.x86.lapic.processor_priority()) {
                post(host, domain, vcpu, vector, trigger);
            }
        }
        Delivery::Nmi => targets.for_each(|vcpu| send_nmi(host, domain, vcpu)),
        Delivery::Init => targets.for_each(|vcpu| send_init(host, vcpu)),
        Delivery::Startup => targets.for_each(|vcpu| send_startup(host, domain, vcpu, vector)),
        // There is no system management mode, and no 8259 pair to ask for a vector.
        Delivery::Smi | Delivery::External | Delivery::Reserved => {}
    }
}

/// Sends a non-maskable interrupt.
pub fn send_nmi(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    vcpu.x86.startup.note(Startup::NMI);
    sched::wake(host, domain, vcpu, Wait::BLOCKED);
    sched::kick(host, vcpu);
}

/// Sends INIT: the vCPU stops and waits for a start-up message. It does nothing to one that waits already.
fn send_init(host: &Host, vcpu: &Vcpu) {
    if !vcpu.is_initialised.swap(false, Ordering::AcqRel) {
        return;
    }
    vcpu.x86.startup.note(Startup::INIT);
    if vcpu.wait().contains(Wait::DOWN) {
        // It is stopped anyway; the note stays until it is started.
        return;
    }
    vcpu.add_wait(Wait::DOWN);
    sched::kick(host, vcpu);
}

/// Sends a start-up message: a vCPU whose registers were never set, or not since INIT, begins in real mode at
/// `vector` × 4096. Only the first counts.
fn send_startup(host: &Host, domain: &Domain, vcpu: &Vcpu, vector: u8) {
    if vcpu.is_initialised.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        vcpu.x86.startup.note_start(vector);
        sched::wake(host, domain, vcpu, Wait::DOWN | Wait::BLOCKED);
    }
}
