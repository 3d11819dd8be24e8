//! The APIC timer: one shot, periodic, stopping, dividers, reading the count.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, clock, println};
    use rt::{apic, trap};

    guests::guest!("lapic_timer", run);

    const VECTOR: u8 = 0x40;

    fn run(test: &mut Test) {
        apic::enable();
        one_shot(test);
        masked(test);
        periodic(test);
        dividers(test);
    }

    fn count() -> u32 {
        trap::interrupts(0, VECTOR)
    }

    fn one_shot(test: &mut Test) {
        apic::write(apic::TIMER_DIVIDE, 0b1011);
        apic::write(apic::LVT_TIMER, u32::from(VECTOR));
        rt::enable_interrupts();
        apic::write(apic::TIMER_INITIAL, 1_000_000);
        let running = apic::read(apic::TIMER_CURRENT);
        test.check("counts down", running <= 1_000_000, running);
        let begin = rt::timestamp();
        test.holds("fires", clock::within(5000, || count() == 1));
        let took = (rt::timestamp() - begin) / clock::khz().max(1);
        println!("GUEST-INFO 1000000 counts took {took} ms");
        test.equal("zero afterwards", apic::read(apic::TIMER_CURRENT), 0);
        test.equal("initial count is kept", apic::read(apic::TIMER_INITIAL), 1_000_000);
        clock::delay(30);
        test.equal("once only", count(), 1);
        // Stopped before it fires.
        apic::write(apic::TIMER_INITIAL, 3_000_000);
        apic::write(apic::TIMER_INITIAL, 0);
        clock::delay(60);
        test.equal("stopped", count(), 1);
        rt::disable_interrupts();
        // Fires while interrupts are off: requested, delivered later.
        apic::write(apic::TIMER_INITIAL, 1000);
        test.holds("requested", clock::within(2000, || apic::requested(VECTOR)));
        rt::enable_interrupts();
        test.holds("delivered", clock::within(2000, || count() == 2));
        rt::disable_interrupts();
        // Ends HLT.
        apic::write(apic::TIMER_INITIAL, 1_000_000);
        rt::wait_for_interrupt();
        test.equal("ends HLT", count(), 3);
    }

    fn masked(test: &mut Test) {
        apic::write(apic::LVT_TIMER, u32::from(VECTOR) | apic::LVT_MASKED);
        rt::enable_interrupts();
        apic::write(apic::TIMER_INITIAL, 10_000);
        test.holds("runs though masked", clock::within(2000, || apic::read(apic::TIMER_CURRENT) == 0));
        clock::delay(5);
        test.equal("no interrupt", count(), 3);
        rt::disable_interrupts();
    }

    fn periodic(test: &mut Test) {
        apic::write(apic::LVT_TIMER, u32::from(VECTOR) | apic::LVT_PERIODIC);
        rt::enable_interrupts();
        let begin = rt::timestamp();
        // 2 ms
        apic::write(apic::TIMER_INITIAL, 200_000);
        test.holds("ten times", clock::within(10_000, || count() >= 13));
        let took = (rt::timestamp() - begin) / clock::khz().max(1);
        println!("GUEST-INFO ten periods of 2 ms took {took} ms");
        test.check("not faster than it should", took >= 9, took);
        apic::write(apic::TIMER_INITIAL, 0);
        clock::delay(10);
        let last = count();
        clock::delay(30);
        test.equal("stopped", count(), last);
        rt::disable_interrupts();
    }

    /// Each step of the divider halves the speed.
    fn dividers(test: &mut Test) {
        apic::write(apic::LVT_TIMER, u32::from(VECTOR) | apic::LVT_MASKED);
        for (setting, divider) in [
            (0b1011, 1_u32),
            (0b0000, 2),
            (0b0001, 4),
            (0b0010, 8),
            (0b0011, 16),
            (0b1000, 32),
            (0b1001, 64),
            (0b1010, 128),
        ] {
            apic::write(apic::TIMER_DIVIDE, setting);
            test.equal("divider reads back", apic::read(apic::TIMER_DIVIDE), setting);
            let begin = rt::timestamp();
            apic::write(apic::TIMER_INITIAL, u32::MAX);
            clock::delay(5);
            let counted = u64::from(u32::MAX - apic::read(apic::TIMER_CURRENT));
            let microseconds = (rt::timestamp() - begin) * 1000 / clock::khz();
            apic::write(apic::TIMER_INITIAL, 0);
            // Xen's APIC bus: 100 MHz.
            let want = microseconds * 100 / u64::from(divider);
            test.check(
                "speed",
                counted > want / 4 && counted < want * 2 + 100,
                format_args!("divider {divider}: {counted} counts in {microseconds} us"),
            );
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
