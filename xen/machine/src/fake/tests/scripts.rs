//! Scripted guests: stale translations, tags, faults that are retried, hypercalls that are restarted, interrupts.

use crate::cpu::{self, Work};
use crate::exit::{AccessCause, AccessKind, Exit, X86Exit};
use crate::fake::FakeMachine;
use crate::frame::{self, Fill, Kind, Pin};
use crate::table::{Format, Table, Target};
use crate::vcpu::Vcpu;
use crate::{CpuId, DomId, Gpa, Mfn};
use std::sync::atomic::{AtomicBool, Ordering};

const FORMAT: Format = Format::NPT;
const RW: u64 = 0b111;
const OWNER: DomId = DomId(3);
const GPA: u64 = 0x5000;
const INDEX: usize = 5;

/// A machine, a vCPU, and its lowest table.
fn set_up(machine: &FakeMachine, work: impl FnOnce(&mut Vcpu, &Table, Mfn)) {
    machine.on_cpu(0, || {
        let [root, level_3, level_2, level_1] = [(); 4].map(|()| Table::allocate(OWNER).unwrap());
        let bottom = level_1.mfn();
        level_2.borrow().set_table(0, level_1, 0, RW, &FORMAT);
        level_3.borrow().set_table(0, level_2, 1, RW, &FORMAT);
        root.borrow().set_table(0, level_3, 2, RW, &FORMAT);
        let mut vcpu = Vcpu::try_new(OWNER, root.as_root()).unwrap();
        cpu::set_working_for(OWNER, 0);
        work(&mut vcpu, &root, bottom);
    });
}

fn map(root: &Table, index: usize) -> Mfn {
    let mfn = frame::allocate(0, Kind::Guest, OWNER, Fill::Zero).unwrap();
    let level_1 = (0..3).fold(root.borrow(), |table, _| table.child(0, &FORMAT).unwrap());
    level_1.set_leaf(index, Target::Ram(mfn), 0, RW, &FORMAT).unwrap();
    mfn
}

fn unmap(root: &Table, index: usize) {
    let level_1 = (0..3).fold(root.borrow(), |table, _| table.child(0, &FORMAT).unwrap());
    level_1.set_absent(index, 0, &FORMAT);
}

fn leave() -> Exit {
    Exit::X86(X86Exit::Cpuid)
}

#[test]
fn a_translation_stays_until_it_is_flushed() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, root, _| {
        map(root, INDEX);
        for _ in 0..3 {
            machine.script_vcpu(OWNER, 0, |guest| guest.write_u64(GPA, 7).map(|()| leave()));
        }
        assert_eq!(vcpu.run(), leave());
        unmap(root, INDEX);
        assert_eq!(vcpu.run(), leave(), "the stale translation still works");
        vcpu.flush_translations();
        let Exit::Stage2Fault(access) = vcpu.run() else { panic!("flushed") };
        assert_eq!((access.gpa, access.kind), (Gpa::new(GPA), AccessKind::Write));
        assert_eq!(access.cause, AccessCause::NotPresent);
        assert_eq!(machine.steps_left(OWNER, 0), 1, "the access is tried again");
        map(root, INDEX);
        assert_eq!(vcpu.run(), leave());
        assert_eq!(machine.steps_left(OWNER, 0), 0);
        assert_eq!(vcpu.run(), Exit::Halt, "nothing left to do");
    });
}

#[test]
#[should_panic(expected = "freed before the flush")]
fn a_page_freed_before_the_flush_ends_the_test() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, root, _| {
        let mfn = map(root, INDEX);
        for _ in 0..2 {
            machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA).map(|_| leave()));
        }
        vcpu.run();
        unmap(root, INDEX);
        drop(Pin::from_entry(mfn));
        vcpu.run();
    });
}

#[test]
#[should_panic(expected = "as a level 1 table")]
fn a_table_freed_before_the_flush_ends_the_test() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, root, bottom| {
        map(root, INDEX);
        map(root, INDEX + 1);
        machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA).map(|_| leave()));
        machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA + 0x1000).map(|_| leave()));
        vcpu.run();
        let level_2 = root.borrow().child(0, &FORMAT).unwrap().child(0, &FORMAT).unwrap();
        let table = level_2.take_table(0, 0, &FORMAT).unwrap();
        assert_eq!(table.mfn(), bottom);
        table.free();
        vcpu.run();
    });
}

