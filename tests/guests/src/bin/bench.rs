//! The operations of the table in docs (emulation.md), each between marker NOPs and between two RDTSC.
//!
//! Under an emulator that counts instructions as time, the numbers are instructions. Prints `BENCH name minimum median`.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::Ordering::SeqCst;
    use guests::shared::Shared;
    use guests::{Test, call, clock, event, println};
    use public_abi::domid::DOMID_SELF;
    use public_abi::event_channel::{AllocUnbound, EventChannelOp};
    use public_abi::grant_table::{GrantTableOp, QuerySize};
    use public_abi::memory::{MemoryOp, MemoryReservation};
    use public_abi::{GuestPtr, Hypercall};
    use rt::{apic, memory, msr};

    guests::guest!("bench", run);

    const REPEATS: usize = 101;

    /// Measures `operation` between markers.
    fn measure(test: &mut Test, name: &'static str, mut operation: impl FnMut() -> bool) {
        let mut samples = [0_u64; REPEATS];
        let mut good = operation();
        rt::marker_row();
        for sample in &mut samples {
            rt::marker_begin();
            let begin = rt::timestamp();
            good &= operation();
            let end = rt::timestamp();
            rt::marker_end();
            *sample = end - begin;
        }
        samples.sort_unstable();
        test.holds(name, good);
        let median = samples.get(REPEATS / 2).copied().unwrap_or(0);
        println!("BENCH {name} {} {median}", samples.first().copied().unwrap_or(0));
    }

    fn run(test: &mut Test) {
        println!("GUEST-INFO TSC at {} kHz, role {:?}", clock::khz(), guests::role());
        measure(test, "nothing", || true);
        measure(test, "null-hypercall", || call::raw(Hypercall::XenVersion, [0; 5]) > 0);
        measure(test, "unknown-hypercall", || rt::hypercall(60, [0; 5]) < 0);
        measure(test, "cpuid", || rt::cpuid(0x4000_0000, 0)[1] != 0);
        measure(test, "rdmsr", || msr::read(0x1b) != 0);
        measure(test, "wrmsr", || {
            msr::write(0x1b, 0xfee0_0900);
            true
        });
        // The first 8259's, which a PVH domain has not. (0x80 would not do: Xen lets guests have it without an exit.)
        measure(test, "in-unowned-port", || rt::input_8(0x20) == 0xff);
        measure(test, "lapic-mmio-read", || memory::read::<u32>(apic::APIC_MEMORY + 0x30) != 0);
        measure(test, "lapic-mmio-write", || {
            memory::write(apic::APIC_MEMORY + u64::from(apic::TPR), 0_u32);
            true
        });
        measure(test, "mmio-hole-read", || memory::read::<u32>(0xfd00_0000) == u32::MAX);
        measure(test, "sched-yield", || call::yield_cpu() == 0);
        events(test);
        measure(test, "gnttab-query-size", || {
            call::grant(GrantTableOp::QuerySize, &mut QuerySize { dom: DOMID_SELF, ..Default::default() }) == 0
        });
        balloon(test);
        self_interrupt(test);
        rt::marker_row();
    }

    fn events(test: &mut Test) {
        let shared = Shared::map();
        let port = event::ipi(0);
        // The event is taken between the samples, so that each one is delivered anew.
        measure(test, "evtchn-send-self", || {
            let result = call::send(port);
            shared.vcpu(0).upcall_pending().store(0, SeqCst);
            shared.vcpu(0).selector().store(0, SeqCst);
            result == 0 && shared.take_pending(port)
        });
        measure(test, "evtchn-alloc-close", || {
            let mut unbound = AllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, port: 0 };
            call::event(EventChannelOp::AllocUnbound, &mut unbound) == 0 && call::close(unbound.port) == 0
        });
    }

    fn balloon(test: &mut Test) {
        let page = memory::take_pages(1);
        measure(test, "decrease-populate", || {
            let mut frames = [page >> 12];
            let extent_start = GuestPtr::from_address(call::address(&mut frames));
            let mut request =
                MemoryReservation { extent_start, nr_extents: 1, domid: DOMID_SELF, ..Default::default() };
            let decreased = call::memory(MemoryOp::DecreaseReservation, &mut request);
            decreased == 1 && call::memory(MemoryOp::PopulatePhysmap, &mut request) == 1
        });
    }

    fn self_interrupt(test: &mut Test) {
        apic::enable();
        rt::enable_interrupts();
        measure(test, "self-ipi", || {
            let before = rt::trap::interrupts(0, 0x50);
            apic::send(0, 0x50 | apic::ASSERT | apic::SHORTHAND_SELF);
            clock::spin_within(1000, || rt::trap::interrupts(0, 0x50) != before)
        });
        rt::disable_interrupts();
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
