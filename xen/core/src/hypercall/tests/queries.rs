//! What the toolstack asks about host and domains: maps, topology, versions, policies, scheduling, contexts.

use super::support::{GUEST, LAST, World, error, put, room, take, take_array, with_world, write_arena};
use crate::hypercall::version;
use crate::outcome::Stop;
use machine::DomId;
use public_abi::bitmap::Bitmap;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domctl_domain::{
    GetPageFrameInfo3, HypercallInit, NodeAffinity, SchedulerOp, SetTimeOffset, SetVirqHandler, TscInfo,
};
use public_abi::domctl_vcpu::{SendTrigger, VcpuAffinity, VcpuContext};
use public_abi::platform::{PcpuInfo, PlatformOp, PlatformRequest, Settime64};
use public_abi::sched_params::DomctlSchedCredit2;
use public_abi::sysctl::{
    AvailHeap, CpuTopo, CpuTopoInfo, CpupoolOp, GetCpuInfo, MemInfo, NumaInfo, PhysCap, PhysInfo, SchedId, SysctlOp,
};
use public_abi::version::{COMMANDLINE_LEN, CompileInfo, FeatureInfo};
use public_abi::x86::VcpuGuestContext;
use public_abi::{Errno, GuestPtr};

fn map(bytes: &[u8], nr_bits: u32) -> Bitmap {
    let bitmap = room::<u8>(bytes.len() + 1, 0xaa);
    super::support::write_arena(bitmap.address(), bytes);
    Bitmap { bitmap, nr_bits, ..Bitmap::default() }
}

fn bytes(map: &Bitmap) -> [u8; 3] {
    take_array(map.bitmap, 3).try_into().unwrap()
}

#[test]
fn affinities_are_cut_to_what_exists() {
    with_world(|world| {
        let affinity = |operation, flags, hard, soft| {
            let request = VcpuAffinity { vcpu: 1, flags, cpumap_hard: hard, cpumap_soft: soft };
            world.domctl(operation, GUEST.0, request).err()
        };
        let none = Bitmap::default();
        let einval = Some(Stop::Error(Errno::EINVAL));
        let hard = map(&[0xfe, 0xff], 16);
        assert_eq!(affinity(DomctlOp::SetVcpuAffinity, 1, hard, none), None);
        assert_eq!(bytes(&hard), [0x02, 0x00, 0xaa], "CPU 1 of two; the rest of the map is zero, and no more");
        assert_eq!(affinity(DomctlOp::SetVcpuAffinity, 1, map(&[0xfc], 8), none), einval, "no CPU that exists");
        assert_eq!(affinity(DomctlOp::SetVcpuAffinity, 0, hard, none), einval);
        assert_eq!(affinity(DomctlOp::SetVcpuAffinity, 2, hard, none), einval, "no soft map");
        let read = map(&[0xff, 0xff], 9);
        assert_eq!(affinity(DomctlOp::GetVcpuAffinity, 1, read, none), None);
        assert_eq!(bytes(&read), [0x02, 0x00, 0xaa]);
        let short = map(&[0xff], 1);
        assert_eq!(affinity(DomctlOp::GetVcpuAffinity, 1, short, none), None);
        assert_eq!(bytes(&short)[..2], [0x02, 0xaa], "whole bytes are written, as in Xen");
        let missing = VcpuAffinity { vcpu: 2, flags: 1, cpumap_hard: hard, cpumap_soft: none };
        assert_eq!(world.domctl(DomctlOp::GetVcpuAffinity, GUEST.0, missing).err(), einval);
    });
}

#[test]
fn one_node_is_all_nodes() {
    with_world(|world| {
        let ask = |operation, nodemap| world.domctl(operation, GUEST.0, NodeAffinity { nodemap }).err();
        assert_eq!(ask(DomctlOp::SetNodeAffinity, map(&[0xff, 0xff], 16)), None);
        assert_eq!(ask(DomctlOp::SetNodeAffinity, map(&[0x02], 8)), Some(Stop::Error(Errno::EINVAL)));
        let read = map(&[0, 0], 16);
        assert_eq!(ask(DomctlOp::GetNodeAffinity, read), None);
        assert_eq!(bytes(&read), [1, 0, 0xaa]);
    });
}

