//! Interrupts on their whole way: from a pin or a message of the fake machine to the control domain's local APIC and back.

use super::*;
use crate::boot::acpi::IoApic;
use crate::boot::acpi_devices::Buses;
use crate::domain::{Domain, Role};
use crate::pci::Pci;
use crate::vcpu::Vcpu;
use crate::x86::testing::settings;
use crate::x86::vioapic::{DEFAULT_BASE, Vioapic};
use crate::x86::vlapic::{Pending, registers};
use machine::boxed::Boxed;
use machine::cpu::Work;
use machine::fake::FakeMachine;
use machine::platform::PinState;

/// Two controllers; the console is at global interrupt 4.
const FIRST: u64 = 0xfec0_0000;
const SECOND: u64 = 0xfec1_0000;
const CONSOLE: u32 = 4;
/// Configuration space in memory, and bytes of RAM from 0 on, as PCI knows them.
pub(crate) const WINDOW: u64 = 0xb000_0000;
const RAM: u64 = 0x1000_0000;

pub(crate) struct World<'a> {
    pub(crate) machine: &'a FakeMachine,
    pub(crate) host: &'a Host,
    pub(crate) domain: &'a Domain,
}

impl World<'_> {
    fn vcpu(&self, index: u32) -> &Vcpu {
        self.domain.vcpu(index).unwrap()
    }

    fn vioapic(&self) -> &Vioapic {
        self.domain.x86.vioapic.as_ref().unwrap()
    }

    /// Programs an entry of the vIO-APIC: destination, lower half.
    fn program(&self, pin: u64, destination: u64, low: u64) {
        let write = |at, value| self.vioapic().mmio_write(self.host, self.domain, DEFAULT_BASE + at, 4, value);
        write(0, 0x11 + 2 * pin);
        write(0x10, destination << 24);
        write(0, 0x10 + 2 * pin);
        write(0x10, low);
    }

    /// A device sends a message: whether that interrupted anybody.
    pub(crate) fn send(&self, address: u64, data: u32) -> bool {
        let came = self.machine.send_message(address, data);
        (0..2).for_each(|cpu| self.take(cpu));
        came
    }

    /// Takes what interrupts CPU `cpu`.
    fn take(&self, cpu: u16) {
        self.machine.on_cpu(cpu, || {
            cpu::interrupt_window();
            if cpu::take_work().contains(Work::DEVICE) {
                pass_on(self.host, CpuId(cpu));
            }
        });
    }

    /// A line becomes active; gives whether it interrupted anybody.
    fn pulse(&self, controller: u64, number: u8) -> bool {
        let came = self.machine.pulse(controller, number);
        (0..2).for_each(|cpu| self.take(cpu));
        came
    }

    fn state(&self, controller: u64, number: u8) -> Option<PinState> {
        self.machine.pin(controller, number).map(|entry| entry.state)
    }

    /// The guest takes its interrupt and ends it.
    pub(crate) fn handle(&self, index: u32, vector: u8) {
        let vcpu = self.vcpu(index);
        assert_eq!(vcpu.x86.lapic.pending(), Pending::Vector(vector));
        vcpu.x86.lapic.accept(vector);
        let mut hardware = vcpu.hardware.try_lock().unwrap();
        registers::write(self.host, self.domain, vcpu, &mut hardware, registers::offset::EOI, 0);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        (0..2).all(|index| self.vcpu(index).x86.lapic.pending() == Pending::Nothing)
    }
}

