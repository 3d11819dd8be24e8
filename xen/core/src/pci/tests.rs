//! What the control domain may do to functions, and how their messages reach it.

use super::access::Place;
use super::*;
use crate::interrupt::tests::{WINDOW, World, with_world};
use machine::fake::FakeFunction;

/// Where the function under test is.
const PLACE: Place = Place(0x0018);
/// Where its capabilities are, and the memory with its table.
const MSI: u16 = 0x50;
const MSIX: u16 = 0x70;
const TABLE: u64 = 0xfeb0_2000;
const MEMORY: u64 = 0xfeb0_0000;
/// Its command register's bits for memory.
const DECODE: u32 = 0x2;

/// A function with both kinds of messages, its table in 16 KiB of memory at its first base address register.
fn function() -> FakeFunction {
    FakeFunction::new(0x1234_5678, 0x0200_0000)
        .with_capabilities(0x50)
        .with(0x10, 0xfeb0_0000, 0xffff_c000)
        .with(0x50, 0x0084_7005, 0x0071_0000)
        .with(0x54, 0, 0xffff_fffc)
        .with(0x58, 0, 0xffff_ffff)
        .with(0x5c, 0, 0xffff)
        .with(0x70, 0x0003_0011, 0xc000_0000)
        .with(0x74, 0x2000, 0)
        .with(0x78, 0x3000, 0)
}

impl World<'_> {
    fn write(&self, register: u16, size: u8, value: u32) {
        super::write(self.host, self.domain, PLACE, register, size, value);
    }

    fn read(&self, register: u16, size: u8) -> u32 {
        self.host.pci.read(PLACE, register, size)
    }

    fn real(&self, register: u16) -> u32 {
        self.machine.function_register(PLACE.0, register)
    }

    /// Writes an entry of the table: a register of an entry.
    fn table_write(&self, entry: u64, register: u64, value: u32) {
        let at = TABLE + entry * 16 + register;
        assert!(self.host.pci.memory_write(&self.host.interrupts, at, 4, value));
    }

    fn table_read(&self, entry: u64, register: u64) -> u32 {
        self.host.pci.memory_read(TABLE + entry * 16 + register, 4).unwrap()
    }

    /// What is really in an entry's registers, by the last writes.
    fn real_entry(&self, entry: u64) -> [u32; 4] {
        let writes = self.machine.device_writes();
        [0, 4, 8, 12].map(|register| {
            let at = machine::Maddr::new(TABLE + entry * 16 + register);
            let last = writes.iter().rev().find(|(place, _)| *place == at);
            last.map_or(u32::MAX, |(_, bytes)| u32::from_le_bytes(bytes.as_slice().try_into().unwrap()))
        })
    }
}

