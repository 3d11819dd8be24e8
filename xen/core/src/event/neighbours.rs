//! What events, time and waiting ask of `x86` and `guest_mem`: one function per question, so that this is the one file of
//! `event` that knows them.

use crate::domain::Domain;
use crate::guest_mem::LinearMemory;
use crate::host::Host;
use crate::hypercall::Caller;
use crate::p2m::Access;
use crate::vcpu::Vcpu;
use crate::x86::control;
use machine::frame::Pin;
use public_abi::Errno;

/// Makes an interrupt pending in a vCPU's local APIC, if that is enabled.
pub fn post_vector(host: &Host, domain: &Domain, vcpu: &Vcpu, vector: u8) {
    crate::x86::vlapic::post_vector(host, domain, vcpu, vector);
}

/// Drives the I/O APIC's pin that the guest chose for its callback: active while vCPU 0 has events pending.
pub fn drive_callback_pin(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    crate::x86::interrupts::drive_callback_pin(host, domain, vcpu);
}

/// Whether something waits for the calling vCPU that ends waiting: an interrupt or an upcall, if it takes interrupts at all,
/// or an NMI. With interrupts off it may wait although one is pending, as in Xen: Linux polls so for a lock.
pub fn has_deliverable_interrupt(caller: &Caller<'_>) -> bool {
    crate::x86::interrupts::is_pending(caller.domain, caller.vcpu, caller.interrupts)
}

/// Makes an NMI pending and sees that it is delivered.
///
/// # Errors
/// None today; the shape leaves room.
pub fn send_nmi(host: &Host, domain: &Domain, vcpu: &Vcpu) -> Result<(), Errno> {
    crate::x86::vlapic::ipi::send_nmi(host, domain, vcpu);
    Ok(())
}

/// The bits of CR4 and EFER that a guest of this domain may set.
pub fn allowed_control_bits(domain: &Domain) -> (u64, u64) {
    let policy = domain.x86.policy();
    (control::cr4_bits(&policy), control::efer_bits(&policy))
}

/// A writable pin of the page at a linear address of the caller, and the address's place in it. The page must be RAM of the
/// caller's own, because the pin outlives the hypercall.
///
/// # Errors
/// EFAULT if the caller cannot write there.
pub fn pin_linear(memory: &LinearMemory<'_>, address: u64) -> Result<(Pin, usize), Errno> {
    let gpa = memory.translate(address, Access::Write)?;
    let pin = memory.domain.p2m.pin_for_others(gpa.frame(), Access::Write).map_err(|_| Errno::EFAULT)?;
    Ok((pin, gpa.offset()))
}
