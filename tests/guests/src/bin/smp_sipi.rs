//! A second vCPU by INIT-SIPI-SIPI; interrupts between the two in both directions, NMI, shorthands.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU32;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::{Test, clock, environment, println, smp};
    use public_abi::vcpu::VcpuOp;
    use rt::{apic, trap};

    guests::guest!("smp_sipi", run);

    const VECTOR: u8 = 0x50;
    const BACK: u8 = 0x51;

    static SECOND_ID: AtomicU32 = AtomicU32::new(u32::MAX);

    fn job() {
        // Before it is known to be here: an APIC that is off drops interrupts.
        apic::enable();
        SECOND_ID.store(apic::id(), SeqCst);
        smp::sleep_with_interrupts();
    }

    fn reply() {
        apic::send(smp::apic_id(0), u32::from(BACK) | apic::ASSERT);
    }

    fn run(test: &mut Test) {
        let vcpus = environment::vcpus();
        println!("GUEST-INFO {vcpus} vCPUs");
        if vcpus < 2 {
            test.holds("one vCPU: nothing to start", true);
            return;
        }
        apic::enable();
        // A start message without INIT before it is ignored.
        test.equal("down at first", guests::call::vcpu_plain(VcpuOp::IsUp, 1), 0);
        test.holds("starts", smp::start_second(job));
        test.equal("up", guests::call::vcpu_plain(VcpuOp::IsUp, 1), 1);
        test.holds("its identifier", clock::within(1000, || SECOND_ID.load(SeqCst) == smp::apic_id(1)));
        trap::on_interrupt(VECTOR, reply);
        both_directions(test);
        shorthands(test);
        let nmi = trap::interrupts(1, 2);
        apic::send(smp::apic_id(1), apic::DELIVERY_NMI | apic::ASSERT);
        test.holds("NMI", clock::within(5000, || trap::interrupts(1, 2) == nmi + 1));
        test.succeeds("send_nmi", guests::call::vcpu_plain(VcpuOp::SendNmi, 1));
        test.holds("NMI by hypercall", clock::within(5000, || trap::interrupts(1, 2) == nmi + 2));
        // To nobody: no effect, no harm.
        apic::send(200, u32::from(VECTOR) | apic::ASSERT);
        smp::stop();
        apic::send(smp::apic_id(1), u32::from(VECTOR) | apic::ASSERT);
        test.holds("stops", clock::within(5000, || rt::progress(1) == 2));
        again(test);
    }

    fn both_directions(test: &mut Test) {
        for round in 1..=50 {
            apic::send(smp::apic_id(1), u32::from(VECTOR) | apic::ASSERT);
            rt::enable_interrupts();
            let back = clock::within(5000, || trap::interrupts(0, BACK) == round);
            rt::disable_interrupts();
            test.check(
                "there and back",
                back,
                format_args!("round {round}: {} {}", trap::interrupts(1, VECTOR), trap::interrupts(0, BACK)),
            );
            if !back {
                return;
            }
        }
    }

    fn shorthands(test: &mut Test) {
        let others = 0x52_u8;
        apic::send(0, u32::from(others) | apic::ASSERT | apic::SHORTHAND_OTHERS);
        test.holds("all but self", clock::within(5000, || trap::interrupts(1, others) == 1));
        let all = 0x53_u8;
        rt::enable_interrupts();
        apic::send(0, u32::from(all) | apic::ASSERT | apic::SHORTHAND_ALL);
        test.holds("all", clock::within(5000, || trap::interrupts(1, all) == 1 && trap::interrupts(0, all) == 1));
        let own = 0x54_u8;
        apic::send(0, u32::from(own) | apic::ASSERT | apic::SHORTHAND_SELF);
        test.holds("self", clock::within(5000, || trap::interrupts(0, own) == 1));
        rt::disable_interrupts();
        test.equal("self only", trap::interrupts(1, own), 0);
        test.equal("others only", trap::interrupts(0, others), 0);
    }

    /// INIT stops a running vCPU; it can be started again.
    fn again(test: &mut Test) {
        SECOND_ID.store(u32::MAX, SeqCst);
        rt::start_cpu(1, smp::apic_id(1), || SECOND_ID.store(apic::id(), SeqCst));
        test.holds("starts again after INIT", clock::within(10_000, || SECOND_ID.load(SeqCst) == smp::apic_id(1)));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