fn with_function(function: FakeFunction, work: impl FnOnce(&World<'_>)) {
    with_world(|world| {
        world.machine.add_function(0, FakeFunction::new(0x29c0_8086, 0x0600_0000).with(0x60, 0xb000_0001, u32::MAX));
        world.machine.add_function(PLACE.0, function);
        assert_eq!(world.host.pci.scan(&world.host.interrupts), Ok(2));
        work(world);
    });
}

#[test]
fn both_ways_into_configuration_space_see_the_same() {
    with_function(function().with(0x140, 0x1234_5678, u32::MAX), |world| {
        let pci = &world.host.pci;
        assert_eq!(pci.register_at(WINDOW + 0x1_8140), Some((PLACE, 0x140)));
        assert_eq!((pci.register_at(WINDOW - 1), pci.register_at(WINDOW + (256 << 20))), (None, None));
        assert_eq!((world.read(0, 4), world.read(2, 2), world.read(3, 1)), (0x1234_5678, 0x1234, 0x12));
        assert_eq!(
            (world.read(0x140, 4), world.read(0x142, 2), world.read(0x1000, 4)),
            (0x1234_5678, 0x1234, u32::MAX)
        );
        world.write(0x142, 2, 0xabcd);
        assert_eq!(world.real(0x140), 0xabcd_5678);
        assert_eq!(pci.read(Place(0x20), 0, 4), u32::MAX);
        super::write(world.host, world.domain, Place(0x20), 4, 2, 7);
    });
}

#[test]
fn a_message_is_the_domains_in_its_eyes_and_the_hypervisors_in_the_device() {
    with_function(function(), |world| {
        world.write(MSI + 4, 4, 0xfee0_2004);
        world.write(MSI + 8, 4, 0);
        world.write(MSI + 12, 2, 0x4041);
        assert_eq!((world.real(MSI + 4), world.real(MSI + 12)), (0, 0), "nothing yet");
        world.write(MSI + 2, 2, 0x0085 | 0x20);
        assert_eq!(world.real(MSI) >> 16, 0x0085, "one message, whatever was asked for");
        assert_eq!(world.read(MSI, 4) >> 16, 0x0081, "no more than one is offered");
        assert_eq!((world.read(MSI + 4, 4), world.read(MSI + 12, 2)), (0xfee0_2004, 0x4041));
        let (address, data) = (u64::from(world.real(MSI + 4)), world.real(MSI + 12));
        assert_eq!(address >> 20, 0xfee);
        assert_ne!(data, 0x4041);
        // A logical destination that no vCPU has; then another vCPU by its id, in the middle of sending.
        assert!(world.send(address, data) && world.is_quiet());
        world.write(MSI + 4, 4, 0xfee0_2000);
        assert!(world.send(address, data));
        world.handle(1, 0x41);
        world.write(MSI + 12, 2, 0x42);
        assert!(world.send(address, data));
        world.handle(1, 0x42);
        // A function that was reset, and is set up again.
        world.machine.add_function(PLACE.0, function());
        world.write(MSI + 2, 2, 0x81);
        assert_eq!((u64::from(world.real(MSI + 4)), world.real(MSI + 12)), (address, data));
        world.write(MSI + 2, 2, 0x80);
        assert_eq!((world.real(MSI) >> 16 & 1, world.read(MSI, 4) >> 16 & 1), (0, 0));
        assert!(world.send(address, data) && world.is_quiet());
    });
}

#[test]
fn a_table_is_shadowed_and_its_entries_are_masked_unless_they_may_send() {
    with_function(function(), |world| {
        assert!(!world.host.pci.hides(Gfn::new(TABLE >> 12)), "nothing is decoded yet");
        world.write(4, 2, DECODE);
        assert!(world.host.pci.hides(Gfn::new(TABLE >> 12)) && !world.host.pci.hides(Gfn::new(MEMORY >> 12)));
        assert_eq!(world.real_entry(3)[3], 1);
        world.table_write(1, 0, 0xfee0_0000);
        world.table_write(1, 8, 0x55);
        world.table_write(1, 12, 0);
        assert_eq!(world.real_entry(1)[3], 1, "messages are off");
        assert_eq!([0, 4, 8, 12].map(|at| world.table_read(1, at)), [0xfee0_0000, 0, 0x55, 0]);
        world.write(MSIX + 2, 2, 0xc003);
        assert_eq!(world.real(MSIX) >> 16, 0xc003);
        world.write(MSIX + 2, 2, 0x8003);
        let [low, high, data, control] = world.real_entry(1);
        assert_eq!((low >> 20, high, control), (0xfee, 0, 0));
        assert_eq!((world.real_entry(0)[3], world.real_entry(2)[3]), (1, 1));
        assert!(world.send(u64::from(low), data));
        world.handle(0, 0x55);
        // To the other vCPU.
        world.table_write(1, 0, 0xfee0_2000);
        assert!(world.send(u64::from(low), data));
        world.handle(1, 0x55);
        world.table_write(1, 12, 1);
        assert_eq!((world.real_entry(1)[3], world.table_read(1, 12)), (1, 1));
        world.table_write(1, 12, 0);
        assert_eq!(world.real_entry(1), [low, high, data, 0], "its vector stays while messages are on");
        world.write(MSIX + 2, 2, 0x0003);
        assert_eq!(world.real_entry(1)[3], 1);
        assert!(world.send(u64::from(low), data) && world.is_quiet());
    });
}

#[test]
fn a_table_moves_with_its_base_address() {
    with_function(function(), |world| {
        world.write(4, 2, DECODE);
        world.write(0x10, 4, 0xfea0_0000);
        assert!(world.host.pci.hides(Gfn::new(0xf_ea02)) && !world.host.pci.hides(Gfn::new(TABLE >> 12)));
        world.write(4, 2, 0);
        assert!(!world.host.pci.hides(Gfn::new(0xf_ea02)));
        // What is in the page besides the table is the device's.
        world.write(4, 2, DECODE);
        world.machine.set_firmware(0xfea0_2800, &[1, 2, 3, 4]);
        assert_eq!(world.host.pci.memory_read(0xfea0_2800, 4), Some(0x0403_0201));
        assert!(world.host.pci.memory_write(&world.host.interrupts, 0xfea0_2800, 4, 7));
        assert_eq!(world.machine.device_writes().last().unwrap().1, [7, 0, 0, 0]);
        assert_eq!(world.host.pci.memory_read(0xfea0_1000, 4), None);
        assert_eq!(super::remove(world.host, PLACE), Ok(()));
        assert!(!world.host.pci.hides(Gfn::new(0xf_ea02)));
    });
}

#[test]
fn nothing_is_put_over_ram_or_the_hypervisors_devices() {
    with_function(function(), |world| {
        for address in [0x0010_0000, 0x0fff_c000, 0xfec0_0000] {
            world.write(4, 2, 0);
            world.write(0x10, 4, address);
            assert_eq!(world.real(0x10), address, "as long as nothing is decoded");
            world.write(4, 2, DECODE);
            assert_eq!(world.real(4) & DECODE, 0, "{address:#x}");
        }
        world.write(0x10, 4, 0xfeb0_0000);
        world.write(4, 2, DECODE);
        assert_eq!(world.real(4) & DECODE, DECODE);
        for address in [0x0010_0000, 0xfec0_0000] {
            world.write(0x10, 4, address);
            assert_eq!(world.real(0x10), 0xfeb0_0000);
        }
        assert!(world.machine.console().contains("may not put it over"));
    });
}

#[test]
fn host_bridges_keep_where_memory_is_and_iommus_keep_all() {
    with_function(FakeFunction::new(0x1022_1419, 0x0806_0000).with(0x44, 0, u32::MAX), |world| {
        world.write(0x44, 4, 0xfeb8_0001);
        world.write(4, 2, 6);
        assert_eq!((world.real(0x44), world.real(4) & 0xffff), (0, 0));
        super::write(world.host, world.domain, Place(0), 0x60, 4, 0xc000_0001);
        assert_eq!(world.machine.function_register(0, 0x60), 0xb000_0001);
        super::write(world.host, world.domain, Place(0), 4, 2, 6);
        assert_eq!(world.machine.function_register(0, 4) & 0xffff, 6);
    });
}

#[test]
fn odd_capabilities_stay_off() {
    let odd = [
        // The table lies outside of the memory, in ports, in no base address register; the capability at the end.
        function().with(0x74, 0x4000, 0),
        function().with(0x74, 0x2005, 0),
        function().with(0x74, 0x2007, 0),
        function().with(0x70, 0x07ff_0011, 0xc000_0000).with(0x74, 0x2000, 0).with(0x10, 0xfeb0_0000, 0xffff_e000),
    ];
    for function in odd {
        with_function(function, |world| {
            world.write(4, 2, DECODE);
            world.write(MSIX + 2, 2, 0x8003);
            assert_eq!(world.real(MSIX) >> 31, 0);
            assert!(!world.host.pci.hides(Gfn::new(TABLE >> 12)));
            assert!(world.machine.console().contains("makes no sense"));
        });
    }
    let late = function().with(0x50, 0x0084_f805, 0x0071_0000).with(0xf8, 0x0081_0005, 0x0071_0000);
    with_function(late, |world| {
        world.write(0xf8 + 2, 2, 0x0081);
        assert_eq!(world.real(0xf8) >> 16 & 1, 0, "a second one of its kind");
    });
}

#[test]
fn when_vectors_are_out_messages_stay_off_and_nothing_breaks() {
    with_function(function(), |world| {
        let interrupts = &world.host.interrupts;
        let mut all: alloc::vec::Vec<_> = core::iter::from_fn(|| interrupts.bind(Default::default())).collect();
        world.write(4, 2, DECODE);
        world.write(MSI + 2, 2, 0x81);
        assert_eq!((world.real(MSI) >> 16 & 1, world.read(MSI, 4) >> 16 & 1), (0, 0));
        world.write(MSIX + 2, 2, 0x8003);
        world.table_write(0, 12, 0);
        assert_eq!(world.real_entry(0)[3], 1);
        assert!(world.machine.console().contains("no interrupt vector is left"));
        interrupts.release(all.pop().unwrap().0);
        world.table_write(0, 12, 0);
        assert_eq!(world.real_entry(0)[3], 0);
    });
}

#[test]
fn what_firmware_has_left_on_is_turned_off() {
    let left_on = function().with(0x50, 0x0085_7005, 0x0071_0000).with(0x70, 0x8003_0011, 0xc000_0000);
    with_function(left_on, |world| {
        assert_eq!((world.real(MSI) >> 16 & 1, world.real(MSIX) >> 31), (0, 0));
    });
}

#[test]
fn buses_behind_bridges_are_found_and_loops_of_bridges_end() {
    with_world(|world| {
        let bridge =
            |buses: u32| FakeFunction::new(0x8086_0001, 0x0604_0000).with(0x0c, 0x0001_0000, 0).with(0x18, buses, 0);
        world.machine.add_function(0x0008, bridge(0x0003_0100));
        world.machine.add_function(0x0200, bridge(0x0000_0002));
        world.machine.add_function(0x0308, FakeFunction::new(0x1234_5678, 0x0200_0000));
        world.machine.add_function(0x0500, FakeFunction::new(0x1234_5678, 0x0200_0000));
        // Of a device with one function only the first is there, whatever answers at the others.
        world.machine.add_function(0x0309, FakeFunction::new(0x1234_5678, 0x0200_0000));
        let interrupts = &world.host.interrupts;
        assert_eq!(world.host.pci.scan(interrupts), Ok(3));
        assert_eq!(world.host.pci.scan(interrupts), Ok(3), "a second look finds the same");
        assert_eq!(super::add(world.host, world.domain, Place(0x0500)), Ok(()));
        assert_eq!(super::add(world.host, world.domain, Place(0x0600)), Err(Errno::ENODEV));
    });
}

/// Numbers that look random (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.below(1 << 32)).unwrap()
    }
}

