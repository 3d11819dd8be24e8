//! Tests of what is injected, what waits, and what is put back.

use super::*;
use crate::domain::Role;
use crate::x86::testing::with_domain;
use crate::x86::vlapic::{self, Trigger};
use machine::codec::vmcb::{intercept_1, v_intr};
use machine::fake::vmcb_mut;

fn valid(kind: u64, vector: u64) -> u64 {
    event::VALID | kind | vector
}

fn with_vcpu(work: impl FnOnce(&Host, &Domain, &Vcpu, &mut Hardware)) {
    with_domain(Role::Guest, 1, |_, host, domain| {
        let vcpu = domain.vcpu(0).unwrap();
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        let write = |hardware: &mut Hardware, at: u16, value| {
            vlapic::registers::write(host, domain, vcpu, hardware, at, value);
        };
        write(&mut hardware, vlapic::registers::offset::SPURIOUS, 0x1ff);
        hardware.guest_mut().rflags |= rflags::IF;
        work(host, domain, vcpu, &mut hardware);
    });
}

#[test]
fn two_exceptions() {
    assert_eq!(combine(0, 13), Combined::DoubleFault);
    assert_eq!(combine(14, 14), Combined::DoubleFault);
    assert_eq!(combine(14, 11), Combined::DoubleFault);
    assert_eq!(combine(13, 14), Combined::Second);
    assert_eq!(combine(1, 14), Combined::Second);
    assert_eq!(combine(8, 13), Combined::Shutdown);
    assert_eq!(combine(8, 14), Combined::Shutdown);
    assert_eq!(combine(8, 1), Combined::Second);
}

#[test]
fn a_stale_exit_event_is_not_delivered_again() {
    with_vcpu(|host, domain, vcpu, hardware| {
        // QEMU leaves the bits of the last injected event, without VALID.
        vmcb_mut(hardware).control.exit_int_info = event::INTERRUPT | 0xec;
        prepare(host, domain, vcpu, hardware).unwrap();
        assert!(!hardware.has_injection());
    });
}

#[test]
fn an_interrupted_event_is_delivered_again_once() {
    with_vcpu(|host, domain, vcpu, hardware| {
        vmcb_mut(hardware).control.exit_int_info = valid(event::INTERRUPT, 0xec);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!(hardware.control().event_injection, valid(event::INTERRUPT, 0xec));
        hardware.inject(0);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert!(!hardware.has_injection());
        // Those that the instruction raises again are not put back.
        for again in [valid(event::SOFTWARE, 0x80), valid(event::EXCEPTION, 3), valid(event::EXCEPTION, 4)] {
            vmcb_mut(hardware).control.exit_int_info = again;
            prepare(host, domain, vcpu, hardware).unwrap();
            assert!(!hardware.has_injection());
        }
    });
}

#[test]
fn a_fault_during_a_fault_is_a_double_fault_and_then_the_end() {
    with_vcpu(|host, domain, vcpu, hardware| {
        vmcb_mut(hardware).control.exit_int_info = valid(event::EXCEPTION, 14) | event::HAS_ERROR | 2 << 32;
        raise_general_protection(hardware);
        prepare(host, domain, vcpu, hardware).unwrap();
        let double_fault = valid(event::EXCEPTION, 8) | event::HAS_ERROR;
        assert_eq!(hardware.control().event_injection, double_fault);
        vmcb_mut(hardware).control.exit_int_info = double_fault;
        hardware.inject(0);
        raise_general_protection(hardware);
        assert_eq!(prepare(host, domain, vcpu, hardware), Err(Stop::Yield(0)));
        assert_eq!(domain.lifecycle.shutdown_reason(), Some(1), "restart");
    });
}