#[test]
fn the_host_is_described() {
    with_world(|world| {
        world.machine.set_cpuid(1, 0, [0, 0, 0x0102_0304, 0x0780_0000]);
        let (reply, info) = world.sysctl(SysctlOp::PhysInfo, PhysInfo { pad: 7, ..PhysInfo::default() });
        assert_eq!(reply, Ok(0));
        assert_eq!((info.nr_cpus, info.max_cpu_id, info.cores_per_socket, info.threads_per_core), (2, 1, 2, 1));
        assert_eq!((info.cpu_khz, info.nr_nodes, info.pad), (2_000_000, 1, 0));
        assert_eq!((info.total_pages, info.max_mfn), (4096, 4095));
        assert_eq!(info.free_pages, machine::frame::free_pages());
        assert_eq!(info.hw_cap[..2], [0x0780_0000, 0x0102_0304]);
        let expected = PhysCap::HVM | PhysCap::HAP | PhysCap::GNTTAB_V1 | PhysCap::GNTTAB_V2;
        assert_eq!(info.capabilities, expected.bits());
        assert_eq!(world.sysctl(SysctlOp::SchedId, SchedId::default()).1.sched_id, 6);
        let heap = |heap: AvailHeap| world.sysctl(SysctlOp::AvailHeap, heap).1.avail_bytes;
        assert_eq!(heap(AvailHeap { node: -1, ..AvailHeap::default() }), info.free_pages * 4096);
        assert_eq!(heap(AvailHeap { node: 1, ..AvailHeap::default() }), 0, "no such node");
        assert_eq!(heap(AvailHeap { node: -1, min_bitwidth: 32, ..AvailHeap::default() }), 0, "nothing above 16 MiB");
    });
}

#[test]
fn lists_are_asked_for_their_size_first() {
    with_world(|world| {
        let (_, topology) = world.sysctl(SysctlOp::CpuTopoInfo, CpuTopoInfo::default());
        assert_eq!(topology.num_cpus, 2);
        let cputopo = room::<CpuTopo>(8, 0xee);
        let (_, topology) = world.sysctl(SysctlOp::CpuTopoInfo, CpuTopoInfo { num_cpus: 8, cputopo, ..topology });
        assert_eq!(topology.num_cpus, 2);
        let cores: std::vec::Vec<_> =
            take_array(cputopo, 2).iter().map(|cpu| (cpu.core, cpu.socket, cpu.node)).collect();
        assert_eq!(cores, [(0, 0, 0), (1, 0, 0)]);

        let (_, numa) = world.sysctl(SysctlOp::NumaInfo, NumaInfo::default());
        assert_eq!(numa.num_nodes, 1);
        let (meminfo, distance) = (room::<MemInfo>(2, 0xee), room::<u32>(2, 0xee));
        let numa = NumaInfo { num_nodes: 2, meminfo, distance, ..NumaInfo::default() };
        assert_eq!(world.sysctl(SysctlOp::NumaInfo, numa).1.num_nodes, 1);
        assert_eq!((take(meminfo).memsize, take(distance)), (16 << 20, 10));
        let none = NumaInfo { num_nodes: 0, ..numa };
        assert_eq!(world.sysctl(SysctlOp::NumaInfo, none).1.num_nodes, 0);

        let (reply, cpus) =
            world.sysctl(SysctlOp::GetCpuInfo, GetCpuInfo { max_cpus: 1, info: room(1, 0), ..Default::default() });
        assert_eq!((reply, cpus.nr_cpus), (Ok(0), 1));
    });
}

extern crate std;