#[test]
fn whatever_the_domain_writes_a_device_only_ever_sends_the_hypervisors_messages() {
    let (enabled, unmasked) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    for seed in 1..=20 {
        with_function(function(), |world| {
            let mut numbers = Numbers(seed * 0x9e37_79b9);
            for _ in 0..500 {
                let size = [1, 2, 4][usize::try_from(numbers.below(3)).unwrap()];
                let align = |at: u64| at & !(u64::from(size) - 1);
                let value =
                    if numbers.below(3) == 0 { 0xfee0_0000 | numbers.word() & 0xf_f00c } else { numbers.word() };
                if numbers.below(2) == 0 {
                    let ranges = [(0u64, 0x40u64), (0x50, 0x20), (0x70, 0x10)];
                    let (start, length) = ranges[usize::try_from(numbers.below(3)).unwrap()];
                    let register = u16::try_from(align(start + numbers.below(length))).unwrap();
                    world.write(register, size, value);
                } else {
                    // The table is where it was at first, or has been moved: then nobody takes this.
                    let _ = world.host.pci.memory_write(
                        &world.host.interrupts,
                        align(TABLE + numbers.below(0x40)),
                        size,
                        value,
                    );
                }
                if world.real(MSI) >> 16 & 1 != 0 {
                    enabled.set(enabled.get() + 1);
                    assert_eq!(world.real(MSI + 4) & 0xffff_dfff, 0xfee0_0000, "seed {seed}");
                    let vector = world.real(MSI + 12) & 0xffff;
                    assert!((0x20..=0xef).contains(&vector), "seed {seed}: {vector:#x}");
                }
            }
            let mut entries = std::collections::HashMap::new();
            for (place, bytes) in world.machine.device_writes() {
                entries.insert(place.number(), bytes.clone());
                if place.number() & 0xf == 0xc && bytes.len() == 4 && bytes[0] & 1 == 0 {
                    let word = |at: u64| {
                        let bytes: [u8; 4] = entries[&(place.number() - 12 + at)].as_slice().try_into().unwrap();
                        u32::from_le_bytes(bytes)
                    };
                    unmasked.set(unmasked.get() + 1);
                    assert_eq!((word(0) & 0xffff_dfff, word(4)), (0xfee0_0000, 0), "seed {seed}");
                    assert!((0x20..=0xef).contains(&word(8)), "seed {seed}: {:#x}", word(8));
                }
            }
        });
    }
    assert!(enabled.get() > 100 && unmasked.get() > 100, "{enabled:?} {unmasked:?}: the test tests nothing");
}
