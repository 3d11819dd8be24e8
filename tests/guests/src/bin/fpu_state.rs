//! x87, SSE and AVX registers survive exits, preemption and another vCPU's use of the same processor.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::{Test, call, clock, environment, println, smp};
    use rt::{Registers, memory};

    guests::guest!("fpu_state", run);

    /// MOVAPS XMM0, XMM0, then XRSTOR64 or XSAVE64 of [RBX], all states that XCR0 names. QEMU 10 does not raise #NM for the
    /// latter, so that a hypervisor that restores registers at their first use (Xen does) would not notice.
    const RESTORE: &[u8] = &[0x0f, 0x28, 0xc0, 0x48, 0x0f, 0xae, 0x2b];
    const SAVE: &[u8] = &[0x0f, 0x28, 0xc0, 0x48, 0x0f, 0xae, 0x23];
    /// FXRSTOR64 and FXSAVE64 for processors without XSAVE.
    const OLD_RESTORE: &[u8] = &[0x48, 0x0f, 0xae, 0x0b];
    const OLD_SAVE: &[u8] = &[0x48, 0x0f, 0xae, 0x03];
    const LEGACY_SIZE: u64 = 512;
    const AVX_OFFSET: u64 = 576;

    static ROUNDS_OF_SECOND: AtomicU64 = AtomicU64::new(0);
    static BAD_OF_SECOND: AtomicU64 = AtomicU64::new(0);
    static STOP: AtomicU64 = AtomicU64::new(0);

    fn has_xsave() -> bool {
        let [_, _, features, _] = rt::cpuid(1, 0);
        features >> 26 & 1 == 1
    }

    fn has_avx() -> bool {
        let [low, ..] = rt::cpuid(0xd, 0);
        has_xsave() && low & 4 != 0
    }

    /// Switches the states on for this processor.
    fn enable() {
        if has_xsave() {
            rt::set_cr4(rt::cr4() | 1 << 18);
            let states = if has_avx() { 7 } else { 3 };
            rt::execute(guests::code::XSETBV, &mut Registers { rax: states, ..Default::default() }).ok();
        }
    }

    fn run_on(code: [&[u8]; 2], area: u64) -> Result<(), rt::Fault> {
        let code = if has_xsave() { code[0] } else { code[1] };
        rt::execute(
            code,
            &mut Registers { rbx: area, rax: u64::from(u32::MAX), rdx: u64::from(u32::MAX), ..Default::default() },
        )
    }

    /// An image with `seed` in every register.
    fn image(area: u64, seed: u64) {
        (0..512).for_each(|word| memory::write(area + word * 8, 0_u64));
        memory::write(area, 0x037f_u16);
        memory::write(area + 24, 0x1f80_u32);
        // All x87 registers valid, top 0.
        memory::write(area + 4, 0xff_u8);
        for register in 0..8 {
            memory::write(area + 32 + register * 16, 0x8000_0000_0000_0000 | seed.wrapping_mul(register + 1));
            memory::write(area + 40 + register * 16, 0x4000_u16);
        }
        for register in 0..16 {
            memory::write(area + 160 + register * 16, seed.wrapping_mul(register + 11));
            memory::write(area + 168 + register * 16, seed.wrapping_mul(register + 31));
            if has_avx() {
                memory::write(area + AVX_OFFSET + register * 16, seed.wrapping_mul(register + 51));
                memory::write(area + AVX_OFFSET + 8 + register * 16, seed.wrapping_mul(register + 71));
            }
        }
        if has_xsave() {
            memory::write(area + LEGACY_SIZE, if has_avx() { 7_u64 } else { 3 });
        }
    }

    /// Whether registers and image are the same; `None` if saving faults.
    fn same(area: u64, into: u64) -> Option<bool> {
        run_on([SAVE, OLD_SAVE], into).ok()?;
        let sse_and_x87 =
            (32..416).step_by(8).all(|at| memory::read::<u64>(area + at) == memory::read::<u64>(into + at));
        let avx = !has_avx()
            || (0..256)
                .step_by(8)
                .all(|at| memory::read::<u64>(area + AVX_OFFSET + at) == memory::read::<u64>(into + AVX_OFFSET + at));
        Some(sse_and_x87 && avx && memory::read::<u32>(area + 24) == memory::read::<u32>(into + 24))
    }

    fn second() {
        enable();
        let (area, into) = (memory::take_pages(1), memory::take_pages(1));
        while STOP.load(SeqCst) == 0 {
            let round = ROUNDS_OF_SECOND.fetch_add(1, SeqCst);
            image(area, 0x2222_0000_0003 + round);
            let restored = run_on([RESTORE, OLD_RESTORE], area).is_ok();
            call::yield_cpu();
            clock::spin_within(3, || false);
            if !restored || same(area, into) != Some(true) {
                BAD_OF_SECOND.fetch_add(1, SeqCst);
            }
        }
    }

    fn run(test: &mut Test) {
        enable();
        println!("GUEST-INFO XSAVE {} AVX {}", has_xsave(), has_avx());
        if environment::vcpus() > 1 {
            test.holds("vCPU 1 runs", smp::start_second(second));
        }
        let (area, into) = (memory::take_pages(1), memory::take_pages(1));
        for round in 0..60 {
            image(area, 0x1111_0000_0001 + round);
            test.runs("restore", run_on([RESTORE, OLD_RESTORE], area));
            let mut version = 0;
            for _ in 0..10 {
                rt::cpuid(0, 0);
                call::yield_cpu();
                version = version.max(rt::apic::read(rt::apic::VERSION));
            }
            clock::spin_within(if round % 10 == 0 { 60 } else { 2 }, || false);
            test.holds("exits gave values", version != 0);
            test.equal("as loaded", same(area, into), Some(true));
        }
        if environment::vcpus() > 1 {
            STOP.store(1, SeqCst);
            test.holds("vCPU 1 ends", clock::within(10_000, || rt::progress(1) == 2));
            println!("GUEST-INFO vCPU 1 made {} rounds", ROUNDS_OF_SECOND.load(SeqCst));
            test.holds("vCPU 1 made rounds", ROUNDS_OF_SECOND.load(SeqCst) > 0);
            test.equal("vCPU 1 found its registers", BAD_OF_SECOND.load(SeqCst), 0);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
