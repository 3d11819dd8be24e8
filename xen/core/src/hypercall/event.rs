//! event_channel_op (hypercall 32, public/event_channel.h): decode, check, call a verb of `event`.

use super::Caller;
use super::access::{Need, Target};
use crate::event::table::Closer;
use crate::event::{State, channel, fifo_control};
use crate::outcome::{Reply, Stop};
use machine::DomId;
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{
    AllocUnbound, BindInterdomain, BindIpi, BindPirq, BindVcpu, BindVirq, EventChannelOp, ExpandArray, FIFO_LINK_BITS,
    InitControl, Port, PortStatus, Reset, SetPriority, Status, StatusInterdomain, StatusUnbound,
};
use public_abi::virq::{Virq, VirqScope};
use public_abi::{Errno, GuestPtr};

/// Answers the call.
///
/// # Errors
/// ENOSYS for an operation that does not exist; else those of the operation.
#[inline(never)]
pub fn event_channel_op(caller: &Caller<'_>, command: u32, argument: GuestPtr<()>) -> Reply {
    let operation = EventChannelOp::try_from(command).map_err(|_| Errno::ENOSYS)?;
    if operation == EventChannelOp::Send {
        let send: Port = caller.memory.read(argument.cast())?;
        channel::send(caller.host, caller.domain, send.port)?;
        return Ok(0);
    }
    rarely(caller, operation, argument)
}

/// All but sending.
fn rarely(caller: &Caller<'_>, operation: EventChannelOp, argument: GuestPtr<()>) -> Reply {
    let (host, domain) = (caller.host, caller.domain);
    match operation {
        EventChannelOp::AllocUnbound => alloc_unbound(caller, argument.cast())?,
        EventChannelOp::BindInterdomain => bind_interdomain(caller, argument.cast())?,
        EventChannelOp::BindVirq => bind_virq(caller, argument.cast())?,
        EventChannelOp::BindIpi => bind_ipi(caller, argument.cast())?,
        EventChannelOp::BindPirq => {
            let _bind: BindPirq = caller.memory.read(argument.cast())?;
            // No domain has physical interrupts (XENFEAT_hvm_pirqs is off), so every number is out of range.
            return Err(Errno::EINVAL.into());
        }
        EventChannelOp::Close => {
            let close: Port = caller.memory.read(argument.cast())?;
            channel::close(host, domain, close.port, Closer::Guest)?;
        }
        EventChannelOp::Status => status(caller, argument.cast())?,
        EventChannelOp::BindVcpu => {
            let bind: BindVcpu = caller.memory.read(argument.cast())?;
            let vcpu = existing_vcpu(caller, bind.vcpu)?;
            domain.events.table().bind_vcpu(bind.port, vcpu)?;
        }
        EventChannelOp::Unmask => {
            let unmask: Port = caller.memory.read(argument.cast())?;
            channel::unmask(host, domain, unmask.port)?;
        }
        EventChannelOp::Reset => reset(caller, argument.cast())?,
        EventChannelOp::InitControl => {
            let mut init: InitControl = caller.memory.read(argument.cast())?;
            fifo_control::init_control(domain, init.vcpu, init.control_gfn, init.offset)?;
            init.link_bits = u8::try_from(FIFO_LINK_BITS).unwrap_or(u8::MAX);
            caller.memory.write(argument.cast(), &init)?;
        }
        EventChannelOp::ExpandArray => {
            let expand: ExpandArray = caller.memory.read(argument.cast())?;
            fifo_control::expand_array(host, domain, expand.array_gfn)?;
        }
        EventChannelOp::SetPriority => {
            let set: SetPriority = caller.memory.read(argument.cast())?;
            domain.events.table().set_priority(set.port, set.priority)?;
        }
        _ => return Err(Errno::ENOSYS.into()),
    }
    Ok(0)
}

/// A vCPU number of the caller's domain.
fn existing_vcpu(caller: &Caller<'_>, vcpu: u32) -> Result<u16, Errno> {
    caller.domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    u16::try_from(vcpu).map_err(|_| Errno::ENOENT)
}

fn alloc_unbound(caller: &Caller<'_>, argument: GuestPtr<AllocUnbound>) -> Result<(), Errno> {
    let mut alloc = caller.memory.read(argument)?;
    let domain = caller.target(alloc.dom, Need::SelfOrControl)?;
    let remote = if alloc.remote_dom == DOMID_SELF { caller.domain.id } else { DomId(alloc.remote_dom) };
    alloc.port = channel::alloc_unbound(&domain, remote)?;
    caller.memory.write(argument, &alloc)
}

fn bind_interdomain(caller: &Caller<'_>, argument: GuestPtr<BindInterdomain>) -> Result<(), Errno> {
    let mut bind = caller.memory.read(argument)?;
    let remote = caller.target(bind.remote_dom, Need::Nothing)?;
    bind.local_port = channel::bind_interdomain(caller.host, caller.domain, &remote, bind.remote_port)?;
    caller.memory.write(argument, &bind)
}

fn bind_virq(caller: &Caller<'_>, argument: GuestPtr<BindVirq>) -> Result<(), Errno> {
    let mut bind = caller.memory.read(argument)?;
    let virq = known_virq(bind.virq)?;
    if virq.scope() == VirqScope::Global && bind.vcpu != 0 {
        return Err(Errno::EINVAL);
    }
    let vcpu = existing_vcpu(caller, bind.vcpu)?;
    bind.port = caller.domain.events.table().bind_virq(virq, vcpu)?;
    caller.memory.write(argument, &bind)
}

fn known_virq(number: u32) -> Result<Virq, Errno> {
    Virq::try_from(number).map_err(|_| Errno::EINVAL)
}

fn bind_ipi(caller: &Caller<'_>, argument: GuestPtr<BindIpi>) -> Result<(), Errno> {
    let mut bind = caller.memory.read(argument)?;
    let vcpu = existing_vcpu(caller, bind.vcpu)?;
    bind.port = caller.domain.events.table().bind(State::Ipi, vcpu)?;
    caller.memory.write(argument, &bind)
}

fn status(caller: &Caller<'_>, argument: GuestPtr<Status>) -> Result<(), Errno> {
    let mut status = caller.memory.read(argument)?;
    let domain = caller.target(status.dom, Need::SelfOrControl)?;
    let found = domain.events.table().status(status.port)?;
    let kind = match found.state {
        State::Free | State::Reserved => PortStatus::Closed,
        State::Unbound { remote } => {
            status.set(&StatusUnbound { dom: remote.0 });
            PortStatus::Unbound
        }
        State::Interdomain { domain, port } => {
            status.set(&StatusInterdomain { dom: domain.0, port, ..StatusInterdomain::default() });
            PortStatus::Interdomain
        }
        State::Virq(virq) => {
            status.set(&u32::from(virq));
            PortStatus::Virq
        }
        State::Ipi => PortStatus::Ipi,
    };
    status.status = kind.number();
    status.vcpu = u32::from(found.vcpu);
    caller.memory.write(argument, &status)
}

fn reset(caller: &Caller<'_>, argument: GuestPtr<Reset>) -> Result<(), Stop> {
    let reset = caller.memory.read(argument)?;
    let domain = caller.target(reset.dom, Need::SelfOrControl)?;
    if matches!(domain, Target::Other(_)) && !domain.lifecycle.is_paused_by_toolstack() {
        return Err(Errno::EINVAL.into());
    }
    channel::reset(caller.host, &domain)
}
