//! Nothing is lost between masking, polling and blocking: wake-ups race with sleeping, many times.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU32;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::shared::Shared;
    use guests::{Test, call, clock, environment, event, println, smp};
    use public_abi::event_channel::{EventChannelOp, Port};
    use public_abi::sched::{SchedOp, SchedPoll};
    use public_abi::vcpu::{SetSingleshotTimer, VcpuOp};
    use public_abi::virq::Virq;
    use public_abi::{GuestPtr, Hypercall};
    use rt::{apic, trap};

    guests::guest!("event_races", run);

    const UPCALL: u8 = 0x61;
    const ROUNDS: u32 = 200;
    /// Vector of the timer that ends a block that an event did not end, and its count: some 100 ms.
    const RESCUE: u32 = 0xed;
    const RESCUE_COUNT: u32 = 625_000;

    static PAGE: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
    static TO_FIRST: AtomicU32 = AtomicU32::new(0);
    static SENT: AtomicU32 = AtomicU32::new(0);
    static WANTED: AtomicU32 = AtomicU32::new(0);

    fn shared() -> Shared {
        Shared { page: PAGE.load(SeqCst) }
    }

    fn acknowledge() {
        let vcpu = shared().vcpu(0);
        vcpu.upcall_pending().store(0, SeqCst);
        vcpu.selector().store(0, SeqCst);
    }

    fn run(test: &mut Test) {
        PAGE.store(Shared::map().page, SeqCst);
        rt::apic::enable();
        trap::on_interrupt(UPCALL, acknowledge);
        test.succeeds("upcall vector", event::use_upcall_vector(UPCALL));
        let port = event::ipi(0);
        halt_with_pending(test, port);
        poll(test, port);
        halt_and_timer(test);
        if environment::vcpus() > 1 {
            from_second(test);
        }
    }

    /// Blocks with interrupts on. With interrupts off Xen would sleep in spite of pending events; with them on, an event
    /// may come just before the call, so that a timer must end it: HLT is the better way, and what Linux does.
    fn block() -> i64 {
        apic::write(apic::TIMER_DIVIDE, 0b0011);
        apic::write(apic::LVT_TIMER, RESCUE);
        apic::write(apic::TIMER_INITIAL, RESCUE_COUNT);
        rt::enable_interrupts();
        let result = call::raw(Hypercall::SchedOp, [SchedOp::Block.number().into(), 0, 0, 0, 0]);
        rt::disable_interrupts();
        apic::write(apic::TIMER_INITIAL, 0);
        result
    }

    /// With an event pending, HLT after STI ends at once.
    fn halt_with_pending(test: &mut Test, port: u32) {
        for _ in 0..20 {
            let before = trap::interrupts(0, UPCALL);
            test.succeeds("send", call::send(port));
            test.holds("HLT ends", clock::halt(2000));
            test.equal("HLT woken", trap::interrupts(0, UPCALL), before + 1);
            test.holds("pending", shared().take_pending(port));
            // Masked at first: unmasking must raise what came meanwhile.
            shared().mask(port);
            test.succeeds("send masked", call::send(port));
            let before = trap::interrupts(0, UPCALL);
            test.succeeds("unmask", call::event(EventChannelOp::Unmask, &mut Port { port }));
            test.holds("HLT ends", clock::halt(2000));
            test.equal("woken by unmasking", trap::interrupts(0, UPCALL), before + 1);
            test.holds("pending", shared().take_pending(port));
        }
    }

    fn poll_ports(ports: &mut [u32], timeout: u64) -> i64 {
        let address = call::address(ports);
        let mut request = SchedPoll {
            ports: GuestPtr::from_address(address),
            nr_ports: ports.len() as u32,
            timeout,
            ..Default::default()
        };
        call::sched(SchedOp::Poll, &mut request)
    }

    /// Polling sees masked ports, returns at once for pending ones and in time for others.
    fn poll(test: &mut Test, port: u32) {
        shared().mask(port);
        for _ in 0..20 {
            test.succeeds("send", call::send(port));
            test.succeeds("poll of a pending port", poll_ports(&mut [port], 0));
            test.holds("still pending", shared().take_pending(port));
        }
        let begin = shared().vcpu(0).now();
        test.succeeds("poll with a time limit", poll_ports(&mut [port], begin + 20_000_000));
        let waited = shared().vcpu(0).now() - begin;
        test.check("waited", waited >= 20_000_000, waited);
        test.succeeds("poll with a limit in the past", poll_ports(&mut [port], 1));
        shared().unmask(port);
    }

    fn halt_and_timer(test: &mut Test) {
        let timer = event::virq(Virq::Timer, 0).unwrap_or(0);
        test.holds("VIRQ_TIMER", timer != 0);
        call::vcpu_plain(VcpuOp::StopPeriodicTimer, 0);
        if shared().take_pending(timer) {
            acknowledge();
        }
        for round in 0..ROUNDS {
            let before = trap::interrupts(0, UPCALL);
            let deadline = shared().vcpu(0).now() + u64::from(round) * 2_000;
            call::vcpu(
                VcpuOp::SetSingleshotTimer,
                0,
                &mut SetSingleshotTimer { timeout_abs_ns: deadline, ..Default::default() },
            );
            // The timer may fire before, in or after this instruction; it must always end the sleep.
            let woken = clock::halt(2000);
            test.check("woken by the timer", woken && shared().take_pending(timer), format_args!("round {round}"));
            if test.is_bad() {
                break;
            }
            test.equal("one upcall", trap::interrupts(0, UPCALL), before + 1);
            test.holds("not too early", shared().vcpu(0).now() >= deadline);
        }
        test.succeeds("close", call::close(timer));
    }

    /// vCPU 1 answers each request with an event.
    fn answer() {
        while SENT.load(SeqCst) < ROUNDS {
            if WANTED.load(SeqCst) > SENT.load(SeqCst) {
                call::send(TO_FIRST.load(SeqCst));
                SENT.fetch_add(1, SeqCst);
            }
            rt::pause();
        }
    }

    fn from_second(test: &mut Test) {
        let port = event::ipi(0);
        TO_FIRST.store(port, SeqCst);
        test.holds("vCPU 1 runs", smp::start_second(answer));
        let mut slow = 0;
        for round in 0..ROUNDS {
            let before = trap::interrupts(0, UPCALL);
            WANTED.fetch_add(1, SeqCst);
            match round % 3 {
                0 => {
                    clock::halt(2000);
                }
                1 => {
                    test.succeeds("block", block());
                }
                _ => {
                    test.succeeds("poll", poll_ports(&mut [port], shared().vcpu(0).now() + 5_000_000_000));
                }
            }
            rt::enable_interrupts();
            let came = clock::within(5000, || trap::interrupts(0, UPCALL) > before);
            rt::disable_interrupts();
            test.check("event from vCPU 1", came && shared().take_pending(port), format_args!("round {round}"));
            slow += u32::from(!came);
            if slow > 2 {
                break;
            }
        }
        println!("GUEST-INFO {slow} of {ROUNDS} lost");
        test.holds("vCPU 1 ends", clock::within(5000, || rt::progress(1) == 2));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
