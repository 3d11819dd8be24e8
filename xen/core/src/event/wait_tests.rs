//! Waiting for events and stopping, by their hypercalls.

use super::fixture::{caller, caller_with, domain};
use super::tests::{ADDRESS, call, error, with_callers};
use super::{channel, upcall};
use crate::hypercall::sched::sched_op;
use crate::hypercall::vcpu::vcpu_op;
use crate::outcome::Stop;
use crate::vcpu::Wait;
use crate::x86::interrupts::InterruptFlag;
use core::mem::offset_of;
use core::sync::atomic::Ordering::SeqCst;
use machine::memory;
use public_abi::sched::{SchedOp, SchedPinOverride, SchedPoll, SchedRemoteShutdown, SchedShutdown, SchedWatchdog};
use public_abi::vcpu::VcpuOp;
use public_abi::virq::Virq;
use public_abi::x86::SharedInfo;
use public_abi::{Errno, GuestPtr};

#[test]
fn polling_ends_by_an_event_an_upcall_or_time() {
    with_callers(1, 1, |_, host| {
        let control = domain(host, 0);
        let vcpu = control.vcpu(0).unwrap();
        vcpu.clear_wait(Wait::DOWN);
        let port = control.events.table().bind(super::State::Ipi, 0).unwrap();
        let ports = ADDRESS + 64;
        let poll = |nr_ports, list: u64| {
            let mut poll = SchedPoll { ports: GuestPtr::from_address(list), nr_ports, ..SchedPoll::default() };
            call(host, 0, &mut poll, |caller, pointer| {
                caller.memory.write(GuestPtr::from_address(ports), &[port, 60]).unwrap();
                sched_op(caller, SchedOp::Poll.number(), pointer)
            })
        };
        assert_eq!(poll(129, ports), error(Errno::EINVAL));
        assert_eq!(poll(1, 0x10_0000), error(Errno::EFAULT));
        assert_eq!(poll(2, ports), error(Errno::EINVAL), "port 60 is not bound");
        assert!(vcpu.is_runnable(), "what failed does not wait");
        assert_eq!(poll(1, ports), Err(Stop::Yield(0)));
        assert!(!vcpu.is_runnable());
        let other = control.events.table().bind(super::State::Ipi, 0).unwrap();
        let mask = offset_of!(SharedInfo, evtchn_mask);
        memory::atomic::<u64>(control.events.shared_info(), mask).unwrap().store(u64::MAX, SeqCst);
        assert_eq!(channel::send(host, &control, other), Ok(()));
        assert!(!vcpu.is_runnable(), "another port, and masked");
        assert_eq!(channel::send(host, &control, port), Ok(()));
        assert!(vcpu.is_runnable(), "masked ports wake those who poll for them");
        assert_eq!(poll(1, ports), Ok(0), "it is pending already");
        let pending = offset_of!(SharedInfo, evtchn_pending);
        memory::atomic::<u64>(control.events.shared_info(), pending).unwrap().store(0, SeqCst);
        assert_eq!(poll(1, ports), Err(Stop::Yield(0)));
        super::poll::expired(host, &control, vcpu);
        assert!(vcpu.is_runnable());
        assert_eq!(poll(0, ports), Err(Stop::Yield(0)), "no ports: any event ends it");
        assert_eq!(channel::send(host, &control, other), Ok(()));
        assert!(vcpu.is_runnable());
    });
}

#[test]
fn blocking_looks_once_more() {
    with_callers(1, 1, |_, host| {
        let control = domain(host, 0);
        let vcpu = control.vcpu(0).unwrap();
        vcpu.clear_wait(Wait::DOWN);
        upcall::set_callback(host, &control, 2 << 56 | 0xf3);
        let block = || sched_op(&caller(host, &control, 0), SchedOp::Block.number(), GuestPtr::NULL);
        assert_eq!(block(), Err(Stop::Yield(0)));
        assert!(!vcpu.is_runnable());
        let port = control.events.table().bind(super::State::Ipi, 0).unwrap();
        assert_eq!(channel::send(host, &control, port), Ok(()));
        assert!(vcpu.is_runnable());
        assert_eq!(super::callback_vector(&control, vcpu), Some(0xf3));
        assert_eq!(block(), Ok(0));
        assert!(vcpu.is_runnable());
        assert_eq!(sched_op(&caller(host, &control, 0), SchedOp::Yield.number(), GuestPtr::NULL), Err(Stop::Yield(0)));
    });
}

