//! Exits of one vCPU while another does nothing but load its floating-point registers, then the other way round.
//!
//! Processors do both without a thought. QEMU 10 as it is built clears a flag of its first processor at each FXRSTOR or XRSTOR
//! of any processor, without a lock: an update of that processor's own flags gets lost now and then, among them the one that
//! ends nested paging at #VMEXIT. The hypervisor's next instruction is then fetched as the guest's, and the control block gets
//! the hypervisor's state. `cargo xtask` runs a copy of QEMU with this corrected (README.md).

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::{Test, clock, environment, println, smp};
    use rt::{Registers, memory};

    guests::guest!("restore_storm", run);

    /// FXRSTOR64 [RBX]; DEC RCX; JNZ back to the first
    const RESTORE: &[u8] = &[0x48, 0x0f, 0xae, 0x0b, 0x48, 0xff, 0xc9, 0x75, 0xf7];
    const AT_ONCE: u64 = 10_000;
    const EXITS: u64 = 50_000;
    /// Initial values of the x87 control word and of MXCSR.
    const CONTROL_WORD: u16 = 0x037f;
    const MXCSR: u32 = 0x1f80;

    /// How many vCPUs have come to their exits.
    static TURNS: AtomicU64 = AtomicU64::new(0);
    static EXITS_DONE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    static RESTORES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    static FAULTS: AtomicU64 = AtomicU64::new(0);

    fn restores(vcpu: usize, area: u64) {
        if rt::execute(RESTORE, &mut Registers { rbx: area, rcx: AT_ONCE, ..Default::default() }).is_err() {
            FAULTS.fetch_add(1, SeqCst);
        }
        RESTORES[vcpu].fetch_add(AT_ONCE, SeqCst);
    }

    /// Both parts of a vCPU; `turn` says when its exits come: before the other's or after them.
    fn both(vcpu: usize, turn: u64) {
        let area = memory::take_pages(1);
        memory::write(area, CONTROL_WORD);
        memory::write(area + 24, MXCSR);
        while TURNS.load(SeqCst) < turn {
            restores(vcpu, area);
        }
        for _ in 0..EXITS {
            rt::cpuid(0, 0);
            EXITS_DONE[vcpu].fetch_add(1, SeqCst);
        }
        TURNS.fetch_add(1, SeqCst);
        while TURNS.load(SeqCst) < u64::from(environment::vcpus().min(2)) {
            restores(vcpu, area);
        }
    }

    fn second() {
        both(1, 1);
    }

    fn run(test: &mut Test) {
        let two = environment::vcpus() > 1;
        if two {
            test.holds("vCPU 1 runs", smp::start_second(second));
        }
        both(0, 0);
        if two {
            test.holds("vCPU 1 ends", clock::within(60_000, || rt::progress(1) == 2));
            test.equal("exits of vCPU 1", EXITS_DONE[1].load(SeqCst), EXITS);
        }
        test.equal("exits of vCPU 0", EXITS_DONE[0].load(SeqCst), EXITS);
        for (vcpu, loads) in RESTORES.iter().enumerate().take(if two { 2 } else { 0 }) {
            test.check("registers were loaded", loads.load(SeqCst) > 0, format_args!("vCPU {vcpu}: never"));
        }
        test.equal("faults", FAULTS.load(SeqCst), 0);
        println!("GUEST-INFO registers loaded {:?} times", RESTORES.each_ref().map(|loads| loads.load(SeqCst)));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