pub(crate) fn with_world(work: impl FnOnce(&World<'_>)) {
    let machine = FakeMachine::builder().cpus(2).stepped().build();
    machine.on_cpu(0, || {
        let mut host = crate::host::testing::host(2, 64, crate::time::Clock::start());
        let io_apic = |address: u64, first_gsi| IoApic { id: 0, address: u32::try_from(address).unwrap(), first_gsi };
        let acpi = Acpi { io_apics: alloc::vec![io_apic(FIRST, 0), io_apic(SECOND, 24)], ..Acpi::default() };
        let buses = Buses { base: WINDOW, segment: 0, first: 0, last: 255 };
        host.pci = Pci::new(alloc::vec![buses], alloc::vec![0..RAM, FIRST..FIRST + 0x1000]);
        machine.set_configuration_window(WINDOW);
        host.interrupts = Interrupts::try_new(&acpi, Some(CONSOLE), [0, 2].into_iter()).unwrap();
        let domain = Domain::try_new(DomId::CONTROL, settings(Role::Control, 2)).unwrap();
        let root = domain.p2m.root();
        domain.vcpus.call_once(|| (0..2).map(|index| Vcpu::try_new(domain.id, index, root).unwrap()).collect());
        assert!(host.domains.insert(Boxed::try_new(domain).unwrap()).is_ok());
        let domain = host.domains.get(DomId::CONTROL).unwrap();
        for vcpu in domain.vcpus() {
            let mut hardware = vcpu.hardware.try_lock().unwrap();
            registers::write(&host, &domain, vcpu, &mut hardware, registers::offset::SPURIOUS, 0x1ff);
        }
        work(&World { machine: &machine, host: &host, domain: &domain });
    });
}

#[test]
fn an_edge_comes_through_while_its_pin_is_unmasked() {
    with_world(|world| {
        assert!(!world.pulse(FIRST, 8));
        world.program(8, 0, 0x38);
        let entry = world.machine.pin(FIRST, 8).unwrap();
        assert_eq!((entry.state, entry.pin.level, entry.pin.active_low), (PinState::Open, false, false));
        for _ in 0..3 {
            assert!(world.pulse(FIRST, 8));
            world.handle(0, 0x38);
        }
        assert_eq!(world.machine.ended_interrupts(), 3);
        world.program(8, 0, 0x1_0038);
        assert!(!world.pulse(FIRST, 8) && world.is_quiet());
        // To another vCPU, with another vector.
        world.program(8, 2, 0x59);
        assert!(world.pulse(FIRST, 8));
        world.handle(1, 0x59);
    });
}

#[test]
fn a_level_asks_again_after_its_end_and_not_before() {
    with_world(|world| {
        world.program(16, 0, 0xa051);
        let entry = world.machine.pin(FIRST, 16).unwrap();
        assert_eq!((entry.state, entry.pin.level, entry.pin.active_low), (PinState::Open, true, true));
        for _ in 0..3 {
            assert!(world.pulse(FIRST, 16));
            assert_eq!(world.state(FIRST, 16), Some(PinState::Masked), "the line is still active");
            world.handle(0, 0x51);
            assert_eq!(world.state(FIRST, 16), Some(PinState::Open));
            assert!(world.is_quiet(), "nobody knows whether it is active still");
        }
    });
}

#[test]
fn a_level_that_the_guest_masks_while_it_handles_it_stays_masked() {
    with_world(|world| {
        world.program(16, 0, 0xa051);
        assert!(world.pulse(FIRST, 16));
        world.program(16, 0, 0x1_a051);
        world.handle(0, 0x51);
        assert_eq!(world.state(FIRST, 16), Some(PinState::Masked));
        world.program(16, 0, 0xa051);
        assert_eq!(world.state(FIRST, 16), Some(PinState::Open));
        assert!(world.is_quiet());
        // Masked and unmasked while it is handled: still not ended.
        assert!(world.pulse(FIRST, 16));
        world.program(16, 0, 0x1_a051);
        world.program(16, 0, 0xa051);
        assert_eq!(world.state(FIRST, 16), Some(PinState::Masked));
        world.handle(0, 0x51);
        assert_eq!(world.state(FIRST, 16), Some(PinState::Open));
    });
}

#[test]
fn turning_a_pin_to_edge_and_back_ends_what_was_handled() {
    with_world(|world| {
        world.program(17, 0, 0xa051);
        assert!(world.pulse(FIRST, 17));
        world.vcpu(0).x86.lapic.accept(0x51);
        // As Linux does without an EOI register: masked, edge, level again, unmasked.
        world.program(17, 0, 0x1_2051);
        world.program(17, 0, 0x1_a051);
        world.program(17, 0, 0xa051);
        assert_eq!(world.state(FIRST, 17), Some(PinState::Open));
        assert!(world.is_quiet(), "the line rises when the machine's pin asks again");
    });
}

#[test]
fn an_interrupt_that_races_with_masking_is_kept_by_the_line() {
    with_world(|world| {
        world.program(16, 0, 0xa051);
        assert!(world.machine.pulse(FIRST, 16));
        world.program(16, 0, 0x1_a051);
        world.take(0);
        assert!(world.is_quiet());
        assert_eq!(world.machine.ended_interrupts(), 1);
        world.program(16, 0, 0xa051);
        assert!(world.pulse(FIRST, 16), "the pin is open again, and the line is still active");
        world.handle(0, 0x51);
    });
}

#[test]
fn pins_of_further_controllers_are_reached_and_the_consoles_is_not() {
    with_world(|world| {
        world.program(24 + 3, 0, 0xa061);
        assert!(world.pulse(SECOND, 3));
        world.handle(0, 0x61);
        world.program(u64::from(CONSOLE), 0, 0x62);
        assert_eq!(world.machine.pin(FIRST, 4), None);
    });
}

#[test]
fn vectors_of_pins_are_spread_over_the_cpus() {
    with_world(|world| {
        (0..4).for_each(|pin| world.program(8 + pin, 0, 0x40 + pin));
        let on = |id| (8..12).filter(|pin| world.machine.pin(FIRST, *pin).unwrap().apic_id == id).count();
        assert_eq!((on(0), on(2)), (2, 2));
        assert!(world.pulse(FIRST, 9));
        world.handle(0, 0x41);
    });
}

#[test]
fn messages_go_where_the_domain_wants_them() {
    with_world(|world| {
        let interrupts = &world.host.interrupts;
        let wanted = |address, data| Message { address, data };
        let (vector, real) = interrupts.bind(wanted(0xfee0_2000, 0x71)).unwrap();
        let send = || assert!(world.send(real.address, real.data));
        send();
        world.handle(1, 0x71);
        interrupts.redirect(vector, wanted(0xfee0_0000, 0x72));
        send();
        world.handle(0, 0x72);
        // Everybody; and with the hint, one of them.
        interrupts.redirect(vector, wanted(0xfeef_f000, 0x73));
        send();
        world.handle(0, 0x73);
        world.handle(1, 0x73);
        interrupts.redirect(vector, wanted(0xfeef_f008, 0x74));
        send();
        let has = |index| world.vcpu(index).x86.lapic.pending() == Pending::Vector(0x74);
        assert!(has(0) ^ has(1));
        world.handle(u32::from(has(1)), 0x74);
        // No interrupt messages; no deliveries that devices have.
        for (address, data) in [(0x1000, 0x75), (0x1_fee0_0000, 0x75), (0xfee0_0000, 0x575), (0xfee0_0000, 0x675)] {
            interrupts.redirect(vector, wanted(address, data));
            send();
            assert!(world.is_quiet(), "{address:#x} {data:#x}");
        }
        interrupts.release(vector);
        send();
        assert!(world.is_quiet());
        assert!(world.machine.console().contains("which no device has"));
    });
}
