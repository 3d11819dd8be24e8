//! CR0, CR4, EFER, CR3, CR8, LMSW, CLTS: legal values stick, illegal ones are #GP and change nothing.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::code::{CLTS, GET_CR8, LMSW, SET_CR0, SET_CR3, SET_CR4, SET_CR8, SMSW};
    use guests::{Test, environment, println};
    use rt::trap::GENERAL_PROTECTION;
    use rt::{Registers, msr};

    guests::guest!("control_registers", run);

    const PE: u64 = 1;
    const TS: u64 = 1 << 3;
    const NW: u64 = 1 << 29;
    const CD: u64 = 1 << 30;
    const PG: u64 = 1 << 31;
    const PAE: u64 = 1 << 5;
    const EFER: u32 = 0xc000_0080;

    fn set(code: &[u8], value: u64) -> Result<(), rt::Fault> {
        rt::execute(code, &mut Registers { rax: value, ..Default::default() })
    }

    fn run(test: &mut Test) {
        cr0(test);
        task_switched(test);
        cr4(test);
        efer(test);
        others(test);
    }

    fn cr0(test: &mut Test) {
        let before = rt::cr0();
        println!("GUEST-INFO cr0 {before:#x} cr4 {:#x} efer {:#x}", rt::cr4(), msr::read(EFER));
        // NW without CD: Xen lets it pass, and the world switch then ends the domain (VMEXIT_INVALID).
        let not_write_through = if environment::is_oxen() { (before | NW) & !CD } else { before & !PE };
        for bad in [before & !PE, before | 1 << 32, before | 1 << 63, PG, not_write_through] {
            test.faults("illegal CR0", set(SET_CR0, bad), GENERAL_PROTECTION);
            test.equal("CR0 unchanged", rt::cr0(), before);
        }
        // Leaving paging in 64-bit mode is not legal either.
        test.faults("paging off in 64-bit mode", set(SET_CR0, before & !PG), GENERAL_PROTECTION);
        for bit in [1_u64 << 1, TS, 1 << 5, 1 << 16, 1 << 18, CD] {
            let value = before ^ bit;
            test.runs("legal CR0", set(SET_CR0, value));
            test.equal("CR0 reads back", rt::cr0(), value);
        }
        // Reserved bits of the lower half are ignored.
        test.runs("CR0 with ignored bits", set(SET_CR0, before | 1 << 6 | 1 << 20));
        println!("GUEST-INFO cr0 with ignored bits {:#x}", rt::cr0());
        test.runs("CR0 back", set(SET_CR0, before));
        test.equal("CR0 back", rt::cr0(), before);
    }

    fn task_switched(test: &mut Test) {
        let before = rt::cr0();
        rt::set_cr0(before | TS);
        test.equal("TS set", rt::cr0() & TS, TS);
        // An SSE instruction with TS set: #NM.
        test.faults("SSE with TS", rt::execute(&[0x0f, 0x57, 0xc0], &mut Registers::default()), 7);
        test.runs("CLTS", rt::execute(CLTS, &mut Registers::default()));
        test.equal("TS cleared", rt::cr0() & TS, 0);
        test.runs("SSE without TS", rt::execute(&[0x0f, 0x57, 0xc0], &mut Registers::default()));
        test.runs("LMSW sets TS", set(LMSW, (before & 0xf) | TS));
        test.equal("TS by LMSW", rt::cr0(), before | TS);
        // LMSW cannot leave protected mode.
        test.runs("LMSW of 0", set(LMSW, 0));
        test.equal("PE stays, the others go", rt::cr0() & 0xf, PE);
        let mut registers = Registers::default();
        test.runs("SMSW", rt::execute(SMSW, &mut registers));
        test.equal("SMSW is CR0", registers.rax, rt::cr0());
        rt::set_cr0(before);
    }

    fn cr4(test: &mut Test) {
        let before = rt::cr4();
        for bad in
            [before & !PAE, before | 1 << 13, before | 1 << 15, before | 1 << 31, before | 1 << 32, before | 1 << 63]
        {
            test.faults("illegal CR4", set(SET_CR4, bad), GENERAL_PROTECTION);
            test.equal("CR4 unchanged", rt::cr4(), before);
        }
        let [_, _, leaf_1_c, _] = rt::cpuid(1, 0);
        let [_, leaf_7_b, leaf_7_c, _] = rt::cpuid(7, 0);
        let list = [
            ("PCIDE", 17, leaf_1_c >> 17 & 1),
            ("OSXSAVE", 18, leaf_1_c >> 26 & 1),
            ("SMEP", 20, leaf_7_b >> 7 & 1),
            ("SMAP", 21, leaf_7_b >> 20 & 1),
            ("FSGSBASE", 16, leaf_7_b & 1),
            ("PKE", 22, leaf_7_c >> 3 & 1),
            ("UMIP", 11, leaf_7_c >> 2 & 1),
            ("LA57", 12, 0),
            ("CET", 23, 0),
        ];
        for (name, bit, present) in list {
            let result = set(SET_CR4, before ^ (1 << bit));
            // Turning LA57 on in 64-bit mode is never legal; CET needs CR0.WP and is not offered by 4.17.
            test.check(
                "CR4 as CPUID says",
                result.is_ok() == (present == 1),
                format_args!("{name}: {result:?}, CPUID {present}"),
            );
            rt::set_cr4(before);
        }
        for bit in [1_u64 << 2, 1 << 3, 1 << 7, 1 << 6] {
            test.runs("legal CR4", set(SET_CR4, before ^ bit));
            test.equal("CR4 reads back", rt::cr4(), before ^ bit);
            rt::set_cr4(before);
        }
    }

    fn efer(test: &mut Test) {
        let before = msr::read(EFER);
        for bad in
            [before & !(1 << 8), before | 1 << 12, before | 1 << 1, before | 1 << 9, before | 1 << 16, before | 1 << 40]
        {
            test.faults("illegal EFER", msr::try_write(EFER, bad), GENERAL_PROTECTION);
            test.equal("EFER unchanged", msr::read(EFER), before);
        }
        test.runs("SCE", msr::try_write(EFER, before | 1));
        test.equal("EFER reads back", msr::read(EFER), before | 1);
        msr::write(EFER, before);
        // LMA is not the guest's to change, and ignored.
        let result = msr::try_write(EFER, before & !(1 << 10));
        println!("GUEST-INFO EFER without LMA: {result:?}, reads {:#x}", msr::read(EFER));
        test.equal("LMA stays", msr::read(EFER) & 1 << 10, 1 << 10);
        msr::write(EFER, before);
    }

    fn others(test: &mut Test) {
        let before = rt::cr3();
        test.runs("CR3", set(SET_CR3, before | 0x18));
        test.equal("CR3 keeps its cache bits", rt::cr3(), before | 0x18);
        test.runs("CR3", set(SET_CR3, before));
        test.runs("CR8", set(SET_CR8, 3));
        let mut registers = Registers::default();
        test.runs("CR8", rt::execute(GET_CR8, &mut registers));
        test.equal("CR8", registers.rax, 3);
        test.runs("CR8", set(SET_CR8, 0));
        for number in [1_u8, 5, 6, 7] {
            // mov rax, crN
            let code = [0x0f, 0x20, 0xc0 | number << 3];
            test.faults("no such register", rt::execute(&code, &mut Registers::default()), rt::trap::INVALID_OPCODE);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
