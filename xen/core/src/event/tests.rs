//! Event channels by their hypercalls: answers and errors one by one, and what guests see in their pages.

use super::fixture::{MAX_PORT, add_page, caller, domain, pin, with_host};
use super::table::Closer;
use super::{Peer, channel, send_global_virq, upcall_pending};
use crate::event::upcall::{self, with_info};
use crate::host::Host;
use crate::hypercall::event::event_channel_op;
use crate::hypercall::sched::sched_op;
use crate::hypercall::vcpu::vcpu_op;
use crate::hypercall::vm_assist::vm_assist;
use crate::outcome::{Reply, Stop};
use crate::vcpu::Wait;
use core::mem::offset_of;
use core::sync::atomic::Ordering::SeqCst;
use machine::cpu::Work;
use machine::{DomId, frame, memory};
use public_abi::event_channel::*;
use public_abi::vcpu::{RegisterVcpuInfo, VcpuOp};
use public_abi::virq::Virq;
use public_abi::x86::{SharedInfo, VcpuInfo};
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The guest frame for arguments, and its address.
const ARGUMENTS: u64 = 1;
pub(super) const ADDRESS: u64 = ARGUMENTS << 12;
const SELF: u16 = 0x7ff0;

pub(super) fn error(errno: Errno) -> Reply {
    Err(Stop::Error(errno))
}

