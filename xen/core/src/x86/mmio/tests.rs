//! Tests of device memory: instructions in a guest's memory, devices behind them.

use super::*;
use crate::domain::Role;
use crate::x86::testing::{CODE, read, with_guest, write};
use machine::codec::registers::rflags;
use machine::codec::vmcb::event;
use machine::exit::AccessCause;

const LAPIC: u64 = 0xfee0_0000;

fn fault(address: u64, kind: AccessKind) -> Access {
    Access { gpa: Gpa::new(address), kind, cause: AccessCause::NotPresent, stage: AccessStage::Final }
}

#[test]
fn the_local_apic_is_read_and_written() {
    // mov eax, [rdi]; mov dword [rdi], 0x1ff; or dword [rdi], 0x100; xchg [rdi], ecx; cmp [rdi], ecx; movzx eax, byte [rdi+3]
    let code =
        [0x8b, 0x07, 0xc7, 0x07, 0xff, 0x01, 0, 0, 0x81, 0x0f, 0, 1, 0, 0, 0x87, 0x0f, 0x39, 0x0f, 0x0f, 0xb6, 0x47, 3];
    with_guest(Role::Guest, &code, |_, host, domain, vcpu, hardware| {
        let run = |hardware: &mut Hardware, at: u64, address: u64| {
            hardware.guest_mut().rip = CODE + at;
            let access = fault(LAPIC + address, AccessKind::Read);
            assert_eq!(handle(host, domain, vcpu, hardware, access), Ok(0));
            hardware.guest().rip - CODE
        };
        hardware.set_register(Register::Rax, u64::MAX);
        assert_eq!(run(hardware, 0, 0x30), 2);
        assert_eq!(hardware.register(Register::Rax), 0x5_0014);
        assert_eq!(run(hardware, 2, 0xf0), 8);
        assert_eq!(run(hardware, 0, 0xf0), 2);
        assert_eq!(hardware.register(Register::Rax), 0x1ff);
        assert_eq!(run(hardware, 8, 0x80), 14);
        assert_eq!(run(hardware, 0, 0x80), 2);
        assert_eq!(hardware.register(Register::Rax), 0, "eight bits of task priority");
        hardware.set_register(Register::Rcx, 0xffff_ffff_0000_0055);
        assert_eq!(run(hardware, 14, 0x80), 16);
        assert_eq!(hardware.register(Register::Rcx), 0);
        hardware.set_register(Register::Rcx, 0x55);
        assert_eq!(run(hardware, 16, 0x80), 18);
        assert_ne!(hardware.guest().rflags & execute::ZERO, 0);
        assert_eq!(run(hardware, 18, 0xe3), 22);
        assert_eq!(hardware.register(Register::Rax), 0xff);
    });
}

#[test]
fn nothing_reads_as_ones() {
    // mov rax, [rdi]; mov ah, [rdi]; cmpxchg [rdi], ecx; lock xadd [rdi], ecx; inc dword [rdi]; bts dword [rdi], 5
    let code =
        [0x48, 0x8b, 0x07, 0x8a, 0x27, 0x0f, 0xb1, 0x0f, 0xf0, 0x0f, 0xc1, 0x0f, 0xff, 0x07, 0x0f, 0xba, 0x2f, 5];
    with_guest(Role::Control, &code, |_, host, domain, vcpu, hardware| {
        let run = |hardware: &mut Hardware, at: u64| {
            hardware.guest_mut().rip = CODE + at;
            let access = fault(0xfed0_0000, AccessKind::Write);
            assert_eq!(handle(host, domain, vcpu, hardware, access), Ok(0));
            hardware.guest().rip - CODE
        };
        assert_eq!(run(hardware, 0), 3);
        assert_eq!(hardware.register(Register::Rax), u64::MAX);
        hardware.set_register(Register::Rax, 0);
        assert_eq!(run(hardware, 3), 5);
        assert_eq!(hardware.register(Register::Rax), 0xff00);
        assert_eq!(run(hardware, 5), 8);
        assert_eq!(hardware.register(Register::Rax), 0xffff_ffff);
        hardware.set_register(Register::Rcx, 1);
        assert_eq!(run(hardware, 8), 12);
        assert_eq!(hardware.register(Register::Rcx), 0xffff_ffff);
        assert_ne!(hardware.guest().rflags & execute::ZERO, 0, "minus one plus one");
        assert_eq!(run(hardware, 12), 14);
        assert_eq!(run(hardware, 14), 18);
        assert_eq!(hardware.guest().rflags & 1, 1);
    });
}

