//! The I/O APIC of a control domain: index, data, all registers, access widths. A guest of Xen has none.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Role, Test, println, role};
    use rt::memory::{self, Word};

    guests::guest!("vioapic", run);

    const IO_APIC: u64 = 0xfec0_0000;
    const WINDOW: u64 = IO_APIC + 0x10;

    fn read(index: u32) -> u32 {
        memory::write(IO_APIC, index);
        memory::read(WINDOW)
    }

    fn write(index: u32, value: u32) {
        memory::write(IO_APIC, index);
        memory::write(WINDOW, value);
    }

    fn run(test: &mut Test) {
        if role() == Role::Guest {
            test.equal("nothing there", memory::read::<u32>(IO_APIC), u32::MAX);
            test.equal("nothing there", read(1), u32::MAX);
            return;
        }
        registers(test);
        entries(test);
        widths(test);
    }

    fn registers(test: &mut Test) {
        println!("GUEST-INFO identifier {:#x} version {:#x} arbitration {:#x}", read(0), read(1), read(2));
        memory::write(IO_APIC, 0x1_u32);
        test.equal("index reads back", memory::read::<u32>(IO_APIC), 1);
        let version = read(1);
        test.check("version", version & 0xff >= 0x11, format_args!("{version:#x}"));
        let last = version >> 16 & 0xff;
        test.check("entries", (23..240).contains(&last), last);
        write(1, 0);
        test.equal("version is read-only", read(1), version);
        let id = read(0);
        write(0, 0x0500_0000);
        println!("GUEST-INFO identifier after writing 5: {:#x}", read(0));
        write(0, id);
    }

    fn entries(test: &mut Test) {
        let last = read(1) >> 16 & 0xff;
        for pin in 0..=last {
            let low = read(0x10 + pin * 2);
            test.check("masked at the start", low & 1 << 16 != 0, format_args!("pin {pin}: {low:#x}"));
        }
        // A pin that no device of the test machine uses.
        let pin = 21_u32.min(last);
        write(0x11 + pin * 2, 0xff00_0000);
        write(0x10 + pin * 2, 0x1_ffff);
        println!("GUEST-INFO entry {:#x} {:#x}", read(0x10 + pin * 2), read(0x11 + pin * 2));
        test.equal("delivery status and remote IRR are not written", read(0x10 + pin * 2) & 0x1_5000, 0x1_0000);
        test.equal("destination", read(0x11 + pin * 2), 0xff00_0000);
        write(0x10 + pin * 2, 0x1_0031);
        test.equal("reads back", read(0x10 + pin * 2), 0x1_0031);
        write(0x11 + pin * 2, 0);
        // Beyond the last.
        let beyond = 0x10 + (last + 1) * 2;
        println!("GUEST-INFO beyond the last entry {:#x}, register 0xff {:#x}", read(beyond), read(0xff));
        write(beyond, 0);
        write(0xff, 0);
        test.equal("version still there", read(1) & 0xff, read(1) & 0xff);
    }

    fn widths(test: &mut Test) {
        memory::write(IO_APIC, 1_u32);
        let whole: u32 = memory::read(WINDOW);
        test.equal("by a byte", memory::read::<u8>(WINDOW), whole as u8);
        println!(
            "GUEST-INFO by 2 bytes {:x?}, by 8 bytes {:x?}, at +1 {:x?}, at +2 {:x?}",
            u16::try_read(WINDOW),
            u64::try_read(WINDOW),
            u8::try_read(WINDOW + 1),
            u16::try_read(WINDOW + 2)
        );
        memory::write(IO_APIC, 0_u8);
        test.equal("index by a byte", memory::read::<u32>(IO_APIC), 0);
        for offset in (0x20..0x1000).step_by(4) {
            if offset != 0x40 {
                let got = u32::try_read(IO_APIC + offset);
                test.check("other offsets", got.is_ok(), format_args!("{offset:#x}: {got:?}"));
            }
        }
        println!("GUEST-INFO at 0x20 {:#x}", memory::read::<u32>(IO_APIC + 0x20));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
