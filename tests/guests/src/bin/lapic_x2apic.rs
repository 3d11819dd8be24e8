//! The local APIC as MSRs: the change of mode, every register, what faults.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, clock, println};
    use rt::trap::GENERAL_PROTECTION;
    use rt::{apic, msr, trap};

    guests::guest!("lapic_x2apic", run);

    const BASE: u32 = 0x1b;

    fn run(test: &mut Test) {
        apic::enable();
        let version = apic::read(apic::VERSION);
        for index in [0x802, 0x803, 0x830, 0x83f] {
            test.faults("MSRs need the mode", msr::try_read(index), GENERAL_PROTECTION);
        }
        let base = msr::read(BASE);
        test.runs("enter", msr::try_write(BASE, base | 1 << 10));
        test.equal("base", msr::read(BASE), base | 1 << 10);
        test.holds("mode", apic::is_x2apic());
        test.equal("identifier", msr::try_read(0x802), Ok(0));
        test.equal("version", apic::read(apic::VERSION), version);
        test.equal("spurious kept", apic::read(apic::SPURIOUS), 0x1ff);
        println!("GUEST-INFO logical destination {:#x}", apic::read(apic::LDR));
        test.equal("logical destination", apic::read(apic::LDR), 1);
        test.equal("memory is gone", rt::memory::read::<u32>(apic::APIC_MEMORY + 0x30), u32::MAX);
        back(test, base);
        every_register(test);
        refused(test);
        self_interrupt(test);
        timer(test);
    }

    /// From x2APIC mode there is no way straight back.
    fn back(test: &mut Test, base: u64) {
        test.faults("back to xAPIC", msr::try_write(BASE, base), GENERAL_PROTECTION);
        test.holds("mode kept", apic::is_x2apic());
    }

    fn every_register(test: &mut Test) {
        let exists = |index: u32| matches!(index, 0x802 | 0x803 | 0x808 | 0x80a | 0x80d | 0x80f | 0x810..=0x828 | 0x830 | 0x832..=0x839 | 0x83e);
        for index in 0x800..0x900 {
            let got = msr::try_read(index);
            // 0x82f is the entry for corrected machine checks, which an APIC may have or not.
            let good = index == 0x82f || got.is_ok() == exists(index);
            test.check("register", good, format_args!("{index:#x}: {got:x?}"));
        }
    }

    fn refused(test: &mut Test) {
        for index in [0x802, 0x803, 0x80a, 0x80d, 0x810, 0x818, 0x820, 0x839] {
            test.faults("read-only", msr::try_write(index, 0), GENERAL_PROTECTION);
        }
        test.faults("end of interrupt other than 0", msr::try_write(0x80b, 1), GENERAL_PROTECTION);
        test.faults("error status other than 0", msr::try_write(0x828, 1), GENERAL_PROTECTION);
        test.faults("upper half", msr::try_write(0x808, 1 << 32), GENERAL_PROTECTION);
        test.faults(
            "reserved bits of the spurious register",
            msr::try_write(0x80f, 1 << 31 | 0x1ff),
            GENERAL_PROTECTION,
        );
        test.faults("reserved bits of the timer's entry", msr::try_write(0x832, 1 << 31), GENERAL_PROTECTION);
        test.runs("end of interrupt", msr::try_write(0x80b, 0));
        test.runs("error status", msr::try_write(0x828, 0));
        for (index, value) in [(0x808, 0x30), (0x832, 0x1_0040), (0x837, 0x1_0041), (0x83e, 3)] {
            test.runs("write", msr::try_write(index, value));
            test.equal("reads back", msr::try_read(index), Ok(value));
        }
        test.runs("TPR", msr::try_write(0x808, 0));
    }

    fn self_interrupt(test: &mut Test) {
        rt::enable_interrupts();
        test.runs("by the self register", msr::try_write(0x83f, 0x46));
        test.holds("delivered", clock::within(1000, || trap::interrupts(0, 0x46) == 1));
        test.runs("by the command register", msr::try_write(0x830, 0x47 | 1 << 14));
        test.holds("to identifier 0", clock::within(1000, || trap::interrupts(0, 0x47) == 1));
        test.runs("by the shorthand", msr::try_write(0x830, 0x48 | 1 << 18));
        test.holds("to self", clock::within(1000, || trap::interrupts(0, 0x48) == 1));
        test.runs("to all", msr::try_write(0x830, 0xffff_ffff_0000_4049));
        test.holds("broadcast", clock::within(1000, || trap::interrupts(0, 0x49) == 1));
        rt::disable_interrupts();
    }

    fn timer(test: &mut Test) {
        test.runs("entry", msr::try_write(0x832, 0x4a));
        test.runs("count", msr::try_write(0x838, 100_000));
        rt::enable_interrupts();
        test.holds("fires", clock::within(2000, || trap::interrupts(0, 0x4a) == 1));
        rt::disable_interrupts();
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
