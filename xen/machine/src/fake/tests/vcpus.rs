//! What the core can do to a vCPU, and what it cannot.

use crate::codec::registers::efer;
use crate::codec::vmcb::{Control, event, intercept_1, v_intr};
use crate::cpu;
use crate::exit::Exit;
use crate::fake::FakeMachine;
use crate::table::Table;
use crate::units::DomId;
use crate::vcpu::{InterruptShadow, Vcpu};

const OWNER: DomId = DomId(3);

fn with_vcpu(work: impl FnOnce(&FakeMachine, &mut Vcpu)) {
    let machine = FakeMachine::builder().build();
    machine.on_cpu(0, || {
        let root = Table::allocate(OWNER).unwrap();
        let mut vcpu = Vcpu::try_new(OWNER, root.as_root()).unwrap();
        cpu::set_working_for(OWNER, 0);
        work(&machine, &mut vcpu);
    });
}

/// Of the control half: what a guest must not get out of.
fn bounds(control: &Control) -> [u64; 12] {
    [
        control.intercept_cr_read.into(),
        control.intercept_cr_write.into(),
        control.intercept_dr_read.into(),
        control.intercept_dr_write.into(),
        control.intercept_exceptions.into(),
        control.intercept_1.into(),
        control.intercept_2.into(),
        control.v_intr & v_intr::MASKING,
        control.iopm_base,
        control.msrpm_base,
        control.nested_control,
        control.nested_cr3,
    ]
}

#[test]
fn what_is_asked_for_comes_on_top_of_the_standing_exits() {
    with_vcpu(|_, vcpu| {
        let standing = bounds(vcpu.control());
        let asks: [fn(&mut Vcpu); 3] = [Vcpu::open_interrupt_window, Vcpu::watch_task_priority, Vcpu::watch_iret];
        for ask in asks {
            ask(vcpu);
            let now = bounds(vcpu.control());
            assert!(standing.iter().zip(now).all(|(before, after)| before & after == *before), "none is less");
            assert_ne!(now, standing, "one is more");
            // Twice is not once more.
            ask(vcpu);
            assert_eq!(bounds(vcpu.control()), now);
            assert_eq!(vcpu.awaits_interrupt_window(), vcpu.control().intercept_1 & intercept_1::IRET == 0);
            vcpu.close_interrupt_window();
            vcpu.ignore_iret();
            assert_eq!(bounds(vcpu.control()), standing);
            assert!(!vcpu.awaits_interrupt_window());
        }
        // Neither does anything else that the core may change.
        vcpu.inject(u64::MAX);
        vcpu.set_task_priority(u64::MAX);
        vcpu.set_tsc_offset(u64::MAX);
        vcpu.set_interrupt_shadow(InterruptShadow::OneInstruction);
        assert_eq!(vcpu.task_priority(), 15);
        assert_eq!(bounds(vcpu.control()), standing);
        vcpu.reset();
        assert_eq!(bounds(vcpu.control()), standing);
        assert!(!vcpu.has_injection());
    });
}

#[test]
fn events_are_taken_once() {
    with_vcpu(|_, vcpu| {
        let interrupt = event::VALID | event::INTERRUPT | 0x31;
        vcpu.inject(interrupt);
        assert!(vcpu.has_injection());
        vcpu.vmcb_mut().control.exit_int_info = interrupt;
        assert_eq!((vcpu.take_interrupted_event(), vcpu.take_interrupted_event()), (interrupt, 0));
    });
}

#[test]
fn the_guests_half_always_has_what_hardware_wants() {
    with_vcpu(|machine, vcpu| {
        machine.script_vcpu(OWNER, 0, |_| Ok(Exit::Pause));
        vcpu.guest_mut().set_efer(efer::LME);
        assert_eq!(vcpu.guest().efer(), efer::LME, "the guest does not see SVME");
        assert_eq!(vcpu.run(), Exit::Pause);
        vcpu.guest_mut().set_efer(efer::SVME);
        assert_eq!(vcpu.guest().efer(), 0);
    });
}

#[test]
#[should_panic(expected = "is no table of")]
fn a_root_that_was_freed_is_none() {
    with_vcpu(|_, _| {
        let table = Table::allocate(OWNER).unwrap();
        let root = table.as_root();
        table.free();
        let _vcpu = Vcpu::try_new(OWNER, root);
    });
}

#[test]
#[should_panic(expected = "is no table of")]
fn somebody_elses_root_is_none() {
    with_vcpu(|_, _| {
        let table = Table::allocate(DomId(4)).unwrap();
        let _vcpu = Vcpu::try_new(OWNER, table.as_root());
    });
}