#[test]
fn there_is_one_pool() {
    with_world(|world| {
        let cpumap = map(&[0xff, 0xff], 16);
        let info = CpupoolOp { op: 3, cpumap, ..CpupoolOp::default() };
        let (reply, pool) = world.sysctl(SysctlOp::CpupoolOp, info);
        assert_eq!((reply, pool.cpupool_id, pool.sched_id, pool.n_dom), (Ok(0), 0, 6, 2));
        assert_eq!(bytes(&cpumap), [3, 0, 0xaa]);
        let next = CpupoolOp { cpupool_id: 1, ..info };
        assert_eq!(world.sysctl(SysctlOp::CpupoolOp, next).0, error(Errno::ENOENT));
        assert_eq!(world.sysctl(SysctlOp::CpupoolOp, CpupoolOp { op: 7, ..info }).0, Ok(0));
        assert_eq!(bytes(&cpumap), [0, 0, 0xaa], "no CPU is free");
        assert_eq!(world.sysctl(SysctlOp::CpupoolOp, CpupoolOp { op: 1, ..info }).0, error(Errno::EOPNOTSUPP));
        assert_eq!(world.sysctl(SysctlOp::CpupoolOp, CpupoolOp { op: 9, ..info }).0, error(Errno::ENOSYS));
    });
}

#[test]
fn frames_are_told_apart() {
    with_world(|world| {
        let gfns = put(&[0_u64, 0x100, 0x101]);
        let ask = |id: u16, num| {
            let array = gfns.cast();
            world.domctl(DomctlOp::GetPageFrameInfo3, id, GetPageFrameInfo3 { num, array }).map(|_| take(gfns))
        };
        let nothing = 0xf000_0000;
        assert_eq!(ask(0, 3), Ok([nothing, 0, 0]), "the control domain's own memory");
        write_array(gfns.cast(), &[0, 0x100, 0x101]);
        assert_eq!(ask(GUEST.0, 3), Ok([nothing; 3]), "another domain's pages are not saved");
        assert_eq!(ask(GUEST.0, 1025), Err(Stop::Error(Errno::E2BIG)));
        // With work waiting, each call does one frame and leaves the rest in the request.
        world.machine.note_work(0, machine::cpu::Work::KICK);
        write_array(gfns.cast(), &[0, 0x100, 0x101]);
        let request =
            Domctl::with(DomctlOp::GetPageFrameInfo3, 0, &GetPageFrameInfo3 { num: 3, array: gfns.cast() }).unwrap();
        let (reply, request) = world.domctl_raw(DomId::CONTROL, &request);
        assert_eq!(reply, Err(Stop::Restart(None)));
        let rest: GetPageFrameInfo3 = request.get().unwrap();
        assert_eq!((rest.num, rest.array), (2, gfns.cast().element(1).unwrap()));
        assert_eq!(take(gfns), [nothing, 0x100, 0x101]);
    });
}

fn write_array(array: GuestPtr<u64>, values: &[u64]) {
    for (index, value) in (0..).zip(values) {
        super::support::write_arena(array.element(index).unwrap().address(), &value.to_le_bytes());
    }
}

#[test]
fn the_hypercall_page_is_written_to_ram_only() {
    with_world(|world| {
        let init = |id, gmfn| world.domctl(DomctlOp::HypercallInit, id, HypercallInit { gmfn }).err();
        // The last page of the callers' memory.
        assert_eq!(init(0, 0x13f), None);
        let stub: [u8; 9] = take(GuestPtr::from_address(0x13_f000 + 17 * 32));
        assert_eq!(stub, [0xb8, 17, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xc3], "mov $17, %eax; vmmcall; ret");
        assert_eq!(init(0, 5), Some(Stop::Error(Errno::EINVAL)));
        assert_eq!(init(0, u64::MAX), Some(Stop::Error(Errno::EINVAL)));
    });
}

fn version(world: &World, id: DomId, command: u32, argument: GuestPtr<()>) -> crate::outcome::Reply {
    world.call(id, |caller| version::handle(caller, command, argument))
}

