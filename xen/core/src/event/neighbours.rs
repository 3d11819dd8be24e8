//! What events, time and waiting ask of modules that are written elsewhere: one function per question.
//!
//! Each function is one line once its owner's module is merged; the doc comment names the owner and the call.

use crate::domain::Domain;
use crate::guest_mem::LinearMemory;
use crate::host::Host;
use crate::p2m::Access;
use crate::vcpu::Vcpu;
use crate::x86::control;
use machine::frame::Pin;
use public_abi::Errno;

/// Makes an interrupt pending in a vCPU's local APIC, if that is enabled. Owner x86: `x86::vlapic::post_vector`.
pub fn post_vector(host: &Host, domain: &Domain, vcpu: &Vcpu, vector: u8) {
    crate::x86::vlapic::post_vector(host, domain, vcpu, vector);
}

/// Whether the calling vCPU would take an interrupt right now if it went on (its interrupt flag counts, pending upcalls by
/// the domain's callback vector count). Owner x86.
pub fn has_deliverable_interrupt(domain: &Domain, vcpu: &Vcpu) -> bool {
    crate::x86::interrupts::is_pending(domain, vcpu)
}

/// Makes an NMI pending and sees that it is delivered. Owner x86.
///
/// # Errors
/// None today; the shape leaves room.
pub fn send_nmi(host: &Host, domain: &Domain, vcpu: &Vcpu) -> Result<(), Errno> {
    crate::x86::vlapic::ipi::send_nmi(host, domain, vcpu);
    Ok(())
}

/// The bits of CR4 and EFER that a guest of this domain may set. Owner x86: `control::cr4_bits`, `control::efer_bits`.
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
