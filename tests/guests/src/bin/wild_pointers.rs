//! Pointers to nowhere in every argument of every hypercall: an error, and the guest lives on.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::wild::{self, WINDOW};
    use guests::{Role, Test, call, check, role};
    use public_abi::event_channel::EventChannelOp;
    use public_abi::grant_table::GrantTableOp;
    use public_abi::hvm_op::HvmOp;
    use public_abi::memory::MemoryOp;
    use public_abi::sched::SchedOp;
    use public_abi::vcpu::VcpuOp;
    use public_abi::version::VersionOp;
    use public_abi::{Errno, Hypercall};
    use rt::memory;
    use rt::paging::{self, PRESENT};

    guests::guest!("wild_pointers", run);

    fn run(test: &mut Test) {
        let pointers = wild::pointers();
        for pointer in pointers {
            structures(test, pointer);
            plain(test, pointer);
        }
        every_register(test, &pointers);
        read_only(test);
        let mut info = public_abi::version::FeatureInfo::default();
        test.succeeds("alive", call::version(VersionOp::GetFeatures, &mut info));
    }

    /// Sub-operations that read their structure before anything else: EFAULT without exception.
    fn structures(test: &mut Test, pointer: u64) {
        let mut faulty = |call: Hypercall, name: &'static str, arguments: [u64; 5]| {
            let result = call::raw(call, arguments);
            test.check(
                name,
                result == check::error(Errno::EFAULT),
                format_args!("{} at {pointer:#x}: {result}", call.name()),
            );
        };
        for operation in [
            MemoryOp::CurrentReservation,
            MemoryOp::MaximumReservation,
            MemoryOp::MaximumGpfn,
            MemoryOp::AddToPhysmap,
            MemoryOp::MemoryMap,
            MemoryOp::RemoveFromPhysmap,
            MemoryOp::AddToPhysmapBatch,
        ] {
            faulty(Hypercall::MemoryOp, operation.name(), [operation.number().into(), pointer, 0, 0, 0]);
        }
        for operation in EventChannelOp::ALL {
            faulty(Hypercall::EventChannelOp, operation.name(), [operation.number().into(), pointer, 0, 0, 0]);
        }
        for operation in
            [SchedOp::Shutdown, SchedOp::Poll, SchedOp::ShutdownCode, SchedOp::Watchdog, SchedOp::RemoteShutdown]
        {
            faulty(Hypercall::SchedOp, operation.name(), [operation.number().into(), pointer, 0, 0, 0]);
        }
        for operation in [
            VcpuOp::RegisterVcpuInfo,
            VcpuOp::SetSingleshotTimer,
            VcpuOp::GetRunstateInfo,
            VcpuOp::RegisterRunstateMemoryArea,
            VcpuOp::RegisterVcpuTimeMemoryArea,
            VcpuOp::SetPeriodicTimer,
        ] {
            faulty(Hypercall::VcpuOp, operation.name(), [operation.number().into(), 0, pointer, 0, 0]);
        }
        for operation in [HvmOp::SetParam, HvmOp::GetParam, HvmOp::SetEvtchnUpcallVector, HvmOp::GetTime] {
            faulty(Hypercall::HvmOp, operation.name(), [operation.number().into(), pointer, 0, 0, 0]);
        }
        for operation in [
            GrantTableOp::QuerySize,
            GrantTableOp::SetupTable,
            GrantTableOp::SetVersion,
            GrantTableOp::GetVersion,
            GrantTableOp::Copy,
            GrantTableOp::MapGrantRef,
            GrantTableOp::UnmapGrantRef,
            GrantTableOp::SwapGrantRef,
        ] {
            faulty(Hypercall::GrantTableOp, operation.name(), [operation.number().into(), pointer, 1, 0, 0]);
        }
        for operation in [
            VersionOp::ExtraVersion,
            VersionOp::CompileInfo,
            VersionOp::Capabilities,
            VersionOp::Changeset,
            VersionOp::PlatformParameters,
            VersionOp::GetFeatures,
            VersionOp::GuestHandle,
            VersionOp::Commandline,
        ] {
            faulty(Hypercall::XenVersion, operation.name(), [operation.number().into(), pointer, 0, 0, 0]);
        }
        if role() == Role::Control {
            // A guest is refused both before its pointer is looked at.
            let (acquire, build) = (MemoryOp::AcquireResource, VersionOp::BuildId);
            faulty(Hypercall::MemoryOp, acquire.name(), [acquire.number().into(), pointer, 0, 0, 0]);
            faulty(Hypercall::XenVersion, build.name(), [build.number().into(), pointer, 0, 0, 0]);
        }
        faulty(Hypercall::Multicall, "multicall", [pointer, 1, 0, 0, 0]);
        faulty(Hypercall::Domctl, "domctl", [pointer, 0, 0, 0, 0]);
        faulty(Hypercall::Sysctl, "sysctl", [pointer, 0, 0, 0, 0]);
        faulty(Hypercall::PlatformOp, "platform_op", [pointer, 0, 0, 0, 0]);
    }

    /// Every call and every small sub-operation: never a success that would mean that it read something.
    fn plain(test: &mut Test, pointer: u64) {
        for row in public_abi::hypercall::TABLE {
            if matches!(row.call, Hypercall::SchedOp | Hypercall::SetTimerOp | Hypercall::VcpuOp | Hypercall::VmAssist)
            {
                // Successes without a structure; their pointers are in `structures`.
                continue;
            }
            for command in 0..64 {
                let first_is_pointer = matches!(
                    row.call,
                    Hypercall::PlatformOp
                        | Hypercall::Sysctl
                        | Hypercall::Domctl
                        | Hypercall::Multicall
                        | Hypercall::XsmOp
                );
                let arguments = if first_is_pointer {
                    [pointer, 1, pointer, pointer, pointer]
                } else if row.call == Hypercall::ConsoleIo {
                    [command, 8, pointer, 0, 0]
                } else {
                    [command, pointer, 1, pointer, pointer]
                };
                let result = call::raw(row.call, arguments);
                let harmless = result < 0 || without_structure(row.call, command);
                test.check("wild pointer", harmless, format_args!("{} {command} at {pointer:#x}: {result}", row.name));
                if first_is_pointer {
                    break;
                }
            }
        }
    }

    /// Sub-operations that succeed whatever the pointer says.
    fn without_structure(call: Hypercall, command: u64) -> bool {
        match call {
            Hypercall::XenVersion => matches!(command, 0 | 7),
            // Of a reservation that cannot be read no extent has been done: 0.
            Hypercall::MemoryOp => matches!(command, 0 | 1 | 2 | 6 | 18 | 19),
            // Nothing has been typed.
            Hypercall::ConsoleIo => command == 1,
            Hypercall::HvmOp => command == u64::from(HvmOp::FlushTlbs.number()),
            _ => false,
        }
    }

    /// Wild values in all registers at once.
    fn every_register(test: &mut Test, pointers: &[u64; wild::COUNT]) {
        for number in [7, 12, 13, 17, 20, 21, 27, 32, 33, 34, 35, 36, 39, 40, 41, 42, 49] {
            for pointer in pointers {
                let result = rt::hypercall(number, [*pointer; 5]);
                // memory_op answers with the extents done, which the upper bits of the command claim; a command or a count
                // of 0 in the lower half of the register makes others succeed.
                let harmless = result < 0 || number == 12 || *pointer << 32 == 0;
                test.check("wild registers", harmless, format_args!("{number} with {pointer:#x}: {result}"));
            }
        }
    }

    /// Answers do not go to pages that the guest has made read-only.
    fn read_only(test: &mut Test) {
        let page = memory::take_pages(1);
        let window = WINDOW + 0x30000;
        paging::map(window, page, PRESENT);
        let mut ask = |name: &'static str, call: Hypercall, command: u32| {
            test.fails(name, call::raw(call, [command.into(), window, 0, 0, 0]), Errno::EFAULT);
        };
        ask("extraversion", Hypercall::XenVersion, VersionOp::ExtraVersion.number());
        ask("get_time", Hypercall::HvmOp, HvmOp::GetTime.number());
        let result = call::raw(Hypercall::VcpuOp, [VcpuOp::GetRunstateInfo.number().into(), 0, window, 0, 0]);
        test.fails("get_runstate_info", result, Errno::EFAULT);
        test.equal("nothing written", memory::all_bytes(page, 4096, 0), Ok(()));
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