#[test]
fn an_access_without_rights_may_fault_once_from_memory() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, root, _| {
        let level_1 = (0..3).fold(root.borrow(), |table, _| table.child(0, &FORMAT).unwrap());
        map(root, INDEX);
        level_1.change(INDEX, 1 << 1, 0, &FORMAT);
        machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA).map(|_| leave()));
        machine.script_vcpu(OWNER, 0, |guest| guest.write_u64(GPA, 1).map(|()| leave()));
        vcpu.run();
        level_1.change(INDEX, 0, 1 << 1, &FORMAT);
        let Exit::Stage2Fault(access) = vcpu.run() else { panic!("the TLB still holds the old right") };
        assert_eq!(access.cause, AccessCause::Rights);
        assert_eq!(vcpu.run(), leave(), "a fault makes the processor look again");
    });
}

#[test]
fn used_up_tags_flush_everything() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, root, _| {
        map(root, INDEX);
        machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA).map(|_| leave()));
        vcpu.run();
        let first = vcpu.control().asid;
        assert_eq!(machine.remembered(0, first), 1);
        for _ in 0..20 {
            vcpu.flush_translations();
            vcpu.run();
        }
        assert_eq!(machine.remembered(0, first), 0);
    });
}

#[test]
fn a_vcpu_that_comes_back_to_a_cpu_does_not_find_its_old_translations() {
    let machine = FakeMachine::builder().cpus(2).build();
    set_up(&machine, |vcpu, root, _| {
        map(root, INDEX);
        for _ in 0..2 {
            machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA).map(|_| leave()));
        }
        assert_eq!(vcpu.run(), leave());
        machine.on_cpu(1, || {
            cpu::set_working_for(OWNER, 0);
            assert_eq!(vcpu.run(), leave());
        });
        // Who flushes a vCPU's translations flushes where it ran last; what is left on other CPUs, its tag must not name.
        unmap(root, INDEX);
        machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA).map(|_| leave()));
        assert!(matches!(vcpu.run(), Exit::Stage2Fault(_)), "translations of its first time here");
    });
}

#[test]
fn a_refused_entry_flushes_nothing_so_the_next_one_does() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, root, _| {
        map(root, INDEX);
        let mut other = Vcpu::try_new(OWNER, root.as_root()).unwrap();
        machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA).map(|_| leave()));
        assert_eq!(vcpu.run(), leave());
        let number = vcpu.control().asid;
        // Others use up the fake CPU's seven tags, and the entry that begins the next round is refused.
        for _ in 1..7 {
            other.flush_translations();
            machine.script_vcpu(OWNER, 0, |_| Ok(leave()));
            assert_eq!(other.run(), leave());
        }
        assert_eq!(machine.remembered(0, number), 1);
        let good = other.guest().efer;
        other.guest_mut().efer = 0;
        other.flush_translations();
        assert_eq!(other.run(), Exit::Invalid);
        assert_eq!(other.control().asid, number, "it has the tag that the first vCPU had");
        other.guest_mut().efer = good;
        machine.script_vcpu(OWNER, 0, |_| Ok(leave()));
        assert_eq!(other.run(), leave());
        assert_eq!(machine.remembered(0, number), 0);
    });
}

#[test]
fn armed_breakpoints_find_their_own_addresses() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, root, _| {
        let mut other = Vcpu::try_new(OWNER, root.as_root()).unwrap();
        for (vcpu, address) in [(&mut *vcpu, 0x1000), (&mut other, 0x2000)] {
            vcpu.load();
            vcpu.lazy_mut().debug_address = [address, 0, 0, address + 3];
            vcpu.grant_debug_registers();
            vcpu.guest_mut().dr7 |= 1;
            vcpu.save();
        }
        for address in [0x1000, 0x2000, 0x1000] {
            let vcpu = if address == 0x1000 { &mut *vcpu } else { &mut other };
            machine.script_vcpu(OWNER, 0, move |guest| {
                assert_eq!(guest.debug_registers(), [address, 0, 0, address + 3]);
                Ok(leave())
            });
            vcpu.load();
            assert_eq!(vcpu.run(), leave());
            vcpu.save();
        }
        // Who has armed nothing does not see what others have left.
        let mut third = Vcpu::try_new(OWNER, root.as_root()).unwrap();
        third.load();
        assert_eq!((third.control().intercept_dr_read, third.control().intercept_dr_write), (0xffff, 0xffff));
    });
}

