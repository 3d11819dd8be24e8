//! Tests of whole exits: instructions in a guest's memory, carried out and passed over.

use super::*;
use crate::domain::Role;
use crate::x86::Startup;
use crate::x86::testing::{CODE, read, with_domain, with_guest, write};
use machine::codec::registers::{cr0, cr4, efer, rflags};
use machine::codec::vmcb::{GuestState, event};
use machine::fake::vmcb_mut;

const GP: u64 = event::VALID | event::EXCEPTION | event::HAS_ERROR | 13;
const UD: u64 = event::VALID | event::EXCEPTION | 6;

#[test]
fn cpuid_is_answered_and_passed_over() {
    with_guest(Role::Guest, &[0x66, 0x0f, 0xa2], |_, host, domain, vcpu, hardware| {
        hardware.set_register(Register::Rax, 0xffff_ffff_4000_0000);
        hardware.guest_mut().rflags |= rflags::RF;
        assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::Cpuid), Ok(0));
        assert_eq!(hardware.guest().rip, CODE + 3);
        assert_eq!(hardware.guest().rflags & rflags::RF, 0);
        let text = [Register::Rbx, Register::Rcx, Register::Rdx].map(|register| hardware.register(register) as u32);
        assert_eq!(text.map(u32::to_le_bytes).concat(), b"XenVMMXenVMM");
        assert_eq!(hardware.register(Register::Rax), 0x4000_0005);
        // The other leaves of the hypervisor's.
        let mut ask = |leaf: u64, subleaf: u64| {
            hardware.guest_mut().rip = CODE;
            hardware.set_register(Register::Rax, leaf);
            hardware.set_register(Register::Rcx, subleaf);
            handle(host, domain, vcpu, hardware, X86Exit::Cpuid).unwrap();
            [Register::Rax, Register::Rbx, Register::Rcx, Register::Rdx].map(|register| hardware.register(register))
        };
        assert_eq!(ask(0x4000_0001, 0), [0x4_0011, 0, 0, 0]);
        assert_eq!(ask(0x4000_0002, 0), [1, 0x4000_0000, 0, 0]);
        assert_eq!(ask(0x4000_0003, 0)[2], 1_000_000, "1 GHz");
        assert_eq!(ask(0x4000_0003, 2), [1_000_000, 0, 0, 0]);
        assert_eq!(ask(0x4000_0004, 0), [0x5c, 0, 3, 0]);
        assert_eq!(ask(0x4000_0100, 0), [0; 4], "one signature");
        assert_eq!(ask(1, 0)[1] >> 24, 0);
    });
}

#[test]
fn rewritten_code_is_executed_anew() {
    with_guest(Role::Guest, &[0x90, 0x90], |_, host, domain, vcpu, hardware| {
        for exit in [X86Exit::Cpuid, X86Exit::MsrRead, X86Exit::MsrWrite, X86Exit::Xsetbv, X86Exit::CacheFlush] {
            assert_eq!(handle(host, domain, vcpu, hardware, exit), Ok(0));
        }
        assert!(!pass_hypercall(domain, vcpu, hardware));
        assert_eq!(halt(host, domain, vcpu, hardware), Ok(0));
        assert_eq!(hardware.guest().rip, CODE);
        assert!(!hardware.has_injection());
        // Nor does code that cannot be read any more do harm.
        hardware.guest_mut().cr3 = 0x100_0000;
        assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::Cpuid), Ok(0));
        assert_eq!(hardware.guest().rip, CODE);
    });
}

#[test]
fn a_hypercall_is_passed_over_and_remembered() {
    with_guest(Role::Guest, &[0x0f, 0x01, 0xd9], |_, _, domain, vcpu, hardware| {
        assert!(pass_hypercall(domain, vcpu, hardware));
        assert_eq!(hardware.guest().rip, CODE + 3);
        hardware.guest_mut().rip = CODE;
        assert!(pass_hypercall(domain, vcpu, hardware));
        write(domain, CODE, &[0x0f, 0x01, 0xc1]);
        hardware.guest_mut().rip = CODE;
        assert!(!pass_hypercall(domain, vcpu, hardware), "VMCALL is not this machine's hypercall");
    });
}

