//! Everything that only a control domain may do, asked by this domain: each domctl, sysctl, platform_op and physdev_op,
//! foreign memory, others' parameters.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Role, Test, call, check, println, role};
    use public_abi::GuestPtr;
    use public_abi::domctl::DomctlOp;
    use public_abi::domid::DOMID_SELF;
    use public_abi::event_channel::{AllocUnbound, BindInterdomain, EventChannelOp, Reset, Status};
    use public_abi::hvm_op::{HvmOp, HvmParamRequest};
    use public_abi::memory::{
        AddToPhysmap, AddToPhysmapBatch, MapSpace, MemAcquireResource, MemoryDomain, MemoryOp, MemoryReservation,
        RemoveFromPhysmap,
    };
    use public_abi::platform::PlatformOp;
    use public_abi::sched::{SchedOp, SchedRemoteShutdown};
    use public_abi::sysctl::SysctlOp;
    use public_abi::{Errno, Hypercall};
    use rt::memory;

    guests::guest!("privileged_table", run);

    const DOMCTL_VERSION: u32 = 0x15;
    const SYSCTL_VERSION: u32 = 0x15;
    const PLATFORM_VERSION: u32 = 0x0300_0001;
    const UNKNOWN: u32 = 200;
    /// A domain that does not exist.
    const NOBODY: u32 = 0x7e00;

    fn run(test: &mut Test) {
        if role() == Role::Control {
            wrong_versions(test);
            return;
        }
        tables(test);
        others_memory(test);
        other_domains(test);
    }

    /// A structure of zeroes but for command, version and domain, always in the same page.
    fn request(page: u64, command: u32, version: u32, domain: u32) -> [u64; 5] {
        (0..512).for_each(|word| memory::write(page + word * 8, 0_u64));
        memory::write(page, command);
        memory::write(page + 4, version);
        memory::write(page + 8, domain);
        [page, 0, 0, 0, 0]
    }

    /// What a control domain must see: the version is checked before anything is done.
    fn wrong_versions(test: &mut Test) {
        let page = memory::take_pages(1);
        for version in [0, 0x14, 0x16, u32::MAX] {
            let arguments = request(page, DomctlOp::GetDomainInfo.number(), version, 0);
            test.fails("domctl of another version", call::raw(Hypercall::Domctl, arguments), Errno::EACCES);
            let arguments = request(page, SysctlOp::PhysInfo.number(), version, 0);
            test.fails("sysctl of another version", call::raw(Hypercall::Sysctl, arguments), Errno::EACCES);
            let arguments = request(page, PlatformOp::GetCpuInfo.number(), version, 0);
            test.fails("platform_op of another version", call::raw(Hypercall::PlatformOp, arguments), Errno::EACCES);
        }
        let arguments = request(page, DomctlOp::GetDomainInfo.number(), DOMCTL_VERSION, 0);
        test.succeeds("domctl of our version", call::raw(Hypercall::Domctl, arguments));
        let arguments = request(page, DomctlOp::PauseDomain.number(), DOMCTL_VERSION, NOBODY);
        test.fails("domctl on no domain", call::raw(Hypercall::Domctl, arguments), Errno::ESRCH);
        let arguments = request(page, UNKNOWN, DOMCTL_VERSION, 0);
        test.fails("unknown domctl", call::raw(Hypercall::Domctl, arguments), Errno::ENOSYS);
        let arguments = request(page, UNKNOWN, SYSCTL_VERSION, 0);
        test.fails("unknown sysctl", call::raw(Hypercall::Sysctl, arguments), Errno::ENOSYS);
        let arguments = request(page, UNKNOWN, PLATFORM_VERSION, 0);
        test.fails("unknown platform_op", call::raw(Hypercall::PlatformOp, arguments), Errno::ENOSYS);
    }

    fn tables(test: &mut Test) {
        let page = memory::take_pages(1);
        let own = u32::from(guests::environment::domain_id().unwrap_or(1));
        let mut refused = 0;
        for number in 0..100_u32 {
            for domain in [0, own, u32::from(DOMID_SELF), NOBODY] {
                let result = call::raw(Hypercall::Domctl, request(page, number, DOMCTL_VERSION, domain));
                // Xen looks at some arguments before it looks at the caller.
                let errors = [Errno::EPERM, Errno::ESRCH, Errno::EINVAL, Errno::EOPNOTSUPP];
                let good = errors.iter().any(|errno| result == check::error(*errno));
                test.check("domctl", good, format_args!("{number} on {domain:#x}: {result}"));
                if result == check::error(Errno::EPERM) {
                    refused += 1;
                }
            }
            let result = call::raw(Hypercall::Sysctl, request(page, number, SYSCTL_VERSION, 0));
            test.check("sysctl", result == check::error(Errno::EPERM), format_args!("{number}: {result}"));
            let result = call::raw(Hypercall::PlatformOp, request(page, number, PLATFORM_VERSION, 0));
            test.check("platform_op", result == check::error(Errno::EPERM), format_args!("{number}: {result}"));
            request(page, 0, 0, 0);
            let result = call::raw(Hypercall::PhysdevOp, [number.into(), page, 0, 0, 0]);
            test.check("physdev_op", result == check::error(Errno::ENOSYS), format_args!("{number}: {result}"));
        }
        test.check("most domctls are refused by name", refused > 150, refused);
        for call in [Hypercall::HypfsOp, Hypercall::DmOp, Hypercall::XenpmuOp] {
            request(page, 0, 0, 0);
            for command in 0..4 {
                let result = call::raw(call, [command, page, 1, page, 0]);
                test.check(call.name(), result < 0, format_args!("{command}: {result}"));
                println!("GUEST-INFO {} {command} answers {result}", call.name());
            }
        }
    }

    fn others_memory(test: &mut Test) {
        let page = memory::take_pages(1);
        let mut frames = [page >> 12];
        let extent_start = GuestPtr::from_address(call::address(&mut frames));
        let reservation = MemoryReservation { extent_start, nr_extents: 1, domid: 0, ..Default::default() };
        for operation in [MemoryOp::DecreaseReservation, MemoryOp::PopulatePhysmap, MemoryOp::IncreaseReservation] {
            let result = call::memory(operation, &mut reservation.clone());
            test.check("reservation of another", result <= 0, format_args!("{}: {result}", operation.name()));
            println!("GUEST-INFO {} for domain 0 answers {result}", operation.name());
        }
        for operation in [MemoryOp::CurrentReservation, MemoryOp::MaximumReservation, MemoryOp::MaximumGpfn] {
            test.fails(operation.name(), call::memory(operation, &mut MemoryDomain { domid: 0 }), Errno::EPERM);
        }
        let mut errors = [0x55_i32];
        let mut sources = [0x100_u64];
        let mut batch = AddToPhysmapBatch {
            domid: DOMID_SELF,
            space: MapSpace::GmfnForeign.number() as u16,
            size: 1,
            foreign_domid: 0,
            idxs: GuestPtr::from_address(call::address(&mut sources)),
            gpfns: GuestPtr::from_address(call::address(&mut frames)),
            errs: GuestPtr::from_address(call::address(&mut errors)),
        };
        let result = call::memory(MemoryOp::AddToPhysmapBatch, &mut batch);
        test.check("foreign map", result < 0 || errors[0] < 0, format_args!("{result}, {errors:?}"));
        println!("GUEST-INFO foreign map answers {result}, {errors:?}");
        let mut add =
            AddToPhysmap { domid: 0, space: MapSpace::SharedInfo.number(), gpfn: page >> 12, ..Default::default() };
        // EACCES where the control domain is PV.
        let denied = [Errno::EPERM, Errno::EACCES];
        test.fails_any("add_to_physmap of another", call::memory(MemoryOp::AddToPhysmap, &mut add), &denied);
        let mut remove = RemoveFromPhysmap { domid: 0, gpfn: 0x100, ..Default::default() };
        let result = call::memory(MemoryOp::RemoveFromPhysmap, &mut remove);
        test.fails_any("remove_from_physmap of another", result, &denied);
        let mut acquire =
            MemAcquireResource { domid: 0, kind: 1, nr_frames: 1, frame_list: extent_start, ..Default::default() };
        let result = call::memory(MemoryOp::AcquireResource, &mut acquire);
        test.fails_any("acquire_resource of another", result, &denied);
        let mut acquire = MemAcquireResource {
            domid: DOMID_SELF,
            kind: 1,
            nr_frames: 1,
            frame_list: extent_start,
            ..Default::default()
        };
        let result = call::memory(MemoryOp::AcquireResource, &mut acquire);
        test.check("acquire_resource of its own", result < 0, result);
        println!("GUEST-INFO acquire_resource on itself answers {result}");
    }

    fn other_domains(test: &mut Test) {
        let mut unbound = AllocUnbound { dom: 0, remote_dom: DOMID_SELF, port: 0 };
        test.fails("alloc_unbound for another", call::event(EventChannelOp::AllocUnbound, &mut unbound), Errno::EPERM);
        let mut status = Status { dom: 0, port: 1, ..Default::default() };
        test.fails("status of another", call::event(EventChannelOp::Status, &mut status), Errno::EPERM);
        test.fails("reset of another", call::event(EventChannelOp::Reset, &mut Reset { dom: 0 }), Errno::EPERM);
        let mut bind = BindInterdomain { remote_dom: 0, remote_port: 1, ..Default::default() };
        test.fails(
            "bind to a port that is not ours",
            call::event(EventChannelOp::BindInterdomain, &mut bind),
            Errno::EINVAL,
        );
        for domid in [0, NOBODY as u16] {
            let want: &[Errno] = if domid == 0 { &[Errno::EPERM, Errno::EINVAL] } else { &[Errno::ESRCH] };
            for operation in [HvmOp::GetParam, HvmOp::SetParam] {
                let mut parameter = HvmParamRequest { domid, index: 1, ..Default::default() };
                let result = call::hvm(operation, &mut parameter);
                println!("GUEST-INFO {} of domain {domid} answers {result}", operation.name());
                test.fails_any("parameter of another", result, want);
            }
        }
        let mut shutdown = SchedRemoteShutdown { domain_id: 0, ..Default::default() };
        test.fails("remote_shutdown", call::sched(SchedOp::RemoteShutdown, &mut shutdown), Errno::EPERM);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
