//! A domain's life as the toolstack drives it: creation, vCPUs, pauses, end; and what is told about it meanwhile.

use super::support::{GUEST, World, error, room, take_array, with_world};
use crate::domain::lifecycle::Stage;
use crate::outcome::Stop;
use crate::p2m::{Entry, Kind};
use crate::time;
use crate::vcpu::Wait;
use core::sync::atomic::Ordering;
use machine::fake::with_failing_allocation;
use machine::{DomId, Gfn, frame};
use public_abi::Errno;
use public_abi::domctl::{Domctl, DomctlOp};
use public_abi::domctl_domain::{
    ArchDomainConfig, CreateDomain, DomainInfoFlags, GetDomainInfo, MaxMem, MaxVcpus, PagingMempool, ShadowOp,
};
use public_abi::domctl_vcpu::GetVcpuInfo;
use public_abi::sysctl::{GetDomainInfoList, SysctlOp};
use public_abi::vcpu::Runstate;
use public_abi::virq::Virq;

fn pvh() -> CreateDomain {
    CreateDomain {
        handle: *b"0123456789abcdef",
        flags: 3,
        max_vcpus: 3,
        max_evtchn_port: 1023,
        max_grant_frames: -1,
        max_maptrack_frames: -1,
        grant_opts: 2,
        arch: ArchDomainConfig { emulation_flags: 1, misc_flags: 0 },
        ..CreateDomain::default()
    }
}

fn create(world: &World, wanted: u16) -> Result<u16, Stop> {
    let request = Domctl::with(DomctlOp::CreateDomain, wanted, &pvh()).unwrap();
    let (reply, request) = world.domctl_raw(DomId::CONTROL, &request);
    reply.map(|_| request.domain)
}

fn about(world: &World, id: u16) -> Result<GetDomainInfo, Stop> {
    world.domctl(DomctlOp::GetDomainInfo, id, GetDomainInfo::default())
}

#[test]
fn a_domain_is_made_step_by_step() {
    with_world(|world| {
        let id = create(world, 0).unwrap();
        assert_eq!(id, 2, "the next free number");
        let info = about(world, id).unwrap();
        assert_eq!((info.domain, info.max_vcpu_id, info.nr_online_vcpus), (2, u32::MAX, 0));
        assert_eq!(info.handle, *b"0123456789abcdef");
        let flags = DomainInfoFlags::PAUSED | DomainInfoFlags::HVM_GUEST | DomainInfoFlags::HAP;
        assert_eq!(info.flags, flags.bits() | 0xffff_0000, "not shut down: all ones above");
        let wrong = world.domctl(DomctlOp::MaxVcpus, id, MaxVcpus { max: 2 });
        assert_eq!(wrong, Err(Stop::Error(Errno::EINVAL)));
        for _ in 0..2 {
            world.domctl(DomctlOp::MaxVcpus, id, MaxVcpus { max: 3 }).unwrap();
        }
        let info = about(world, id).unwrap();
        assert_eq!((info.max_vcpu_id, info.nr_online_vcpus), (2, 0), "there, but down");
        assert!(!DomainInfoFlags::from_bits_retain(info.flags).contains(DomainInfoFlags::BLOCKED));
    });
}

#[test]
fn numbers_are_taken_or_chosen() {
    with_world(|world| {
        assert_eq!(create(world, 1), Err(Stop::Error(Errno::EEXIST)));
        assert_eq!(create(world, 30), Ok(30));
        assert_eq!(create(world, 30), Err(Stop::Error(Errno::EEXIST)));
        assert_eq!(create(world, 0x7ff0), Ok(2), "a reserved number means any");
        assert_eq!(create(world, 0), Ok(3));
        world.domctl_plain(DomctlOp::DestroyDomain, 3).unwrap();
        assert_eq!(create(world, 0), Ok(4), "numbers are not used again soon");
    });
}

#[test]
fn pauses_are_counted() {
    with_world(|world| {
        let paused = |expected| {
            let info = about(world, GUEST.0).unwrap();
            assert_eq!(info.flags & DomainInfoFlags::PAUSED.bits() != 0, expected);
        };
        paused(true);
        let guest = world.host.domains.get(GUEST).unwrap();
        assert!(!guest.control.lock().records.creation_finished);
        world.domctl_plain(DomctlOp::UnpauseDomain, GUEST.0).unwrap();
        assert!(guest.control.lock().records.creation_finished);
        paused(false);
        assert_eq!(world.domctl_plain(DomctlOp::UnpauseDomain, GUEST.0), error(Errno::EINVAL));
        for _ in 0..255 {
            world.domctl_plain(DomctlOp::PauseDomain, GUEST.0).unwrap();
        }
        assert_eq!(world.domctl_plain(DomctlOp::PauseDomain, GUEST.0), error(Errno::EOVERFLOW));
        paused(true);
        assert_eq!(world.domctl_plain(DomctlOp::PauseDomain, 0), error(Errno::EINVAL), "not itself");
    });
}

