//! sched_op: yield, poll on ports without use, the watchdog, bad arguments.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::shared::Shared;
    use guests::{Test, call, clock, event};
    use public_abi::sched::{SchedOp, SchedPinOverride, SchedPoll, SchedShutdown, SchedWatchdog, ShutdownReason};
    use public_abi::{Errno, GuestPtr, Hypercall};

    guests::guest!("sched", run);

    fn run(test: &mut Test) {
        let shared = Shared::map();
        for _ in 0..1000 {
            test.succeeds("yield", call::yield_cpu());
        }
        poll(test, shared);
        watchdog(test);
        let mut code = SchedShutdown { reason: ShutdownReason::Poweroff.number() };
        test.succeeds("shutdown_code", call::sched(SchedOp::ShutdownCode, &mut code));
        test.fails("unknown", call::raw(Hypercall::SchedOp, [8, 0, 0, 0, 0]), Errno::ENOSYS);
        test.fails("unknown", call::raw(Hypercall::SchedOp, [u64::MAX, 0, 0, 0, 0]), Errno::ENOSYS);
        let mut pin = SchedPinOverride { pcpu: 0 };
        let result = call::sched(SchedOp::PinOverride, &mut pin);
        if guests::role() == guests::Role::Guest {
            test.fails("pin_override", result, Errno::EPERM);
        } else {
            test.succeeds("pin_override", result);
            test.succeeds("undone", call::sched(SchedOp::PinOverride, &mut SchedPinOverride { pcpu: -1 }));
            test.fails(
                "no such CPU",
                call::sched(SchedOp::PinOverride, &mut SchedPinOverride { pcpu: 9999 }),
                Errno::EINVAL,
            );
        }
    }

    fn poll_at(address: u64, count: u32, timeout: u64) -> i64 {
        call::sched(
            SchedOp::Poll,
            &mut SchedPoll { ports: GuestPtr::from_address(address), nr_ports: count, timeout, ..Default::default() },
        )
    }

    fn poll(test: &mut Test, shared: Shared) {
        let soon = || shared.vcpu(0).now() + 2_000_000;
        let mut list = [0_u32; 130];
        let address = call::address(&mut list);
        test.succeeds("no ports", poll_at(address, 0, soon()));
        test.fails("too many ports", poll_at(address, 129, soon()), Errno::EINVAL);
        list[0] = 1 << 17;
        test.fails("no such port", poll_at(call::address(&mut list), 1, soon()), Errno::EINVAL);
        list[0] = u32::MAX;
        test.fails("no such port", poll_at(call::address(&mut list), 1, soon()), Errno::EINVAL);
        let port = event::ipi(0);
        list[0] = port + 1;
        test.fails("a port without use", poll_at(call::address(&mut list), 1, soon()), Errno::EINVAL);
        test.fails("list at a bad address", poll_at(0x0000_6000_0000_0000, 1, soon()), Errno::EFAULT);
        let other = event::ipi(0);
        shared.mask(port);
        shared.mask(other);
        for count in [1_usize, 2, 128] {
            list = [other; 130];
            if let Some(last) = list.get_mut(count - 1) {
                *last = port;
            }
            let address = call::address(&mut list);
            let begin = shared.vcpu(0).now();
            test.succeeds("waits for its limit", poll_at(address, count as u32, begin + 10_000_000));
            test.holds("limit kept", shared.vcpu(0).now() >= begin + 10_000_000);
            test.succeeds("send", call::send(port));
            test.succeeds("pending", poll_at(address, count as u32, 0));
            test.holds("bit kept", shared.take_pending(port));
        }
    }

    /// Two timers for each domain; they are stopped before they bite.
    fn watchdog(test: &mut Test) {
        let set = |id: u32, timeout: u32| call::sched(SchedOp::Watchdog, &mut SchedWatchdog { id, timeout });
        test.fails("id beyond the timers", set(3, 60), Errno::EINVAL);
        // Not tried: a new timer of 0 seconds. Xen takes it by its word and ends the domain.
        test.fails("poke a timer that is not in use", set(1, 60), Errno::EINVAL);
        let first = set(0, 60);
        let second = set(0, 60);
        test.equal("first timer", first, 1);
        test.equal("second timer", second, 2);
        // Xen forgets to extend the sign of this one.
        test.equal("no third timer", set(0, 60) as i32, -Errno::ENOSPC.number());
        test.succeeds("poke", set(1, 120));
        test.succeeds("stop", set(1, 0));
        test.fails("poke what was stopped", set(1, 60), Errno::EINVAL);
        test.succeeds("stop", set(2, 0));
        clock::delay(5);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