#[test]
fn a_reset_forgets_translations() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, root, _| {
        map(root, INDEX);
        for _ in 0..2 {
            machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(GPA).map(|_| leave()));
        }
        assert_eq!(vcpu.run(), leave());
        unmap(root, INDEX);
        vcpu.reset();
        assert!(matches!(vcpu.run(), Exit::Stage2Fault(_)), "INIT leaves an empty TLB");
    });
}

#[test]
fn a_hypercall_whose_rip_stays_is_made_again() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, _, _| {
        machine.script_vcpu(OWNER, 0, |guest| Ok(guest.hypercall(12, &[6, 0x1000])));
        machine.script_vcpu(OWNER, 0, |guest| {
            assert_eq!(guest.vmcb.guest.rax, 42);
            Ok(leave())
        });
        assert_eq!(vcpu.run(), Exit::Hypercall);
        assert_eq!(vcpu.run(), Exit::Hypercall, "preempted and restarted");
        assert_eq!(vcpu.register(crate::codec::registers::Register::Rsi), 0x1000);
        vcpu.guest_mut().rip += 3;
        vcpu.guest_mut().rax = 42;
        assert_eq!(vcpu.run(), leave());
    });
}

#[test]
fn an_emulated_access_is_not_made_again() {
    let machine = FakeMachine::builder().build();
    set_up(&machine, |vcpu, _, _| {
        machine.script_vcpu(OWNER, 0, |guest| guest.read_u64(0xfee0_0000).map(|_| leave()));
        assert!(matches!(vcpu.run(), Exit::Stage2Fault(_)));
        vcpu.guest_mut().rip += 2;
        assert_eq!(vcpu.run(), Exit::Halt);
    });
}

#[test]
fn interrupts_and_time_reach_their_cpu() {
    let machine = FakeMachine::builder().cpus(2).build();
    set_up(&machine, |vcpu, _, _| {
        cpu::set_timer(Some(100));
        machine.advance(99);
        assert_eq!(cpu::take_work(), Work::empty());
        assert_eq!(machine.timer(0), Some(100));
        machine.advance(1);
        assert_eq!(vcpu.run(), Exit::Interrupt);
        assert_eq!(cpu::take_work(), Work::TIMER);
        assert_eq!(machine.timer(0), None);
        assert_eq!(vcpu.run(), Exit::Halt, "one interrupt stops one run");
        cpu::kick(CpuId(1));
        assert_eq!((machine.kicks(0), machine.kicks(1)), (0, 1));
        machine.on_cpu(1, || {
            assert_eq!(cpu::current(), CpuId(1));
            cpu::idle();
            assert_eq!(cpu::take_work(), Work::KICK);
        });
        assert_eq!(cpu::timestamp(), 100);
    });
}

#[test]
fn a_kick_stops_a_guest_that_runs_on_another_thread() {
    let machine = FakeMachine::builder().cpus(2).build();
    let inside = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let runner = machine.clone();
        let inside = &inside;
        scope.spawn(move || {
            set_up(&runner, |vcpu, root, _| {
                map(root, INDEX);
                runner.script_vcpu(OWNER, 0, |guest| {
                    loop {
                        guest.write_u64(GPA, 1)?;
                        std::thread::yield_now();
                    }
                });
                inside.store(true, Ordering::Release);
                assert_eq!(vcpu.run(), Exit::Interrupt);
            });
        });
        machine.on_cpu(1, || {
            while !inside.load(Ordering::Acquire) {
                cpu::relax();
            }
            cpu::kick(CpuId(0));
        });
    });
}

#[test]
fn the_console_and_ports_are_captured() {
    let machine = FakeMachine::builder().build();
    machine.on_cpu(0, || {
        crate::log!(Error, "page {:#x} is odd", 0x10);
        machine.type_text("q");
        assert_eq!(crate::console::receive(), Some(b'q'));
        assert_eq!(crate::console::receive(), None);
        machine.set_port(0x71, 0x1234);
        assert_eq!(crate::platform::port_read(0x71, 1), 0x34);
        assert_eq!(crate::platform::port_read(0x72, 2), 0xffff);
        crate::platform::port_write(0x70, 1, 0xb);
        assert_eq!(machine.port_writes(), [(0x70, 1, 0xb)]);
    });
    assert_eq!(machine.console(), "(XEN) page 0x10 is odd\n");
}