/// Makes a call with a structure as its argument, and takes back what is there afterwards.
pub(super) fn call<T: IntoBytes + FromBytes + Immutable>(
    host: &Host,
    id: u16,
    argument: &mut T,
    act: impl FnOnce(&crate::hypercall::Caller<'_>, GuestPtr<()>) -> Reply,
) -> Reply {
    let domain = domain(host, id);
    let caller = caller(host, &domain, 0);
    caller.memory.write(GuestPtr::from_address(ADDRESS), argument).unwrap();
    let reply = act(&caller, GuestPtr::from_address(ADDRESS));
    *argument = caller.memory.read(GuestPtr::from_address(ADDRESS)).unwrap();
    reply
}

pub(super) fn event<T: IntoBytes + FromBytes + Immutable>(
    host: &Host,
    id: u16,
    op: EventChannelOp,
    argument: &mut T,
) -> Reply {
    call(host, id, argument, |caller, pointer| event_channel_op(caller, op.number(), pointer))
}

/// A host whose domains have a page for arguments.
pub(super) fn with_callers(domains: u16, vcpus: u32, work: impl FnOnce(&machine::fake::FakeMachine, &Host)) {
    with_host(domains, vcpus, |machine, host| {
        for id in 0..domains {
            add_page(&domain(host, id), ARGUMENTS);
        }
        work(machine, host);
    });
}

fn status_of(host: &Host, id: u16, port: u32) -> Status {
    let mut status = Status { dom: SELF, port, ..Status::default() };
    assert_eq!(event(host, id, EventChannelOp::Status, &mut status), Ok(0));
    status
}

#[test]
fn a_channel_between_two_domains() {
    with_callers(2, 1, |_, host| {
        let mut alloc = AllocUnbound { dom: SELF, remote_dom: 0, port: 0 };
        assert_eq!(event(host, 1, EventChannelOp::AllocUnbound, &mut alloc), Ok(0));
        assert_eq!(alloc.port, 1, "the lowest port but 0");
        let unbound = status_of(host, 1, 1);
        assert_eq!((unbound.status, unbound.get::<StatusUnbound>().dom), (PortStatus::Unbound.number(), 0));
        let mut bind = BindInterdomain { remote_dom: 1, remote_port: 1, ..BindInterdomain::default() };
        assert_eq!(event(host, 0, EventChannelOp::BindInterdomain, &mut bind), Ok(0));
        let control = domain(host, 0);
        assert!(upcall_pending(&control, control.vcpu(0).unwrap()), "binding raises the local port");
        let far = status_of(host, 1, 1);
        assert_eq!(far.status, PortStatus::Interdomain.number());
        assert_eq!(far.get::<StatusInterdomain>(), StatusInterdomain { dom: 0, pad: [0; 2], port: bind.local_port });
        let guest = domain(host, 1);
        assert!(!upcall_pending(&guest, guest.vcpu(0).unwrap()));
        assert_eq!(event(host, 0, EventChannelOp::Send, &mut Port { port: bind.local_port }), Ok(0));
        assert!(upcall_pending(&guest, guest.vcpu(0).unwrap()));
        let pending = offset_of!(SharedInfo, evtchn_pending);
        assert_eq!(memory::atomic::<u64>(guest.events.shared_info(), pending).unwrap().load(SeqCst), 1 << 1);
        assert_eq!(event(host, 1, EventChannelOp::Close, &mut Port { port: 1 }), Ok(0));
        assert_eq!(status_of(host, 1, 1).status, PortStatus::Closed.number());
        let near = status_of(host, 0, bind.local_port);
        assert_eq!((near.status, near.get::<StatusUnbound>().dom), (PortStatus::Unbound.number(), 1));
        assert_eq!(event(host, 0, EventChannelOp::Send, &mut Port { port: bind.local_port }), Ok(0), "lost, as in Xen");
    });
}

#[test]
fn names_of_other_domains() {
    with_callers(3, 1, |_, host| {
        let alloc = |caller, dom| {
            event(host, caller, EventChannelOp::AllocUnbound, &mut AllocUnbound { dom, ..AllocUnbound::default() })
        };
        assert_eq!(alloc(1, 2), error(Errno::EPERM));
        assert_eq!(alloc(0, 2), Ok(0));
        assert_eq!(alloc(1, 1), Ok(0), "a domain may use its own number");
        assert_eq!(alloc(0, 77), error(Errno::ESRCH));
        let status = |caller, dom, port| {
            event(host, caller, EventChannelOp::Status, &mut Status { dom, port, ..Status::default() })
        };
        assert_eq!(status(1, 2, 1), error(Errno::EPERM));
        assert_eq!(status(0, 2, 1), Ok(0));
        assert_eq!(status(0, 2, 64), error(Errno::EINVAL), "ports exist in chunks of 64");
        let bind = |remote_dom, remote_port| {
            event(
                host,
                1,
                EventChannelOp::BindInterdomain,
                &mut BindInterdomain { remote_dom, remote_port, ..BindInterdomain::default() },
            )
        };
        assert_eq!(bind(77, 1), error(Errno::ESRCH));
        assert_eq!(bind(2, 1), error(Errno::EINVAL), "it waits for the control domain");
        assert_eq!(bind(2, 4000), error(Errno::EINVAL));
        assert_eq!(domain(host, 1).events.table().bound(), 1, "what failed left nothing behind");
    });
}

#[test]
fn virtual_interrupts_and_their_rules() {
    with_callers(2, 2, |_, host| {
        let bind = |virq, vcpu| {
            let mut bind = BindVirq { virq, vcpu, port: 0 };
            event(host, 0, EventChannelOp::BindVirq, &mut bind).map(|_| bind.port)
        };
        assert_eq!(bind(24, 0), Err(Errno::EINVAL.into()));
        assert_eq!(bind(5, 0), Err(Errno::EINVAL.into()), "a number that nothing has");
        assert_eq!(bind(Virq::DomExc.number(), 1), Err(Errno::EINVAL.into()), "global ones are bound on vCPU 0");
        assert_eq!(bind(Virq::Timer.number(), 2), Err(Errno::ENOENT.into()));
        assert_eq!(bind(Virq::Timer.number(), 1), Ok(1));
        assert_eq!(bind(Virq::Timer.number(), 1), Err(Errno::EEXIST.into()));
        assert_eq!(bind(Virq::Timer.number(), 0), Ok(2));
        assert_eq!(bind(Virq::DomExc.number(), 0), Ok(3));
        let found = status_of(host, 0, 3);
        assert_eq!((found.status, found.get::<u32>()), (PortStatus::Virq.number(), 3));
        let rebind = |port, vcpu| event(host, 0, EventChannelOp::BindVcpu, &mut BindVcpu { port, vcpu });
        assert_eq!(rebind(3, 1), Ok(0), "a global one may notify any vCPU");
        assert_eq!(rebind(1, 0), error(Errno::EINVAL));
        assert_eq!(rebind(3, 2), error(Errno::ENOENT));
        assert_eq!(rebind(3000, 1), error(Errno::EINVAL));
        send_global_virq(host, Virq::DomExc);
        let control = domain(host, 0);
        assert!(upcall_pending(&control, control.vcpu(1).unwrap()));
        assert!(!upcall_pending(&control, control.vcpu(0).unwrap()));
        assert_eq!(event(host, 0, EventChannelOp::Send, &mut Port { port: 3 }), error(Errno::EINVAL));
        assert_eq!(event(host, 0, EventChannelOp::Close, &mut Port { port: 3 }), Ok(0));
        assert_eq!(bind(Virq::DomExc.number(), 0), Ok(3), "closing gives the interrupt back");
    });
}

#[test]
fn another_domain_may_handle_a_global_interrupt() {
    with_callers(2, 1, |_, host| {
        assert_eq!(host.virq_handlers.set(Virq::Timer, DomId(1)), Err(Errno::EINVAL));
        assert_eq!(host.virq_handlers.set(Virq::Argo, DomId(1)), Ok(()));
        let mut bind = BindVirq { virq: Virq::Argo.number(), ..BindVirq::default() };
        assert_eq!(event(host, 1, EventChannelOp::BindVirq, &mut bind), Ok(0));
        let guest = domain(host, 1);
        send_global_virq(host, Virq::Argo);
        assert!(upcall_pending(&guest, guest.vcpu(0).unwrap()));
        assert_eq!(channel::relinquish(host, &guest), Ok(()));
        assert_eq!(host.virq_handlers.get(Virq::Argo), DomId(0));
    });
}

#[test]
fn ports_run_out_and_come_back() {
    with_callers(1, 1, |_, host| {
        let bind = || {
            let mut bind = BindIpi { vcpu: 0, port: 0 };
            event(host, 0, EventChannelOp::BindIpi, &mut bind).map(|_| bind.port)
        };
        for wanted in 1..=MAX_PORT {
            assert_eq!(bind(), Ok(wanted));
        }
        assert_eq!(bind(), Err(Errno::ENOSPC.into()));
        assert_eq!(event(host, 0, EventChannelOp::Close, &mut Port { port: 7 }), Ok(0));
        assert_eq!(event(host, 0, EventChannelOp::Close, &mut Port { port: 7 }), error(Errno::EINVAL));
        assert_eq!(bind(), Ok(7));
        assert_eq!(event(host, 0, EventChannelOp::Close, &mut Port { port: 0 }), error(Errno::EINVAL));
    });
}

#[test]
fn calls_that_make_no_sense() {
    with_callers(1, 1, |_, host| {
        let control = domain(host, 0);
        let caller = caller(host, &control, 0);
        let nowhere = GuestPtr::from_address(0x10_0000);
        assert_eq!(event_channel_op(&caller, 14, nowhere), error(Errno::ENOSYS));
        for op in EventChannelOp::ALL {
            assert_eq!(event_channel_op(&caller, op.number(), nowhere), error(Errno::EFAULT), "{}", op.name());
        }
        assert_eq!(event(host, 0, EventChannelOp::BindPirq, &mut BindPirq::default()), error(Errno::EINVAL));
        assert_eq!(event(host, 0, EventChannelOp::BindIpi, &mut BindIpi { vcpu: 1, port: 0 }), error(Errno::ENOENT));
        assert_eq!(
            event(host, 0, EventChannelOp::Unmask, &mut Port { port: 5 }),
            Ok(0),
            "unbound ports are left alone"
        );
        assert_eq!(event(host, 0, EventChannelOp::Unmask, &mut Port { port: 64 }), error(Errno::EINVAL));
        assert_eq!(sched_op(&caller, 8, nowhere), error(Errno::ENOSYS));
        assert_eq!(vcpu_op(&caller, 14, 0, nowhere), error(Errno::ENOSYS));
        assert_eq!(vcpu_op(&caller, 3, 1, nowhere), error(Errno::ENOENT));
        assert_eq!(vm_assist(&caller, 0, 4), error(Errno::EINVAL));
        assert_eq!(vm_assist(&caller, 0, 64), error(Errno::EINVAL));
        assert_eq!(vm_assist(&caller, 2, 5), error(Errno::ENOSYS));
        assert_eq!(vm_assist(&caller, 0, 5), Ok(0));
        assert!(control.events.has_assist(5));
        assert_eq!(vm_assist(&caller, 1, 5), Ok(0));
        assert!(!control.events.has_assist(5));
    });
}

#[test]
fn the_fifo_abi_is_set_up_step_by_step() {
    with_callers(1, 2, |_, host| {
        let control = domain(host, 0);
        let (block, array) = (add_page(&control, 5), add_page(&control, 6));
        let init = |control_gfn, offset, vcpu| {
            let mut init = InitControl { control_gfn, offset, vcpu, ..InitControl::default() };
            event(host, 0, EventChannelOp::InitControl, &mut init).map(|_| init.link_bits)
        };
        let expand = |array_gfn| event(host, 0, EventChannelOp::ExpandArray, &mut ExpandArray { array_gfn });
        assert_eq!(expand(6), error(Errno::EOPNOTSUPP));
        assert_eq!(
            event(host, 0, EventChannelOp::SetPriority, &mut SetPriority { port: 1, priority: 1 }),
            error(Errno::ENOSYS)
        );
        assert_eq!(init(5, 0, 2), Err(Errno::ENOENT.into()));
        assert_eq!(init(5, 4, 0), Err(Errno::EINVAL.into()), "not aligned");
        assert_eq!(init(5, 4096 - 64, 0), Err(Errno::EINVAL.into()), "crosses the page");
        assert_eq!(init(99, 0, 0), Err(Errno::EINVAL.into()), "no such page");
        assert!(control.events.table().fifo.is_none(), "what failed changed nothing");
        assert_eq!(init(5, 4096 - 72, 0), Ok(17));
        assert_eq!(init(5, 0, 0), Err(Errno::EINVAL.into()), "it has one");
        assert_eq!(init(5, 0, 1), Ok(17));
        assert_eq!(expand(99), error(Errno::EINVAL));
        for _ in 0..128 {
            assert_eq!(expand(6), Ok(0));
        }
        assert_eq!(expand(6), error(Errno::ENOSPC));
        let mut ipi = BindIpi { vcpu: 1, port: 0 };
        assert_eq!(event(host, 0, EventChannelOp::BindIpi, &mut ipi), Ok(0));
        let priority =
            |port, priority| event(host, 0, EventChannelOp::SetPriority, &mut SetPriority { port, priority });
        assert_eq!(priority(1, 16), error(Errno::EINVAL));
        assert_eq!(priority(2, 3), error(Errno::EACCES));
        assert_eq!(priority(1, 3), Ok(0));
        assert_eq!(event(host, 0, EventChannelOp::Send, &mut Port { port: 1 }), Ok(0));
        let (block_page, array_page) = (pin(&control, block), pin(&control, array));
        let word = |offset| memory::atomic::<u32>(&block_page, offset).unwrap().load(SeqCst);
        assert_eq!(word(0), 1 << 3, "queue 3 of vCPU 1 is ready");
        assert_eq!(word(8 + 3 * 4), 1, "and begins with port 1");
        let event_word = memory::atomic::<u32>(&array_page, 4).unwrap().load(SeqCst);
        assert_eq!(event_word, FIFO_PENDING | FIFO_LINKED);
        assert_eq!(event(host, 0, EventChannelOp::Close, &mut Port { port: 1 }), Ok(0));
        assert_eq!(event(host, 0, EventChannelOp::BindIpi, &mut ipi), Ok(0));
        assert_eq!(ipi.port, 2, "port 1 is still on a queue");
        let count = |mfn| frame::state(mfn).unwrap().count;
        drop((block_page, array_page));
        assert_eq!((count(block), count(array)), (3, 129));
        assert_eq!(event(host, 0, EventChannelOp::Reset, &mut Reset { dom: SELF }), Ok(0));
        assert_eq!((count(block), count(array)), (1, 1), "the pages are the guest's alone again");
        assert_eq!(expand(6), error(Errno::EOPNOTSUPP));
    });
}

#[test]
fn resets_wait_for_a_pause_and_can_be_interrupted() {
    with_callers(2, 1, |machine, host| {
        for _ in 0..MAX_PORT {
            assert!(channel::alloc_unbound(&domain(host, 1), DomId(0)).is_ok());
        }
        assert!(domain(host, 1).lifecycle.unpause_by_toolstack());
        let reset = |dom| event(host, 0, EventChannelOp::Reset, &mut Reset { dom });
        assert_eq!(reset(1), error(Errno::EINVAL));
        assert_eq!(reset(9), error(Errno::ESRCH));
        assert!(domain(host, 1).lifecycle.pause_by_toolstack());
        assert_eq!(event(host, 1, EventChannelOp::Reset, &mut Reset { dom: 0 }), error(Errno::EPERM));
        machine.note_work(0, Work::KICK);
        assert_eq!(reset(1), Err(Stop::Restart(None)));
        assert_eq!(domain(host, 1).events.table().bound(), MAX_PORT - 63);
        assert!(channel::alloc_unbound(&domain(host, 1), DomId(0)).is_ok(), "bound in between");
        machine::cpu::take_work();
        assert_eq!(reset(1), Err(Stop::Restart(None)), "the port below was missed");
        assert_eq!(reset(1), Ok(0));
        assert_eq!(domain(host, 1).events.table().bound(), 0);
    });
}

#[test]
fn a_dying_domain_lets_go_of_everything() {
    with_callers(2, 2, |machine, host| {
        let guest = domain(host, 1);
        let control = domain(host, 0);
        for _ in 0..MAX_PORT {
            let port = channel::alloc_unbound(&guest, DomId(0)).unwrap();
            assert!(channel::bind_interdomain(host, &control, &guest, port).is_ok());
        }
        let info = add_page(&guest, 8);
        let mut register = RegisterVcpuInfo { mfn: 8, offset: 64, rsvd: 0 };
        let reply = call(host, 1, &mut register, |caller, pointer| {
            vcpu_op(caller, VcpuOp::RegisterVcpuInfo.number(), 0, pointer)
        });
        assert_eq!(reply, Ok(0));
        assert_eq!(frame::state(info).unwrap().count, 2);
        machine.note_work(0, Work::KICK);
        assert_eq!(channel::relinquish(host, &guest), Err(Stop::Restart(None)));
        assert_eq!(channel::alloc_unbound(&guest, DomId(0)), Err(Errno::EINVAL), "nothing new begins");
        let waiting = channel::alloc_unbound(&control, DomId(1));
        assert_eq!(waiting, Err(Errno::ENOSPC));
        assert_eq!(channel::relinquish(host, &guest), Ok(()), "the rest fits before the next look");
        assert_eq!(frame::state(info).unwrap().count, 1);
        for port in 1..=MAX_PORT {
            assert_eq!(status_of(host, 0, port).status, PortStatus::Unbound.number());
        }
        assert_eq!(channel::bind_interdomain(host, &control, &guest, 1), Err(Errno::ENOSPC));
        channel::close(host, &control, 1, Closer::Guest).unwrap();
        assert_eq!(channel::bind_interdomain(host, &control, &guest, 1), Err(Errno::EINVAL));
    });
}

#[test]
fn a_far_end_that_does_not_agree_hears_nothing() {
    with_callers(3, 1, |_, host| {
        let guest = domain(host, 1);
        let port = channel::alloc_unbound(&guest, DomId(2)).unwrap();
        let stranger = Peer { domain: DomId(0), port: 1 };
        let effect = guest.events.table().raise_from(guest.events.shared_info(), port, stranger);
        assert_eq!(effect, super::table::Effect::NONE);
        guest.events.table().disconnect(port, stranger);
        assert_eq!(status_of(host, 1, port).get::<StatusUnbound>().dom, 2);
    });
}

#[test]
fn a_device_models_port_is_the_hypervisors() {
    with_callers(2, 2, |_, host| {
        let guest = domain(host, 1);
        let control = domain(host, 0);
        let port = channel::alloc_for_hypervisor(&guest, 1, DomId(0)).unwrap();
        channel::notify_from_hypervisor(host, &guest, port);
        let near = channel::bind_interdomain(host, &control, &guest, port).unwrap();
        let vcpu = control.vcpu(0).unwrap();
        let clear = |page: &frame::Pin, offset: usize| assert!(memory::fill(page, offset, 16, 0));
        with_info(&control.events, vcpu, clear).unwrap();
        let pending = offset_of!(SharedInfo, evtchn_pending);
        assert!(memory::fill(control.events.shared_info(), pending, 8, 0));
        channel::notify_from_hypervisor(host, &guest, port);
        assert!(upcall_pending(&control, vcpu));
        guest.vcpu(1).unwrap().add_wait(Wait::DEVICE);
        assert_eq!(channel::send(host, &control, near), Ok(()));
        assert!(!guest.vcpu(1).unwrap().wait().contains(Wait::DEVICE), "the answer wakes it");
        for op in [EventChannelOp::Close, EventChannelOp::Send] {
            assert_eq!(event(host, 1, op, &mut Port { port }), error(Errno::EINVAL));
        }
        assert_eq!(event(host, 1, EventChannelOp::BindVcpu, &mut BindVcpu { port, vcpu: 0 }), error(Errno::EINVAL));
        assert_eq!(
            event(host, 1, EventChannelOp::Status, &mut Status { dom: SELF, port, ..Status::default() }),
            error(Errno::EACCES)
        );
        assert_eq!(event(host, 1, EventChannelOp::Reset, &mut Reset { dom: SELF }), Ok(0));
        assert!(guest.events.table().port(port).unwrap().state.is_usable(), "a reset leaves it");
        assert_eq!(channel::close(host, &guest, port, Closer::Hypervisor), Ok(()));
    });
}

#[test]
fn vcpu_info_moves_with_its_content() {
    with_callers(1, 34, |_, host| {
        let control = domain(host, 0);
        let mfn = add_page(&control, 8);
        let register = |vcpu, mfn, offset| {
            let mut register = RegisterVcpuInfo { mfn, offset, rsvd: 0 };
            call(host, 0, &mut register, |caller, pointer| {
                vcpu_op(caller, VcpuOp::RegisterVcpuInfo.number(), vcpu, pointer)
            })
        };
        assert_eq!(register(0, 8, 4096 - 56), error(Errno::ENXIO));
        assert_eq!(register(0, 8, 4), error(Errno::ENXIO));
        assert_eq!(register(0, 77, 0), error(Errno::EINVAL));
        control.vcpu(1).unwrap().clear_wait(Wait::DOWN);
        assert_eq!(register(1, 8, 0), error(Errno::EINVAL), "it is up, and not the caller");
        let cr2 = offset_of!(VcpuInfo, arch);
        assert!(memory::write(control.events.shared_info(), cr2, &[7; 8]));
        assert_eq!(register(0, 8, 64), Ok(0));
        assert_eq!(register(0, 8, 128), error(Errno::EINVAL), "only once");
        let page = pin(&control, mfn);
        let info = |offset: usize| {
            let mut info = VcpuInfo::default();
            assert!(memory::read(&page, offset, info.as_mut_bytes()));
            info
        };
        let moved = info(64);
        assert_eq!(moved.arch.cr2, 0x0707_0707_0707_0707);
        assert_eq!((moved.evtchn_upcall_pending, moved.evtchn_pending_sel), (1, u64::MAX));
        assert_eq!(moved.time.tsc_to_system_mul, host.clock.scale().mul);
        assert_eq!(moved.time.version & 1, 0);
        assert!(!upcall::has_info(&control, control.vcpu(33).unwrap()));
        assert_eq!(register(33, 8, 256), Ok(0));
        assert_eq!(info(256).evtchn_upcall_mask, 1, "as Xen begins the ones that were nowhere");
    });
}

#[test]
fn a_domain_costs_two_pages_and_a_kilobyte() {
    with_host(1, 1, |_, host| {
        let before = frame::free_pages();
        let ports = size_of::<super::port::Port>() * 64;
        assert_eq!(ports, 1024);
        super::fixture::add_domain(host, 1, 1);
        // Small objects are on the test's own heap.
        let domain = domain(host, 1);
        let pages = before - frame::free_pages() - domain.p2m.table_pages();
        assert!(pages <= 2, "shared_info and the first frame of the grant table, besides the p2m's");
    });
}