#[test]
fn the_io_apic_is_at_its_place() {
    // mov [rdi], bl; mov eax, [rdi]
    with_guest(Role::Control, &[0x88, 0x1f, 0x8b, 0x07], |_, host, domain, vcpu, hardware| {
        hardware.set_register(Register::Rbx, 0x101);
        handle(host, domain, vcpu, hardware, fault(0xfec0_0000, AccessKind::Write)).unwrap();
        handle(host, domain, vcpu, hardware, fault(0xfec0_0010, AccessKind::Read)).unwrap();
        assert_eq!(hardware.register(Register::Rax), 0x2f_0011);
        assert_eq!(hardware.guest().rip, CODE + 4);
    });
}

#[test]
fn strings_move_between_devices_and_ram() {
    // rep movsd; rep stosd; lodsd
    let code = [0xf3, 0xa5, 0xf3, 0xab, 0xad];
    with_guest(Role::Guest, &code, |_, host, domain, vcpu, hardware| {
        let run = |hardware: &mut Hardware, address| {
            assert_eq!(handle(host, domain, vcpu, hardware, fault(address, AccessKind::Read)), Ok(0));
        };
        // From the version register and what follows it to RAM across a page.
        hardware.set_register(Register::Rsi, LAPIC + 0x30);
        hardware.set_register(Register::Rdi, 0x9ffe);
        hardware.set_register(Register::Rcx, 2);
        run(hardware, LAPIC + 0x30);
        assert_eq!(read(domain, 0x9ffe), [0x14, 0, 5, 0, 0, 0, 0, 0]);
        assert_eq!((hardware.register(Register::Rcx), hardware.guest().rip), (0, CODE + 2));
        // From RAM to a device, the other way round.
        write(domain, 0x9ffe, &[0x77, 0, 0, 0]);
        hardware.guest_mut().rflags |= rflags::DF;
        hardware.guest_mut().rip = CODE;
        hardware.set_register(Register::Rsi, 0x9ffe);
        hardware.set_register(Register::Rdi, LAPIC + 0x80);
        hardware.set_register(Register::Rcx, 1);
        run(hardware, LAPIC + 0x80);
        assert_eq!(vcpu.x86.lapic.task_priority(), 0x77);
        assert_eq!(hardware.register(Register::Rsi), 0x9ffa);
        // Many: others get a turn.
        hardware.guest_mut().rflags &= !rflags::DF;
        hardware.set_register(Register::Rdi, 0xff00_0000);
        hardware.set_register(Register::Rcx, 100);
        // This page is not in the guest's own tables: it gets its page fault.
        run(hardware, 0xff00_0000);
        assert_eq!(hardware.control().event_injection & (event::VALID | 0xff), event::VALID | 14);
        assert_eq!(hardware.guest().cr2, 0xff00_0000);
        hardware.inject(0);
        hardware.set_register(Register::Rdi, 0xfec1_0000);
        run(hardware, 0xfec1_0000);
        assert_eq!((hardware.register(Register::Rcx), hardware.guest().rip), (36, CODE + 2));
        run(hardware, 0xfec1_0000);
        assert_eq!((hardware.register(Register::Rcx), hardware.guest().rip), (0, CODE + 4));
        hardware.set_register(Register::Rsi, LAPIC + 0x30);
        run(hardware, LAPIC + 0x30);
        assert_eq!((hardware.register(Register::Rax), hardware.guest().rip), (0x5_0014, CODE + 5));
    });
}

