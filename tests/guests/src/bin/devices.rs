//! Devices of the machine, in the control domain's hands: configuration space by ports and in memory, an edge (the real-time
//! clock), a level and messages (QEMU's `edu`, whose interrupts a register raises and another calms).

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::{AtomicU32, Ordering};

    use guests::{Test, clock, environment, println};
    use rt::memory::{self, Word};
    use rt::paging::{self, PRESENT, UNCACHED, WRITABLE};
    use rt::{Registers, apic, trap};

    guests::guest!("devices", run);

    /// Where configuration space of one function, ACPI tables and the device's registers are mapped.
    const SPACE: u64 = 0x0000_0400_0000_0000;
    const TABLES: u64 = 0x0000_0400_0010_0000;
    const DEVICE: u64 = 0x0000_0400_0020_0000;
    /// Vendor and device of `edu`; its registers (QEMU docs/specs/edu.rst).
    const EDU: u32 = 0x11e8_1234;
    const LIVENESS: u64 = 0x04;
    const FACTORIAL: u64 = 0x08;
    const STATUS: u64 = 0x20;
    const WHEN_DONE: u32 = 0x80;
    const PENDING: u64 = 0x24;
    const RAISE: u64 = 0x60;
    const CALM: u64 = 0x64;
    const MS: u64 = 5000;

    const CLOCK: u8 = 0x38;
    const LINE: u8 = 0x50;
    const MESSAGE: u8 = 0x60;

    fn output_32(port: u64, value: u32) {
        let mut registers = Registers { rax: value.into(), rdx: port, ..Default::default() };
        // out dx, eax
        rt::execute(&[0xef], &mut registers).expect("a control domain has this port");
    }

    fn read_by_ports(place: u32, register: u32) -> u32 {
        output_32(0xcf8, 1 << 31 | place << 8 | register);
        rt::input_32(0xcfc)
    }

    fn write_by_ports(place: u32, register: u32, value: u32) {
        output_32(0xcf8, 1 << 31 | place << 8 | register);
        output_32(0xcfc, value);
    }

    fn map(window: u64, address: u64) -> u64 {
        for page in 0..2 {
            paging::map(window + page * 4096, (address & !0xfff) + page * 4096, PRESENT | WRITABLE | UNCACHED);
        }
        window + (address & 0xfff)
    }

    /// The base of configuration space in memory, by the table MCFG.
    fn configuration_space() -> Option<u64> {
        let root: u64 = memory::read(map(TABLES, environment::acpi_root()) + 24);
        let list = map(TABLES, root);
        let length: u32 = memory::read(list + 4);
        let tables = (u64::from(length) - 36) / 8;
        (0..tables).find_map(|number| {
            let table: u64 = memory::read(map(TABLES, root) + 36 + number * 8);
            let table = map(TABLES, table);
            (memory::read::<u32>(table) == u32::from_le_bytes(*b"MCFG")).then(|| memory::read(table + 44))
        })
    }

    fn run(test: &mut Test) {
        apic::enable();
        rt::enable_interrupts();
        both_ways(test);
        real_time_clock(test);
        let found = (0..32).map(|device| device << 3).find(|place| read_by_ports(*place, 0) == EDU);
        test.check("edu is there", found.is_some(), "run it with -device edu");
        if let Some(place) = found {
            edu(test, place);
        }
        rt::disable_interrupts();
    }

    /// Bus 0 looks the same by ports and in memory.
    fn both_ways(test: &mut Test) {
        let Some(base) = configuration_space() else {
            test.check("MCFG", false, "the table is missing");
            return;
        };
        let mut functions = 0;
        for place in 0..256_u32 {
            let space = map(SPACE, base + u64::from(place) * 4096);
            let identity: u32 = memory::read(space);
            test.equal("the same identity", identity, read_by_ports(place, 0));
            if identity == u32::MAX {
                continue;
            }
            functions += 1;
            for register in [0x08_u32, 0x0c, 0x10, 0x2c, 0x34, 0x3c] {
                test.equal(
                    "the same register",
                    memory::read(space + u64::from(register)),
                    read_by_ports(place, register),
                );
            }
            test.equal("by 2 bytes", memory::read::<u16>(space + 2), (identity >> 16) as u16);
            test.equal("by a byte", memory::read::<u8>(space + 3), (identity >> 24) as u8);
            test.equal("by 8 bytes", memory::read::<u64>(space) & 0xffff_ffff, identity.into());
            test.runs("above the first 256 bytes", u32::try_read(space + 0x100));
        }
        println!("GUEST-INFO {functions} functions on bus 0, configuration space at {base:#x}");
        test.check("functions", functions >= 4, functions);
    }

    /// Programs an entry of the I/O APIC for this processor.
    fn program(pin: u32, low: u32) {
        const IO_APIC: u64 = 0xfec0_0000;
        for (index, value) in [(0x11 + pin * 2, apic::id() << 24), (0x10 + pin * 2, low)] {
            memory::write(IO_APIC, index);
            memory::write(IO_APIC + 0x10, value);
        }
    }

    fn count(vector: u8) -> u32 {
        trap::interrupts(rt::cpu_index(), vector)
    }

    fn clock_register(index: u8) -> u8 {
        rt::output_8(0x70, index);
        rt::input_8(0x71)
    }

    fn set_clock_register(index: u8, value: u8) {
        rt::output_8(0x70, index);
        rt::output_8(0x71, value);
    }

    /// The clock interrupts periodically (register B, bit 6), each time after register C was read. Its pin is 8.
    fn real_time_clock(test: &mut Test) {
        fn handler() {
            clock_register(0x0c);
        }
        trap::on_interrupt(CLOCK, handler);
        program(8, CLOCK.into());
        let (a, b) = (clock_register(0x0a), clock_register(0x0b));
        set_clock_register(0x0a, 0x26);
        set_clock_register(0x0b, b | 0x40);
        clock_register(0x0c);
        test.check("the clock interrupts", clock::within(MS, || count(CLOCK) >= 5), count(CLOCK));
        program(8, u32::from(CLOCK) | 1 << 16);
        let before = count(CLOCK);
        clock_register(0x0c);
        clock::within(20, || false);
        test.equal("not while its pin is masked", count(CLOCK), before);
        set_clock_register(0x0b, b);
        set_clock_register(0x0a, a);
    }

    fn device(register: u64) -> u32 {
        memory::read(DEVICE + register)
    }

    fn set_device(register: u64, value: u32) {
        memory::write(DEVICE + register, value);
    }

    /// How many interrupts the device's handler leaves uncalmed.
    static IMPATIENT: AtomicU32 = AtomicU32::new(0);

    fn calm() {
        if IMPATIENT.load(Ordering::SeqCst) == 0 {
            set_device(CALM, device(PENDING));
        } else {
            IMPATIENT.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn edu(test: &mut Test, place: u32) {
        let memory = read_by_ports(place, 0x10) & !0xf;
        write_by_ports(place, 4, 0x6);
        map(DEVICE, memory.into());
        set_device(LIVENESS, 0x1234_5678);
        test.equal("its memory is there", device(LIVENESS), !0x1234_5678);
        // Moved, and back. (Xen lets nobody move what is decoded.)
        let move_to = |address: u32| {
            write_by_ports(place, 4, 0x4);
            write_by_ports(place, 0x10, address);
            write_by_ports(place, 4, 0x6);
            map(DEVICE, address.into());
        };
        move_to(memory ^ 0x0100_0000);
        set_device(LIVENESS, 1);
        test.equal("also when it was moved", device(LIVENESS), !1);
        move_to(memory);
        if environment::is_oxen() {
            write_by_ports(place, 0x10, 0xfec0_0000);
            test.equal("but not over the hypervisor's", read_by_ports(place, 0x10) & !0xf, memory);
        }
        line(test);
        messages(test, place);
    }

    /// The device's line is one of pins 16 to 23.
    fn line(test: &mut Test) {
        let vector = |pin: u32| LINE + (pin - 16) as u8;
        let all = || (16..24).map(|pin| count(vector(pin))).sum::<u32>();
        for pin in 16..24 {
            trap::on_interrupt(vector(pin), calm);
            program(pin, u32::from(vector(pin)) | 1 << 15);
        }
        for round in 1..=3 {
            set_device(RAISE, 1);
            test.check("the line interrupts", clock::within(MS, || all() >= round), all());
            test.equal("and is calm then", device(PENDING), 0);
        }
        let before = all();
        test.equal("once each time", before, 3);
        IMPATIENT.store(2, Ordering::SeqCst);
        set_device(RAISE, 2);
        test.check("a line that is not calmed asks again", clock::within(MS, || all() >= before + 3), all());
        clock::within(20, || false);
        test.equal("until it is calmed", all(), before + 3);
        for pin in 16..24 {
            program(pin, u32::from(vector(pin)) | 1 << 15 | 1 << 16);
        }
    }

    fn messages(test: &mut Test, place: u32) {
        let first = read_by_ports(place, 0x34) & 0xfc;
        let at = |offset: u32| first + offset;
        let header = read_by_ports(place, first);
        test.equal("it has messages", header & 0xff, 5);
        let is_64 = header >> 16 & 0x80 != 0;
        let data = at(if is_64 { 12 } else { 8 });
        let address = 0xfee0_0000 | apic::id() << 12;
        write_by_ports(place, at(4), address);
        write_by_ports(place, data, MESSAGE.into());
        write_by_ports(place, first, header | 1 << 16);
        test.equal("they are on", read_by_ports(place, first) >> 16 & 0x71, 1);
        test.equal("its address", read_by_ports(place, at(4)), address);
        test.equal("its data", read_by_ports(place, data) & 0xffff, MESSAGE.into());
        for vector in [MESSAGE, MESSAGE + 1] {
            trap::on_interrupt(vector, calm);
        }
        for round in 1..=3 {
            set_device(RAISE, 1);
            test.check("a message interrupts", clock::within(MS, || count(MESSAGE) >= round), count(MESSAGE));
        }
        write_by_ports(place, data, u32::from(MESSAGE) + 1);
        set_device(STATUS, WHEN_DONE);
        set_device(FACTORIAL, 5);
        test.check("another vector from now on", clock::within(MS, || count(MESSAGE + 1) >= 1), count(MESSAGE + 1));
        test.equal("what was computed", device(FACTORIAL), 120);
        test.equal("once each time", (count(MESSAGE), count(MESSAGE + 1)), (3, 1));
        set_device(STATUS, 0);
        write_by_ports(place, first, header & !(1 << 16));
        test.equal("they are off", read_by_ports(place, first) >> 16 & 1, 0);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
