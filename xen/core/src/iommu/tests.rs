//! From the firmware's table to a device that is refused: what `boot` does, on the fake machine.

extern crate std;

use super::ivrs::tests::{region, table, unit};
use super::*;
use crate::host::Host;
use crate::memory::testing::{IOMMU, control_settings, domain, host};
use crate::memory::{adopt, decrease, populate};
use crate::p2m::Kind;
use machine::cpu::{self, Work};
use machine::fake::{FakeMachine, Refused};
use machine::{Mfn, frame};

const DEVICE: u16 = 0x18;

/// A machine with a unit, a 1:1 control domain with frames 64 to 575 in the host's table, and what its devices need at
/// 0xf0000000; RAM ends at 4096.
fn with_control(work: impl Fn(&FakeMachine, &Host)) {
    for maker in [Maker::Amd, Maker::Intel] {
        with_control_of(maker, &work);
    }
}

/// What firmware says of a unit, and of memory that devices need.
fn firmware(maker: Maker) -> Firmware {
    let complain = |complaint| panic!("{complaint}");
    if maker == Maker::Intel {
        use super::dmar::tests::{memory, table, unit};
        // The last byte is named; then RAM, which is no such thing.
        let structures = [unit(IOMMU.0), memory(0xf000_0000, 0xf000_2fff, &[]), memory(70 << 12, (71 << 12) - 1, &[])];
        return Firmware::read_dmar(&table(&structures), complain).unwrap();
    }
    let blocks = [
        unit(0x11, IOMMU.1, IOMMU.0, &[1, 0, 0, 0]),
        region(0x20, 0b111, (0, 0), 0xf000_0000, 0x3000),
        region(0x20, 0b111, (0, 0), 70 << 12, 0x1000),
    ];
    Firmware::read_ivrs(&table(&blocks), complain).unwrap()
}

fn with_control_of(maker: Maker, work: impl Fn(&FakeMachine, &Host)) {
    let machine = FakeMachine::builder().pages(4096).reserve(64, 512).build();
    match maker {
        Maker::Amd => machine.add_iommu(IOMMU.0, IOMMU.1),
        Maker::Intel => machine.add_intel_iommu(IOMMU.0),
    }
    machine.on_cpu(0, || {
        let mut host = host();
        let acpi = &mut host.platform.acpi;
        acpi.devices.iommus = firmware(maker);
        let iommu = set_up(&host.platform.acpi, true).unwrap();
        host.translation = Translation::new(iommu);
        host.pci.scan(&host.interrupts).unwrap();
        let mut control = domain(0, control_settings(), 512);
        control.p2m.attach(iommu.unwrap()).unwrap();
        adopt(&control, Mfn::new(64), 512).unwrap();
        reserve(&control, &host.platform.acpi).unwrap();
        assert!(!host.translation.is_on());
        start(&host);
        crate::memory::testing::insert(&host, control);
        work(&machine, &host);
        let control = host.domains.get(machine::DomId::CONTROL).unwrap();
        control.p2m.check().unwrap();
        assert_eq!(control.p2m.lost_flushes(), 0);
    });
}

#[test]
fn devices_reach_the_control_domains_memory_and_nothing_else() {
    with_control(|machine, host| {
        assert!(host.translation.is_on());
        let mut bytes = [0; 8];
        machine.dma_write(DEVICE, 100 << 12, &7u64.to_le_bytes()).unwrap();
        machine.dma_read(DEVICE, 100 << 12, &mut bytes).unwrap();
        assert_eq!(bytes, 7u64.to_le_bytes());
        // Below and above it: the hypervisor's.
        for page in [0, 63, 576, 4095] {
            assert_eq!(machine.dma_read(DEVICE, page << 12, &mut bytes), Err(Refused), "{page}");
            assert_eq!(machine.dma_write(DEVICE, page << 12, &bytes), Err(Refused), "{page}");
        }
        // What is ballooned out is not reached (INV-1), and is when it is back.
        let control = host.domains.get(machine::DomId::CONTROL).unwrap();
        decrease(&control, Gfn::new(100), 0).unwrap();
        assert_eq!(machine.dma_write(DEVICE, 100 << 12, &bytes), Err(Refused));
        populate(host, &control, Gfn::new(100), 0).unwrap();
        machine.dma_read(DEVICE, 100 << 12, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 8]);
    });
}

