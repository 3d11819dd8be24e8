//! Debug registers keep their values over exits; breakpoints and single steps work; illegal values fault.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, call, clock};
    use rt::Registers;
    use rt::memory;
    use rt::trap::GENERAL_PROTECTION;

    guests::guest!("debug_registers", run);

    const DR6_FIXED: u64 = 0xffff_0ff0;
    const DR7_FIXED: u64 = 0x400;

    fn run(test: &mut Test) {
        test.equal("at the start", [rt::dr0(), rt::dr1(), rt::dr2(), rt::dr3()], [0; 4]);
        test.equal("DR6 at the start", rt::dr6(), DR6_FIXED);
        test.equal("DR7 at the start", rt::dr7(), DR7_FIXED);
        keep(test);
        breakpoints(test);
        single_step(test);
        illegal(test);
    }

    fn keep(test: &mut Test) {
        rt::set_dr0(0x1111_2222);
        rt::set_dr1(0x0000_7fff_ffff_f000);
        rt::set_dr2(0x3333_0000);
        rt::set_dr3(0xffff_8000_0000_0000);
        for _ in 0..200 {
            call::yield_cpu();
            rt::cpuid(0, 0);
            clock::spin_within(0, || false);
            let now = [rt::dr0(), rt::dr1(), rt::dr2(), rt::dr3()];
            test.equal(
                "kept over exits",
                now,
                [0x1111_2222, 0x0000_7fff_ffff_f000, 0x3333_0000, 0xffff_8000_0000_0000],
            );
        }
        clock::delay(50);
        test.equal("kept over preemption", rt::dr3(), 0xffff_8000_0000_0000);
        [rt::set_dr0, rt::set_dr1, rt::set_dr2, rt::set_dr3].into_iter().for_each(|set| set(0));
    }

    /// A write to a watched address: #DB after the instruction.
    fn breakpoints(test: &mut Test) {
        let page = memory::take_pages(1);
        rt::set_dr0(page + 64);
        // Local enable of 0, write, 4 bytes.
        rt::set_dr7(DR7_FIXED | 1 | 0b1101 << 16);
        test.equal("DR7 reads back", rt::dr7(), DR7_FIXED | 1 | 0b1101 << 16);
        let mut registers = Registers { rbx: page, ..Default::default() };
        // mov dword [rbx], 1; mov dword [rbx+64], 2; mov dword [rbx+128], 3
        let code = [0xc7, 0x03, 1, 0, 0, 0, 0xc7, 0x43, 0x40, 2, 0, 0, 0, 0xc7, 0x83, 0x80, 0, 0, 0, 3, 0, 0, 0];
        test.faults("watched write", rt::execute(&code, &mut registers), 1);
        test.equal("DR6 says which", rt::dr6() & 0xf, 1);
        let written = [0, 64, 128].map(|offset| memory::read::<u32>(page + offset));
        test.equal("stopped after the second write", written, [1, 2, 0]);
        rt::set_dr7(DR7_FIXED);
        rt::set_dr6(DR6_FIXED);
        test.equal("DR6 cleared", rt::dr6(), DR6_FIXED);
        test.runs("off", rt::execute(&code, &mut registers));
    }

    /// The trap flag: #DB after one instruction, also after one that the hypervisor emulates.
    fn single_step(test: &mut Test) {
        // nop; nop
        let mut registers = Registers { rflags: 0x102, ..Default::default() };
        test.faults("single step", rt::execute(&[0x90, 0x90, 0x90], &mut registers), 1);
        test.equal("DR6 says single step", rt::dr6() & 1 << 14, 1 << 14);
        rt::set_dr6(DR6_FIXED);
        // pushfq; or qword [rsp], 0x100; popfq; cpuid; nop; nop
        let code = [0x9c, 0x48, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x0f, 0xa2, 0x90, 0x90];
        let mut registers = Registers { r12: 1, ..Default::default() };
        let result = rt::execute(&code, &mut registers);
        let offset = result.err().map(|fault| fault.rip & 0xfff);
        test.check("after CPUID, not after the next", offset == Some(12), format_args!("{offset:?}"));
        rt::set_dr6(DR6_FIXED);
    }

    fn illegal(test: &mut Test) {
        // mov dr7, rax; mov dr6, rax with upper halves set
        for code in [&[0x0f, 0x23, 0xf8][..], &[0x0f, 0x23, 0xf0]] {
            let mut registers = Registers { rax: 1 << 32 | DR7_FIXED, ..Default::default() };
            test.faults("upper half", rt::execute(code, &mut registers), GENERAL_PROTECTION);
        }
        // General detect: the next access faults.
        rt::set_dr7(DR7_FIXED | 1 << 13);
        let result = rt::execute(&[0x0f, 0x21, 0xc0], &mut Registers::default());
        test.check("general detect", matches!(result, Err(fault) if fault.vector == 1), format_args!("{result:?}"));
        test.faults("ring 3", rt::execute_user(&[0x0f, 0x21, 0xc0], &mut Registers::default()), GENERAL_PROTECTION);
        // The processor has cleared the bit for the handler.
        rt::set_dr7(DR7_FIXED);
        rt::set_dr6(DR6_FIXED);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