#[test]
fn versions_fill_their_buffers_with_zeroes() {
    with_world(|world| {
        assert_eq!(version(world, GUEST, 0, GuestPtr::NULL), Ok(0x4_0011));
        for (command, length, text) in [(1, 16, ".7-oxen"), (3, 1024, "hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ")]
        {
            let buffer = room::<u8>(length + 1, 0xee);
            assert_eq!(version(world, GUEST, command, buffer.cast()), Ok(0));
            let bytes = take_array(buffer, length as u64 + 1);
            assert_eq!(&bytes[..text.len()], text.as_bytes());
            assert!(bytes[text.len()..length].iter().all(|byte| *byte == 0));
            assert_eq!(bytes[length], 0xee, "and not one byte more");
        }
        let info = put(&CompileInfo::default());
        assert_eq!(version(world, GUEST, 2, info.cast()), Ok(0));
        assert!(take(info).compiler.starts_with(b"rustc 1."));
        assert_eq!(version(world, GUEST, 7, GuestPtr::NULL), Ok(4096));
        assert_eq!(version(world, GUEST, 7, info.cast()), error(Errno::EINVAL));
        let handle = put(&[0xee_u8; 16]);
        assert_eq!(version(world, GUEST, 8, handle.cast()), Ok(0));
        assert_eq!(take(handle), [1; 16]);
        assert_eq!(version(world, GUEST, 11, info.cast()), error(Errno::ENOSYS));
        assert_eq!(version(world, GUEST, 1, GuestPtr::NULL), error(Errno::EFAULT));
    });
}

#[test]
fn the_command_line_is_kept_from_guests() {
    with_world(|world| {
        let buffer = room::<u8>(COMMANDLINE_LEN, 0xee);
        assert_eq!(version(world, GUEST, 9, buffer.cast()), Ok(0));
        let bytes = take_array(buffer, 10);
        assert_eq!(bytes, b"<denied>\0\xee");
        assert_eq!(version(world, DomId::CONTROL, 9, buffer.cast()), Ok(0));
        let bytes = take_array(buffer, COMMANDLINE_LEN as u64);
        assert!(bytes.starts_with(b"loglvl=all dom0_mem=1G\0") && bytes[30..].iter().all(|byte| *byte == 0));
        assert_eq!(version(world, GUEST, 10, GuestPtr::NULL), error(Errno::EPERM));
    });
}

#[test]
fn the_build_identifier_has_a_size_and_then_bytes() {
    with_world(|world| {
        let id = b"the fake machine: 20";
        assert_eq!(version(world, DomId::CONTROL, 10, GuestPtr::NULL), Ok(20));
        for (room_for, reply) in [(0u32, error(Errno::EINVAL)), (19, error(Errno::ENOBUFS)), (20, Ok(20)), (99, Ok(20))]
        {
            let buffer = room::<u8>(28, 0xee);
            write_arena(buffer.address(), &room_for.to_le_bytes());
            assert_eq!(version(world, DomId::CONTROL, 10, buffer.cast()), reply);
            let bytes = take_array(buffer, 28);
            assert_eq!(bytes[..4], room_for.to_le_bytes());
            let expected = if reply.is_ok() { &id[..] } else { &[0xee; 20] };
            assert_eq!(&bytes[4..24], expected);
            assert_eq!(bytes[24..], [0xee; 4]);
        }
        let near_the_end = GuestPtr::from_address(LAST - 10);
        write_arena(LAST - 10, &20u32.to_le_bytes());
        assert_eq!(version(world, DomId::CONTROL, 10, near_the_end), error(Errno::EFAULT));
    });
}

#[test]
fn the_changeset_is_the_builds() {
    with_world(|world| {
        let buffer = room::<u8>(64, 0xee);
        assert_eq!(version(world, GUEST, 4, buffer.cast()), Ok(0));
        assert!(take_array(buffer, 64).starts_with(b"git:0123456789ab\0\0"));
    });
}

