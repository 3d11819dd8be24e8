//! Hypercalls that guest code makes with a structure as argument: by family, with the operation and the structure.

use crate::guest::Cpu;
use crate::kernel;
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::EventChannelOp;
use public_abi::grant_table::GrantTableOp;
use public_abi::hvm_op::{HvmOp, HvmParamRequest};
use public_abi::hvm_params::HvmParam;
use public_abi::memory::MemoryOp;
use public_abi::sched::SchedOp;
use public_abi::vcpu::VcpuOp;
use public_abi::{Errno, GuestPtr, Request};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a hypercall answers.
pub type Answer = Result<u64, Errno>;

/// What can be a hypercall's argument.
pub trait Argument: FromBytes + IntoBytes + Immutable {}

impl<T: FromBytes + IntoBytes + Immutable> Argument for T {}

impl Cpu {
    fn with<T: Argument>(&mut self, value: &mut T, request: impl FnOnce(GuestPtr<()>) -> Request) -> Answer {
        self.exchange(kernel::SCRATCH, value, request)
    }

    /// memory_op.
    ///
    /// # Errors
    /// The hypervisor's; so with all calls here.
    pub fn memory_op<T: Argument>(&mut self, operation: MemoryOp, value: &mut T) -> Answer {
        self.with(value, |arg| Request::MemoryOp { cmd: operation.number().into(), arg })
    }

    /// event_channel_op.
    ///
    /// # Errors
    /// See [`Cpu::memory_op`].
    pub fn event_op<T: Argument>(&mut self, operation: EventChannelOp, value: &mut T) -> Answer {
        self.with(value, |arg| Request::EventChannelOp { cmd: operation.number(), arg })
    }

    /// grant_table_op with one element.
    ///
    /// # Errors
    /// See [`Cpu::memory_op`].
    pub fn grant_op<T: Argument>(&mut self, operation: GrantTableOp, value: &mut T) -> Answer {
        self.with(value, |uop| Request::GrantTableOp { cmd: operation.number(), uop, count: 1 })
    }

    /// vcpu_op.
    ///
    /// # Errors
    /// See [`Cpu::memory_op`].
    pub fn vcpu_op<T: Argument>(&mut self, operation: VcpuOp, vcpu: u32, value: &mut T) -> Answer {
        self.with(value, |arg| Request::VcpuOp { cmd: operation.number(), vcpu, arg })
    }

    /// vcpu_op without an argument.
    ///
    /// # Errors
    /// See [`Cpu::memory_op`].
    pub fn vcpu_op_plain(&mut self, operation: VcpuOp, vcpu: u32) -> Answer {
        self.request(&Request::VcpuOp { cmd: operation.number(), vcpu, arg: GuestPtr::NULL })
    }

    /// sched_op.
    ///
    /// # Errors
    /// See [`Cpu::memory_op`].
    pub fn sched_op<T: Argument>(&mut self, operation: SchedOp, value: &mut T) -> Answer {
        self.with(value, |arg| Request::SchedOp { cmd: operation.number(), arg })
    }

    /// sched_op without an argument.
    ///
    /// # Errors
    /// See [`Cpu::memory_op`].
    pub fn sched_op_plain(&mut self, operation: SchedOp) -> Answer {
        self.request(&Request::SchedOp { cmd: operation.number(), arg: GuestPtr::NULL })
    }

    /// hvm_op.
    ///
    /// # Errors
    /// See [`Cpu::memory_op`].
    pub fn hvm_op<T: Argument>(&mut self, operation: HvmOp, value: &mut T) -> Answer {
        self.with(value, |arg| Request::HvmOp { cmd: operation.number().into(), arg })
    }

    /// A parameter of the own domain.
    ///
    /// # Errors
    /// See [`Cpu::memory_op`].
    pub fn param(&mut self, param: HvmParam) -> Answer {
        let mut request = HvmParamRequest { domid: DOMID_SELF, index: param.number(), ..HvmParamRequest::default() };
        self.hvm_op(HvmOp::GetParam, &mut request).map(|_| request.value)
    }
}
