//! What is kept from the control domain, and how many tables it may have.

use super::*;
use crate::boot::acpi::IoApic;
use crate::boot::acpi_devices::{Buses, Devices};
use crate::memory::testing::{control_settings, domain, host};
use crate::p2m::Kind;
use machine::fake::FakeMachine;

/// With a unit at 0xfee44000.
fn iommu_table() -> alloc::vec::Vec<u8> {
    crate::iommu::ivrs::tests::table(&[crate::iommu::ivrs::tests::unit(0x10, 2, 0xfee4_4000, &[])])
}

#[test]
fn what_the_machine_has_is_hidden() {
    let second = IoApic { id: 1, address: 0xfe80_0000, first_gsi: 24 };
    let devices = Devices {
        local_apic: Some(0xfed0_0000),
        timers: alloc::vec![0xfed8_0000],
        pci: alloc::vec![Buses { base: 0xe000_0000, segment: 0, first: 0, last: 255 }],
        iommus: crate::iommu::firmware::Firmware::read_ivrs(&iommu_table(), |_| {}).unwrap(),
    };
    let native = Acpi { io_apics: alloc::vec![second], devices, ..Acpi::default() };
    let hidden: alloc::vec::Vec<_> = super::hidden(&native, Maddr::new(0xfec8_0000), 40).collect();
    let single = [(0xf_e800, 1), (0xf_ed00, 1), (0xf_ec80, 1), (0xf_ed80, 1)];
    assert_eq!(hidden[..4], single);
    assert_eq!(hidden[4..], [(0xe_0000, 0x1_0000), (0xf_ee44, 4), (0xfd0_0000, 0x30_0000)]);
    assert_eq!(super::hidden(&Acpi::default(), Maddr::new(0), 32).count(), 1, "no room for messages");
}

#[test]
fn the_limit_of_tables_is_enough_for_all_of_the_machines_pages_and_small_beside_them() {
    for (vcpus, gibibytes) in [(1, 1), (2, 8), (64, 1024)] {
        let pages = gibibytes << 18;
        let limit = table_limit(vcpus, pages);
        assert!(limit > 2 * (pages >> 9) && limit < pages / 32, "{vcpus} {gibibytes}: {limit}");
    }
}

#[test]
fn what_is_hidden_is_never_mapped_by_a_touch() {
    let machine = FakeMachine::builder().pages(2048).reserve(64, 512).build();
    machine.on_cpu(0, || {
        let control = domain(0, control_settings(), 512);
        assert_eq!(crate::memory::adopt(&control, Mfn::new(64), 512), Ok(512));
        let pci = [0xb000_0000, 0x8_0000].map(|base| Buses { base, segment: 0, first: 0, last: 0 });
        let devices = Devices { timers: alloc::vec![0xfed8_0000], pci: pci.to_vec(), ..Devices::default() };
        hide_devices(&control, &Acpi { devices, ..Acpi::default() }).unwrap();
        for gfn in [0xf_ec00, 0xf_ed00, 0xf_ee00, 0xf_eeff, 0xf_ed80, 0xb_0000, 0xb_00ff] {
            assert_eq!(crate::memory::map_device(&control, Gfn::new(gfn), |_| false), Err(Errno::EBUSY), "{gfn:#x}");
        }
        assert_eq!(crate::memory::map_device(&control, Gfn::new(0xb_0100), |_| false), Ok(()));
        assert_eq!(control.p2m.lookup(Gfn::new(0x81)).kind, Kind::RamRw, "a table that lies about RAM is not believed");
        assert!(machine.console().contains("which cannot be"));
    });
}

#[test]
fn the_acpi_timer_is_kept_from_the_control_domain() {
    let fields: &[(usize, &[u8])] = &[(64, &[4, 6, 0, 0]), (76, &[8, 6, 0, 0])];
    crate::power::tests::with_tables(fields, b"", b"", |machine, power| {
        let mut host = host();
        host.platform.power = power;
        let control = domain(0, control_settings(), 0);
        for port in [0x604, 0x608, 0x60c] {
            machine.set_port(port, 0x1234);
        }
        deny_ports(&control, &host);
        assert_eq!(
            [0x604, 0x608, 0x60a, 0x60c].map(|port| control.x86.ports.read(port, 2)),
            [0x1234, 0xffff, 0xffff, 0x1234]
        );
    });
}
