//! Event channels: making ports.

use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{AllocUnbound, BindInterdomain, BindIpi, BindVirq, EventChannelOp, Status};
use public_abi::hvm_op::{EvtchnUpcallVector, HvmOp};
use public_abi::virq::Virq;

use crate::{call, clock};

/// A port that this domain sends to itself with.
///
/// # Panics
/// When the hypervisor refuses.
#[must_use]
pub fn ipi(vcpu: u32) -> u32 {
    let mut bind = BindIpi { vcpu, port: 0 };
    let result = call::event(EventChannelOp::BindIpi, &mut bind);
    assert!(result == 0, "bind_ipi: {result}");
    bind.port
}

/// Two ports of this domain that are connected to each other: sending on the first raises the second.
///
/// # Panics
/// When the hypervisor refuses.
#[must_use]
pub fn pair() -> (u32, u32) {
    let mut unbound = AllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, port: 0 };
    let result = call::event(EventChannelOp::AllocUnbound, &mut unbound);
    assert!(result == 0, "alloc_unbound: {result}");
    let mut bind = BindInterdomain { remote_dom: DOMID_SELF, remote_port: unbound.port, ..Default::default() };
    let result = call::event(EventChannelOp::BindInterdomain, &mut bind);
    assert!(result == 0, "bind_interdomain: {result}");
    (bind.local_port, unbound.port)
}

/// Binds a virtual interrupt.
///
/// # Errors
/// The hypercall's result.
pub fn virq(virq: Virq, vcpu: u32) -> Result<u32, i64> {
    let mut bind = BindVirq { virq: virq.number(), vcpu, port: 0 };
    match call::event(EventChannelOp::BindVirq, &mut bind) {
        0 => Ok(bind.port),
        error => Err(error),
    }
}

/// What a port is: status, vCPU and the two words of detail.
///
/// # Errors
/// The hypercall's result.
pub fn status(port: u32) -> Result<(u32, u32, [u32; 2]), i64> {
    let mut status = Status { dom: DOMID_SELF, port, ..Default::default() };
    match call::event(EventChannelOp::Status, &mut status) {
        0 => Ok((status.status, status.vcpu, status.u)),
        error => Err(error),
    }
}

/// Sets the vector for this vCPU, and takes the one upcall that Xen makes up when the vector changes.
pub fn use_upcall_vector(vector: u8) -> i64 {
    let result = upcall_vector(rt::cpu_index() as u32, vector);
    rt::enable_interrupts();
    clock::delay(1);
    rt::disable_interrupts();
    result
}

/// Sets the vector by which a vCPU is told of events.
pub fn upcall_vector(vcpu: u32, vector: u8) -> i64 {
    call::hvm(HvmOp::SetEvtchnUpcallVector, &mut EvtchnUpcallVector { vcpu, vector, pad: [0; 3] })
}
