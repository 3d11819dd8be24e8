//! Timers: single shot and periodic, deadlines in the past, other vCPUs' timers, set_timer_op.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::Ordering::SeqCst;
    use guests::shared::Shared;
    use guests::{Test, call, check, clock, event, println};
    use public_abi::vcpu::{SetPeriodicTimer, SetSingleshotTimer, VCPU_SSHOTTMR_FUTURE, VcpuOp};
    use public_abi::virq::Virq;
    use public_abi::{Errno, Hypercall};

    guests::guest!("timer", run);

    const MILLISECOND: u64 = 1_000_000;

    fn run(test: &mut Test) {
        let shared = Shared::map();
        let Ok(port) = event::virq(Virq::Timer, 0) else {
            test.holds("VIRQ_TIMER", false);
            return;
        };
        test.succeeds("stop_periodic_timer", call::vcpu_plain(VcpuOp::StopPeriodicTimer, 0));
        let _early = shared.take_pending(port);
        single_shot(test, shared, port);
        past(test, shared, port);
        periodic(test, shared, port);
        timer_op(test, shared, port);
        bad(test);
    }

    fn set(deadline: u64, flags: u32) -> i64 {
        call::vcpu(
            VcpuOp::SetSingleshotTimer,
            0,
            &mut SetSingleshotTimer { timeout_abs_ns: deadline, flags, ..Default::default() },
        )
    }

    fn fires(shared: Shared, port: u32) -> bool {
        clock::within(5000, || shared.is_pending(port)) && shared.take_pending(port)
    }

    /// Sets the timer `delay` milliseconds ahead, which must be in the future when the hypervisor looks: again if a busy
    /// host lets that time pass before the call arrives. The deadline in ns.
    fn ahead(test: &mut Test, shared: Shared, delay: u64) -> u64 {
        loop {
            let deadline = shared.vcpu(0).now() + delay * MILLISECOND;
            let result = set(deadline, VCPU_SSHOTTMR_FUTURE);
            if result == check::error(Errno::ETIME) && shared.vcpu(0).now() >= deadline {
                continue;
            }
            test.succeeds("set", result);
            return deadline;
        }
    }

    /// What a timer does that is stopped before its deadline: nothing. Again if a busy host lets the deadline pass first.
    fn stopped(test: &mut Test, shared: Shared, port: u32, start: impl Fn(u64) -> i64, stop: impl Fn() -> i64) {
        loop {
            let deadline = shared.vcpu(0).now() + 20 * MILLISECOND;
            test.succeeds("set, to be stopped", start(deadline));
            test.succeeds("stop", stop());
            if shared.vcpu(0).now() < deadline {
                break;
            }
            let _fired = shared.take_pending(port);
        }
        clock::delay(40);
        test.holds("stopped", !shared.is_pending(port));
    }

    fn single_shot(test: &mut Test, shared: Shared, port: u32) {
        for delay in [1, 5, 20] {
            let deadline = ahead(test, shared, delay);
            test.holds("fires", fires(shared, port));
            let now = shared.vcpu(0).now();
            test.check(
                "not before its time",
                now >= deadline,
                format_args!("{} ns early", deadline.saturating_sub(now)),
            );
        }
        clock::delay(30);
        test.holds("once only", !shared.is_pending(port));
        let stop = || call::vcpu_plain(VcpuOp::StopSingleshotTimer, 0);
        stopped(test, shared, port, |deadline| set(deadline, 0), stop);
        // A later setting replaces the earlier one.
        test.succeeds("set far", set(shared.vcpu(0).now() + 3_600_000 * MILLISECOND, 0));
        test.succeeds("set near", set(shared.vcpu(0).now() + MILLISECOND, 0));
        test.holds("the later setting counts", fires(shared, port));
        // It wakes a sleeping vCPU.
        rt::apic::enable();
        test.succeeds("upcall vector", event::use_upcall_vector(0x61));
        shared.vcpu(0).upcall_pending().store(0, SeqCst);
        shared.vcpu(0).selector().store(0, SeqCst);
        test.succeeds("set", set(shared.vcpu(0).now() + 20 * MILLISECOND, 0));
        test.holds("HLT ends", clock::halt(5000));
        test.holds("woken", shared.take_pending(port));
        shared.vcpu(0).upcall_pending().store(0, SeqCst);
    }

    fn past(test: &mut Test, shared: Shared, port: u32) {
        // Xen 4.17 ignores the flag and fires at once; older ones refuse. Both are sound, losing the event is not.
        for deadline in [0, 1] {
            let result = set(deadline, VCPU_SSHOTTMR_FUTURE);
            println!("GUEST-INFO deadline {deadline} answers {result}");
            if result == 0 {
                test.holds("accepted, so it fires", fires(shared, port));
            } else {
                test.fails("refused", result, Errno::ETIME);
                test.holds("refused, so it does not fire", !shared.is_pending(port));
            }
        }
        test.succeeds("past without the flag", set(1, 0));
        test.holds("fires at once", fires(shared, port));
    }

    fn periodic(test: &mut Test, shared: Shared, port: u32) {
        let period = |period_ns: u64| call::vcpu(VcpuOp::SetPeriodicTimer, 0, &mut SetPeriodicTimer { period_ns });
        test.fails("shorter than a millisecond", period(MILLISECOND - 1), Errno::EINVAL);
        test.fails("0", period(0), Errno::EINVAL);
        test.succeeds("set", period(5 * MILLISECOND));
        let begin = shared.vcpu(0).now();
        for _ in 0..5 {
            test.holds("tick", fires(shared, port));
        }
        let took = shared.vcpu(0).now() - begin;
        test.check("five ticks take their time", took >= 15 * MILLISECOND, took);
        test.succeeds("stop", call::vcpu_plain(VcpuOp::StopPeriodicTimer, 0));
        clock::delay(10);
        let _last = shared.take_pending(port);
        clock::delay(30);
        test.holds("stopped", !shared.is_pending(port));
        test.fails("longer than Xen can count", period(u64::MAX), Errno::EINVAL);
    }

    fn timer_op(test: &mut Test, shared: Shared, port: u32) {
        let set = |deadline: u64| call::raw(Hypercall::SetTimerOp, [deadline, 0, 0, 0, 0]);
        test.succeeds("set_timer_op", set(shared.vcpu(0).now() + 2 * MILLISECOND));
        test.holds("fires", fires(shared, port));
        stopped(test, shared, port, set, || set(0));
        test.succeeds("in the past", set(1));
        test.holds("fires at once", fires(shared, port));
    }

    fn bad(test: &mut Test) {
        let mut shot = SetSingleshotTimer::default();
        test.fails("no such vCPU", call::vcpu(VcpuOp::SetSingleshotTimer, 64, &mut shot), Errno::ENOENT);
        if guests::environment::vcpus() > 1 {
            test.fails("another vCPU", call::vcpu(VcpuOp::SetSingleshotTimer, 1, &mut shot), Errno::EINVAL);
            test.fails("another vCPU", call::vcpu_plain(VcpuOp::StopSingleshotTimer, 1), Errno::EINVAL);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
