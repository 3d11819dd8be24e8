//! MSRs that kernels use: values at the start, what they keep, what they refuse.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, println};
    use rt::msr;
    use rt::trap::GENERAL_PROTECTION;

    guests::guest!("msr_values", run);

    fn run(test: &mut Test) {
        at_the_start(test);
        round_trips(test);
        refused(test);
        time_stamp(test);
        for index in [0xc001_0058, 0xc001_1028, 0x808, 0x802, 0x830, 0x3a, 0x480] {
            let result = msr::try_read(index);
            test.check(
                "must not exist",
                matches!(result, Err(fault) if fault.vector == GENERAL_PROTECTION),
                format_args!("{index:#x}: {result:x?}"),
            );
        }
        for index in [
            0x8b,
            0xc001_001f,
            0xc001_0010,
            0xc001_0015,
            0xc001_1029,
            0xc001_0000,
            0xc001_0004,
            0x179,
            0x17a,
            0x2ff,
            0xfe,
            0x200,
            0x250,
            0x26f,
        ] {
            let result = msr::try_read(index);
            test.check("must exist for Linux", result.is_ok(), format_args!("{index:#x}: {result:x?}"));
        }
    }

    fn at_the_start(test: &mut Test) {
        test.equal("APIC base: on, first processor", msr::read(0x1b), 0xfee0_0900);
        test.equal("EFER as the entry code left it", msr::read(0xc000_0080), 0xd00);
        let pat = msr::read(0x277);
        // A control domain of Xen gets what the host uses, a guest gets the value of a reset.
        test.check("PAT", pat.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7)), format_args!("{pat:#x}"));
        for index in [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102, 0x174, 0x175, 0x176] {
            let value = msr::read(index);
            test.check("zero at the start", value == 0, format_args!("{index:#x} is {value:#x}"));
        }
        println!("GUEST-INFO MTRRcap {:#x} default {:#x}", msr::read(0xfe), msr::read(0x2ff));
        println!("GUEST-INFO debug control {:x?}, TSC_AUX {:x?}", msr::try_read(0x1d9), msr::try_read(0xc000_0103));
    }

    fn round_trips(test: &mut Test) {
        let list = [
            (0x174, 0x1234),
            (0x175, 0x12_3456_7000),
            (0x176, 0xffff_8000_0000_1000),
            (0xc000_0081, 0x0023_0010_0000_0000),
            (0xc000_0082, 0xffff_8000_1234_5000),
            (0xc000_0083, 0x1234_5000),
            (0xc000_0084, 0x4_7700),
            (0xc000_0100, 0x7fff_0000_1000),
            (0xc000_0102, 0xffff_f000_0000_0000),
            (0x277, 0x0106_0007_0406_0500),
        ];
        for (index, value) in list {
            let before = msr::read(index);
            let result = msr::try_write(index, value);
            let got = msr::try_read(index);
            test.check(
                "keeps what is written",
                result.is_ok() && got == Ok(value),
                format_args!("{index:#x}: {result:?} {got:x?} for {value:#x}"),
            );
            msr::write(index, before);
        }
    }

    fn refused(test: &mut Test) {
        let list = [
            (0xc000_0080, 0xd00 | 1 << 12),
            (0xc000_0080, 0xd00 | 1 << 63),
            (0xc000_0080, 0xd00 | 1 << 1),
            (0xc000_0080, 0x800),
            (0x1b, 0xfee0_0100 | 1 << 10),
            (0x1b, 1 << 63 | 0xfee0_0900),
            (0x2ff, 0x7),
            (0x2ff, 0x2),
            (0xfe, 0),
            (0x8b_0000, 0),
        ];
        for (index, value) in list {
            let before = msr::try_read(index);
            let result = msr::try_write(index, value);
            test.check(
                "refuses",
                matches!(result, Err(fault) if fault.vector == GENERAL_PROTECTION),
                format_args!("{index:#x} = {value:#x}: {result:?}"),
            );
            test.check(
                "unchanged after a refusal",
                before == msr::try_read(index) || before.is_err(),
                format_args!("{index:#x}"),
            );
        }
    }

    fn time_stamp(test: &mut Test) {
        let before = rt::timestamp();
        let by_msr = msr::read(0x10);
        let after = rt::timestamp();
        test.check(
            "TSC by MSR lies between two RDTSC",
            (before..=after).contains(&by_msr),
            format_args!("{before} {by_msr} {after}"),
        );
        msr::write(0x10, 1 << 40);
        let moved = rt::timestamp();
        println!("GUEST-INFO TSC after a write of {:#x}: {moved:#x}", 1_u64 << 40);
        test.check("TSC can be set", (1 << 40..1 << 41).contains(&moved), format_args!("{moved:#x}"));
        let later = rt::timestamp();
        test.holds("TSC goes on", later >= moved);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