#[test]
fn interrupts_wait_for_the_guest() {
    with_vcpu(|host, domain, vcpu, hardware| {
        vlapic::post(host, domain, vcpu, 0x31, Trigger::Edge);
        hardware.guest_mut().rflags &= !rflags::IF;
        prepare(host, domain, vcpu, hardware).unwrap();
        let window = |hardware: &Hardware| {
            let control = hardware.control();
            (control.v_intr & v_intr::IRQ != 0, control.intercept_1 & intercept_1::VINTR != 0)
        };
        assert!(!hardware.has_injection());
        assert_eq!(window(hardware), (true, true));
        assert!(is_pending(domain, vcpu, InterruptFlag::Set));
        assert!(!is_pending(domain, vcpu, InterruptFlag::of(hardware.guest())), "with interrupts off it may wait");
        // The window has opened, but behind STI.
        hardware.guest_mut().rflags |= rflags::IF;
        hardware.set_interrupt_shadow(InterruptShadow::OneInstruction);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!((hardware.has_injection(), window(hardware)), (false, (true, true)));
        hardware.set_interrupt_shadow(InterruptShadow::No);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!(hardware.control().event_injection, valid(event::INTERRUPT, 0x31));
        assert_eq!(window(hardware), (false, false));
        assert!(!is_pending(domain, vcpu, InterruptFlag::Set));
    });
}

#[test]
fn an_exception_goes_first() {
    with_vcpu(|host, domain, vcpu, hardware| {
        vlapic::post(host, domain, vcpu, 0x31, Trigger::Edge);
        raise_invalid_opcode(hardware);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!(hardware.control().event_injection, valid(event::EXCEPTION, 6));
        assert_ne!(hardware.control().v_intr & v_intr::IRQ, 0);
        assert_eq!(vcpu.x86.lapic.pending(), Pending::Vector(0x31));
    });
}

#[test]
fn task_priority_holds_interrupts_back_until_it_is_lowered() {
    with_vcpu(|host, domain, vcpu, hardware| {
        // The guest has written CR8 without an exit.
        hardware.set_task_priority(4);
        vlapic::post(host, domain, vcpu, 0x31, Trigger::Edge);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!(vcpu.x86.lapic.task_priority(), 0x40);
        assert!(!hardware.has_injection());
        assert_eq!(hardware.control().v_intr & v_intr::IRQ, 0, "a window would exit without end in QEMU");
        assert_ne!(hardware.control().intercept_cr_write & 1 << 8, 0);
        assert!(!is_pending(domain, vcpu, InterruptFlag::Set));
        hardware.set_task_priority(2);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!(hardware.control().event_injection, valid(event::INTERRUPT, 0x31));
        assert_eq!(hardware.control().intercept_cr_write & 1 << 8, 0);
    });
}

#[test]
fn the_next_of_two_vectors_gets_a_window() {
    with_vcpu(|host, domain, vcpu, hardware| {
        vlapic::post(host, domain, vcpu, 0x31, Trigger::Edge);
        vlapic::post(host, domain, vcpu, 0x51, Trigger::Edge);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!(hardware.control().event_injection, valid(event::INTERRUPT, 0x51));
        assert_eq!(vcpu.x86.lapic.pending(), Pending::Blocked(0x31), "until the end of the first");
        assert_ne!(hardware.guest().rflags & rflags::IF, 0);
    });
}

#[test]
fn one_nmi_at_a_time() {
    with_vcpu(|host, domain, vcpu, hardware| {
        hardware.guest_mut().rflags &= !rflags::IF;
        vlapic::ipi::send_nmi(host, domain, vcpu);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!(hardware.control().event_injection, valid(event::NMI, 2));
        assert_ne!(hardware.control().intercept_1 & intercept_1::IRET, 0);
        hardware.inject(0);
        vlapic::ipi::send_nmi(host, domain, vcpu);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert!(!hardware.has_injection());
        iret(vcpu, hardware);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert!(!hardware.has_injection(), "IRET itself comes first");
        hardware.set_interrupt_shadow(InterruptShadow::No);
        prepare(host, domain, vcpu, hardware).unwrap();
        assert_eq!(hardware.control().event_injection, valid(event::NMI, 2));
    });
}
