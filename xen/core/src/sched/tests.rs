//! Tests of the schedule with whole domains on the fake machine: marks, marks left over, stops, and who is told.

use super::*;
use crate::event::channel;
use crate::hypercall::tests::support::{GUEST, World, with_world};
use crate::outcome::Stop;
use crate::timer::{self, TimerKind};
use machine::DomId;
use public_abi::domctl::DomctlOp;
use public_abi::virq::Virq;

/// Lets vCPUs of the guest want to run.
fn start(world: &World, vcpus: &[u32]) {
    let guest = world.host.domains.get(GUEST).unwrap();
    assert!(guest.lifecycle.unpause_by_toolstack());
    for index in vcpus {
        wake(&world.host, &guest, guest.vcpu(*index).unwrap(), Wait::DOWN);
    }
}

/// What CPU 0 picks and begins to run, by its number.
fn picked(world: &World) -> Option<u32> {
    let (domain, index) = pick(&world.host, CpuId(0))?;
    let domain = world.host.domains.get(domain)?;
    begin(&world.host, CpuId(0), domain.vcpu(index)?);
    Some(index)
}

fn place(world: &World, index: u32) -> Place {
    world.host.domains.get(GUEST).unwrap().vcpu(index).unwrap().sched.place()
}

#[test]
fn a_vcpu_of_a_stopped_domain_does_not_begin() {
    with_world(|world| {
        start(world, &[0]);
        let guest = world.host.domains.get(GUEST).unwrap();
        guest.lifecycle.pause_by_system();
        wait_until_off(&world.host, &guest);
        assert_eq!((picked(world), place(world, 0)), (None, Place::Off));
        guest.lifecycle.unpause_by_system();
        resume_domain(&world.host, &guest);
        assert_eq!(picked(world), Some(0));
    });
}

#[test]
fn a_domain_that_is_gone_leaves_nothing_behind() {
    with_world(|world| {
        start(world, &[0, 1]);
        {
            let guest = world.host.domains.get(GUEST).unwrap();
            timer::set(&world.host, guest.vcpu(1).unwrap(), TimerKind::Poll, Some(u64::MAX - 5));
        }
        // It stops and begins again, because the vCPUs' start has kicked this CPU.
        while world.domctl_plain(DomctlOp::DestroyDomain, GUEST.0) == Err(Stop::Restart(None)) {
            machine::cpu::take_work();
        }
        assert!(world.host.domains.get(GUEST).is_none());
        for cpu in &world.host.cpus {
            assert!(cpu.queue.lock().is_empty());
            assert_eq!(cpu.timers.lock().numbers().0, 0);
        }
    });
}

#[test]
fn a_shutdown_is_told_when_the_last_vcpu_has_left() {
    with_world(|world| {
        start(world, &[0, 1]);
        let host = &world.host;
        let control = host.domains.get(DomId::CONTROL).unwrap();
        let port = control.events.table().bind_virq(Virq::DomExc, 0).unwrap();
        let is_told = || channel::is_pending(&control, port).unwrap();
        let guest = host.domains.get(GUEST).unwrap();
        let (first, second) = (guest.vcpu(0).unwrap(), guest.vcpu(1).unwrap());
        assert_eq!((picked(world), picked(world)), (Some(0), Some(1)));
        shutdown::shutdown(host, &guest, 2);
        assert_eq!((guest.lifecycle.shutdown_reason(), is_told()), (None, false), "both are still on their CPUs");
        put(host, CpuId(0), &guest, second, 0);
        assert_eq!((guest.lifecycle.shutdown_reason(), is_told()), (None, false));
        put(host, CpuId(0), &guest, first, 0);
        assert_eq!((guest.lifecycle.shutdown_reason(), is_told()), (Some(2), true));
    });
}

#[test]
fn waiting_for_a_cpu_is_not_being_blocked() {
    with_world(|world| {
        start(world, &[0]);
        let guest = world.host.domains.get(GUEST).unwrap();
        world.machine.advance(2_000);
        let info = time::runstate(&world.host, guest.vcpu(0).unwrap());
        assert_eq!((info.state, info.time[1]), (Runstate::Runnable.number(), 1_000), "2000 ticks at 2 GHz");
    });
}

#[test]
fn two_that_wake_together_do_not_share_an_idle_cpu() {
    with_world(|world| {
        world.host.idle.store(0b11, Ordering::Release);
        start(world, &[0, 1]);
        let lengths = [0, 1].map(|cpu: usize| world.host.cpus[cpu].queue.lock().len());
        assert_eq!(lengths, [1, 1]);
    });
}
