//! A second vCPU by VCPUOP_initialise and VCPUOP_up, in 64-bit mode; bad contexts; down and up again.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::SeqCst;
    use guests::{Test, call, clock, environment};
    use public_abi::Errno;
    use public_abi::vcpu::{VCPU_HVM_MODE_64B, VcpuHvmContext, VcpuHvmX86_64, VcpuOp};

    guests::guest!("smp_vcpuop", run);

    static RAN: AtomicU64 = AtomicU64::new(0);

    fn job() {
        RAN.fetch_add(1, SeqCst);
        while RAN.load(SeqCst) == 1 {
            rt::pause();
        }
        call::vcpu_plain(VcpuOp::Down, 1);
        // Up again continues here.
        RAN.fetch_add(1, SeqCst);
    }

    fn context(state: rt::StartState) -> VcpuHvmContext {
        let mut context = VcpuHvmContext { mode: VCPU_HVM_MODE_64B, ..Default::default() };
        context.set(&VcpuHvmX86_64 {
            rip: state.rip,
            rsp: state.rsp,
            rflags: 2,
            cr0: state.cr0,
            cr3: state.cr3,
            cr4: state.cr4,
            efer: state.efer,
            ..Default::default()
        });
        context
    }

    fn run(test: &mut Test) {
        if environment::vcpus() < 2 {
            test.holds("one vCPU: nothing to start", true);
            return;
        }
        let state = rt::prepare(1, job);
        refused(test, state);
        test.succeeds("initialise", call::vcpu(VcpuOp::Initialise, 1, &mut context(state)));
        test.equal("still down", call::vcpu_plain(VcpuOp::IsUp, 1), 0);
        test.fails("initialise twice", call::vcpu(VcpuOp::Initialise, 1, &mut context(state)), Errno::EEXIST);
        test.succeeds("up", call::vcpu_plain(VcpuOp::Up, 1));
        test.holds("runs", clock::within(10_000, || RAN.load(SeqCst) == 1));
        test.equal("is up", call::vcpu_plain(VcpuOp::IsUp, 1), 1);
        test.succeeds("up when it is up", call::vcpu_plain(VcpuOp::Up, 1));
        RAN.store(2, SeqCst);
        test.holds("down by itself", clock::within(10_000, || call::vcpu_plain(VcpuOp::IsUp, 1) == 0));
        clock::delay(10);
        test.equal("stands still", RAN.load(SeqCst), 2);
        test.succeeds("up again", call::vcpu_plain(VcpuOp::Up, 1));
        test.holds("goes on", clock::within(10_000, || RAN.load(SeqCst) == 3));
    }

    fn refused(test: &mut Test, state: rt::StartState) {
        let bad = [
            rt::StartState { cr0: 0x10, ..state },
            rt::StartState { efer: 0, ..state },
            rt::StartState { cr4: 0, ..state },
            rt::StartState { efer: 0xd00 | 1 << 63, ..state },
            rt::StartState { cr4: 0x620 | 1 << 40, ..state },
        ];
        for state in bad {
            let result = call::vcpu(VcpuOp::Initialise, 1, &mut context(state));
            test.check(
                "bad context",
                result == guests::check::error(Errno::EINVAL),
                format_args!("{state:x?}: {result}"),
            );
        }
        let mut unknown = context(state);
        unknown.mode = 7;
        test.fails("unknown mode", call::vcpu(VcpuOp::Initialise, 1, &mut unknown), Errno::EINVAL);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