#[test]
fn features_tell_the_control_domain_apart() {
    with_world(|world| {
        let ask = |id, submap_idx| {
            let info = put(&FeatureInfo { submap_idx, submap: 0xee });
            version(world, id, 6, info.cast()).map(|_| take(info).submap)
        };
        let common = 1 << 0 | 1 << 2 | 1 << 8 | 1 << 9 | 1 << 13;
        assert_eq!(ask(GUEST, 0), Ok(common | 1 << 16));
        assert_eq!(ask(DomId::CONTROL, 0), Ok(common | 1 << 11 | 1 << 17));
        assert_eq!(ask(GUEST, 1), Err(Stop::Error(Errno::EINVAL)));
    });
}

#[test]
fn weights_and_caps_are_kept_within_their_ranges() {
    with_world(|world| {
        let ask = |cmd, weight, cap| {
            let mut operation = SchedulerOp { sched_id: 6, cmd, ..SchedulerOp::default() };
            operation.set(&DomctlSchedCredit2 { weight, cap });
            let after = world.domctl(DomctlOp::SchedulerOp, GUEST.0, operation)?;
            Ok::<_, Stop>(after.get::<DomctlSchedCredit2>())
        };
        assert_eq!(ask(1, 0, 0).unwrap(), DomctlSchedCredit2 { weight: 256, cap: 0 });
        ask(0, 512, 0).unwrap();
        ask(0, 0, 150).unwrap();
        assert_eq!(ask(1, 0, 0).unwrap(), DomctlSchedCredit2 { weight: 512, cap: 150 });
        assert_eq!(ask(0, 7, 201), Err(Stop::Error(Errno::EINVAL)), "two vCPUs");
        assert_eq!(ask(0, 7, u16::MAX), Err(Stop::Error(Errno::EINVAL)));
        assert_eq!(ask(1, 0, 0).unwrap(), DomctlSchedCredit2 { weight: 512, cap: 150 }, "refused as a whole");
        ask(0, u16::MAX, 0).unwrap();
        assert_eq!(ask(1, 0, 0).unwrap(), DomctlSchedCredit2 { weight: u16::MAX, cap: 0 });
        assert_eq!(ask(2, 7, 0), Err(Stop::Error(Errno::EINVAL)));
        let other = SchedulerOp { sched_id: 5, cmd: 1, ..SchedulerOp::default() };
        assert_eq!(world.domctl(DomctlOp::SchedulerOp, GUEST.0, other), Err(Stop::Error(Errno::EINVAL)));
    });
}

#[test]
fn clocks_are_remembered() {
    with_world(|world| {
        let offset = SetTimeOffset { time_offset_seconds: -3600 };
        world.domctl(DomctlOp::SetTimeOffset, GUEST.0, offset).unwrap();
        assert_eq!(world.host.domains.get(GUEST).unwrap().control.lock().time_offset_seconds, -3600);
        let set = |id, tsc_mode, gtsc_khz| {
            world.domctl(DomctlOp::SetTscInfo, id, TscInfo { tsc_mode, gtsc_khz, ..TscInfo::default() }).err()
        };
        assert_eq!(set(GUEST.0, 0, 0), None);
        assert_eq!(set(GUEST.0, 1, 0), Some(Stop::Error(Errno::EOPNOTSUPP)));
        assert_eq!(set(0, 0, 0), Some(Stop::Error(Errno::EINVAL)));
        let info = world.domctl(DomctlOp::GetTscInfo, GUEST.0, TscInfo::default()).unwrap();
        assert_eq!((info.tsc_mode, info.gtsc_khz, info.incarnation), (0, 2_000_000, 1));
    });
}

#[test]
fn triggers_find_their_vcpu_first() {
    with_world(|world| {
        let ask = |trigger, vcpu| world.domctl(DomctlOp::SendTrigger, GUEST.0, SendTrigger { trigger, vcpu }).err();
        assert_eq!(ask(3, 9), Some(Stop::Error(Errno::ESRCH)));
        assert_eq!(ask(3, 0), Some(Stop::Error(Errno::EOPNOTSUPP)), "PVH has no power button");
        assert_eq!(ask(1, 0), Some(Stop::Error(Errno::ENOSYS)));
        assert_eq!(ask(5, 0), Some(Stop::Error(Errno::ENOSYS)));
    });
}

