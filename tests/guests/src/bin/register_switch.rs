//! Registers that the hypervisor exchanges when another vCPU takes the CPU: each vCPU finds its own values again.
//!
//! Two vCPUs load different values into everything that is theirs (system-call and segment MSRs, TSC_AUX, PAT, MTRRs, debug
//! registers, CR2, CR8, XCR0, PKRU) and give way to each other. On one CPU what is not exchanged shows as the other's
//! value; x87, SSE and AVX registers are `fpu_state`'s.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::code::{GET_CR8, SET_CR8, XGETBV, XSETBV};
    use guests::{Test, call, clock, environment, println, smp};
    use rt::{Registers, msr};

    guests::guest!("register_switch", run);

    const TSC_AUX: u32 = 0xc000_0103;
    /// STAR, LSTAR, CSTAR, SFMASK, FS base, kernel GS base, SYSENTER's three, a variable MTRR's base. GS is in use.
    const MSRS: [u32; 10] =
        [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0102, 0x174, 0x175, 0x176, 0x200];
    const PAT: u32 = 0x277;
    /// MOV CR2, RAX; MOV RAX, CR2
    const SET_CR2: &[u8] = &[0x0f, 0x22, 0xd0];
    const GET_CR2: &[u8] = &[0x0f, 0x20, 0xd0];
    /// RDTSCP; RDPKRU; WRPKRU
    const RDTSCP: &[u8] = &[0x0f, 0x01, 0xf9];
    const RDPKRU: &[u8] = &[0x0f, 0x01, 0xee];
    const WRPKRU: &[u8] = &[0x0f, 0x01, 0xef];
    const DR6_FIXED: u64 = 0xffff_0ff0;

    /// What differed, as a place in [`NAMES`], and what was found; by vCPU. 0 while all is well.
    static DIFFERED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    static FOUND: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    static ROUNDS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    static STOP: AtomicU64 = AtomicU64::new(0);

    const WORDS: usize = 21;
    const NAMES: [&str; WORDS] = [
        "STAR",
        "LSTAR",
        "CSTAR",
        "SFMASK",
        "FS base",
        "kernel GS base",
        "SYSENTER_CS",
        "SYSENTER_ESP",
        "SYSENTER_EIP",
        "MTRR",
        "PAT",
        "TSC_AUX",
        "TSC_AUX by RDTSCP",
        "DR0",
        "DR1",
        "DR2",
        "DR3",
        "DR6",
        "CR2",
        "CR8",
        "XCR0 and PKRU",
    ];

    fn has(leaf: u32, register: usize, bit: u32) -> bool {
        rt::cpuid(leaf, 0).get(register).is_some_and(|value| value >> bit & 1 == 1)
    }

    fn has_tsc_aux() -> bool {
        has(0x8000_0001, 3, 27)
    }

    /// Xen leaves the PAT to the processor, and QEMU 10 does not store it when it leaves a guest: what was written is lost.
    fn has_pat() -> bool {
        environment::is_oxen()
    }

    fn has_keys() -> bool {
        has(7, 2, 3)
    }

    fn execute(code: &[u8], rax: u64) -> Registers {
        let mut registers = Registers { rax, ..Default::default() };
        rt::execute(code, &mut registers).ok();
        registers
    }

    /// Switches on what has to be, for this processor.
    fn enable() {
        if has(1, 2, 26) {
            rt::set_cr4(rt::cr4() | 1 << 18);
        }
        if has_keys() {
            rt::set_cr4(rt::cr4() | 1 << 22);
        }
    }

    /// Values for a vCPU in a round, all different, each legal in its place.
    fn values(vcpu: u64, round: u64) -> [u64; WORDS] {
        let seed = (round * 2 + vcpu + 1) & 0xfff;
        let linear = seed << 20 | seed << 4;
        let memory_type = match (has_pat(), vcpu) {
            (false, _) => 0,
            (true, 0) => 0x0007_0406_0007_0406,
            (true, _) => 0x0007_0106_0007_0106,
        };
        let aux = if has_tsc_aux() { seed << 16 | vcpu } else { 0 };
        // x87 always; SSE and AVX for one of the two.
        let states = if vcpu == 0 || !has(1, 2, 28) { 3 } else { 7 };
        let keys = if has_keys() { seed << 3 } else { 0 };
        [
            seed << 48 | 0x0010_0008_0000_0000,
            linear,
            linear | 1,
            seed & 0x3f,
            linear | 2,
            linear | 3,
            seed,
            linear | 4,
            linear | 5,
            seed << 12 | 6,
            memory_type,
            aux,
            aux,
            linear | 6,
            linear | 7,
            linear | 8,
            linear | 9,
            DR6_FIXED | seed & 0xf,
            linear | 10,
            1 + seed % 7,
            states << 32 | keys,
        ]
    }

    fn load(words: &[u64; WORDS]) {
        let [
            star,
            lstar,
            cstar,
            mask,
            fs,
            gs,
            cs,
            esp,
            eip,
            mtrr,
            pat,
            aux,
            _,
            dr0,
            dr1,
            dr2,
            dr3,
            dr6,
            cr2,
            cr8,
            last,
        ] = *words;
        for (index, value) in MSRS.into_iter().zip([star, lstar, cstar, mask, fs, gs, cs, esp, eip, mtrr]) {
            msr::write(index, value);
        }
        if has_pat() {
            msr::write(PAT, pat);
        }
        if has_tsc_aux() {
            msr::write(TSC_AUX, aux);
        }
        rt::set_dr0(dr0);
        rt::set_dr1(dr1);
        rt::set_dr2(dr2);
        rt::set_dr3(dr3);
        rt::set_dr6(dr6);
        execute(SET_CR2, cr2);
        execute(SET_CR8, cr8);
        execute(XSETBV, last >> 32);
        if has_keys() {
            execute(WRPKRU, last & 0xffff_ffff);
        }
    }

    fn read() -> [u64; WORDS] {
        let [star, lstar, cstar, mask, fs, gs, cs, esp, eip, mtrr] = MSRS.map(msr::read);
        let (aux, by_rdtscp) =
            if has_tsc_aux() { (msr::read(TSC_AUX), execute(RDTSCP, 0).rcx & 0xffff_ffff) } else { (0, 0) };
        let keys = if has_keys() { execute(RDPKRU, 0).rax & 0xffff_ffff } else { 0 };
        let states = execute(XGETBV, 0).rax & 0xffff_ffff;
        let (dr0, dr1, dr2, dr3, dr6) = (rt::dr0(), rt::dr1(), rt::dr2(), rt::dr3(), rt::dr6());
        let (cr2, cr8, pat) =
            (execute(GET_CR2, 0).rax, execute(GET_CR8, 0).rax, if has_pat() { msr::read(PAT) } else { 0 });
        [
            star,
            lstar,
            cstar,
            mask,
            fs,
            gs,
            cs,
            esp,
            eip,
            mtrr,
            pat,
            aux,
            by_rdtscp,
            dr0,
            dr1,
            dr2,
            dr3,
            dr6,
            cr2,
            cr8,
            states << 32 | keys,
        ]
    }

    /// One round: load, give way in several ways, look.
    fn round(vcpu: usize, number: u64) {
        let words = values(vcpu as u64, number);
        load(&words);
        for _ in 0..4 {
            call::yield_cpu();
        }
        rt::cpuid(0, 0);
        // Longer than a time slice now and then, so that the other one comes by preemption.
        clock::spin_within(if number.is_multiple_of(8) { 25 } else { 1 }, || false);
        let wrong = read().into_iter().zip(words).enumerate().find(|(_, (found, wanted))| found != wanted);
        if let Some((place, (found, _))) = wrong {
            let first = DIFFERED.get(vcpu).map(|slot| slot.compare_exchange(0, place as u64 + 1, SeqCst, SeqCst));
            if let (Some(Ok(_)), Some(slot)) = (first, FOUND.get(vcpu)) {
                slot.store(found, SeqCst);
            }
        }
        if let Some(slot) = ROUNDS.get(vcpu) {
            slot.fetch_add(1, SeqCst);
        }
    }

    fn second() {
        enable();
        let mut number = 0;
        while STOP.load(SeqCst) == 0 {
            round(1, number);
            number += 1;
        }
        rt::set_dr7(0x400);
    }

    fn run(test: &mut Test) {
        enable();
        println!("GUEST-INFO TSC_AUX {}, AVX {}, protection keys {}", has_tsc_aux(), has(1, 2, 28), has_keys());
        let two = environment::vcpus() > 1;
        if two {
            test.holds("vCPU 1 runs", smp::start_second(second));
        }
        for number in 0..60 {
            round(0, number);
        }
        if two {
            let made_rounds = || ROUNDS.iter().all(|rounds| rounds.load(SeqCst) >= 20);
            test.holds("vCPU 1 makes rounds, too", clock::within(30_000, made_rounds));
            STOP.store(1, SeqCst);
            test.holds("vCPU 1 ends", clock::within(30_000, || rt::progress(1) == 2));
        }
        for (vcpu, (place, found)) in DIFFERED.iter().zip(&FOUND).enumerate() {
            let place = place.load(SeqCst) as usize;
            let name = NAMES.get(place.wrapping_sub(1)).copied().unwrap_or("nothing");
            test.check("own values", place == 0, format_args!("vCPU {vcpu}: {name} is {:#x}", found.load(SeqCst)));
        }
        println!("GUEST-INFO rounds: {:?}", ROUNDS.each_ref().map(|rounds| rounds.load(SeqCst)));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
