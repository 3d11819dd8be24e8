//! Tests of who reaches which port, and of the plain instructions.

use super::*;
use crate::x86::testing::with_domain;
use machine::fake::FakeMachine;

#[test]
fn guests_own_no_port() {
    with_domain(Role::Guest, 1, |machine, _, domain| {
        machine.set_port(0x60, 0x1c);
        for (size, ones) in [(1, 0xff), (2, 0xffff), (4, u32::MAX)] {
            assert_eq!(domain.x86.ports.read(0x60, size), ones);
            domain.x86.ports.write(0x64, size, 0xfe);
        }
        assert!(machine.port_writes().is_empty());
    });
}

#[test]
fn the_control_domain_reaches_what_is_not_denied() {
    with_domain(Role::Control, 1, |machine, _, domain| {
        let ports = &domain.x86.ports;
        machine.set_port(0x60, 0xaa1c);
        assert_eq!(ports.read(0x60, 1), 0x1c);
        ports.write(0x604, 2, 0x2000);
        assert_eq!(machine.port_writes(), [(0x604, 2, 0x2000)]);
        // Denied: by the list, the console, ranges found later, by one byte of four; and past the last port.
        assert!(ports.deny((0x608, 0x60b)));
        for port in [0x20, 0x43, 0xcf9, 0xcfe, 0x3f8, 0x3ff, 0x608, 0x605, 0xffff] {
            machine.set_port(port, 0);
            assert_eq!(ports.read(port, 4), u32::MAX, "{port:#x}");
            ports.write(port, 4, 0);
        }
        assert_eq!(machine.port_writes().len(), 1);
    });
}

#[test]
fn the_timers_counter_stands_at_zero_for_all() {
    for role in [Role::Control, Role::Guest] {
        with_domain(role, 1, |machine, _, domain| {
            machine.set_port(0x42, 0x1c);
            assert_eq!(domain.x86.ports.read(0x42, 1), 0);
            assert_eq!(domain.x86.ports.read(0x41, 2), 0xffff, "wider reads are of ports that nobody owns");
            domain.x86.ports.write(0x42, 1, 0xff);
            assert!(machine.port_writes().is_empty());
        });
    }
}

#[test]
fn configuration_space_is_the_control_domains_alone() {
    let function = || machine::fake::FakeFunction::new(0x29c0_8086, 0x0600_0000);
    with_domain(Role::Control, 1, |machine, host, domain| {
        machine.add_function(0, function());
        super::write(host, domain, 0xcf8, 4, 0x8000_0000);
        assert_eq!(super::read(host, domain, 0xcfc, 4), 0x29c0_8086);
        assert_eq!(super::read(host, domain, 0xcfe, 2), 0x29c0);
        assert_eq!(super::read(host, domain, 0xcfe, 4), u32::MAX);
        super::write(host, domain, 0xcf8, 4, 0x8000_f800);
        assert_eq!(super::read(host, domain, 0xcfc, 2), 0xffff);
    });
    with_domain(Role::Guest, 1, |machine, host, domain| {
        machine.add_function(0, function());
        super::write(host, domain, 0xcf8, 4, 0x8000_0000);
        assert_eq!((super::read(host, domain, 0xcf8, 4), super::read(host, domain, 0xcfc, 4)), (u32::MAX, u32::MAX));
        assert!(machine.port_writes().is_empty());
    });
}

#[test]
fn the_clock_is_read_at_the_latched_index() {
    with_domain(Role::Control, 1, |machine, _, domain| {
        let ports = &domain.x86.ports;
        machine.set_port(0x71, 0x59);
        ports.write(0x70, 1, 0x8b);
        assert!(machine.port_writes().is_empty(), "the index is only latched");
        assert_eq!(ports.read(0x71, 1), 0x59);
        assert_eq!(machine.port_writes(), [(0x70, 1, 0x0b)]);
        ports.write(0x71, 1, 0x82);
        assert_eq!(machine.port_writes()[1..], [(0x70, 1, 0x0b), (0x71, 1, 0x82)]);
        assert_eq!(ports.read(0x70, 1), 0x0b);
        assert_eq!(ports.read(0x70, 2), 0xffff);
    });
}

#[test]
fn results_are_merged_by_size() {
    fn run(machine: &FakeMachine, host: &Host, domain: &Domain, size: u8) -> (u64, u64) {
        machine.set_port(0x2000, 0x1234_5678);
        let vcpu = domain.vcpu(0).unwrap();
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        hardware.set_register(Register::Rax, 0xaaaa_bbbb_cccc_dddd);
        let access = PortAccess { port: 0x2000, size, write: false, string: false, repeat: false, next_rip: 0x1002 };
        assert_eq!(handle(host, domain, vcpu, &mut hardware, access), Ok(0));
        (hardware.register(Register::Rax), hardware.guest().rip)
    }
    with_domain(Role::Control, 1, |machine, host, domain| {
        assert_eq!(run(machine, host, domain, 1), (0xaaaa_bbbb_cccc_dd78, 0x1002));
        assert_eq!(run(machine, host, domain, 2), (0xaaaa_bbbb_cccc_5678, 0x1002));
        assert_eq!(run(machine, host, domain, 4), (0x1234_5678, 0x1002));
    });
    assert_eq!(merge(u64::MAX, 0, 8), 0);
}
