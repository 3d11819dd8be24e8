//! Hypercalls from ring 3: every number is refused with EPERM and has no effect.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::code::VMMCALL;
    use guests::{Test, check, println};
    use public_abi::Errno;
    use rt::Registers;
    use rt::trap::GENERAL_PROTECTION;

    guests::guest!("hypercall_user", run);

    fn run(test: &mut Test) {
        let refusal = check::error(Errno::EPERM).cast_unsigned();
        for number in (0..64).chain([0x8000_0000, 0xffff_ffff, u64::MAX, 1 << 32 | 17]) {
            let mut registers =
                Registers { rax: number, rdi: 2, rsi: 0x1000, rdx: 0x2000, r15: 7, ..Default::default() };
            let result = rt::execute_user(VMMCALL, &mut registers);
            let good = result.is_ok() && registers.rax == refusal;
            test.check("ring 3", good, format_args!("call {number:#x}: {result:?} rax {:#x}", registers.rax));
            let kept = (registers.rdi, registers.rsi, registers.rdx, registers.r15) == (2, 0x1000, 0x2000, 7);
            test.check("arguments kept", kept, number);
        }
        let mut registers = Registers { rax: 17, ..Default::default() };
        test.runs("32-bit ring 3", rt::execute_user_32(VMMCALL, &mut registers));
        println!("GUEST-INFO 32-bit ring 3: rax {:#x}", registers.rax);
        test.equal("32-bit ring 3", registers.rax as u32, refusal as u32);
        for code in [
            &[0xf4][..],
            &[0xfa],
            &[0x0f, 0x06],
            &[0x0f, 0x32],
            &[0x0f, 0x22, 0xc0],
            &[0xe4, 0x80],
            &[0x0f, 0x01, 0xd1],
        ] {
            let result = rt::execute_user(code, &mut Registers::default());
            test.check(
                "privileged in ring 3",
                matches!(result, Err(fault) if fault.vector == GENERAL_PROTECTION || fault.vector == 6),
                format_args!("{code:x?}: {result:?}"),
            );
        }
        test.check("ring 0 can", guests::call::raw(public_abi::Hypercall::XenVersion, [0; 5]) > 0, "no");
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