#[test]
fn next_rip_is_believed_where_there_is_one() {
    with_domain(Role::Guest, 1, |machine, _, _| {
        machine.set_cpuid(0x8000_000a, 0, [1, 8, 0, 1 | 1 << 3]);
        let settings = crate::x86::testing::settings(Role::Guest, 1);
        let domain = crate::domain::Domain::try_new(machine::DomId(4), settings).unwrap();
        let vcpu = Vcpu::try_new(domain.id, 0, domain.p2m.root()).unwrap();
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        vmcb_mut(&mut hardware).control.next_rip = hardware.guest().rip + 5;
        let before = hardware.guest().rip;
        assert!(pass_hypercall(&domain, &vcpu, &mut hardware));
        assert_eq!(hardware.guest().rip, before + 5);
    });
}

#[test]
fn unknown_msrs_are_protection_faults() {
    with_guest(Role::Guest, &[0x0f, 0x32], |_, host, domain, vcpu, hardware| {
        hardware.set_register(Register::Rcx, 0xc001_0058);
        assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::MsrRead), Ok(0));
        assert_eq!((hardware.guest().rip, hardware.control().event_injection), (CODE, GP));
        hardware.inject(0);
        hardware.set_register(Register::Rcx, 0x1_0000_001b);
        assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::MsrRead), Ok(0));
        assert_eq!(hardware.register(Register::Rax), 0xfee0_0900);
        assert_eq!(hardware.register(Register::Rdx), 0);
        assert_eq!(hardware.guest().rip, CODE + 2);
    });
}

#[test]
fn the_hypercall_page_is_filled() {
    with_guest(Role::Guest, &[0x0f, 0x30], |_, host, domain, vcpu, hardware| {
        hardware.set_register(Register::Rcx, 0x4000_0000);
        hardware.set_register(Register::Rax, 0x8000);
        assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::MsrWrite), Ok(0));
        assert_eq!(hardware.guest().rip, CODE + 2);
        assert_eq!(read(domain, 0x8000 + 12 * 32), [0xb8, 12, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xc3]);
        assert_eq!(read(domain, 0x8000 + 23 * 32), [0x0f, 0x0b]);
    });
}

#[test]
fn control_registers() {
    // mov cr4, rax at 0; clts at 3; mov cr0, r8 at 5; lmsw ecx at 9; lmsw [rax] at 12.
    let code = [0x0f, 0x22, 0xe0, 0x0f, 0x06, 0x41, 0x0f, 0x22, 0xc0, 0x0f, 0x01, 0xf1, 0x0f, 0x01, 0x30];
    with_guest(Role::Guest, &code, |_, host, domain, vcpu, hardware| {
        let run = |hardware: &mut Hardware, at: u64, number| {
            hardware.guest_mut().rip = CODE + at;
            hardware.inject(0);
            assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::CrWrite { number, operand: 0 }), Ok(0));
            (hardware.guest().rip - CODE, hardware.control().event_injection)
        };
        let before = hardware.guest().cr4;
        hardware.set_register(Register::Rax, before | cr4::PGE);
        assert_eq!(run(hardware, 0, 4), (3, 0));
        assert_eq!(hardware.guest().cr4, before | cr4::PGE);
        hardware.set_register(Register::Rax, before | 1 << 13);
        assert_eq!(run(hardware, 0, 4), (0, GP), "VMXE");
        hardware.set_register(Register::Rax, before & !cr4::PAE);
        assert_eq!(run(hardware, 0, 4), (0, GP), "long mode needs PAE");
        assert_eq!(run(hardware, 0, 0), (0, 0), "not the register that exited: nothing happens");
        hardware.guest_mut().cr0 |= cr0::TS;
        assert_eq!(run(hardware, 3, 0), (5, 0));
        assert_eq!(hardware.guest().cr0 & cr0::TS, 0);
        hardware.set_register(Register::R8, cr0::PE | cr0::NE | cr0::WP);
        assert_eq!(run(hardware, 5, 0), (5, GP), "64-bit code cannot turn paging off");
        hardware.set_register(Register::R8, cr0::PE | cr0::PG | cr0::NW);
        assert_eq!(run(hardware, 5, 0), (5, GP));
        hardware.set_register(Register::R8, cr0::PE | cr0::PG | 1 << 10);
        assert_eq!(run(hardware, 5, 0), (9, 0));
        assert_eq!(hardware.guest().cr0, cr0::PE | cr0::PG | cr0::ET, "unknown bits are dropped");
        hardware.set_register(Register::Rcx, 0xfff2);
        assert_eq!(run(hardware, 9, 0), (12, 0));
        assert_eq!(hardware.guest().cr0, cr0::PE | cr0::PG | cr0::ET | cr0::MP, "LMSW cannot clear PE");
        assert_eq!(run(hardware, 12, 0), (12, UD));
    });
}

