//! Physical addresses that nobody owns: all ones by every width and instruction, writes go nowhere, code there faults.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, environment, println};
    use rt::Registers;
    use rt::memory::{self, Word};
    use rt::paging::{self, PRESENT, UNCACHED, WRITABLE};

    guests::guest!("mmio_holes", run);

    /// Where the hole is mapped for the tests.
    const WINDOW: u64 = 0x0000_0400_0000_0000;
    const FILL: u64 = 0x1122_3344_5566_7788;

    fn run(test: &mut Test) {
        let hole = environment::hole();
        paging::map(WINDOW, hole, PRESENT | WRITABLE | UNCACHED);
        paging::map(WINDOW + 0x1000, hole + 0x1000, PRESENT | WRITABLE | UNCACHED);
        widths(test);
        loads(test);
        stores(test);
        read_modify_write(test);
        strings(test);
        test.equal("still all ones", memory::read::<u64>(WINDOW), u64::MAX);
        println!("GUEST-INFO hole at {hole:#x} done");
        if environment::has_own_frames_only() {
            hardware(test);
        }
    }

    /// Device memory of the machine at which no device is: the bus answers, whatever it says. What processors say to each
    /// other at the top of the address space is no device's.
    fn hardware(test: &mut Test) {
        paging::map(WINDOW, 0xfd00_0000, PRESENT | WRITABLE | UNCACHED);
        let value = test.runs("device memory is read", u64::try_read(WINDOW));
        test.runs("and written", u64::try_write(WINDOW, 0));
        println!("GUEST-INFO where no device is, the bus says {value:x?}");
        let bits = rt::cpuid(0x8000_0008, 0)[0] & 0xff;
        let messages = (1_u64 << bits) - (12 << 30);
        paging::map(WINDOW, messages, PRESENT | WRITABLE | UNCACHED);
        test.equal("processors' messages are hidden", u64::try_read(WINDOW), Ok(u64::MAX));
    }

    fn widths(test: &mut Test) {
        for offset in [0, 1, 3, 7, 0x100, 0xff8] {
            let at = WINDOW + offset;
            test.equal("1 byte", u8::try_read(at), Ok(u8::MAX));
            test.equal("2 bytes", u16::try_read(at), Ok(u16::MAX));
            test.equal("4 bytes", u32::try_read(at), Ok(u32::MAX));
            test.equal("8 bytes", u64::try_read(at), Ok(u64::MAX));
            test.runs("1 byte written", u8::try_write(at, 0));
            test.runs("2 bytes written", u16::try_write(at, 0));
            test.runs("4 bytes written", u32::try_write(at, 0));
            test.runs("8 bytes written", u64::try_write(at, 0));
        }
        test.equal("across a page end", u64::try_read(WINDOW + 0xffc), Ok(u64::MAX));
    }

    fn execute(test: &mut Test, name: &'static str, code: &[u8], registers: &mut Registers) -> bool {
        let result = rt::execute(code, registers);
        let good = result.is_ok();
        test.check(name, good, format_args!("{result:?}"));
        good
    }

    /// An instruction that loads from [RBX] and what RAX and CF, ZF must be afterwards.
    fn loads(test: &mut Test) {
        let list: [(&'static str, &[u8], u64); 12] = [
            ("MOV r8", &[0x8a, 0x03], FILL | 0xff),
            ("MOV r16", &[0x66, 0x8b, 0x03], FILL | 0xffff),
            ("MOV r32", &[0x8b, 0x03], 0xffff_ffff),
            ("MOV r64", &[0x48, 0x8b, 0x03], u64::MAX),
            ("MOVZX r32, m8", &[0x0f, 0xb6, 0x03], 0xff),
            ("MOVZX r64, m16", &[0x48, 0x0f, 0xb7, 0x03], 0xffff),
            ("MOVSX r32, m8", &[0x0f, 0xbe, 0x03], 0xffff_ffff),
            ("MOVSXD", &[0x48, 0x63, 0x03], u64::MAX),
            ("AND r32, m32", &[0x23, 0x03], FILL & 0xffff_ffff),
            ("OR r64, m64", &[0x48, 0x0b, 0x03], u64::MAX),
            ("ADD r32, m32", &[0x03, 0x03], (FILL & 0xffff_ffff) - 1),
            ("MOV with SIB and displacement", &[0x48, 0x8b, 0x84, 0x8b, 0x10, 0, 0, 0], u64::MAX),
        ];
        for (name, code, want) in list {
            let mut registers = Registers { rax: FILL, rbx: WINDOW, rcx: 2, ..Default::default() };
            if execute(test, name, code, &mut registers) {
                test.equal(name, registers.rax, want);
            }
        }
        // Flags of comparisons: CMP [RBX], EAX; TEST [RBX], EAX; BT dword [RBX], 5
        for (name, code, rax, mask, want) in [
            ("CMP equal", &[0x39, 0x03][..], u64::MAX, 0x40, 0x40),
            ("CMP greater", &[0x39, 0x03], 1, 0x41, 0),
            ("TEST", &[0x85, 0x03], 8, 0x40, 0),
            ("BT", &[0x0f, 0xba, 0x23, 5], 0, 1, 1),
        ] {
            let mut registers = Registers { rax, rbx: WINDOW, ..Default::default() };
            if execute(test, name, code, &mut registers) {
                test.equal(name, registers.rflags & mask, want);
            }
        }
    }

    fn stores(test: &mut Test) {
        let list: [(&'static str, &[u8]); 8] = [
            ("MOV m8", &[0x88, 0x03]),
            ("MOV m16", &[0x66, 0x89, 0x03]),
            ("MOV m32", &[0x89, 0x03]),
            ("MOV m64", &[0x48, 0x89, 0x03]),
            ("MOV m8, constant", &[0xc6, 0x03, 0x12]),
            ("MOV m16, constant", &[0x66, 0xc7, 0x03, 0x34, 0x12]),
            ("MOV m64, constant", &[0x48, 0xc7, 0x03, 0x78, 0x56, 0x34, 0x12]),
            ("MOVNTI", &[0x0f, 0xc3, 0x03]),
        ];
        for (name, code) in list {
            let mut registers = Registers { rax: FILL, rbx: WINDOW, ..Default::default() };
            execute(test, name, code, &mut registers);
            test.equal(name, registers.rax, FILL);
            test.equal("write without effect", memory::read::<u64>(WINDOW), u64::MAX);
        }
    }

    /// Instructions that read and write at once; the value read is all ones.
    fn read_modify_write(test: &mut Test) {
        let list: [(&'static str, &[u8], u64); 9] = [
            ("XCHG m32", &[0x87, 0x03], 0xffff_ffff),
            ("XCHG m8", &[0x86, 0x03], FILL | 0xff),
            ("LOCK XADD", &[0xf0, 0x0f, 0xc1, 0x03], 0xffff_ffff),
            ("CMPXCHG, different", &[0xf0, 0x0f, 0xb1, 0x0b], 0xffff_ffff),
            ("LOCK OR", &[0xf0, 0x09, 0x03], FILL),
            ("LOCK AND", &[0xf0, 0x21, 0x03], FILL),
            ("INC", &[0xff, 0x03], FILL),
            ("NOT", &[0xf7, 0x13], FILL),
            ("BTS", &[0x0f, 0xba, 0x2b, 3], FILL),
        ];
        for (name, code, want) in list {
            let mut registers = Registers { rax: FILL, rbx: WINDOW, rcx: 7, ..Default::default() };
            if execute(test, name, code, &mut registers) {
                test.equal(name, registers.rax, want);
            }
            test.equal("write without effect", memory::read::<u64>(WINDOW), u64::MAX);
        }
        let mut registers = Registers { rax: 0xffff_ffff, rbx: WINDOW, rcx: 7, ..Default::default() };
        if execute(test, "CMPXCHG, equal", &[0xf0, 0x0f, 0xb1, 0x0b], &mut registers) {
            test.equal("CMPXCHG, equal: ZF", registers.rflags & 0x40, 0x40);
        }
    }

    fn strings(test: &mut Test) {
        let page = memory::take_pages(2);
        // rep movsb, movsd, movsq out of the hole; the destination fills with ones.
        for (name, code, size) in [
            ("REP MOVSB", &[0xf3, 0xa4][..], 1_u64),
            ("REP MOVSD", &[0xf3, 0xa5], 4),
            ("REP MOVSQ", &[0xf3, 0x48, 0xa5], 8),
        ] {
            (0..600).for_each(|word| memory::write(page + word * 8, 0_u64));
            let count = 100;
            let mut registers = Registers { rcx: count, rsi: WINDOW, rdi: page + 16, ..Default::default() };
            if execute(test, name, code, &mut registers) {
                let want = (0, WINDOW + count * size, page + 16 + count * size);
                test.equal(name, (registers.rcx, registers.rsi, registers.rdi), want);
                test.equal(name, memory::all_bytes(page + 16, count * size, 0xff), Ok(()));
                test.equal("no more than asked", memory::read::<u64>(page + 16 + count * size), 0);
            }
            // Into the hole, across its page end.
            let mut registers = Registers { rcx: count, rsi: page, rdi: WINDOW + 0x1000 - 40, ..Default::default() };
            if execute(test, name, code, &mut registers) {
                test.equal(
                    name,
                    (registers.rcx, registers.rsi, registers.rdi),
                    (0, page + count * size, WINDOW + 0x1000 - 40 + count * size),
                );
            }
        }
        let mut registers = Registers { rax: FILL, rcx: 64, rdi: WINDOW, ..Default::default() };
        if execute(test, "REP STOSQ", &[0xf3, 0x48, 0xab], &mut registers) {
            test.equal("REP STOSQ", (registers.rcx, registers.rdi), (0, WINDOW + 512));
        }
        let mut registers = Registers { rax: 0, rcx: 64, rsi: WINDOW, ..Default::default() };
        if execute(test, "LODSQ", &[0x48, 0xad], &mut registers) {
            test.equal("LODSQ", (registers.rax, registers.rsi), (u64::MAX, WINDOW + 8));
        }
        // rep movsb from the hole to an unmapped page: faults there with nothing copied.
        let mut registers = Registers { rcx: 8, rsi: WINDOW, rdi: 0x0000_6000_0000_0000, ..Default::default() };
        let result = rt::execute(&[0xf3, 0xa4], &mut registers);
        let good = matches!(result, Err(fault) if fault.vector == 14 && fault.cr2 == 0x0000_6000_0000_0000);
        test.check(
            "MOVS to an unmapped page",
            good && registers.rcx == 8,
            format_args!("{result:?} rcx {}", registers.rcx),
        );
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
