//! Every MSR index in the ranges that processors and hypervisors use: a value or #GP(0), never a hang.
//!
//! What was read is written back, too, except where that would do what it says.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, println};
    use public_abi::Hypercall;
    use rt::msr;
    use rt::trap::GENERAL_PROTECTION;

    guests::guest!("msr_scan", run);

    const RANGES: [(u32, u32); 5] = [
        (0, 0x2000),
        (0x4000_0000, 0x4000_0400),
        (0x8000_0000, 0x8000_0010),
        (0xc000_0000, 0xc000_2000),
        (0xc001_0000, 0xc001_2000),
    ];

    /// Not written back: TSC, the hypercall page and Viridian's twin of it.
    const LEFT_ALONE: [u32; 3] = [0x10, 0x4000_0000, 0x4000_0200];

    fn run(test: &mut Test) {
        let mut readable = 0_u32;
        let mut writable = 0_u32;
        let watched =
            [0x1b, 0x277, 0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0101].map(|index| (index, msr::read(index)));
        for (first, end) in RANGES {
            for index in first..end {
                match msr::try_read(index) {
                    Ok(value) => {
                        readable += 1;
                        if readable <= 400 {
                            report(index, value);
                        }
                        if !LEFT_ALONE.contains(&index) {
                            let result = msr::try_write(index, value);
                            writable += u32::from(result.is_ok());
                            check_fault(test, "writing back", index, result);
                        }
                    }
                    Err(fault) => check_fault(test, "reading", index, Err(fault)),
                }
            }
        }
        report_end();
        println!("GUEST-INFO {readable} can be read, {writable} take back what was read");
        test.check("some can be read", readable > 40, readable);
        for (index, value) in watched {
            test.equal("left as it was", msr::read(index), value);
        }
        for index in [0xffff_ffff, 0x1fff, 0xc000_1fff, 0xc001_1fff, 0x4000_0300, 0x8000_0000, 0xc000_00ff] {
            test.faults("no such register", msr::try_read(index), GENERAL_PROTECTION);
            test.faults("no such register to write", msr::try_write(index, 0), GENERAL_PROTECTION);
        }
        test.check("alive", guests::call::raw(Hypercall::XenVersion, [0; 5]) > 0, "no");
    }

    fn check_fault(test: &mut Test, what: &'static str, index: u32, result: Result<(), rt::Fault>) {
        let good =
            result.is_ok() || matches!(result, Err(fault) if fault.vector == GENERAL_PROTECTION && fault.error == 0);
        test.check(what, good, format_args!("{index:#x}: {result:?}"));
    }

    fn report(index: u32, value: u64) {
        println!("GUEST-INFO msr {index:#x} = {value:#x}");
    }

    fn report_end() {
        println!("GUEST-INFO end of the registers that can be read");
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