#[test]
fn what_cannot_be_emulated_is_said_once() {
    // movaps xmm0, [rdi]
    with_guest(Role::Guest, &[0x0f, 0x28, 0x07], |machine, host, domain, vcpu, hardware| {
        for _ in 0..2 {
            hardware.inject(0);
            assert_eq!(handle(host, domain, vcpu, hardware, fault(LAPIC, AccessKind::Read)), Ok(0));
            assert_eq!(hardware.control().event_injection, event::VALID | event::EXCEPTION | 6);
        }
        assert_eq!(machine.console().matches("unknown instruction").count(), 1);
        hardware.inject(0);
        assert_eq!(handle(host, domain, vcpu, hardware, fault(LAPIC, AccessKind::Execute)), Ok(0));
        assert_eq!(hardware.control().event_injection & 0xff, 13);
        let walk = Access { stage: AccessStage::TableWalk, ..fault(0x1_0000_0000, AccessKind::Read) };
        assert!(matches!(handle(host, domain, vcpu, hardware, walk), Err(Stop::Crash(_))));
    });
}

#[test]
fn a_page_that_was_granted_for_reading_keeps_its_content() {
    use crate::p2m::{Entry, Kind};
    use machine::frame::{self, Fill, Pin};
    // mov [rdi], rax; xadd [rdi], ecx
    let code = [0x48, 0x89, 0x07, 0x0f, 0xc1, 0x0f];
    with_guest(Role::Guest, &code, |_, host, domain, vcpu, hardware| {
        let granter = machine::DomId(9);
        let mfn = frame::allocate(0, frame::Kind::Guest, granter, Fill::Zero).unwrap();
        let page = Pin::take(mfn, granter).unwrap();
        assert!(machine::memory::write(&page, 0x10, &0x1122_3344u64.to_le_bytes()));
        let mut change = domain.p2m.begin().unwrap();
        change.set(machine::Gfn::new(9), Entry::with_frame(Kind::GrantRo, 0, mfn)).unwrap();
        change.commit().complete();
        for (at, next) in [(0, 3), (3, 6)] {
            hardware.guest_mut().rip = CODE + at;
            hardware.set_register(Register::Rdi, 0x9010);
            let access = Access { cause: AccessCause::Rights, ..fault(0x9010, AccessKind::Write) };
            assert_eq!(crate::fault::handle(domain, &access, |_| false), crate::fault::Handled::Emulate);
            assert_eq!(handle(host, domain, vcpu, hardware, access), Ok(0));
            assert_eq!(hardware.guest().rip, CODE + next);
        }
        assert_eq!(hardware.register(Register::Rcx), 0x1122_3344, "it may be read");
        let mut bytes = [0; 8];
        assert!(machine::memory::read(&page, 0x10, &mut bytes));
        assert_eq!(u64::from_le_bytes(bytes), 0x1122_3344);
    });
}

#[test]
fn memory_that_may_not_be_written_keeps_its_content() {
    // mov [rdi], rax; xchg [rdi], ecx; lock or dword [rdi], 0x100; stosb
    let code = [0x48, 0x89, 0x07, 0x87, 0x0f, 0xf0, 0x81, 0x0f, 0, 1, 0, 0, 0xaa];
    with_guest(Role::Guest, &code, |_, host, domain, vcpu, hardware| {
        write(domain, 0x9010, &0x1122_3344_5566_7788u64.to_le_bytes());
        let mut change = domain.p2m.begin().unwrap();
        change.retype(machine::Gfn::new(9), 0, crate::p2m::Kind::RamRo).unwrap();
        change.commit().complete();
        let run = |hardware: &mut Hardware, at: u64| {
            hardware.guest_mut().rip = CODE + at;
            hardware.set_register(Register::Rdi, 0x9010);
            let access = Access { cause: AccessCause::Rights, ..fault(0x9010, AccessKind::Write) };
            assert_eq!(handle(host, domain, vcpu, hardware, access), Ok(0));
            assert_eq!(hardware.control().event_injection, 0);
            assert_eq!(read(domain, 0x9010), 0x1122_3344_5566_7788u64.to_le_bytes(), "at {at}");
            hardware.guest().rip - CODE
        };
        assert_eq!(run(hardware, 0), 3);
        assert_eq!(run(hardware, 3), 5);
        assert_eq!(hardware.register(Register::Rcx), 0x5566_7788, "what is there, not ones");
        assert_eq!(run(hardware, 5), 12);
        assert_eq!(run(hardware, 12), 13);
        assert_eq!(hardware.register(Register::Rdi), 0x9011);
    });
}
