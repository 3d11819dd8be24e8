//! vm_assist and console_io: what an HVM guest may switch, who may print, limits.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Role, Test, call, println, role};
    use public_abi::console_io::ConsoleIoOp;
    use public_abi::vcpu::{RUNSTATE_UPDATE, RegisterMemoryArea, VcpuOp};
    use public_abi::vm_assist::{VmAssistOp, VmAssistType};
    use public_abi::{Errno, Hypercall};
    use rt::memory;

    guests::guest!("assist_console", run);

    fn run(test: &mut Test) {
        assists(test);
        console(test);
    }

    fn assist(operation: u64, kind: u64) -> i64 {
        call::raw(Hypercall::VmAssist, [operation, kind, 0, 0, 0])
    }

    fn assists(test: &mut Test) {
        let (enable, disable) = (u64::from(VmAssistOp::Enable.number()), u64::from(VmAssistOp::Disable.number()));
        let flag = u64::from(VmAssistType::RunstateUpdateFlag.number());
        test.succeeds("enable", assist(enable, flag));
        test.succeeds("disable", assist(disable, flag));
        test.fails("unknown command", assist(2, flag), Errno::ENOSYS);
        for kind in (0..70).filter(|kind| *kind != flag) {
            test.check("for PV only, or unknown", assist(enable, kind) == guests::check::error(Errno::EINVAL), kind);
        }
        // With the assist on, the area carries a mark only while it is being written: never for the vCPU itself to see.
        test.succeeds("enable", assist(enable, flag));
        let page = memory::take_pages(1);
        let mut area = RegisterMemoryArea { addr: page };
        test.succeeds("register", call::vcpu(VcpuOp::RegisterRunstateMemoryArea, 0, &mut area));
        for _ in 0..100 {
            call::yield_cpu();
            test.equal("no mark left", memory::read::<u64>(page + 8) & RUNSTATE_UPDATE, 0);
        }
        test.holds("time", memory::read::<u64>(page + 8) != 0);
    }

    fn print(address: u64, count: u64) -> i64 {
        call::raw(Hypercall::ConsoleIo, [ConsoleIoOp::Write.number().into(), count, address, 0, 0])
    }

    fn console(test: &mut Test) {
        let page = memory::take_pages(1);
        memory::write_bytes(page, b"GUEST-INFO written by console_io\n");
        if role() == Role::Guest {
            // A release build of Xen; a debug build would let it pass.
            test.fails_any("write by a guest", print(page, 33), &[Errno::EPERM]);
            let read = call::raw(Hypercall::ConsoleIo, [ConsoleIoOp::Read.number().into(), 10, page, 0, 0]);
            test.fails("read by a guest", read, Errno::EPERM);
            test.fails("unknown by a guest", call::raw(Hypercall::ConsoleIo, [2, 0, page, 0, 0]), Errno::EPERM);
            return;
        }
        test.succeeds("write", print(page, 33));
        test.succeeds("nothing", print(page, 0));
        test.fails("from nowhere", print(0x0000_6000_0000_0000, 10), Errno::EFAULT);
        let read =
            |count: u64| call::raw(Hypercall::ConsoleIo, [ConsoleIoOp::Read.number().into(), count, page + 2048, 0, 0]);
        let got = read(16);
        test.check("read", (0..=16).contains(&got), got);
        test.fails("read of more than 2 GiB", read(0x8000_0000), Errno::E2BIG);
        test.fails("unknown", call::raw(Hypercall::ConsoleIo, [2, 0, page, 0, 0]), Errno::ENOSYS);
        println!("GUEST-INFO console done");
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
