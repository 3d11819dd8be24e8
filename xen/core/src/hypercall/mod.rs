//! Hypercalls: from registers to a verb and back.
//!
//! `public-abi` decodes the registers into a `Request`, `dispatch` hands it to the family's file, and that decodes and checks
//! the sub-operation and calls a verb. Policy is in the verbs.

pub mod access;
pub mod answer;
pub mod bitmaps;
pub mod compat;
pub mod console_io;
pub mod domctl;
pub mod event;
pub mod grant;
pub mod hvm;
pub mod memory;
mod memory_info;
mod memory_physmap;
#[cfg(test)]
mod memory_tests;
pub mod multicall;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod sysctl;
#[cfg(test)]
pub(crate) mod tests;
pub mod vcpu;
mod vcpu_initialise;
pub mod version;
pub mod vm_assist;
pub mod xsm;

use crate::domain::Domain;
use crate::guest_mem::LinearMemory;
use crate::host::Host;
use crate::outcome::Reply;
use crate::vcpu::Vcpu;
use crate::x86::interrupts::InterruptFlag;
use public_abi::{Errno, Request};

/// Who makes a hypercall, and the memory that its pointers lead to.
pub struct Caller<'a> {
    /// The hypervisor's state.
    pub host: &'a Host,
    /// The calling domain.
    pub domain: &'a Domain,
    /// The calling vCPU. Its `hardware` is held by the run loop.
    pub vcpu: &'a Vcpu,
    /// The calling vCPU's address space.
    pub memory: LinearMemory<'a>,
    /// Whether the calling vCPU takes interrupts: decides what ends its waiting.
    pub interrupts: InterruptFlag,
}

/// Does what the registers of a 64-bit caller ask for. The families are functions of their own, never inlined here, so that
/// none pays for the stack frame of another.
///
/// # Errors
/// The family's, or ENOSYS for a number that nobody serves.
#[inline]
pub fn dispatch(caller: &Caller<'_>, number: u64, registers: [u64; 6]) -> Reply {
    match Request::decode(number, registers)? {
        Request::XenVersion { cmd, arg } => version::handle(caller, cmd, arg),
        Request::EventChannelOp { cmd, arg } => event::event_channel_op(caller, cmd, arg),
        Request::SchedOp { cmd, arg } => sched::sched_op(caller, cmd, arg),
        Request::VcpuOp { cmd, vcpu, arg } => vcpu::vcpu_op(caller, cmd, vcpu, arg),
        Request::MemoryOp { cmd, arg } => memory::memory_op(caller, cmd, arg),
        Request::GrantTableOp { cmd, uop, count } => grant::grant_table_op(caller, cmd, uop, count),
        Request::HvmOp { cmd, arg } => hvm::handle(caller, cmd, arg),
        Request::Multicall { call_list, nr_calls } => multicall::call(caller, call_list.cast(), nr_calls),
        Request::SetTimerOp { timeout } => vcpu::set_timer_op(caller, timeout),
        Request::ConsoleIo { cmd, count, buffer } => console_io::handle(caller, cmd, count, buffer),
        Request::VmAssist { cmd, assist } => vm_assist::vm_assist(caller, cmd, assist),
        Request::PhysdevOp { cmd, arg } => physdev::handle(caller, cmd, arg),
        Request::PlatformOp { op } => platform::handle(caller, op),
        Request::Sysctl { op } => sysctl::handle(caller, op),
        Request::Domctl { op } => domctl::handle(caller, op),
        Request::XsmOp { .. } => xsm::handle(),
        Request::ArgoOp { .. } | Request::XenpmuOp { .. } | Request::DmOp { .. } | Request::HypfsOp { .. } => {
            Err(Errno::ENOSYS.into())
        }
    }
}