#[test]
fn a_destroyed_domain_is_gone_and_gives_its_pages_back() {
    with_world(|world| {
        let before = machine::frame::free_pages();
        for _ in 0..20 {
            let id = create(world, 0).unwrap();
            world.domctl(DomctlOp::MaxVcpus, id, MaxVcpus { max: 3 }).unwrap();
            assert_eq!(world.domctl_plain(DomctlOp::DestroyDomain, id), Ok(0));
            assert_eq!(world.domctl_plain(DomctlOp::PauseDomain, id), error(Errno::ESRCH));
            assert_eq!(world.domctl_plain(DomctlOp::DestroyDomain, id), error(Errno::ESRCH));
        }
        assert_eq!(machine::frame::free_pages(), before);
        assert_eq!(world.domctl_plain(DomctlOp::DestroyDomain, 0), error(Errno::EINVAL), "not itself");
    });
}

#[test]
fn the_end_waits_for_references_and_for_its_turn() {
    with_world(|world| {
        let id = create(world, 0).unwrap();
        let held = world.host.domains.get(DomId(id)).unwrap();
        assert_eq!(world.domctl_plain(DomctlOp::DestroyDomain, id), Err(Stop::Restart(None)));
        assert_eq!(held.lifecycle.stage(), Stage::Dead, "everything but the object is gone");
        assert_eq!(about(world, id), Err(Stop::Error(Errno::ESRCH)), "nobody new finds it");
        assert_eq!(world.domctl_plain(DomctlOp::DestroyDomain, id), Err(Stop::Restart(None)));
        drop(held);
        assert_eq!(world.domctl_plain(DomctlOp::DestroyDomain, id), Ok(0));

        let id = create(world, 0).unwrap();
        {
            let domain = world.host.domains.get(DomId(id)).unwrap();
            let turn = domain.lifecycle.begin_teardown_step().unwrap();
            assert_eq!(world.domctl_plain(DomctlOp::DestroyDomain, id), Err(Stop::Restart(None)));
            assert_eq!(domain.lifecycle.stage(), Stage::Alive, "another CPU has the turn");
            drop(turn);
        }
        assert_eq!(world.domctl_plain(DomctlOp::DestroyDomain, id), Ok(0));
    });
}

/// Does something with its first allocation failing, then with its second, and so on, until it finds memory for all; `check`
/// looks at what each failure has left. Gives what came in the end, and how many failures there were.
fn with_each_failure<T: core::fmt::Debug + PartialEq>(
    work: impl Fn() -> Result<T, Stop>,
    check: impl Fn(&str),
) -> (Result<T, Stop>, u32) {
    let mut nth = 0;
    loop {
        let (result, failed) = with_failing_allocation(nth, &work);
        if !failed {
            return (result, nth);
        }
        let which = std::format!("allocation {nth}");
        assert_eq!(result, Err(Stop::Error(Errno::ENOMEM)), "{which}");
        check(&which);
        nth += 1;
    }
}

#[test]
fn running_out_of_memory_leaves_nothing_behind() {
    with_world(|world| {
        let unchanged = |before| move |which: &str| assert_eq!(machine::frame::free_pages(), before, "{which}");
        let check = unchanged(machine::frame::free_pages());
        let (result, failures) = with_each_failure(|| create(world, 200), check);
        assert_eq!(result, Ok(200));
        assert!(failures > 0, "a domain takes memory");
        let check = unchanged(machine::frame::free_pages());
        let allocate = || world.domctl(DomctlOp::MaxVcpus, 200, MaxVcpus { max: 3 });
        let (result, failures) = with_each_failure(allocate, check);
        result.unwrap();
        assert!(failures > 0, "vCPUs take memory");
    });
}

/// What each CPU keeps of vCPUs: how many wait for it, how many deadlines it has, and for how many of both there is room.
fn numbers(world: &World) -> std::vec::Vec<((usize, usize), (usize, usize))> {
    let numbers = |cpu: &crate::host::Cpu| (cpu.queue.lock().numbers(), cpu.timers.lock().numbers());
    world.host.cpus.iter().map(numbers).collect()
}

#[test]
fn vcpus_without_memory_leave_no_reservation() {
    with_world(|world| {
        create(world, 200).unwrap();
        let before = numbers(world);
        let allocate = || world.domctl(DomctlOp::MaxVcpus, 200, MaxVcpus { max: 3 });
        let (result, failures) = with_each_failure(allocate, |which| assert_eq!(numbers(world), before, "{which}"));
        result.unwrap();
        assert!(failures > 0, "vCPUs take memory");
        assert_ne!(numbers(world), before);
    });
}

