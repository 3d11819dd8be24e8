//! Hypercalls by name.
//!
//! Each takes the family's operation and a structure, and gives the result register as a signed number.

use public_abi::Hypercall;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{EventChannelOp, Port};
use public_abi::grant_table::GrantTableOp;
use public_abi::hvm_op::{HvmOp, HvmParamRequest};
use public_abi::hvm_params::HvmParam;
use public_abi::memory::MemoryOp;
use public_abi::payload::Payload;
use public_abi::sched::SchedOp;
use public_abi::sysctl::{Sysctl, SysctlOp};
use public_abi::vcpu::VcpuOp;
use public_abi::version::VersionOp;

/// Any hypercall.
pub fn raw(call: Hypercall, arguments: [u64; 5]) -> i64 {
    rt::hypercall(call.number(), arguments)
}

/// The address of a structure, for a hypercall that may write it.
pub fn address<T: ?Sized>(structure: &mut T) -> u64 {
    core::ptr::from_mut(structure).expose_provenance() as u64
}

/// memory_op.
pub fn memory<T>(operation: MemoryOp, argument: &mut T) -> i64 {
    raw(Hypercall::MemoryOp, [u64::from(operation.number()), address(argument), 0, 0, 0])
}

/// event_channel_op.
pub fn event<T>(operation: EventChannelOp, argument: &mut T) -> i64 {
    raw(Hypercall::EventChannelOp, [u64::from(operation.number()), address(argument), 0, 0, 0])
}

/// Sends on a port.
pub fn send(port: u32) -> i64 {
    event(EventChannelOp::Send, &mut Port { port })
}

/// Closes a port.
pub fn close(port: u32) -> i64 {
    event(EventChannelOp::Close, &mut Port { port })
}

/// sched_op.
pub fn sched<T>(operation: SchedOp, argument: &mut T) -> i64 {
    raw(Hypercall::SchedOp, [u64::from(operation.number()), address(argument), 0, 0, 0])
}

/// Lets others run.
pub fn yield_cpu() -> i64 {
    raw(Hypercall::SchedOp, [u64::from(SchedOp::Yield.number()), 0, 0, 0, 0])
}

/// vcpu_op.
pub fn vcpu<T>(operation: VcpuOp, vcpu: u32, argument: &mut T) -> i64 {
    raw(Hypercall::VcpuOp, [u64::from(operation.number()), u64::from(vcpu), address(argument), 0, 0])
}

/// vcpu_op without a structure.
pub fn vcpu_plain(operation: VcpuOp, vcpu: u32) -> i64 {
    raw(Hypercall::VcpuOp, [u64::from(operation.number()), u64::from(vcpu), 0, 0, 0])
}

/// xen_version.
pub fn version<T: ?Sized>(operation: VersionOp, argument: &mut T) -> i64 {
    raw(Hypercall::XenVersion, [u64::from(operation.number()), address(argument), 0, 0, 0])
}

/// grant_table_op on one structure.
pub fn grant<T>(operation: GrantTableOp, argument: &mut T) -> i64 {
    raw(Hypercall::GrantTableOp, [u64::from(operation.number()), address(argument), 1, 0, 0])
}

/// hvm_op.
pub fn hvm<T>(operation: HvmOp, argument: &mut T) -> i64 {
    raw(Hypercall::HvmOp, [u64::from(operation.number()), address(argument), 0, 0, 0])
}

/// Reads a parameter of this domain.
///
/// # Errors
/// The hypercall's negative result.
pub fn get_parameter(parameter: HvmParam) -> Result<u64, i64> {
    let mut request = HvmParamRequest { domid: DOMID_SELF, index: parameter.number(), ..Default::default() };
    match hvm(HvmOp::GetParam, &mut request) {
        0 => Ok(request.value),
        error => Err(error),
    }
}

/// Sets a parameter of this domain; the hypercall's result.
pub fn set_parameter(parameter: HvmParam, value: u64) -> i64 {
    set_parameter_of(DOMID_SELF, parameter, value)
}

/// Sets a parameter of a domain; the hypercall's result.
pub fn set_parameter_of(domid: u16, parameter: HvmParam, value: u64) -> i64 {
    hvm(HvmOp::SetParam, &mut HvmParamRequest { domid, index: parameter.number(), value, ..Default::default() })
}

/// domctl with parameters, which are replaced by its answer; gives the result and the domain that it names then.
pub fn domctl<T: Payload<Domctl>>(operation: DomctlOp, domid: u16, parameters: &mut T) -> (i64, u16) {
    let Ok(mut request) = Domctl::with(operation, domid, parameters) else { return (i64::MIN, domid) };
    let result = raw(Hypercall::Domctl, [address(&mut request), 0, 0, 0, 0]);
    if let Ok(answer) = request.get() {
        *parameters = answer;
    }
    (result, request.domain)
}

/// domctl without parameters.
pub fn domctl_plain(operation: DomctlOp, domid: u16) -> i64 {
    raw(Hypercall::Domctl, [address(&mut Domctl::new(operation, domid)), 0, 0, 0, 0])
}

/// sysctl with parameters, which are replaced by its answer.
pub fn sysctl<T: Payload<Sysctl>>(operation: SysctlOp, parameters: &mut T) -> i64 {
    let Ok(mut request) = Sysctl::with(operation, parameters) else { return i64::MIN };
    let result = raw(Hypercall::Sysctl, [address(&mut request), 0, 0, 0, 0]);
    if let Ok(answer) = request.get() {
        *parameters = answer;
    }
    result
}
