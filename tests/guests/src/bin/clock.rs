//! The PV clock: monotonic, in step with the TSC and with the hypervisor; the wall clock plausible.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::shared::{self, Shared};
    use guests::{Test, call, clock, environment, println, smp};
    use public_abi::Errno;
    use public_abi::hvm_op::{GetTime, HvmOp};
    use public_abi::hvm_params::{CallbackVia, HvmParam};

    guests::guest!("clock", run);

    fn by_call() -> u64 {
        let mut time = GetTime::default();
        call::hvm(HvmOp::GetTime, &mut time);
        time.now
    }

    fn run(test: &mut Test) {
        let shared = Shared::map();
        let vcpu = shared.vcpu(0);
        let Some(time) = vcpu.time() else {
            test.holds("clock stands still long enough to be read", false);
            return;
        };
        println!(
            "GUEST-INFO mul {:#x} shift {} flags {:#x} version {}",
            time.tsc_to_system_mul, time.tsc_shift, time.flags, time.version
        );
        let khz = tsc_khz(&time);
        test.check(
            "frequency as CPUID says",
            khz.abs_diff(clock::khz()) <= clock::khz() / 1000 + 2,
            format_args!("{khz} and {}", clock::khz()),
        );
        monotonic(test, shared);
        against_call(test, shared);
        wall_clock(test, shared);
        if environment::vcpus() > 1 {
            across(test, shared);
        }
        test.fails(
            "get_time with a bad address",
            rt::hypercall(34, [10, 0x0000_6000_0000_0000, 0, 0, 0]),
            Errno::EFAULT,
        );
    }

    fn tsc_khz(time: &public_abi::x86::VcpuTimeInfo) -> u64 {
        let base = (1_000_000_u128 << 32) / u128::from(time.tsc_to_system_mul.max(1));
        (if time.tsc_shift >= 0 { base >> time.tsc_shift } else { base << time.tsc_shift.unsigned_abs() }) as u64
    }

    fn monotonic(test: &mut Test, shared: Shared) {
        let mut last = 0;
        let mut backwards = 0;
        for step in 0..20_000_u32 {
            let now = shared.vcpu(0).now();
            backwards += u32::from(now < last);
            last = now;
            if step % 100 == 0 {
                call::yield_cpu();
            }
        }
        test.equal("never backwards", backwards, 0);
        let begin = (rt::timestamp(), shared.vcpu(0).now());
        clock::delay(50);
        let end = (rt::timestamp(), shared.vcpu(0).now());
        let by_tsc = u128::from(end.0 - begin.0) * 1_000_000 / u128::from(clock::khz());
        let by_clock = u128::from(end.1 - begin.1);
        test.check(
            "as fast as the TSC",
            by_tsc.abs_diff(by_clock) < by_tsc / 50 + 100_000,
            format_args!("{by_tsc} and {by_clock} ns"),
        );
    }

    fn against_call(test: &mut Test, shared: Shared) {
        for _ in 0..100 {
            let before = shared.vcpu(0).now();
            let middle = by_call();
            let after = shared.vcpu(0).now();
            let good = before.saturating_sub(50_000) <= middle && middle <= after + 50_000;
            test.check("the hypervisor's time lies between", good, format_args!("{before} {middle} {after}"));
        }
    }

    fn wall_clock(test: &mut Test, shared: Shared) {
        // Xen fills in a guest's wall clock when the guest sets its callback (or its hypercall page), not before.
        test.succeeds("callback", call::set_parameter(HvmParam::CallbackIrq, CallbackVia::Vector(0x60).to_value()));
        let (seconds, nanoseconds) = shared.wall_clock();
        println!("GUEST-INFO wall clock at system time 0: {seconds}.{nanoseconds:09}");
        // Between 2020 and 2100.
        test.check("a date of our age", (1_577_836_800..4_102_444_800).contains(&seconds), seconds);
        test.check("nanoseconds", nanoseconds < 1_000_000_000, nanoseconds);
    }

    static OTHER: AtomicU64 = AtomicU64::new(0);
    static ASKED: AtomicU64 = AtomicU64::new(0);
    static PAGE: AtomicU64 = AtomicU64::new(0);

    /// vCPU 1 reads its own clock whenever it is asked.
    fn read_own() {
        let vcpu = Shared { page: PAGE.load(SeqCst) }.vcpu(1);
        let mut answered = 0;
        while answered < 200 {
            let asked = ASKED.load(SeqCst);
            if asked > answered {
                OTHER.store(vcpu.now(), SeqCst);
                answered = asked;
            }
            rt::pause();
        }
    }

    fn across(test: &mut Test, shared: Shared) {
        PAGE.store(shared.page, SeqCst);
        test.holds("vCPU 1 runs", smp::start_second(read_own));
        let mut worst = 0;
        for round in 1..=200 {
            let before = shared.vcpu(0).now();
            OTHER.store(0, SeqCst);
            ASKED.store(round, SeqCst);
            let answered = clock::spin_within(5000, || OTHER.load(SeqCst) != 0);
            let after = shared.vcpu(0).now();
            let other = OTHER.load(SeqCst);
            let off = before.saturating_sub(other).max(other.saturating_sub(after));
            worst = off.max(worst);
            test.check("vCPU 1 answers", answered, round);
        }
        println!("GUEST-INFO clocks differ by {worst} ns at most");
        test.check("the clocks of both agree", worst < 1_000_000, worst);
        let _same = shared::nanoseconds;
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