#[test]
fn a_dead_domain_is_on_no_list() {
    with_world(|world| {
        let before = numbers(world);
        let id = create(world, 0).unwrap();
        world.domctl(DomctlOp::MaxVcpus, id, MaxVcpus { max: 3 }).unwrap();
        {
            let domain = world.host.domains.get(DomId(id)).unwrap();
            let vcpu = domain.vcpu(0).unwrap();
            crate::timer::set(&world.host, vcpu, crate::timer::TimerKind::Singleshot, Some(u64::MAX - 1));
            vcpu.clear_wait(Wait::DOWN);
            assert!(domain.lifecycle.unpause_by_toolstack());
            crate::sched::resume_domain(&world.host, &domain);
        }
        let waiting: usize = numbers(world).iter().map(|((waiting, _), (deadlines, _))| waiting + deadlines).sum();
        assert_eq!(waiting, 2);
        world.domctl_plain(DomctlOp::DestroyDomain, id).unwrap();
        assert_eq!(numbers(world), before);
    });
}

#[test]
fn information_finds_the_next_domain() {
    with_world(|world| {
        create(world, 50).unwrap();
        assert_eq!(about(world, 0).unwrap().domain, 0);
        assert_eq!(about(world, 2).unwrap().domain, 50);
        assert_eq!(about(world, 51), Err(Stop::Error(Errno::ESRCH)));
        assert_eq!(about(world, 0x7ff0), Err(Stop::Error(Errno::EINVAL)));
        let list = |first_domain, max_domains| {
            let buffer = room::<GetDomainInfo>(8, 0xee);
            let list = GetDomainInfoList { first_domain, max_domains, buffer, ..GetDomainInfoList::default() };
            let (reply, list) = world.sysctl(SysctlOp::GetDomainInfoList, list);
            assert_eq!(reply, Ok(0));
            take_array(buffer, u64::from(list.num_domains)).iter().map(|info| info.domain).collect::<std::vec::Vec<_>>()
        };
        assert_eq!(list(0, 8), [0, 1, 50]);
        assert_eq!(list(1, 1), [1]);
        assert_eq!(list(51, 8), []);
        assert_eq!(list(0, 0), []);
    });
}

extern crate std;

#[test]
fn vcpus_are_described() {
    with_world(|world| {
        let ask = |vcpu| world.domctl(DomctlOp::GetVcpuInfo, GUEST.0, GetVcpuInfo { vcpu, ..GetVcpuInfo::default() });
        let info = ask(1).unwrap();
        assert_eq!((info.vcpu, info.online, info.blocked, info.running), (1, 0, 0, 0));
        {
            let guest = world.host.domains.get(GUEST).unwrap();
            let vcpu = guest.vcpu(1).unwrap();
            vcpu.clear_wait(Wait::DOWN);
            vcpu.add_wait(Wait::POLLING);
            time::runstate_changed(&guest, vcpu, Runstate::Running, world.host.clock.now());
            world.machine.advance(4_000);
            time::runstate_changed(&guest, vcpu, Runstate::Blocked, world.host.clock.now());
        }
        let info = ask(1).unwrap();
        assert_eq!((info.online, info.blocked, info.cpu_time), (1, 1, 2_000), "4000 ticks at 2 GHz");
        assert_eq!(about(world, GUEST.0).unwrap().cpu_time, 2_000);
        let flags = DomainInfoFlags::from_bits_retain(about(world, GUEST.0).unwrap().flags);
        assert!(flags.contains(DomainInfoFlags::BLOCKED));
        {
            let guest = world.host.domains.get(GUEST).unwrap();
            time::runstate_changed(&guest, guest.vcpu(1).unwrap(), Runstate::Running, world.host.clock.now());
        }
        world.machine.advance(6_000);
        assert_eq!(ask(1).unwrap().cpu_time, 5_000, "a vCPU that has not left its CPU yet has run, too");
        assert_eq!(ask(2), Err(Stop::Error(Errno::EINVAL)));
        let id = create(world, 0).unwrap();
        let early = world.domctl(DomctlOp::GetVcpuInfo, id, GetVcpuInfo::default());
        assert_eq!(early, Err(Stop::Error(Errno::ESRCH)), "not yet allocated");
    });
}

#[test]
fn shutdown_shows_and_is_undone() {
    with_world(|world| {
        {
            let guest = world.host.domains.get(GUEST).unwrap();
            crate::domain::shutdown::shutdown(&world.host, &guest, 2);
        }
        let flags = about(world, GUEST.0).unwrap().flags;
        assert_eq!(flags >> 16, 2);
        assert!(flags & DomainInfoFlags::SHUTDOWN.bits() != 0);
        world.domctl_plain(DomctlOp::ResumeDomain, GUEST.0).unwrap();
        assert_eq!(about(world, GUEST.0).unwrap().flags >> 16, 0xffff);
        assert_eq!(world.domctl_plain(DomctlOp::ResumeDomain, 0), error(Errno::EINVAL));
    });
}