#[test]
fn processors_are_described_to_the_hardware_domain() {
    with_world(|world| {
        let ask = |xen_cpuid| {
            let mut request = PlatformRequest::new(PlatformOp::GetCpuInfo);
            request.set(&PcpuInfo { xen_cpuid, ..PcpuInfo::default() }).unwrap();
            let (reply, request) = world.platform_raw(DomId::CONTROL, &request);
            reply.map(|_| request.get::<PcpuInfo>().unwrap())
        };
        let info = ask(1).unwrap();
        assert_eq!((info.flags, info.max_present), (1, 1));
        assert_eq!(ask(2).unwrap().flags, 2, "there is no such CPU");
    });
}

#[test]
fn the_wall_clock_reaches_every_domain() {
    with_world(|world| {
        let wall = || {
            let domain = world.host.domains.get(GUEST).unwrap();
            let mut seconds = [0; 4];
            let place = core::mem::offset_of!(public_abi::x86::SharedInfo, wc_sec);
            assert!(machine::memory::read(domain.events.shared_info(), place, &mut seconds));
            u32::from_le_bytes(seconds)
        };
        let set = |secs, mbz| {
            let mut request = PlatformRequest::new(PlatformOp::Settime64);
            request.set(&Settime64 { secs, nsecs: 5, mbz, system_time: 0 }).unwrap();
            world.platform_raw(DomId::CONTROL, &request).0
        };
        assert_eq!(set(1_700_000_000, 0), Ok(0));
        assert_eq!(wall(), 1_700_000_000);
        assert_eq!(set(1, 1), error(Errno::EINVAL));
        world.domctl(DomctlOp::SetTimeOffset, GUEST.0, SetTimeOffset { time_offset_seconds: 60 }).unwrap();
        assert_eq!(wall(), 1_700_000_060);
    });
}

#[test]
fn another_domain_can_hear_of_global_interrupts() {
    with_world(|world| {
        let set = |id, virq| world.domctl(DomctlOp::SetVirqHandler, id, SetVirqHandler { virq }).err();
        assert_eq!(set(GUEST.0, 3), None);
        assert_eq!(world.host.virq_handlers.get(public_abi::virq::Virq::DomExc), GUEST);
        assert_eq!(set(GUEST.0, 0), Some(Stop::Error(Errno::EINVAL)), "the timer is no global one");
        assert_eq!(set(GUEST.0, 99), Some(Stop::Error(Errno::EINVAL)));
        world.domctl_plain(DomctlOp::DestroyDomain, GUEST.0).unwrap();
        assert_eq!(world.host.virq_handlers.get(public_abi::virq::Virq::DomExc), DomId::CONTROL);
    });
}

#[test]
fn registers_are_shown_once_there_are_any() {
    with_world(|world| {
        let ctxt = room::<VcpuGuestContext>(1, 0xee);
        let ask = |id: u16, vcpu| {
            let request = VcpuContext { vcpu, ctxt, ..VcpuContext::default() };
            world.domctl(DomctlOp::GetVcpuContext, id, request).err()
        };
        assert_eq!(ask(GUEST.0, 0), Some(Stop::Error(Errno::ENODATA)));
        {
            let guest = world.host.domains.get(GUEST).unwrap();
            guest.vcpu(0).unwrap().is_initialised.store(true, core::sync::atomic::Ordering::Release);
            let mut hardware = guest.vcpu(0).unwrap().hardware.try_lock().unwrap();
            hardware.set_register(machine::codec::registers::Register::R14, 0x1414);
        }
        assert_eq!(ask(GUEST.0, 0), None);
        let context = take(ctxt);
        assert_eq!((context.user_regs.r14, context.user_regs.rip, context.flags), (0x1414, 0xfff0, 0));
        assert_eq!(context.ctrlreg[0] & 0x10, 0x10, "CR0.ET");
        assert_eq!(ask(GUEST.0, 2), Some(Stop::Error(Errno::EINVAL)));
        assert_eq!(ask(0, 1), Some(Stop::Error(Errno::EINVAL)), "not its own");
    });
}