#[test]
fn with_interrupts_off_what_is_pending_ends_no_waiting() {
    with_callers(1, 1, |_, host| {
        let control = domain(host, 0);
        let vcpu = control.vcpu(0).unwrap();
        vcpu.clear_wait(Wait::DOWN);
        upcall::set_callback(host, &control, 2 << 56 | 0xf3);
        let port = control.events.table().bind(super::State::Ipi, 0).unwrap();
        assert_eq!(channel::send(host, &control, port), Ok(()));
        for flag in [InterruptFlag::Clear, InterruptFlag::Set] {
            let expected = if flag == InterruptFlag::Set { Ok(0) } else { Err(Stop::Yield(0)) };
            let with_flag = || caller_with(host, &control, 0, flag);
            assert_eq!(sched_op(&with_flag(), SchedOp::Block.number(), GuestPtr::NULL), expected);
            assert_eq!(vcpu.is_runnable(), flag == InterruptFlag::Set);
            vcpu.clear_wait(Wait::BLOCKED);
            // Linux waits so for a lock: interrupts off, one port.
            let other = control.events.table().bind(super::State::Ipi, 0).unwrap();
            let mut poll =
                SchedPoll { ports: GuestPtr::from_address(ADDRESS + 64), nr_ports: 1, ..SchedPoll::default() };
            let reply = call(host, 0, &mut poll, |caller, pointer| {
                caller.memory.write(GuestPtr::from_address(ADDRESS + 64), &other).unwrap();
                sched_op(&with_flag(), SchedOp::Poll.number(), pointer)
            });
            assert_eq!(reply, expected);
            if flag == InterruptFlag::Clear {
                assert!(!vcpu.is_runnable());
                assert_eq!(channel::send(host, &control, other), Ok(()));
                assert!(vcpu.is_runnable(), "what is polled for ends it");
            }
        }
    });
}

#[test]
fn a_guest_that_chose_no_callback_is_not_woken() {
    with_callers(1, 1, |_, host| {
        let control = domain(host, 0);
        let vcpu = control.vcpu(0).unwrap();
        vcpu.clear_wait(Wait::DOWN);
        let port = control.events.table().bind(super::State::Ipi, 0).unwrap();
        vcpu.add_wait(Wait::BLOCKED);
        assert_eq!(channel::send(host, &control, port), Ok(()));
        assert!(super::upcall_pending(&control, vcpu), "it can look");
        assert!(!vcpu.is_runnable(), "HLT ends by interrupts only, and this was none");
        upcall::set_callback(host, &control, 2 << 56 | 0xf3);
        assert!(vcpu.is_runnable(), "what was pending is told once there is a way");
    });
}

#[test]
fn a_poll_that_something_else_has_ended_does_not_end_the_next_waiting() {
    with_callers(1, 1, |_, host| {
        let control = domain(host, 0);
        let vcpu = control.vcpu(0).unwrap();
        vcpu.clear_wait(Wait::DOWN);
        let port = control.events.table().bind(super::State::Ipi, 0).unwrap();
        let mask = offset_of!(SharedInfo, evtchn_mask);
        memory::atomic::<u64>(control.events.shared_info(), mask).unwrap().store(u64::MAX, SeqCst);
        super::poll::begin(&control, vcpu);
        crate::sched::wake(host, &control, vcpu, Wait::BLOCKED);
        let block = || sched_op(&caller(host, &control, 0), SchedOp::Block.number(), GuestPtr::NULL);
        assert_eq!(block(), Err(Stop::Yield(0)));
        assert_eq!(channel::send(host, &control, port), Ok(()));
        assert!(!vcpu.is_runnable(), "the port is masked, and nobody polls for it");
        super::poll::expired(host, &control, vcpu);
        assert!(!vcpu.is_runnable());
    });
}

#[test]
fn one_cpu_whatever_the_affinity_says() {
    with_callers(2, 1, |_, host| {
        let control = domain(host, 0);
        let unit = &control.vcpu(0).unwrap().sched;
        let pin = |id, pcpu| {
            let mut pin = SchedPinOverride { pcpu };
            call(host, id, &mut pin, |caller, pointer| sched_op(caller, SchedOp::PinOverride.number(), pointer))
        };
        assert_eq!(pin(1, 0), error(Errno::EPERM));
        assert_eq!(pin(0, 1), error(Errno::EINVAL), "this host has one CPU");
        assert_eq!(pin(0, 0x1_0000), error(Errno::EINVAL));
        assert_eq!(pin(0, -1), error(Errno::EINVAL), "not bound");
        assert_eq!(pin(0, 0), Ok(0));
        assert_eq!(unit.affinity(), 1);
        assert_eq!(pin(0, 0), error(Errno::EBUSY));
        assert!(unit.set_affinity(3).is_err());
        assert_eq!(pin(0, -1), Ok(0));
        assert_eq!(unit.affinity(), u64::MAX);
        unit.set_affinity(2).unwrap();
        assert_eq!(pin(0, 0), Ok(0));
        assert_eq!(pin(0, -7), Err(Stop::Yield(0)), "it may not stay here");
    });
}

