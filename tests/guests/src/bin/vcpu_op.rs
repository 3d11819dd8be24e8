//! vcpu_op on this vCPU: register_vcpu_info, run state, time area, and what is refused.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::shared::{self, Shared};
    use guests::{Test, call, clock, environment, event, println};
    use public_abi::vcpu::{
        RUNSTATE_UPDATE, RegisterMemoryArea, RegisterVcpuInfo, RunstateInfo, VcpuHvmContext, VcpuOp,
    };
    use public_abi::{Errno, Hypercall};
    use rt::memory;

    guests::guest!("vcpu_op", run);

    fn run(test: &mut Test) {
        let shared = Shared::map();
        let vcpus = environment::vcpus();
        test.equal("is_up", call::vcpu_plain(VcpuOp::IsUp, 0), 1);
        for vcpu in 1..vcpus {
            test.equal("the others are down", call::vcpu_plain(VcpuOp::IsUp, vcpu), 0);
            test.fails("up before initialise", call::vcpu_plain(VcpuOp::Up, vcpu), Errno::EINVAL);
        }
        for vcpu in [vcpus.max(8), 8192, u32::MAX] {
            for operation in VcpuOp::ALL {
                test.fails("no such vCPU", call::vcpu(*operation, vcpu, &mut [0_u64; 32]), Errno::ENOENT);
            }
        }
        test.fails("unknown", call::raw(Hypercall::VcpuOp, [99, 0, 0, 0, 0]), Errno::ENOSYS);
        test.fails(
            "initialise a running vCPU",
            call::vcpu(VcpuOp::Initialise, 0, &mut VcpuHvmContext::default()),
            Errno::EEXIST,
        );
        let result = call::vcpu(VcpuOp::GetPhysid, 0, &mut 0_u64);
        println!("GUEST-INFO get_physid answers {result}");
        // Xen answers for vCPUs that may run on one CPU only: those of the control domain of a machine with one.
        test.check("get_physid", result < 0 || !environment::is_oxen(), result);
        run_state(test);
        time_area(test);
        info(test, shared);
    }

    fn run_state(test: &mut Test) {
        let mut state = RunstateInfo::default();
        test.succeeds("get_runstate_info", call::vcpu(VcpuOp::GetRunstateInfo, 0, &mut state));
        test.equal("running", state.state, 0);
        let before = state.time[0];
        clock::spin_within(20, || false);
        test.succeeds("get_runstate_info", call::vcpu(VcpuOp::GetRunstateInfo, 0, &mut state));
        test.check("time runs", state.time.iter().sum::<u64>() > before, state.time[0]);
        let sum: u64 = state.time.iter().sum();
        test.check("states add up to the entry time at most", sum > 0, sum);
        let page = memory::take_pages(1);
        let register = |addr: u64| call::vcpu(VcpuOp::RegisterRunstateMemoryArea, 0, &mut RegisterMemoryArea { addr });
        test.succeeds("register", register(page + 64));
        let entry = memory::read::<u64>(page + 72);
        test.holds("filled at once", entry != 0);
        // Going to sleep and back is a change of state.
        sleep(5);
        test.holds("updated when the vCPU runs again", memory::read::<u64>(page + 72) > entry);
        test.equal("running again", memory::read::<u32>(page + 64), 0);
        test.holds("time blocked", memory::read::<u64>(page + 64 + 16 + 16) > 0);
        test.equal("no update mark without the assist", memory::read::<u64>(page + 72) & RUNSTATE_UPDATE, 0);
        test.equal("nothing before the area", memory::all_bytes(page, 64, 0), Ok(()));
        test.equal("nothing after the area", memory::all_bytes(page + 64 + 48, 256, 0), Ok(()));
        // A structure across a page end, and one nowhere.
        let pages = memory::take_pages(2);
        test.succeeds("across a page end", register(pages + 4096 - 16));
        sleep(2);
        test.holds("updated across a page end", memory::read::<u64>(pages + 4096 - 8) > 0);
        println!("GUEST-INFO run state area at a bad address answers {}", register(0x0000_6000_0000_0000));
        test.succeeds("remove", register(0));
        if environment::vcpus() > 1 {
            test.succeeds("run state of another vCPU", call::vcpu(VcpuOp::GetRunstateInfo, 1, &mut state));
            test.equal("which is offline", state.state, 3);
        }
    }

    fn sleep(milliseconds: u64) {
        let mut poll = public_abi::sched::SchedPoll { timeout: now() + milliseconds * 1_000_000, ..Default::default() };
        call::sched(public_abi::sched::SchedOp::Poll, &mut poll);
    }

    fn now() -> u64 {
        let mut time = public_abi::hvm_op::GetTime::default();
        call::hvm(public_abi::hvm_op::HvmOp::GetTime, &mut time);
        time.now
    }

    fn time_area(test: &mut Test) {
        let page = memory::take_pages(1);
        let register = |addr: u64| call::vcpu(VcpuOp::RegisterVcpuTimeMemoryArea, 0, &mut RegisterMemoryArea { addr });
        let result = register(page);
        println!("GUEST-INFO register_vcpu_time_memory_area answers {result}");
        if result == 0 {
            sleep(2);
            let time = shared::time_at(page);
            test.holds("time area is filled", time.is_some_and(|time| time.tsc_to_system_mul != 0));
            println!("GUEST-INFO removing it answers {}", register(0));
        } else {
            test.fails("register_vcpu_time_memory_area", result, Errno::ENOSYS);
        }
    }

    fn info(test: &mut Test, shared: Shared) {
        let page = memory::take_pages(1);
        let register = |mfn: u64, offset: u32, vcpu: u32| {
            call::vcpu(VcpuOp::RegisterVcpuInfo, vcpu, &mut RegisterVcpuInfo { mfn, offset, rsvd: 0 })
        };
        test.fails("across the page's end", register(page >> 12, 4096 - 32, 0), Errno::ENXIO);
        test.fails("offset beyond the page", register(page >> 12, 4096, 0), Errno::ENXIO);
        test.fails("no such frame", register(0xf_ffff_ffff, 0, 0), Errno::EINVAL);
        test.fails("MMIO", register(0xfee00, 0, 0), Errno::EINVAL);
        shared.vcpu(0).upcall_pending().store(0, core::sync::atomic::Ordering::SeqCst);
        test.succeeds("register", register(page >> 12, 128, 0));
        let vcpu = shared::Vcpu { address: page + 128 };
        test.holds("clock in the new place", vcpu.time().is_some_and(|time| time.tsc_to_system_mul != 0));
        // Events may have come during the move: Xen marks all words.
        test.equal("selector after the move", vcpu.selector().load(core::sync::atomic::Ordering::SeqCst), u64::MAX);
        vcpu.upcall_pending().store(0, core::sync::atomic::Ordering::SeqCst);
        vcpu.selector().store(0, core::sync::atomic::Ordering::SeqCst);
        let port = event::ipi(0);
        test.succeeds("send", call::send(port));
        test.equal("upcall in the new place", vcpu.upcall_pending().load(core::sync::atomic::Ordering::SeqCst), 1);
        test.equal("not in the old one", shared.vcpu(0).upcall_pending().load(core::sync::atomic::Ordering::SeqCst), 0);
        test.fails("register again", register(page >> 12, 256, 0), Errno::EINVAL);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
