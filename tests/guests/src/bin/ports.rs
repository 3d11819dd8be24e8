//! Ports that nobody owns: all ones in every width and form; writes go nowhere.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Role, Test, role};
    use rt::{Registers, memory};

    guests::guest!("ports", run);

    /// Nothing is at these in a PVH guest; in a control domain the hypervisor hides what it owns itself (0x3f8, 0x20 …).
    const EVERYWHERE: [u16; 10] = [0x20, 0x21, 0x40, 0x43, 0x61, 0x80, 0xa0, 0x3f8, 0x3ff, 0xe9];
    const IN_GUESTS: [u16; 10] = [0x92, 0x4d0, 0x60, 0x64, 0x70, 0x71, 0x1f0, 0xcf8, 0xb000, 0xffff];

    fn run(test: &mut Test) {
        for port in EVERYWHERE {
            forms(test, port);
        }
        if role() == Role::Guest {
            for port in IN_GUESTS {
                forms(test, port);
            }
            every_port(test);
        }
    }

    fn execute(test: &mut Test, name: &'static str, code: &[u8], registers: &mut Registers) {
        let result = rt::execute(code, registers);
        test.check(name, result.is_ok(), format_args!("port {:#x}: {result:?}", registers.rdx));
    }

    fn forms(test: &mut Test, port: u16) {
        let fill = 0x1122_3344_5566_7788_u64;
        // in al, dx; in ax, dx; in eax, dx
        for (name, code, want) in [
            ("IN of a byte", &[0xec][..], fill | 0xff),
            ("IN of a word", &[0x66, 0xed][..], fill | 0xffff),
            ("IN of a double word", &[0xed][..], 0xffff_ffff),
        ] {
            // A port near the end has fewer neighbours; wide accesses to others may reach an owned one.
            let mut registers = Registers { rax: fill, rdx: port.into(), ..Default::default() };
            execute(test, name, code, &mut registers);
            if code.len() == 1 && code[0] == 0xec || role() == Role::Guest {
                test.check(name, registers.rax == want, format_args!("port {port:#x}: {:#x}", registers.rax));
            }
        }
        if let Ok(short) = u8::try_from(port) {
            let mut registers = Registers { rax: fill, ..Default::default() };
            execute(test, "IN with a constant port", &[0xe4, short], &mut registers);
            test.check(
                "IN with a constant port",
                registers.rax == fill | 0xff,
                format_args!("{port:#x}: {:#x}", registers.rax),
            );
        }
        strings(test, port);
        if role() == Role::Guest || port == 0x80 {
            for code in [&[0xee][..], &[0x66, 0xef], &[0xef]] {
                let mut registers = Registers { rax: fill, rdx: port.into(), ..Default::default() };
                execute(test, "OUT", code, &mut registers);
                test.equal("OUT keeps RAX", registers.rax, fill);
            }
        }
    }

    fn strings(test: &mut Test, port: u16) {
        let page = memory::take_pages(1);
        // rep insb
        let mut registers = Registers { rcx: 20, rdx: port.into(), rdi: page + 8, ..Default::default() };
        execute(test, "REP INSB", &[0xf3, 0x6c], &mut registers);
        test.equal("REP INSB registers", (registers.rcx, registers.rdi), (0, page + 28));
        test.equal("REP INSB fills with ones", memory::all_bytes(page + 8, 20, 0xff), Ok(()));
        test.equal("REP INSB writes no more", (memory::read::<u8>(page + 7), memory::read::<u8>(page + 28)), (0, 0));
        // std; rep insb; cld
        let mut registers = Registers { rcx: 4, rdx: port.into(), rdi: page + 103, ..Default::default() };
        execute(test, "REP INSB downwards", &[0xfd, 0xf3, 0x6c, 0xfc], &mut registers);
        test.equal("REP INSB downwards", (registers.rcx, registers.rdi), (0, page + 99));
        test.equal("REP INSB downwards fills", memory::all_bytes(page + 100, 4, 0xff), Ok(()));
        // insb without a prefix
        let mut registers = Registers { rcx: 9, rdx: port.into(), rdi: page + 200, ..Default::default() };
        execute(test, "INSB", &[0x6c], &mut registers);
        test.equal("INSB", (registers.rcx, registers.rdi, memory::read::<u8>(page + 200)), (9, page + 201, 0xff));
        // rep insb of nothing
        let mut registers = Registers { rcx: 0, rdx: port.into(), rdi: page + 300, ..Default::default() };
        execute(test, "REP INSB of nothing", &[0xf3, 0x6c], &mut registers);
        test.equal("REP INSB of nothing", (registers.rdi, memory::read::<u8>(page + 300)), (page + 300, 0));
        // Into nothing: the fault names the address, and the count so far.
        let mut registers = Registers { rcx: 4, rdx: port.into(), rdi: 0x0000_6000_0000_0000, ..Default::default() };
        let result = rt::execute(&[0xf3, 0x6c], &mut registers);
        let good = matches!(result, Err(fault) if fault.vector == 14 && fault.cr2 == 0x0000_6000_0000_0000)
            && registers.rcx == 4;
        test.check("INSB to an unmapped page", good, format_args!("{port:#x}: {result:?} rcx {}", registers.rcx));
        if role() == Role::Guest {
            let mut registers = Registers { rcx: 5, rdx: port.into(), rsi: page, ..Default::default() };
            execute(test, "REP OUTSD", &[0xf3, 0x6f], &mut registers);
            test.equal("REP OUTSD", (registers.rcx, registers.rsi), (0, page + 20));
        }
    }

    fn every_port(test: &mut Test) {
        let mut owned = 0_u32;
        for port in 0..=u16::MAX {
            owned += u32::from(rt::input_8(port) != 0xff);
        }
        guests::println!("GUEST-INFO {owned} of 65536 ports answer something");
        test.check("nearly no port is owned", owned <= 64, owned);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
