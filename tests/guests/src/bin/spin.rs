//! Spins on all vCPUs without any exit of its own: others must get their share meanwhile. `seconds=N` says how long.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::shared::Shared;
    use guests::{Test, environment, println, smp};

    guests::guest!("spin", run);

    const DEFAULT_SECONDS: u64 = 5;

    static PAGE: AtomicU64 = AtomicU64::new(0);
    static END: AtomicU64 = AtomicU64::new(0);
    static TURNS: AtomicU64 = AtomicU64::new(0);

    fn spin(vcpu: u32) {
        let own = Shared { page: PAGE.load(SeqCst) }.vcpu(vcpu);
        while own.now() < END.load(SeqCst) {
            TURNS.fetch_add(1, SeqCst);
        }
    }

    fn run(test: &mut Test) {
        let shared = Shared::map();
        PAGE.store(shared.page, SeqCst);
        let seconds = environment::option("seconds").unwrap_or(DEFAULT_SECONDS);
        let begin = shared.vcpu(0).now();
        END.store(begin + seconds * 1_000_000_000, SeqCst);
        if environment::vcpus() > 1 {
            test.holds("vCPU 1 runs", smp::start_second(|| spin(1)));
        }
        println!("GUEST-INFO spinning for {seconds} s");
        spin(0);
        let took = shared.vcpu(0).now() - begin;
        println!("GUEST-INFO {} turns in {took} ns", TURNS.load(SeqCst));
        test.check("ended in time", took < (seconds + 60) * 1_000_000_000, took);
        test.holds("turned", TURNS.load(SeqCst) > 0);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
