//! Numbers that no HVM guest may call: ENOSYS, registers kept, nothing happens.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::code::VMMCALL;
    use guests::{Test, check, println};
    use public_abi::Errno;
    use public_abi::hypercall::TABLE;
    use rt::Registers;

    guests::guest!("unknown_hypercalls", run);

    /// Calls that Xen answers and `TABLE` leaves out: mmuext_op, and Xen's own continuation of a domctl.
    const OTHERS: [u64; 2] = [26, 49];
    /// In the table, but not in Debian's configuration: XSM, Argo; both answer ENOSYS.
    const ABSENT: [u64; 2] = [27, 39];

    fn run(test: &mut Test) {
        let refusal = check::error(Errno::ENOSYS);
        let many =
            (0..256).chain((8..64).map(|bit| 1 << bit)).chain((8..64).map(|bit| 1 << bit | 17)).chain([u64::MAX]);
        for number in many {
            let known = TABLE.iter().any(|row| row.number == number) || OTHERS.contains(&number);
            if known && !ABSENT.contains(&number) {
                continue;
            }
            let mut registers = Registers {
                rax: number,
                rbx: 1,
                rcx: 2,
                rdx: 3,
                rsi: 4,
                rdi: 5,
                rbp: 6,
                r8: 7,
                r9: 8,
                r10: 9,
                r11: 10,
                r12: 11,
                r13: 12,
                r14: 13,
                r15: 14,
                ..Default::default()
            };
            let before = registers;
            let result = rt::execute(VMMCALL, &mut registers);
            let good = result.is_ok() && registers.rax.cast_signed() == refusal;
            test.check("unknown call", good, format_args!("{number:#x}: {result:?} {}", registers.rax.cast_signed()));
            registers.rax = before.rax;
            registers.rflags = before.rflags;
            test.check("registers kept", registers == before, number);
        }
        for number in OTHERS {
            println!("GUEST-INFO call {number} answers {}", rt::hypercall(number, [0; 5]));
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
