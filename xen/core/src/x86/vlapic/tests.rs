//! Tests of the local APIC: priorities against a naive model, registers, modes, messages.

use super::ipi::{Delivery, Destination};
use super::*;
use crate::domain::Role;
use crate::timer::TimerKind;
use crate::x86::testing::with_domain;
use crate::x86::{Startup, msr as msrs};
use machine::vcpu::Vcpu as Hardware;
use proptest::prelude::*;
use registers::offset;
use std::collections::BTreeSet;
use std::vec::Vec;

fn enabled(id: u32) -> Vlapic {
    let lapic = Vlapic::new(id, false);
    lapic.spurious.store(0x1ff, Ordering::Release);
    lapic
}

/// The specification, without bitmaps and hints.
#[derive(Default)]
struct Model {
    requested: BTreeSet<u8>,
    in_service: BTreeSet<u8>,
    level: BTreeSet<u8>,
    task_priority: u8,
}

impl Model {
    fn priority(&self) -> u8 {
        let service = self.in_service.last().copied().unwrap_or(0);
        if self.task_priority >> 4 >= service >> 4 { self.task_priority } else { service & 0xf0 }
    }

    fn pending(&self) -> Pending {
        match self.requested.last() {
            None => Pending::Nothing,
            Some(vector) if vector >> 4 > self.priority() >> 4 => Pending::Vector(*vector),
            Some(vector) => Pending::Blocked(*vector),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Request(u8, bool),
    TaskPriority(u8),
    Accept,
    End,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (16u8..=255, any::<bool>()).prop_map(|(vector, level)| Action::Request(vector, level)),
        any::<u8>().prop_map(Action::TaskPriority),
        Just(Action::Accept),
        Just(Action::End),
    ]
}

proptest! {
    #[test]
    fn priorities_are_those_of_the_model(actions in prop::collection::vec(action(), 0..200)) {
        let (lapic, mut model) = (enabled(0), Model::default());
        for action in actions {
            match action {
                Action::Request(vector, is_level) => {
                    let trigger = if is_level { Trigger::Level } else { Trigger::Edge };
                    prop_assert_eq!(lapic.request(vector, trigger), model.requested.insert(vector));
                    if is_level { model.level.insert(vector); } else { model.level.remove(&vector); }
                }
                Action::TaskPriority(value) => {
                    lapic.set_task_priority(value);
                    model.task_priority = value;
                }
                Action::Accept => {
                    if let Pending::Vector(vector) = lapic.pending() {
                        lapic.accept(vector);
                        model.requested.remove(&vector);
                        model.in_service.insert(vector);
                    }
                }
                Action::End => {
                    let ended = model.in_service.pop_last();
                    let expected = ended.filter(|vector| model.level.remove(vector));
                    prop_assert_eq!(lapic.end_of_interrupt(), expected);
                }
            }
            prop_assert_eq!(lapic.pending(), model.pending());
            prop_assert_eq!(lapic.processor_priority(), model.priority());
        }
    }
}

/// Runs `work` with the registers of the first of `vcpus` vCPUs.
fn with_vcpus(vcpus: u32, work: impl FnOnce(&Host, &Domain, &Vcpu, &mut Hardware)) {
    with_domain(Role::Guest, vcpus, |_, host, domain| {
        let vcpu = domain.vcpu(0).unwrap();
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        work(host, domain, vcpu, &mut hardware);
    });
}

#[test]
fn registers_after_reset() {
    with_vcpus(2, |_, domain, vcpu, _| {
        let read = |at| registers::mmio_read(vcpu, DEFAULT_BASE + u64::from(at), 4);
        assert_eq!(read(offset::VERSION), 0x5_0014);
        assert_eq!(read(offset::SPURIOUS), 0xff);
        assert_eq!(read(offset::DFR), 0xffff_ffff);
        assert_eq!(read(offset::LVT_LINT0), 0x1_0000);
        assert_eq!(read(offset::TIMER_CURRENT), 0);
        assert_eq!(registers::mmio_read(vcpu, DEFAULT_BASE + 0x24, 4), 0, "nothing between registers");
        assert_eq!(registers::mmio_read(domain.vcpu(1).unwrap(), DEFAULT_BASE + 0x20, 4), 2 << 24);
        assert_eq!(registers::mmio_read(domain.vcpu(1).unwrap(), DEFAULT_BASE + 0x23, 1), 2);
        assert!(vcpu.x86.lapic.claims(0xfee0_0fff) && !vcpu.x86.lapic.claims(0xfee0_1000));
        assert_eq!(vcpu.x86.lapic.base() & base::BOOT, base::BOOT);
        assert_eq!(domain.vcpu(1).unwrap().x86.lapic.base() & base::BOOT, 0);
    });
}

#[test]
fn every_register_takes_what_it_has() {
    with_vcpus(1, |host, domain, vcpu, hardware| {
        let mut check = |at: u16, written: u32, read: u32| {
            registers::mmio_write(host, domain, vcpu, hardware, DEFAULT_BASE + u64::from(at), 4, u64::from(written));
            assert_eq!(registers::read(vcpu, at), read, "{at:#x}");
        };
        check(offset::SPURIOUS, u32::MAX, 0x3ff);
        check(offset::TPR, 0x1234, 0x34);
        check(offset::LDR, u32::MAX, 0xff00_0000);
        check(offset::DFR, 0x0fff_ffff, 0x0fff_ffff);
        check(offset::DFR, 0xf000_0000, u32::MAX);
        check(offset::LVT_TIMER, u32::MAX, 0x3_10ff);
        check(offset::LVT_THERMAL, u32::MAX, 0x1_17ff);
        check(offset::LVT_LINT1, u32::MAX, 0x1_f7ff);
        check(offset::LVT_ERROR, u32::MAX, 0x1_10ff);
        check(offset::ICR_HIGH, u32::MAX, 0xff00_0000);
        check(offset::TIMER_DIVIDE, u32::MAX, 0b1011);
        check(offset::ID, u32::MAX, 0);
        check(offset::VERSION, 0, 0x5_0014);
        check(offset::SPURIOUS, 0xff, 0xff);
        check(offset::LVT_ERROR, 0x33, 0x1_0033);
        assert_eq!(hardware.control().v_intr & 0xf, 3, "the processor knows the task priority");
        // A byte in the middle of a register.
        registers::mmio_write(host, domain, vcpu, hardware, DEFAULT_BASE + 0xd3, 1, 0x0f);
        assert_eq!(registers::read(vcpu, offset::LDR), 0x0f00_0000);
    });
}

#[test]
fn modes_change_only_as_the_manual_allows() {
    let (on, both) = (DEFAULT_BASE | base::ENABLED, DEFAULT_BASE | base::ENABLED | base::X2APIC);
    let lapic = Vlapic::new(10, false);
    assert_eq!(lapic.set_base(both, false), Err(Refused), "the policy hides x2APIC");
    assert_eq!(lapic.set_base(both, true), Ok(()));
    assert_eq!(lapic.logical.load(Ordering::Acquire), 1 << 10);
    assert_eq!(lapic.set_base(on, true), Err(Refused), "x2APIC ends only through off");
    assert_eq!(lapic.set_base(0, true), Ok(()));
    assert_eq!(lapic.set_base(both, true), Err(Refused), "x2APIC begins only from xAPIC");
    assert_eq!(lapic.set_base(DEFAULT_BASE | base::X2APIC, true), Err(Refused));
    assert_eq!(lapic.set_base(on | 1, true), Err(Refused));
    assert_eq!(lapic.set_base(0xfee0_1000 | base::ENABLED, true), Err(Refused));
    assert_eq!(lapic.set_base(on, true), Ok(()));
    assert_eq!(Vlapic::new(0x26, false).set_base(both, true), Ok(()));
    assert_eq!(x2apic_logical(0x26), 2 << 16 | 1 << 6);
}

#[test]
fn x2apic_registers_are_checked() {
    with_vcpus(2, |host, domain, vcpu, hardware| {
        let read = |hardware: &Hardware, number| msrs::read(domain, vcpu, hardware, number);
        assert_eq!(read(hardware, 0x802), Err(Refused), "not in x2APIC mode");
        vcpu.x86.lapic.set_base(DEFAULT_BASE | base::ENABLED | base::X2APIC, true).unwrap();
        let readable = |number: u32| {
            let plain =
                [2, 3, 8, 0xa, 0xd, 0xf, 0x28, 0x2f, 0x30, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3e];
            plain.contains(&(number - 0x800)) || (0x810..0x828).contains(&number)
        };
        for number in 0x800..=0x8ff {
            assert_eq!(read(hardware, number).is_ok(), readable(number), "{number:#x}");
        }
        let mut write = |number, value| msrs::write(host, domain, vcpu, hardware, number, value);
        assert_eq!(write(0x80b, 1), Err(Refused));
        assert_eq!(write(0x80b, 0), Ok(()));
        assert_eq!(write(0x808, 0x100), Err(Refused));
        assert_eq!(write(0x80f, 0x1ff), Ok(()));
        assert_eq!(write(0x802, 0), Err(Refused));
        assert_eq!(write(0x832, 1 << 17 | 0xec), Ok(()));
        assert_eq!(write(0x832, 1 << 20), Err(Refused));
        assert_eq!(write(0x83e, 0b100), Err(Refused));
        assert_eq!(write(0x830, 1 << 12), Err(Refused));
        assert_eq!(write(0x83f, 0x41), Ok(()));
        assert_eq!(vcpu.x86.lapic.pending(), Pending::Vector(0x41), "self IPI");
        assert_eq!(write(0x830, 2 << 32 | 0x51), Ok(()));
        assert_eq!(domain.vcpu(1).unwrap().x86.lapic.requested.highest(), None, "it is switched off");
        domain.vcpu(1).unwrap().x86.lapic.spurious.store(0x1ff, Ordering::Release);
        assert_eq!(write(0x830, 2 << 32 | 0x51), Ok(()));
        assert_eq!(domain.vcpu(1).unwrap().x86.lapic.requested.highest(), Some(0x51));
    });
}

/// Which vCPUs got vector 0x80 by a command.
fn targets(domain: &Domain, host: &Host, low: u32, high: u32) -> Vec<u32> {
    ipi::send(host, domain, domain.vcpu(0).unwrap(), low | 0x80, high);
    let hit = domain.vcpus().iter().filter(|vcpu| vcpu.x86.lapic.requested.remove(0x80));
    hit.map(|vcpu| vcpu.index).collect()
}

#[test]
fn destinations() {
    with_vcpus(4, |host, domain, _, _| {
        for vcpu in domain.vcpus() {
            let lapic = &vcpu.x86.lapic;
            lapic.spurious.store(0x1ff, Ordering::Release);
            lapic.logical.store(1 << (24 + vcpu.index), Ordering::Release);
        }
        let logical = 1 << 11;
        assert_eq!(targets(domain, host, 0, 4 << 24), [2]);
        assert_eq!(targets(domain, host, 0, 5 << 24), [], "no such id");
        assert_eq!(targets(domain, host, 0, 0xff << 24), [0, 1, 2, 3]);
        assert_eq!(targets(domain, host, logical, 0b1010 << 24), [1, 3]);
        assert_eq!(targets(domain, host, 1 << 18, 0), [0]);
        assert_eq!(targets(domain, host, 2 << 18, 0), [0, 1, 2, 3]);
        assert_eq!(targets(domain, host, 3 << 18, 0), [1, 2, 3]);
        // Lowest priority: the one that does least.
        domain.vcpu(1).unwrap().x86.lapic.set_task_priority(0x20);
        assert_eq!(targets(domain, host, logical | 1 << 8, 0b1010 << 24), [3]);
        // Clusters of four.
        for vcpu in domain.vcpus() {
            vcpu.x86.lapic.format.store(0x0fff_ffff, Ordering::Release);
            vcpu.x86.lapic.logical.store(0x1000_0000 | 1 << (24 + vcpu.index), Ordering::Release);
        }
        assert_eq!(targets(domain, host, logical, 0x15 << 24), [0, 2]);
        assert_eq!(targets(domain, host, logical, 0x25 << 24), []);
        // x2APIC: cluster in the upper half.
        for vcpu in domain.vcpus() {
            vcpu.x86.lapic.set_base(DEFAULT_BASE | base::ENABLED | base::X2APIC, true).unwrap();
        }
        assert_eq!(targets(domain, host, logical, 1 << 4 | 1 << 6), [2, 3]);
        assert_eq!(targets(domain, host, logical, 1 << 16 | 1 << 4), []);
        assert_eq!(targets(domain, host, 0, 6), [3]);
        assert_eq!(targets(domain, host, 0, u32::MAX), [0, 1, 2, 3]);
        // What I/O APICs send reaches x2APICs too.
        let eight_bits = Destination { is_logical: false, number: 0xff, broadcast: 0xff };
        assert!(ipi::matches(domain.vcpu(3).unwrap(), eight_bits));
    });
}

#[test]
fn illegal_vectors_are_errors() {
    with_vcpus(1, |host, domain, vcpu, hardware| {
        let mut write = |at: u16, value: u64| {
            registers::mmio_write(host, domain, vcpu, hardware, DEFAULT_BASE + u64::from(at), 4, value);
        };
        write(offset::SPURIOUS, 0x1ff);
        write(offset::LVT_ERROR, 0xfe);
        write(offset::ICR, 1 << 18 | 5);
        write(offset::ESR, 0);
        assert_eq!(registers::read(vcpu, offset::ESR), error::SENT_ILLEGAL_VECTOR);
        assert_eq!(vcpu.x86.lapic.pending(), Pending::Vector(0xfe));
        write(offset::ESR, 0);
        assert_eq!(registers::read(vcpu, offset::ESR), 0);
        assert_eq!(error::ILLEGAL_REGISTER, 0x80);
    });
}

#[test]
fn other_vcpus_are_started_by_init_and_start_up() {
    with_vcpus(2, |host, domain, vcpu, _| {
        let other = domain.vcpu(1).unwrap();
        let send = |low| ipi::send(host, domain, vcpu, low, 2 << 24);
        assert!(other.wait().contains(Wait::DOWN));
        send(0b101 << 8 | 1 << 14);
        send(0b110 << 8 | 0x9a);
        assert!(!other.wait().contains(Wait::DOWN));
        send(0b110 << 8 | 0x12);
        let mut hardware = other.hardware.try_lock().unwrap();
        crate::x86::interrupts::prepare(host, domain, other, &mut hardware).unwrap();
        let state = hardware.guest();
        assert_eq!((state.cs.selector, state.cs.base, state.rip), (0x9a00, 0x9_a000, 0));
        drop(hardware);
        // Running now: INIT stops it, level de-assert does nothing.
        send(0b101 << 8 | 1 << 15);
        assert!(!other.x86.startup.has(Startup::INIT));
        send(0b101 << 8 | 1 << 14);
        assert!(other.wait().contains(Wait::DOWN) && other.x86.startup.has(Startup::INIT));
        assert_eq!(Delivery::of(0b101 << 8), Delivery::Init);
    });
}

#[test]
fn a_fast_timer_is_noticed_ten_thousand_times_a_second_at_the_most() {
    with_domain(Role::Guest, 1, |machine, host, domain| {
        let vcpu = domain.vcpu(0).unwrap();
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        let mut write = |at: u16, value: u64| {
            registers::mmio_write(host, domain, vcpu, &mut hardware, DEFAULT_BASE + u64::from(at), 4, value);
        };
        assert!(domain.lifecycle.unpause_by_toolstack());
        // 1 GHz: 100 microseconds are 100,000 ticks.
        let soonest = |machine: &machine::fake::FakeMachine| Some(machine.now() + 100_000);
        let deadline = || vcpu.timers.deadline(TimerKind::Lapic);
        write(offset::SPURIOUS, 0x1ff);
        write(offset::TIMER_DIVIDE, 0b1011);
        write(offset::LVT_TIMER, 1 << 17 | 0xec);
        write(offset::TIMER_INITIAL, 1);
        assert_eq!(deadline(), soonest(machine));
        let expire = || {
            machine.advance(100_000);
            crate::timer::set(host, vcpu, TimerKind::Lapic, None);
            timer::expired(host, domain, vcpu);
        };
        expire();
        assert_eq!(deadline(), soonest(machine));
        // Masked: nobody wants to know.
        write(offset::LVT_TIMER, 1 << 17 | u64::from(lvt::MASKED) | 0xec);
        expire();
        assert_eq!(deadline(), None);
        write(offset::LVT_TIMER, 1 << 17 | 0xec);
        assert_eq!(deadline(), soonest(machine));
        // Stopped: until it runs again.
        domain.lifecycle.pause_by_system();
        expire();
        assert_eq!(deadline(), None);
        domain.lifecycle.unpause_by_system();
        timer::watch(host, vcpu);
        assert_eq!(deadline(), soonest(machine));
    });
}

#[test]
fn the_timer_fires_once_or_again_and_again() {
    with_domain(Role::Guest, 1, |machine, host, domain| {
        let vcpu = domain.vcpu(0).unwrap();
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        let mut write = |at: u16, value: u64| {
            registers::mmio_write(host, domain, vcpu, &mut hardware, DEFAULT_BASE + u64::from(at), 4, value);
        };
        machine.advance(1000);
        write(offset::SPURIOUS, 0x1ff);
        write(offset::TIMER_DIVIDE, 0b1011);
        write(offset::LVT_TIMER, 0xec);
        write(offset::TIMER_INITIAL, 100);
        assert_eq!(registers::read(vcpu, offset::TIMER_CURRENT), 100);
        // 1 GHz: ten ticks a count.
        machine.advance(400);
        assert_eq!(registers::read(vcpu, offset::TIMER_CURRENT), 60);
        write(offset::TIMER_DIVIDE, 0b0000);
        assert_eq!(registers::read(vcpu, offset::TIMER_CURRENT), 60, "the count goes on with another divisor");
        write(offset::LVT_TIMER, 1 << 17 | 0xec);
        assert_eq!(registers::read(vcpu, offset::TIMER_CURRENT), 60);
        machine.advance(1200);
        timer::expired(host, domain, vcpu);
        assert_eq!(vcpu.x86.lapic.pending(), Pending::Vector(0xec));
        assert_eq!(registers::read(vcpu, offset::TIMER_CURRENT), 100, "periodic");
        write(offset::TIMER_INITIAL, 0);
        assert_eq!(registers::read(vcpu, offset::TIMER_CURRENT), 0);
    });
}