#[test]
fn long_mode_begins_and_ends_with_paging() {
    use super::super::control::{write_cr0, write_cr4};
    let mut state = GuestState::ZERO;
    state.set_efer(efer::LME);
    assert_eq!(write_cr0(&mut state, cr0::PE | cr0::PG), Err(Refused), "PAE first");
    write_cr4(&mut state, cr4::PAE, cr4::PAE).unwrap();
    assert_eq!(write_cr0(&mut state, cr0::PG), Err(Refused), "PE first");
    write_cr0(&mut state, cr0::PE | cr0::PG).unwrap();
    assert_ne!(state.efer() & efer::LMA, 0);
    write_cr0(&mut state, cr0::PE).unwrap();
    assert_eq!(state.efer() & efer::LMA, 0);
    assert_eq!(write_cr0(&mut state, 1 << 32), Err(Refused));
}

#[test]
fn extended_control_register() {
    with_guest(Role::Guest, &[0x0f, 0x01, 0xd1], |_, host, domain, vcpu, hardware| {
        let run = |hardware: &mut Hardware, value: u64| {
            hardware.guest_mut().rip = CODE;
            hardware.inject(0);
            hardware.set_register(Register::Rax, value);
            assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::Xsetbv), Ok(0));
            hardware.control().event_injection == 0
        };
        assert!(!run(hardware, 3), "OSXSAVE is off");
        hardware.guest_mut().cr4 |= cr4::OSXSAVE;
        assert!(run(hardware, 3));
        assert_eq!(hardware.lazy().xcr0, 3);
        for bad in [0, 2, 4, 5, 0b11111, 1 << 31 | 1] {
            assert!(!run(hardware, bad), "{bad:#x}");
        }
        hardware.guest_mut().cpl = 3;
        assert!(!run(hardware, 3));
        assert_eq!(hardware.lazy().xcr0, 3);
    });
}

#[test]
fn exceptions_forbidden_instructions_and_the_rest() {
    with_guest(Role::Guest, &[0x0f, 0x09], |_, host, domain, vcpu, hardware| {
        let run = |hardware: &mut Hardware, exit| {
            hardware.inject(0);
            let reply = handle(host, domain, vcpu, hardware, exit);
            (reply.is_ok(), hardware.control().event_injection)
        };
        assert_eq!(run(hardware, X86Exit::Forbidden), (true, UD));
        let alignment = X86Exit::Exception { vector: 17, error_code: 0, address: 0 };
        assert_eq!(run(hardware, alignment), (true, event::VALID | event::EXCEPTION | event::HAS_ERROR | 17));
        let debug = X86Exit::Exception { vector: 1, error_code: 5, address: 0 };
        assert_eq!(run(hardware, debug), (true, event::VALID | event::EXCEPTION | 1));
        assert!(!run(hardware, X86Exit::Exception { vector: 18, error_code: 0, address: 0 }).0);
        assert!(!run(hardware, X86Exit::TaskSwitch).0);
        assert!(!run(hardware, X86Exit::Unknown(0x63)).0);
        assert_eq!(run(hardware, X86Exit::DebugRegister { number: 7, write: true }), (true, 0));
        assert_eq!(hardware.control().intercept_dr_write, 0);
        assert_eq!(run(hardware, X86Exit::CacheFlush), (true, 0));
        assert_eq!(hardware.guest().rip, CODE + 2);
        vmcb_mut(hardware).control.exit_code = u64::from(code::RDPMC);
        assert_eq!(run(hardware, X86Exit::Forbidden), (true, GP));
    });
}

