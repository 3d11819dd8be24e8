//! The hypercall page: the MSR, the stubs, bad frames.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, environment};
    use public_abi::Hypercall;
    use public_abi::console_io::ConsoleIoOp;
    use public_abi::x86::cpuid::{LEAF_HYPERCALL, MSR_HYPERCALL_PAGE};
    use rt::trap::GENERAL_PROTECTION;
    use rt::{Registers, memory, msr};

    guests::guest!("hypercall_page", run);

    fn run(test: &mut Test) {
        let leaf = environment::xen_leaves().unwrap_or(0) + LEAF_HYPERCALL;
        let [_, index, ..] = rt::cpuid(leaf, 0);
        test.equal("MSR", index, MSR_HYPERCALL_PAGE);
        let page = memory::take_pages(1);
        test.runs("write", msr::try_write(index, page));
        for number in 0..128_u64 {
            let stub = page + number * 32;
            if number == 23 {
                continue;
            }
            let bytes: u64 = memory::read(stub);
            // MOV EAX, number; VMMCALL; RET
            let want = u64::from_le_bytes([0xb8, number as u8, 0, 0, 0, 0x0f, 0x01, 0xd9]);
            test.check("stub", bytes == want, format_args!("{number}: {bytes:#x}"));
            test.equal("stub's RET", memory::read::<u8>(stub + 8), guests::code::RET);
        }
        test.equal("stub 23 (iret) is UD2", memory::read::<u16>(page + 23 * 32), 0x0b0f);
        let mut registers = Registers::default();
        let stub = page + Hypercall::XenVersion.number() * 32;
        test.runs("call through the page", rt::execute_at(stub, &mut registers));
        test.equal("version", registers.rax.cast_signed(), guests::call::raw(Hypercall::XenVersion, [0; 5]));

        calls_of_others(test, index);
        guests::println!("GUEST-INFO reads as {:x?}", msr::try_read(index));
        test.faults("page index 1", msr::try_write(index, page | 1), GENERAL_PROTECTION);
        test.faults("page index 0xfff", msr::try_write(index, page | 0xfff), GENERAL_PROTECTION);
        test.faults("no memory there", msr::try_write(index, 0x0000_000f_ffff_f000), GENERAL_PROTECTION);
        test.faults("MMIO", msr::try_write(index, 0xfee0_0000), GENERAL_PROTECTION);
        test.faults("beyond physical addresses", msr::try_write(index, 0xfff0_0000_0000_0000), GENERAL_PROTECTION);
    }

    /// A crate from outside of this project finds what it expects.
    fn calls_of_others(test: &mut Test, index: u32) {
        test.runs("write for xen-sys", msr::try_write(index, rt::hypercall_page()));
        let version = guests::call::raw(Hypercall::XenVersion, [0; 5]);
        test.equal("xen-sys: XENVER_version", rt::xen_version_by_page(0, 0), version);
        test.equal("xen-sys: an unknown command", rt::xen_version_by_page(99, 0), -38);
        let text = b"GUEST-INFO written by xen-sys, or in its place\n";
        let arguments = [ConsoleIoOp::Write.number().into(), text.len() as u64, text.as_ptr().addr() as u64, 0, 0];
        let own = guests::call::raw(Hypercall::ConsoleIo, arguments);
        test.equal("xen-sys: console_io", rt::console_by_page(text), own);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
