//! The local APIC in memory: every register read and written in every width, reserved ones, the error register.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, println};
    use rt::apic::APIC_MEMORY;
    use rt::{apic, memory};

    guests::guest!("lapic_mmio", run);

    fn read(register: u32) -> u32 {
        memory::read(APIC_MEMORY + u64::from(register))
    }

    fn write(register: u32, value: u32) {
        memory::write(APIC_MEMORY + u64::from(register), value);
    }

    fn run(test: &mut Test) {
        at_the_start(test);
        round_trips(test);
        every_register(test);
        widths(test);
        instructions(test);
        self_interrupt(test);
        disabled(test);
    }

    fn at_the_start(test: &mut Test) {
        test.equal("identifier", read(apic::ID), 0);
        let version = read(apic::VERSION);
        println!("GUEST-INFO version {version:#x}");
        test.check(
            "version",
            (0x10..=0x1f).contains(&(version & 0xff)) && version >> 16 & 0xff >= 4,
            format_args!("{version:#x}"),
        );
        test.equal("TPR", read(apic::TPR), 0);
        test.equal("spurious: disabled", read(apic::SPURIOUS), 0xff);
        test.equal("DFR: flat", read(apic::DFR), u32::MAX);
        test.equal("LDR", read(apic::LDR), 0);
        for entry in [0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
            test.check(
                "entries masked at the start",
                read(entry) & apic::LVT_MASKED != 0,
                format_args!("{entry:#x} {:#x}", read(entry)),
            );
        }
    }

    fn round_trips(test: &mut Test) {
        // While the APIC is disabled by software, entries stay masked.
        write(apic::LVT_TIMER, 0x40);
        test.equal("masked while disabled", read(apic::LVT_TIMER), 0x40 | apic::LVT_MASKED);
        apic::enable();
        test.equal("enabled", read(apic::SPURIOUS), 0x1ff);
        let list: [(u32, u32, u32); 9] = [
            (apic::TPR, 0xffff_ff7f, 0x7f),
            (apic::LDR, 0xff12_3456, 0xff00_0000),
            (apic::DFR, 0x0000_0000, 0x0fff_ffff),
            (apic::DFR, 0xf000_0000, 0xffff_ffff),
            (apic::LVT_TIMER, 0x3_00ff, 0x3_00ff),
            (apic::LVT_ERROR, 0x1_00fe, 0x1_00fe),
            (0x350, 0x1_a7ff, 0x1_a7ff),
            (apic::TIMER_DIVIDE, 0xffff_ffff, 0xb),
            (apic::ICR_HIGH, 0xff12_3456, 0xff00_0000),
        ];
        for (register, value, want) in list {
            write(register, value);
            let got = read(register);
            test.check(
                "keeps the bits it has",
                got == want,
                format_args!("{register:#x}: {value:#x} reads {got:#x}, want {want:#x}"),
            );
        }
        write(apic::TPR, 0);
        write(apic::LVT_TIMER, apic::LVT_MASKED);
        for register in [apic::VERSION, apic::PPR, 0xc0, apic::ISR, apic::IRR, apic::TMR, apic::TIMER_CURRENT] {
            let before = read(register);
            write(register, !before);
            test.check("read-only", read(register) == before, format_args!("{register:#x}: {:#x}", read(register)));
        }
    }

    fn every_register(test: &mut Test) {
        let mut odd = 0;
        for register in (0..0x1000_u32).step_by(16) {
            let got = memory::Word::try_read(APIC_MEMORY + u64::from(register)).map(|value: u32| value);
            if let Some(value) = test.runs("aligned read", got) {
                odd += u32::from(value != 0);
            }
            // Writes to everything that has no effect of its own.
            if !matches!(register, 0xb0 | 0xf0 | 0x80 | 0x300 | 0x310 | 0x320..=0x380 | 0xd0 | 0xe0 | 0x20) {
                test.runs("aligned write", memory::Word::try_write(APIC_MEMORY + u64::from(register), 0_u32));
            }
        }
        println!("GUEST-INFO {odd} registers read as something");
        test.equal("still enabled", read(apic::SPURIOUS), 0x1ff);
        write(apic::ESR, 0);
        println!("GUEST-INFO error status {:#x}", read(apic::ESR));
    }

    fn widths(test: &mut Test) {
        write(apic::TPR, 0x20);
        let base = APIC_MEMORY + u64::from(apic::TPR);
        println!(
            "GUEST-INFO TPR by 1, 2, 4, 8 bytes: {:x?} {:x?} {:x?} {:x?}",
            <u8 as memory::Word>::try_read(base),
            <u16 as memory::Word>::try_read(base),
            <u32 as memory::Word>::try_read(base),
            <u64 as memory::Word>::try_read(base)
        );
        println!(
            "GUEST-INFO between registers: {:#x} {:#x}",
            memory::read::<u32>(base + 4),
            memory::read::<u32>(base + 2)
        );
        test.equal("by one byte", memory::read::<u8>(base), 0x20);
        memory::write(base, 0x30_u8);
        println!("GUEST-INFO TPR after a byte write {:#x}", read(apic::TPR));
        memory::write(base, 0x40_u64);
        println!("GUEST-INFO TPR after an 8-byte write {:#x}", read(apic::TPR));
        write(apic::TPR, 0);
        test.equal("a plain write still works", read(apic::TPR), 0);
    }

    /// Reads and writes by instructions that kernels use besides a plain MOV.
    fn instructions(test: &mut Test) {
        let base = APIC_MEMORY + u64::from(apic::TPR);
        let mut run = |name: &'static str, code: &[u8], rax: u64, want: u32| {
            let mut registers = rt::Registers { rax, rbx: base, rcx: 1, rsi: base, rdi: base, ..Default::default() };
            test.runs(name, rt::execute(code, &mut registers));
            let got = read(apic::TPR);
            test.check(name, got == want, format_args!("{got:#x}, want {want:#x}"));
            registers.rax
        };
        // mov [rbx], eax; mov dword [rbx], 0x10; xchg [rbx], eax; or dword [rbx], 0x20; and dword [rbx], 0x20; stosd
        run("MOV from a register", &[0x89, 0x03], 0x50, 0x50);
        run("MOV from a constant", &[0xc7, 0x03, 0x10, 0, 0, 0], 0, 0x10);
        let old = run("XCHG", &[0x87, 0x03], 0x30, 0x30);
        run("OR", &[0x83, 0x0b, 0x40], 0, 0x70);
        run("AND", &[0x83, 0x23, 0x20], 0, 0x20);
        run("ADD", &[0x83, 0x03, 0x10], 0, 0x30);
        run("STOSD", &[0xab], 0x60, 0x60);
        let loaded = run("MOV to a register", &[0x8b, 0x03], 0, 0x60);
        // test dword [rbx], 0x20; setnz al; movzx eax, al
        let bit = run("TEST", &[0xf7, 0x03, 0x20, 0, 0, 0, 0x0f, 0x95, 0xc0, 0x0f, 0xb6, 0xc0], 0, 0x60);
        let signed = run("MOVSXD", &[0x48, 0x63, 0x03], 0, 0x60);
        let byte = run("MOVZX", &[0x0f, 0xb6, 0x03], u64::MAX, 0x60);
        test.equal("values read", [old as u32 as u64, loaded, bit, signed, byte], [0x10, 0x60, 1, 0x60, 0x60]);
        write(apic::TPR, 0);
    }

    fn self_interrupt(test: &mut Test) {
        let vector = 0x45_u8;
        apic::send(0, u32::from(vector) | apic::ASSERT | apic::SHORTHAND_SELF);
        test.holds("requested", apic::requested(vector));
        test.equal("delivery status idle", read(apic::ICR) & 1 << 12, 0);
        rt::enable_interrupts();
        test.holds("delivered", guests::clock::within(1000, || rt::trap::interrupts(0, vector) == 1));
        rt::disable_interrupts();
        test.holds("no longer requested", !apic::requested(vector));
        test.equal("was in service", rt::trap::interrupts_in_service(0, vector), 1);
        // A vector below 16 is an error, not an interrupt.
        write(apic::ESR, 0);
        apic::send(0, 5 | apic::ASSERT | apic::SHORTHAND_SELF);
        write(apic::ESR, 0);
        println!("GUEST-INFO error status after sending vector 5: {:#x}", read(apic::ESR));
        write(apic::ESR, 0);
    }

    /// Disabled in its base register, the APIC is not there.
    fn disabled(test: &mut Test) {
        let base = rt::msr::read(0x1b);
        test.runs("disable", rt::msr::try_write(0x1b, base & !(1 << 11)));
        let [_, _, _, features] = rt::cpuid(1, 0);
        test.equal("CPUID follows", features >> 9 & 1, 0);
        println!("GUEST-INFO disabled: TPR reads {:#x}", read(apic::TPR));
        test.equal("disabled: memory reads all ones", read(apic::VERSION), u32::MAX);
        test.runs("enable again", rt::msr::try_write(0x1b, base));
        test.check("back", read(apic::VERSION) != u32::MAX, "no");
        test.equal("reset by that", read(apic::SPURIOUS), 0xff);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