#[test]
fn halting_with_interrupts_off_is_powering_off() {
    with_guest(Role::Guest, &[0xf4], |_, host, domain, vcpu, hardware| {
        hardware.guest_mut().rflags |= rflags::IF;
        assert_eq!(halt(host, domain, vcpu, hardware), Err(Stop::Block(0)));
        assert_eq!(hardware.guest().rip, CODE + 1);
        assert_eq!(domain.lifecycle.shutdown_reason(), None);
        hardware.guest_mut().rip = CODE;
        hardware.guest_mut().rflags &= !rflags::IF;
        assert_eq!(halt(host, domain, vcpu, hardware), Err(Stop::Yield(0)));
        assert!(vcpu.wait().contains(crate::vcpu::Wait::DOWN));
        assert_eq!(domain.lifecycle.shutdown_reason(), Some(0));
    });
}

#[test]
fn an_nmi_ends_a_halt_with_interrupts_off_unless_one_is_being_handled() {
    with_guest(Role::Guest, &[0xf4], |_, host, domain, vcpu, hardware| {
        hardware.guest_mut().rflags &= !rflags::IF;
        vcpu.x86.startup.note(Startup::NMI);
        assert_eq!(halt(host, domain, vcpu, hardware), Ok(0));
        hardware.guest_mut().rip = CODE;
        vcpu.x86.startup.note(Startup::NMI_BLOCKED);
        assert_eq!(halt(host, domain, vcpu, hardware), Err(Stop::Yield(0)), "nothing can end this one");
        assert_eq!(domain.lifecycle.shutdown_reason(), Some(0));
    });
}

#[test]
fn a_start_up_message_on_the_way_down_is_not_lost() {
    with_guest(Role::Guest, &[0xf4], |_, host, domain, vcpu, _| {
        // The sender saw a vCPU that was still up, so it woke nobody.
        vcpu.x86.startup.note_start(0x9a);
        shutdown::vcpu_down(host, domain, vcpu);
        assert!(vcpu.is_runnable());
        assert_eq!(domain.lifecycle.shutdown_reason(), None, "not all vCPUs are down");
    });
}

#[test]
fn string_input_and_output() {
    // rep insb at 0, rep outs with FS at 2.
    let code = [0xf3, 0x6c, 0xf3, 0x64, 0x66, 0x6f];
    with_guest(Role::Control, &code, |machine, host, domain, vcpu, hardware| {
        let port = |write, size, next: u64| machine::exit::PortAccess {
            port: 0x1f0,
            size,
            write,
            string: true,
            repeat: true,
            next_rip: CODE + next,
        };
        machine.set_port(0x1f0, 0xabcd);
        vmcb_mut(hardware).control.exit_info_1 = 1 << 9;
        hardware.set_register(Register::Rdi, 0x9ffe);
        hardware.set_register(Register::Rcx, 4);
        assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::Port(port(false, 1, 2))), Ok(0));
        assert_eq!(read(domain, 0x9ffd), [0, 0xcd, 0xcd, 0xcd, 0xcd, 0]);
        assert_eq!((hardware.register(Register::Rdi), hardware.register(Register::Rcx)), (0xa002, 0));
        assert_eq!(hardware.guest().rip, CODE + 2);
        // Backwards, from another segment, more than one turn's worth.
        write(domain, 0x9ffe, &[1, 2, 3, 4]);
        hardware.guest_mut().fs.base = 0x9000;
        hardware.guest_mut().rflags |= rflags::DF;
        hardware.set_register(Register::Rsi, 0x1000);
        hardware.set_register(Register::Rcx, 300);
        assert_eq!(handle(host, domain, vcpu, hardware, X86Exit::Port(port(true, 2, 6))), Ok(0));
        assert_eq!(machine.port_writes()[..2], [(0x1f0, 2, 0x0403), (0x1f0, 2, 0x0201)]);
        assert_eq!(hardware.register(Register::Rcx), 44);
        assert_eq!(hardware.guest().rip, CODE + 2, "not finished yet");
        handle(host, domain, vcpu, hardware, X86Exit::Port(port(true, 2, 6))).unwrap();
        assert_eq!((hardware.guest().rip, hardware.register(Register::Rcx)), (CODE + 6, 0));
        // Into memory that is not there: the page fault comes before the port is read.
        hardware.set_register(Register::Rdi, 0x2_0000);
        hardware.set_register(Register::Rcx, 1);
        hardware.guest_mut().rip = CODE;
        handle(host, domain, vcpu, hardware, X86Exit::Port(port(false, 1, 2))).unwrap();
        assert_eq!((hardware.guest().rip, hardware.guest().cr2), (CODE, 0x2_0000));
        assert_eq!(hardware.control().event_injection & 0xff, 14);
    });
}