#[test]
fn memory_limits_and_pools_are_kept() {
    with_world(|world| {
        let guest = world.host.domains.get(GUEST).unwrap();
        world.domctl(DomctlOp::MaxMem, GUEST.0, MaxMem { max_memkb: 4099 }).unwrap();
        assert_eq!(guest.accounting.max_pages.load(Ordering::Relaxed), 1024);
        world.domctl(DomctlOp::MaxMem, GUEST.0, MaxMem { max_memkb: u64::MAX }).unwrap();
        assert_eq!(guest.accounting.max_pages.load(Ordering::Relaxed), 0xffff_ffff);

        let pool = |size| world.domctl(DomctlOp::SetPagingMempoolSize, GUEST.0, PagingMempool { size }).err();
        let ask = || world.domctl(DomctlOp::GetPagingMempoolSize, GUEST.0, PagingMempool::default()).unwrap().size;
        assert_eq!(ask(), 1 << 20);
        assert_eq!(pool(4097), Some(Stop::Error(Errno::EINVAL)));
        assert_eq!(pool(1 << 44), Some(Stop::Error(Errno::EINVAL)), "more pages than 32 bits count");
        assert_eq!(pool(1 << 30), Some(Stop::Error(Errno::ENOMEM)), "the machine has 16 MiB");
        assert_eq!(pool(3 << 20), None);
        assert_eq!(ask(), 3 << 20);

        let shadow = |op, mb| world.domctl(DomctlOp::ShadowOp, GUEST.0, ShadowOp { op, mb, ..ShadowOp::default() });
        assert_eq!(shadow(30, 0).unwrap().mb, 3);
        assert_eq!(shadow(31, 2).unwrap().mb, 2);
        assert_eq!(ask(), 2 << 20);
        assert_eq!(shadow(2, 0), Err(Stop::Error(Errno::EOPNOTSUPP)), "no log of dirty pages yet");
        assert_eq!(shadow(11, 0), Err(Stop::Error(Errno::EOPNOTSUPP)));
        assert_eq!(shadow(1, 0), Err(Stop::Error(Errno::EINVAL)));
        assert!(shadow(0, 0).is_ok());
    });
}

#[test]
fn the_toolstack_hears_of_the_end() {
    with_world(|world| {
        let (died, typed) = {
            let control = world.host.domains.get(DomId::CONTROL).unwrap();
            let mut table = control.events.table();
            (table.bind_virq(Virq::DomExc, 0).unwrap(), table.bind_virq(Virq::Console, 0).unwrap())
        };
        let pending = |port| {
            let control = world.host.domains.get(DomId::CONTROL).unwrap();
            crate::event::channel::is_pending(&control, port).unwrap()
        };
        let id = create(world, 0).unwrap();
        assert!(!pending(died) && !pending(typed));
        world.domctl_plain(DomctlOp::DestroyDomain, id).unwrap();
        assert!(pending(died) && !pending(typed));
        world.machine.type_text("x");
        crate::domain::console::drain(&world.host);
        assert!(pending(typed));
    });
}

#[test]
fn a_domain_with_memory_ends_in_steps() {
    with_world(|world| {
        let before = machine::frame::free_pages();
        let id = create(world, 0).unwrap();
        world.domctl(DomctlOp::MaxVcpus, id, MaxVcpus { max: 3 }).unwrap();
        world.domctl(DomctlOp::MaxMem, id, MaxMem { max_memkb: 8192 }).unwrap();
        {
            let domain = world.host.domains.get(DomId(id)).unwrap();
            assert!(domain.accounting.charge(100));
            for gfn in 0..100 {
                let mfn = frame::allocate(0, frame::Kind::Guest, domain.id, frame::Fill::Zero).unwrap();
                let mut change = domain.p2m.begin().unwrap();
                change.set(Gfn::new(gfn), Entry::with_frame(Kind::RamRw, 0, mfn)).unwrap();
                change.commit().complete();
            }
        }
        assert_eq!(about(world, id).unwrap().tot_pages, 100);
        // Somebody else wants the CPU: each call does a part.
        world.machine.note_work(0, machine::cpu::Work::KICK);
        let mut calls = 0;
        while world.domctl_plain(DomctlOp::DestroyDomain, id) == Err(Stop::Restart(None)) {
            calls += 1;
            assert!(calls < 1000, "no progress");
        }
        assert!(calls > 0, "it was to be interrupted");
        assert_eq!(machine::frame::free_pages(), before);
        assert_eq!(about(world, id), Err(Stop::Error(Errno::ESRCH)));
    });
}
