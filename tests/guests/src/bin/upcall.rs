//! How events interrupt: the vector for all vCPUs, the vector of a vCPU, one interrupt per event, masks.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::Ordering::SeqCst;
    use guests::shared::Shared;
    use guests::{Test, call, clock, environment, event, println, smp};
    use public_abi::Errno;
    use public_abi::hvm_params::{CallbackVia, HvmParam};
    use rt::trap;

    guests::guest!("upcall", run);

    const CALLBACK: u8 = 0x60;
    const UPCALL: u8 = 0x61;
    const UPCALL_OF_SECOND: u8 = 0x62;

    fn run(test: &mut Test) {
        let shared = Shared::map();
        let port = event::ipi(0);
        by_callback(test, shared, port);
        by_vector(test, shared, port);
        to_second(test, shared);
        bad_vectors(test);
    }

    /// Sends and counts the interrupts of `vector` that it makes on vCPU 0, with interrupts on.
    fn raise(shared: Shared, port: u32, vector: u8) -> (u32, u32) {
        let before = (trap::interrupts(0, vector), trap::interrupts_in_service(0, vector));
        rt::enable_interrupts();
        call::send(port);
        clock::within(1000, || trap::interrupts(0, vector) != before.0);
        rt::disable_interrupts();
        let _was_pending = shared.take_pending(port);
        (trap::interrupts(0, vector) - before.0, trap::interrupts_in_service(0, vector) - before.1)
    }

    fn acknowledge() {
        // The guest's part: upcall_pending is cleared first, then the bits are looked at.
        let shared = Shared { page: PAGE.load(SeqCst) };
        let vcpu = shared.vcpu(rt::cpu_index() as u32);
        vcpu.upcall_pending().store(0, SeqCst);
        vcpu.selector().store(0, SeqCst);
    }

    static PAGE: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

    fn by_callback(test: &mut Test, shared: Shared, port: u32) {
        PAGE.store(shared.page, SeqCst);
        for vector in [CALLBACK, UPCALL, UPCALL_OF_SECOND] {
            trap::on_interrupt(vector, acknowledge);
        }
        rt::apic::enable();
        test.succeeds(
            "callback vector",
            call::set_parameter(HvmParam::CallbackIrq, CallbackVia::Vector(CALLBACK).to_value()),
        );
        test.equal(
            "read back",
            call::get_parameter(HvmParam::CallbackIrq),
            Ok(CallbackVia::Vector(CALLBACK).to_value()),
        );
        acknowledge();
        let _stale = shared.take_pending(port);
        test.equal("one interrupt, past the APIC", raise(shared, port, CALLBACK), (1, 0));
        test.equal("and another", raise(shared, port, CALLBACK), (1, 0));
        // Not with interrupts off.
        let before = trap::interrupts(0, CALLBACK);
        test.succeeds("send", call::send(port));
        clock::delay(20);
        test.equal("interrupts off", trap::interrupts(0, CALLBACK), before);
        rt::enable_interrupts();
        test.holds("delivered at STI", clock::within(1000, || trap::interrupts(0, CALLBACK) == before + 1));
        rt::disable_interrupts();
        test.holds("pending", shared.take_pending(port));
        // A masked port does not interrupt.
        shared.mask(port);
        let before = trap::interrupts(0, CALLBACK);
        rt::enable_interrupts();
        test.succeeds("send masked", call::send(port));
        clock::delay(20);
        rt::disable_interrupts();
        test.equal("masked", trap::interrupts(0, CALLBACK), before);
        let _taken = shared.take_pending(port);
        shared.unmask(port);
    }

    fn by_vector(test: &mut Test, shared: Shared, port: u32) {
        // Linux sets an interrupt line here. In PVH, Xen stores the value and otherwise ignores it: the callback vector stays
        // and comes in addition to the vCPU's own one.
        test.succeeds("no callback vector", call::set_parameter(HvmParam::CallbackIrq, CallbackVia::Gsi(1).to_value()));
        test.succeeds("upcall vector", event::use_upcall_vector(UPCALL));
        test.check("at most one upcall by setting it", trap::interrupts(0, UPCALL) <= 1, trap::interrupts(0, UPCALL));
        let by_callback = trap::interrupts(0, CALLBACK);
        acknowledge();
        let _stale = shared.take_pending(port);
        test.equal("one interrupt, through the APIC", raise(shared, port, UPCALL), (1, 1));
        test.equal("and another", raise(shared, port, UPCALL), (1, 1));
        println!("GUEST-INFO {} by the callback meanwhile", trap::interrupts(0, CALLBACK) - by_callback);
        // The APIC's priority holds it back.
        rt::apic::write(rt::apic::TPR, 0xf0);
        let before = trap::interrupts(0, UPCALL);
        rt::enable_interrupts();
        test.succeeds("send", call::send(port));
        clock::delay(20);
        test.equal("held back by TPR", trap::interrupts(0, UPCALL), before);
        rt::apic::write(rt::apic::TPR, 0);
        test.holds("after TPR", clock::within(1000, || trap::interrupts(0, UPCALL) == before + 1));
        rt::disable_interrupts();
        let _taken = shared.take_pending(port);
    }

    fn to_second(test: &mut Test, shared: Shared) {
        if environment::vcpus() < 2 {
            return;
        }
        let port = event::ipi(1);
        test.succeeds("vector of vCPU 1", event::upcall_vector(1, UPCALL_OF_SECOND));
        test.holds("vCPU 1 runs", smp::start_second(smp::sleep_with_interrupts));
        // Xen made one up when the vector was set; it waited for the APIC to be enabled.
        clock::delay(20);
        let first = trap::interrupts(1, UPCALL_OF_SECOND);
        for round in 1..=10 {
            test.succeeds("send", call::send(port));
            let came = || trap::interrupts(1, UPCALL_OF_SECOND) == first + round;
            test.check("vCPU 1 is interrupted", clock::within(2000, came), trap::interrupts(1, UPCALL_OF_SECOND));
            test.holds("pending", shared.take_pending(port));
        }
        let acknowledged = clock::within(2000, || trap::interrupts_in_service(1, UPCALL_OF_SECOND) == first + 10);
        test.check("acknowledged at its APIC", acknowledged, trap::interrupts_in_service(1, UPCALL_OF_SECOND));
        smp::stop();
        call::send(port);
        test.holds("vCPU 1 stops", clock::within(5000, || rt::progress(1) == 2));
    }

    fn bad_vectors(test: &mut Test) {
        test.fails("vector 15", event::upcall_vector(0, 15), Errno::EINVAL);
        test.fails("no such vCPU", event::upcall_vector(64, UPCALL), Errno::ENOENT);
        test.fails("no such vCPU", event::upcall_vector(u32::MAX, UPCALL), Errno::ENOENT);
        test.succeeds("vector 16", event::upcall_vector(0, 16));
        test.succeeds("vector 255", event::upcall_vector(0, 255));
        for via in [3_u64 << 56, 0xff << 56] {
            guests::println!(
                "GUEST-INFO callback {via:#x} answers {}",
                call::set_parameter(HvmParam::CallbackIrq, via)
            );
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
