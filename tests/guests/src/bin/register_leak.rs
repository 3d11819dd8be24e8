//! A fresh vCPU finds nothing of others in its registers: x87, SSE, AVX, debug registers, MSRs, PKRU.
//!
//! The first vCPU is looked at as it starts. Then it fills its registers, and the second is looked at as it starts.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::{Test, clock, environment, println, smp};
    use rt::{Registers, memory, msr};

    guests::guest!("register_leak", run);

    const MSRS: [u32; 10] =
        [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0102, 0x174, 0x175, 0x176, 0x1d9];
    /// FXSAVE64 [RBX], FXRSTOR64 [RBX], XSAVE64 [RBX], XRSTOR64 [RBX]
    const FXSAVE: &[u8] = &[0x48, 0x0f, 0xae, 0x03];
    const XSAVE: &[u8] = &[0x48, 0x0f, 0xae, 0x23];
    const XRSTOR: &[u8] = &[0x48, 0x0f, 0xae, 0x2b];
    /// RDTSCP, RDPKRU
    const RDTSCP: &[u8] = &[0x0f, 0x01, 0xf9];
    const RDPKRU: &[u8] = &[0x0f, 0x01, 0xee];

    /// What a vCPU finds: each word is 0 if it is clean.
    const FINDINGS: usize = 8;
    const NAMES: [&str; FINDINGS] = [
        "MSRs",
        "TSC_AUX",
        "debug registers",
        "x87 and SSE registers",
        "x87 control",
        "MXCSR",
        "AVX registers",
        "PKRU",
    ];
    static FOUND: [AtomicU64; FINDINGS] = [const { AtomicU64::new(u64::MAX) }; FINDINGS];

    fn note(place: usize, value: u64) {
        if let Some(slot) = FOUND.get(place) {
            slot.store(value, SeqCst);
        }
    }

    fn supported(leaf: u32, register: usize, bit: u32) -> bool {
        rt::cpuid(leaf, 0).get(register).is_some_and(|value| value >> bit & 1 == 1)
    }

    /// Looks at this processor's registers. The area is a zeroed page.
    fn look(area: u64) {
        note(0, MSRS.iter().map(|index| msr::try_read(*index).unwrap_or(0)).fold(0, |all, value| all | value));
        note(1, tsc_aux());
        let debug = rt::dr0() | rt::dr1() | rt::dr2() | rt::dr3() | rt::dr6() ^ 0xffff_0ff0 | rt::dr7() ^ 0x400;
        note(2, debug);
        let mut registers = Registers { rbx: area, ..Default::default() };
        let saved = rt::execute(FXSAVE, &mut registers);
        let data = (32..416).step_by(8).map(|at| memory::read::<u64>(area + at)).fold(0, |all, value| all | value);
        note(3, if saved.is_ok() { data } else { u64::MAX });
        // After a reset 0x40, after INIT or FNINIT 0x37f; tag word empty.
        let control = memory::read::<u16>(area);
        note(4, if matches!(control, 0x40 | 0x37f) { 0 } else { control.into() });
        note(5, u64::from(memory::read::<u32>(area + 24) ^ 0x1f80));
        note(6, avx(area));
        note(7, pkru());
    }

    /// By RDMSR, which the hypervisor may answer, and by RDTSCP, which the processor answers.
    fn tsc_aux() -> u64 {
        if !supported(0x8000_0001, 3, 27) {
            return 0;
        }
        let mut registers = Registers::default();
        let by_rdtscp = rt::execute(RDTSCP, &mut registers).map_or(u64::MAX, |()| registers.rcx & 0xffff_ffff);
        by_rdtscp | msr::try_read(0xc000_0103).unwrap_or(0)
    }

    fn avx(area: u64) -> u64 {
        let [states, ..] = rt::cpuid(0xd, 0);
        if !supported(1, 2, 26) || states & 4 == 0 {
            return 0;
        }
        rt::set_cr4(rt::cr4() | 1 << 18);
        rt::execute(guests::code::XSETBV, &mut Registers { rax: 7, ..Default::default() }).ok();
        let mut registers = Registers { rax: 7, rbx: area, ..Default::default() };
        match rt::execute(XSAVE, &mut registers) {
            Ok(()) => (576..832).step_by(8).map(|at| memory::read::<u64>(area + at)).fold(0, |all, value| all | value),
            Err(_) => u64::MAX,
        }
    }

    fn pkru() -> u64 {
        if !supported(7, 2, 3) {
            return 0;
        }
        rt::set_cr4(rt::cr4() | 1 << 22);
        let mut registers = Registers::default();
        let value = match rt::execute(RDPKRU, &mut registers) {
            Ok(()) => registers.rax,
            Err(_) => u64::MAX,
        };
        rt::set_cr4(rt::cr4() & !(1 << 22));
        value
    }

    /// Fills this processor's registers with things to find.
    fn fill(area: u64) {
        for index in MSRS {
            if index != 0x1d9 {
                msr::try_write(index, 0x1234_5000).ok();
            }
        }
        msr::try_write(0xc000_0103, 0x77).ok();
        rt::set_dr0(0x1111);
        rt::set_dr1(0x2222);
        rt::set_dr2(0x3333);
        rt::set_dr3(0x4444);
        (0..512).for_each(|word| memory::write(area + word * 8, 0x4242_4242_4242_4242_u64));
        memory::write(area, 0x027f_u16);
        memory::write(area + 24, 0x1fa0_u32);
        (512..576).step_by(8).for_each(|at| memory::write(area + at, 0_u64));
        memory::write(area + 512, 7_u64);
        rt::execute(XRSTOR, &mut Registers { rax: 7, rbx: area, ..Default::default() }).ok();
    }

    fn second() {
        look(memory::take_pages(1));
    }

    fn judge(test: &mut Test, who: &'static str) {
        for (name, found) in NAMES.iter().zip(&FOUND) {
            let value = found.load(SeqCst);
            test.check(who, value == 0, format_args!("{name}: {value:#x}"));
        }
    }

    fn run(test: &mut Test) {
        look(memory::take_pages(1));
        judge(test, "first vCPU");
        fill(memory::take_pages(1));
        if environment::vcpus() < 2 {
            println!("GUEST-INFO one vCPU");
            return;
        }
        for slot in &FOUND {
            slot.store(u64::MAX, SeqCst);
        }
        test.holds("vCPU 1 starts", smp::start_second(second));
        test.holds("vCPU 1 looks", clock::within(10_000, || rt::progress(1) == 2));
        judge(test, "second vCPU");
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