/// RDM-1, RDM-9, INV-4, INV-15.
#[test]
fn what_devices_need_is_there_from_the_first_moment_and_stays() {
    with_control(|machine, host| {
        let control = host.domains.get(machine::DomId::CONTROL).unwrap();
        for page in 0xf_0000..0xf_0003 {
            let gfn = Gfn::new(page);
            assert_eq!(control.p2m.lookup(gfn).kind, Kind::IdentityRdm);
            assert!(crate::memory::remove_from_physmap(&control, gfn).is_err());
            assert!(decrease(&control, gfn, 0).is_err());
            assert!(populate(host, &control, gfn, 0).is_err());
        }
        let before = machine.iommu_events();
        // There is no memory at that address of the fake machine, but the unit lets the access through.
        let _read = machine.dma_read(DEVICE, 0xf000_0000, &mut [0]);
        assert_eq!(machine.iommu_events(), before);
        assert_eq!(machine.dma_read(DEVICE, 0xf000_3000, &mut [0]), Err(Refused));
        assert_eq!(machine.iommu_events(), before + 1);
        assert_eq!(control.p2m.lookup(Gfn::new(70)).kind, Kind::RamRw, "RAM stays RAM");
        assert!(machine.console().contains("cannot be kept"));
    });
}

#[test]
fn a_refused_device_is_reported_with_its_address_and_a_storm_is_not() {
    with_control(|machine, host| {
        assert_eq!(machine.dma_write(DEVICE, 0xdead_b000, &[1]), Err(Refused));
        cpu::interrupt_window();
        assert!(cpu::take_work().contains(Work::DEVICE), "the unit interrupts");
        crate::interrupt::pass_on(host, machine::CpuId(0));
        let text = "IOMMU: 0000:00:03.0 at 0xdeadb000: it may not write (event 1)";
        assert!(machine.console().contains(text), "{}", machine.console());
        // Intel's unit has room for one.
        for _ in 0..1000 {
            assert_eq!(machine.dma_read(DEVICE, 0x9000_0000, &mut [1]), Err(Refused));
            report(host);
        }
        let lines = machine.console().lines().filter(|line| line.contains("it may not read")).count();
        assert_eq!(lines, 31 + 4, "one by one up to 32; then 64, 128, 256, 512");
    });
}

#[test]
fn without_a_table_or_when_it_is_not_wanted_nothing_is_set_up() {
    let machine = FakeMachine::builder().pages(4096).build();
    machine.on_cpu(0, || {
        let before = frame::free_pages();
        assert!(set_up(&Acpi::default(), true).unwrap().is_none());
        let mut acpi = Acpi::default();
        acpi.devices.iommus = Firmware::read_ivrs(&table(&[unit(0x10, 2, IOMMU.0, &[])]), |_| {}).unwrap();
        assert!(set_up(&acpi, false).unwrap().is_none());
        // One that cannot be used keeps all of them off: devices behind it would pass.
        acpi.devices.iommus =
            Firmware::read_ivrs(&table(&[unit(0x10, 2, IOMMU.0, &[]), unit(0x10, 3, 0x4000, &[])]), |_| {}).unwrap();
        assert!(set_up(&acpi, true).unwrap().is_none());
        // It says why.
        machine.add_intel_iommu(IOMMU.0);
        machine.set_intel_capabilities(|capability, extended| (capability & !(1 << 10), extended));
        acpi.devices.iommus = firmware(Maker::Intel);
        assert!(set_up(&acpi, true).unwrap().is_none());
        let text = "IOMMU: the unit at 0xfed80000 cannot be used (it lacks tables of four levels): all are left off";
        assert!(machine.console().contains(text), "{}", machine.console());
        assert_eq!(frame::free_pages(), before);
    });
}
