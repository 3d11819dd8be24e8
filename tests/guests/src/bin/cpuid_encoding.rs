//! Intercepted instructions in every clothing: prefixes, page ends, wrong modes.
//!
//! Without next-RIP support a hypervisor must find the length of CPUID and VMMCALL itself.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::code::{CPUID, RET, VMMCALL};
    use guests::{Test, environment};
    use public_abi::Hypercall;
    use rt::trap::{INVALID_OPCODE, PAGE_FAULT};
    use rt::{Registers, memory, paging};

    guests::guest!("cpuid_encoding", run);

    /// MOV R15D, 0x600d: proof that the following instruction was reached.
    const MARK: &[u8] = &[0x41, 0xbf, 0x0d, 0x60, 0x00, 0x00];
    const MARKED: u64 = 0x600d;
    const WINDOW: u64 = 0x0000_0200_0000_0000;

    fn run(test: &mut Test) {
        prefixes(test);
        hypercall_prefixes(test);
        page_end(test);
        lock_and_length(test);
        user_mode(test);
    }

    fn with_prefix(prefix: &[u8], instruction: &[u8], registers: &mut Registers) -> Result<(), rt::Fault> {
        let mut code = [0x90; 32];
        let parts = prefix.iter().chain(instruction).chain(MARK);
        code.iter_mut().zip(parts).for_each(|(slot, byte)| *slot = *byte);
        rt::execute(&code, registers)
    }

    fn prefixes(test: &mut Test) {
        let base = environment::xen_leaves().unwrap_or(0x4000_0000);
        let want = rt::cpuid(base, 0);
        let lists: [&[u8]; 14] = [
            &[],
            &[0x66],
            &[0xf2],
            &[0xf3],
            &[0x67],
            &[0x2e],
            &[0x3e],
            &[0x64],
            &[0x65],
            &[0x40],
            &[0x48],
            &[0x66, 0x66, 0x66],
            &[0xf2, 0x66, 0x4f],
            &[0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x48],
        ];
        for prefix in lists {
            let mut registers = Registers { rax: u64::from(base), ..Default::default() };
            let result = with_prefix(prefix, CPUID, &mut registers);
            let got = [registers.rax, registers.rbx, registers.rcx, registers.rdx];
            let good = result.is_ok() && got == want.map(u64::from) && registers.r15 == MARKED;
            test.check(
                "CPUID with prefix",
                good,
                format_args!("{prefix:x?}: {result:?} {got:x?}, then {:#x}", registers.r15),
            );
        }
    }

    fn hypercall_prefixes(test: &mut Test) {
        let want = guests::call::raw(Hypercall::XenVersion, [0; 5]);
        let lists: [&[u8]; 8] = [&[], &[0xf2], &[0xf3], &[0x66], &[0x67], &[0x48], &[0x2e], &[0xf2, 0x2e, 0x48]];
        for prefix in lists {
            let mut registers = Registers { rax: Hypercall::XenVersion.number(), ..Default::default() };
            let result = with_prefix(prefix, VMMCALL, &mut registers);
            let good = result.is_ok() && registers.rax.cast_signed() == want && registers.r15 == MARKED;
            test.check(
                "VMMCALL with prefix",
                good,
                format_args!("{prefix:x?}: {result:?} rax {:#x}, then {:#x}", registers.rax, registers.r15),
            );
        }
        // VMCALL is the other vendor's.
        let mut registers = Registers { rax: Hypercall::XenVersion.number(), ..Default::default() };
        test.faults("VMCALL", rt::execute(&[0x0f, 0x01, 0xc1], &mut registers), INVALID_OPCODE);
    }

    fn page_end(test: &mut Test) {
        let base = environment::xen_leaves().unwrap_or(0x4000_0000);
        let want = rt::cpuid(base, 0);
        let pages = [memory::take_pages(1), memory::take_pages(1)];
        for (window, page) in (WINDOW..).step_by(0x1000).zip(pages) {
            paging::map(window, page, paging::PRESENT | paging::WRITABLE);
        }
        for (instruction, before) in [
            (CPUID, 1_u64),
            (CPUID, 2),
            (VMMCALL, 1),
            (VMMCALL, 2),
            (&[0x66, 0x48, 0x0f, 0xa2][..], 1),
            (&[0x66, 0x48, 0x0f, 0xa2][..], 3),
        ] {
            let start = WINDOW + 0x1000 - before;
            memory::write_bytes(start, instruction);
            memory::write_bytes(start + instruction.len() as u64, MARK);
            memory::write(start + (instruction.len() + MARK.len()) as u64, RET);
            let is_call = instruction == VMMCALL;
            let rax = if is_call { Hypercall::XenVersion.number() } else { u64::from(base) };
            let mut registers = Registers { rax, ..Default::default() };
            let result = rt::execute_at(start, &mut registers);
            let value = if is_call { registers.rax > 0x4_0000 } else { registers.rbx == u64::from(want[1]) };
            let good = result.is_ok() && value && registers.r15 == MARKED;
            test.check(
                "across a page end",
                good,
                format_args!("{instruction:x?} {before} bytes before: {result:?} {registers:x?}"),
            );
        }
        // The second page gone: the fetch faults, whatever was there before.
        let start = WINDOW + 0xfff;
        memory::write_bytes(start, CPUID);
        paging::unmap(WINDOW + 0x1000);
        let result = rt::execute_at(start, &mut Registers::default());
        let good = matches!(result, Err(fault) if fault.vector == PAGE_FAULT && fault.cr2 == WINDOW + 0x1000 && fault.rip == start);
        test.check("half an instruction", good, format_args!("{result:?}"));
    }

    fn lock_and_length(test: &mut Test) {
        let mut code = [0x66; 16];
        code[14..].copy_from_slice(CPUID);
        let result = rt::execute(&code, &mut Registers::default());
        test.check("16 bytes long", result.is_err(), format_args!("{result:?}"));
    }

    fn user_mode(test: &mut Test) {
        let base = environment::xen_leaves().unwrap_or(0x4000_0000);
        let want = rt::cpuid(base, 0).map(u64::from);
        let mut registers = Registers { rax: u64::from(base), ..Default::default() };
        test.runs("CPUID in ring 3", rt::execute_user(CPUID, &mut registers));
        test.equal("CPUID in ring 3", [registers.rax, registers.rbx, registers.rcx, registers.rdx], want);
        let mut registers = Registers { rax: u64::from(base), ..Default::default() };
        test.runs("CPUID in 32-bit ring 3", rt::execute_user_32(CPUID, &mut registers));
        test.equal("CPUID in 32-bit ring 3", [registers.rax, registers.rbx, registers.rcx, registers.rdx], want);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
