//! XSETBV and XGETBV: states that go together, unknown ones, ring 3, without OSXSAVE.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::code::{XGETBV, XSETBV};
    use guests::{Test, println};
    use rt::Registers;
    use rt::trap::GENERAL_PROTECTION;

    guests::guest!("xsetbv", run);

    const OSXSAVE: u64 = 1 << 18;

    fn set(index: u64, value: u64) -> Result<(), rt::Fault> {
        rt::execute(
            XSETBV,
            &mut Registers { rax: value & 0xffff_ffff, rdx: value >> 32, rcx: index, ..Default::default() },
        )
    }

    fn get() -> u64 {
        let mut registers = Registers::default();
        rt::execute(XGETBV, &mut registers).ok();
        registers.rdx << 32 | registers.rax & 0xffff_ffff
    }

    fn run(test: &mut Test) {
        let [_, _, features, _] = rt::cpuid(1, 0);
        // #UD on hardware; QEMU asks the hypervisor first, and Xen does it.
        println!("GUEST-INFO before OSXSAVE: {:?}", set(0, 1));
        if features >> 26 & 1 == 0 {
            println!("GUEST-INFO no XSAVE");
            return;
        }
        rt::set_cr4(rt::cr4() | OSXSAVE);
        let [low, _, _, high] = rt::cpuid(0xd, 0);
        let all = u64::from(high) << 32 | u64::from(low);
        println!("GUEST-INFO states {all:#x}, at the start {:#x}", get());
        test.equal("at the start", get(), 1);
        for value in [1, 3, all] {
            test.runs("legal", set(0, value));
            test.equal("reads back", get(), value);
        }
        if all & 4 != 0 {
            test.runs("AVX", set(0, 7));
            let [_, size, ..] = rt::cpuid(0xd, 0);
            test.check("size follows", size >= 832, size);
            test.faults("AVX without SSE", set(0, 5), GENERAL_PROTECTION);
        }
        test.runs("SSE", set(0, 3));
        let [_, size, ..] = rt::cpuid(0xd, 0);
        test.equal("size without AVX", size, 576);
        for value in [0, 2, 4, 6, 1 << 3 | 3, 1 << 4 | 3, 1 << 5 | 7, 1 << 62 | 3, 1 << 63 | 3, u64::MAX] {
            if value & !all != 0 || value & 1 == 0 {
                test.faults("illegal", set(0, value), GENERAL_PROTECTION);
                test.equal("unchanged", get(), 3);
            }
        }
        for index in [1, 2, 0xffff_ffff] {
            test.faults("no such register", set(index, 3), GENERAL_PROTECTION);
        }
        test.faults(
            "ring 3",
            rt::execute_user(XSETBV, &mut Registers { rax: 3, ..Default::default() }),
            GENERAL_PROTECTION,
        );
        let mut registers = Registers::default();
        test.runs("XGETBV in ring 3", rt::execute_user(XGETBV, &mut registers));
        test.equal("XGETBV in ring 3", registers.rax, 3);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