#[test]
fn lines_are_level_and_give_way_to_vectors() {
    with_callers(1, 1, |_, host| {
        let control = domain(host, 0);
        assert_eq!(super::callback_line(&control), None);
        upcall::set_callback(host, &control, 9);
        assert_eq!(super::callback_line(&control), Some((super::Callback::Gsi(9), false)));
        let port = control.events.table().bind(super::State::Ipi, 0).unwrap();
        assert_eq!(channel::send(host, &control, port), Ok(()));
        assert_eq!(super::callback_line(&control), Some((super::Callback::Gsi(9), true)));
        assert_eq!(upcall::set_vector(host, &control, 0, 15), Err(Errno::EINVAL));
        assert_eq!(upcall::set_vector(host, &control, 1, 0xf3), Err(Errno::ENOENT));
        assert_eq!(upcall::set_vector(host, &control, 0, 0xf3), Ok(()));
        assert_eq!(super::callback_line(&control), None);
    });
}

#[test]
fn stopping_and_watchdogs() {
    with_callers(3, 2, |machine, host| {
        let control = domain(host, 0);
        let exc = control.events.table().bind_virq(Virq::DomExc, 0).unwrap();
        let heard = || {
            let offset = offset_of!(SharedInfo, evtchn_pending);
            memory::atomic::<u64>(control.events.shared_info(), offset).unwrap().swap(0, SeqCst) == 1 << exc
        };
        let sched = |id, op: SchedOp, argument: &mut SchedShutdown| {
            call(host, id, argument, |caller, pointer| sched_op(caller, op.number(), pointer))
        };
        assert_eq!(sched(1, SchedOp::ShutdownCode, &mut SchedShutdown { reason: 3 }), Ok(0));
        assert!(!heard());
        assert_eq!(sched(1, SchedOp::Shutdown, &mut SchedShutdown { reason: 1 }), Err(Stop::Yield(0)));
        assert_eq!(domain(host, 1).lifecycle.shutdown_reason(), Some(3), "the announced reason goes before");
        assert!(heard());
        assert_eq!(sched(1, SchedOp::Shutdown, &mut SchedShutdown { reason: 1 }), Err(Stop::Yield(0)));
        assert!(!heard(), "it has stopped already");
        let remote = |id, domain_id| {
            let mut request = SchedRemoteShutdown { domain_id, reason: 4, ..SchedRemoteShutdown::default() };
            call(host, id, &mut request, |caller, pointer| sched_op(caller, SchedOp::RemoteShutdown.number(), pointer))
        };
        assert_eq!(remote(2, 1), error(Errno::EPERM));
        assert_eq!(remote(0, 9), error(Errno::ESRCH));
        let watchdog = |id, timeout| {
            let mut request = SchedWatchdog { id, timeout };
            call(host, 2, &mut request, |caller, pointer| sched_op(caller, SchedOp::Watchdog.number(), pointer))
        };
        assert_eq!(watchdog(1, 5), error(Errno::EINVAL), "not taken yet");
        assert_eq!(watchdog(0, 5), Ok(1));
        assert_eq!(watchdog(0, 9), Ok(2));
        assert_eq!(watchdog(0, 9), error(Errno::ENOSPC));
        assert_eq!(watchdog(3, 9), error(Errno::EINVAL));
        let guest = domain(host, 2);
        let shutdown = crate::domain::shutdown::watchdog_expired;
        machine.advance(4_900_000_000);
        shutdown(host, &guest);
        assert_eq!(guest.lifecycle.shutdown_reason(), None);
        assert_eq!(watchdog(1, 0), Ok(0), "the first one is stopped");
        machine.advance(1_000_000_000);
        shutdown(host, &guest);
        assert_eq!(guest.lifecycle.shutdown_reason(), None);
        machine.advance(5_000_000_000);
        shutdown(host, &guest);
        assert_eq!(guest.lifecycle.shutdown_reason(), Some(4));
        assert!(heard());
    });
}

#[test]
fn the_last_vcpu_down_is_a_poweroff() {
    with_callers(2, 2, |_, host| {
        let guest = domain(host, 1);
        let op = |op: VcpuOp, vcpu| vcpu_op(&caller(host, &guest, 0), op.number(), vcpu, GuestPtr::NULL);
        assert_eq!(op(VcpuOp::IsUp, 1), Ok(0));
        assert_eq!(op(VcpuOp::Up, 1), error(Errno::EINVAL), "it has no registers");
        for vcpu in guest.vcpus() {
            vcpu.is_initialised.store(true, SeqCst);
        }
        assert_eq!(op(VcpuOp::Up, 0), Ok(0));
        assert_eq!(op(VcpuOp::Up, 1), Ok(0));
        assert_eq!(op(VcpuOp::IsUp, 1), Ok(1));
        assert_eq!(op(VcpuOp::Down, 1), Ok(0));
        assert_eq!(op(VcpuOp::IsUp, 1), Ok(0));
        assert_eq!(guest.lifecycle.shutdown_reason(), None);
        assert_eq!(op(VcpuOp::Down, 0), Err(Stop::Yield(0)));
        assert_eq!(guest.lifecycle.shutdown_reason(), Some(0));
        assert_eq!(op(VcpuOp::GetPhysid, 0), error(Errno::EINVAL));
    });
}
