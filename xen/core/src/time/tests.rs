//! What guests see of time: their clocks, the wall clock, run-state areas, and deadlines that have passed.

use super::{Area, set_tsc_offset, set_wall_clock, update_wall_clock};
use crate::event::fixture::{WALL, add_page, caller, domain, pin, with_host};
use crate::event::upcall::with_info;
use crate::event::{send_virq, upcall_pending};
use crate::hypercall::vcpu::{set_timer_op, vcpu_op};
use crate::time;
use crate::vcpu::Wait;
use core::mem::offset_of;
use machine::frame::Pin;
use machine::{DomId, memory};
use public_abi::vcpu::*;
use public_abi::virq::Virq;
use public_abi::x86::{SharedInfo, VcpuInfo, VcpuTimeInfo};
use public_abi::{Errno, GuestPtr};
use zerocopy::{FromBytes, IntoBytes};

const SECOND: u64 = 1_000_000_000;

fn read<T: FromBytes + IntoBytes>(page: &Pin, offset: usize) -> T {
    let mut value = T::new_zeroed();
    assert!(memory::read(page, offset, value.as_mut_bytes()));
    value
}

/// System time as a guest computes it.
fn guest_time(info: VcpuTimeInfo, tsc: u64) -> u64 {
    assert_eq!(info.version & 1, 0, "not being written");
    let ticks = tsc.wrapping_sub(info.tsc_timestamp);
    let shifted = if info.tsc_shift < 0 { ticks >> -info.tsc_shift } else { ticks << info.tsc_shift };
    info.system_time + u64::try_from((u128::from(shifted) * u128::from(info.tsc_to_system_mul)) >> 32).unwrap()
}

#[test]
fn guests_and_hypervisor_agree_on_the_time() {
    with_host(1, 2, |machine, host| {
        let control = domain(host, 0);
        time::begin(host, &control);
        let clock = |vcpu| {
            with_info(&control.events, control.vcpu(vcpu).unwrap(), |page, offset| {
                read::<VcpuTimeInfo>(page, offset + offset_of!(VcpuInfo, time))
            })
            .unwrap()
        };
        machine.advance(7 * SECOND + 12_345);
        assert_eq!(clock(0), clock(1));
        assert_eq!(clock(0).flags, 1, "stable");
        assert_eq!(guest_time(clock(0), machine.now()), host.clock.now());
        assert_eq!(host.clock.now(), 7 * SECOND + 12_345);
        let before = clock(1).version;
        set_tsc_offset(host, &control, control.vcpu(1).unwrap(), 0u64.wrapping_sub(5 * SECOND));
        assert_eq!(clock(1).version, before + 2);
        assert_eq!(guest_time(clock(1), machine.now().wrapping_sub(5 * SECOND)), host.clock.now());
        assert_eq!(host.clock.timestamp_at(host.clock.now()), machine.now());
    });
}

#[test]
fn the_wall_clock_reaches_every_domain() {
    with_host(2, 1, |machine, host| {
        machine.advance(10 * SECOND);
        domain(host, 1).control.lock().time_offset_seconds = -3600;
        let shown = |id| {
            let info: SharedInfo = read(domain(host, id).events.shared_info(), 0);
            assert_eq!(info.wc_version & 1, 0);
            (u64::from(info.wc_sec) | u64::from(info.wc_sec_hi) << 32, info.wc_nsec)
        };
        update_wall_clock(host, &domain(host, 0));
        assert_eq!(shown(0), (WALL, 0));
        set_wall_clock(host, (1 << 33) + 20, 250, 10 * SECOND + 500);
        assert_eq!(shown(0), ((1 << 33) + 9, 999_999_750));
        assert_eq!(shown(1), ((1 << 33) + 9 - 3600, 999_999_750));
        assert_eq!(host.clock.wall().seconds, (1 << 33) + 9);
        set_wall_clock(host, 1, 0, 10 * SECOND);
        assert_eq!(shown(0), (0, 0), "never before 1970");
    });
}

#[test]
fn run_states_are_shown_across_a_page_boundary() {
    with_host(1, 1, |machine, host| {
        let control = domain(host, 0);
        time::begin(host, &control);
        let (first, second) = (add_page(&control, 1), add_page(&control, 2));
        let guest = caller(host, &control, 0);
        let at = GuestPtr::<RegisterMemoryArea>::from_address(0x1000);
        let register = |op: VcpuOp, addr| {
            guest.memory.write(at, &RegisterMemoryArea { addr }).unwrap();
            vcpu_op(&guest, op.number(), 0, at.cast())
        };
        assert_eq!(register(VcpuOp::RegisterRunstateMemoryArea, 0x2ff0), Err(Errno::EFAULT.into()), "no page behind");
        assert_eq!(register(VcpuOp::RegisterRunstateMemoryArea, 0x1fe8), Ok(0));
        control.events.change_assists(1 << 5, 0);
        machine.advance(30);
        time::runstate_changed(&control, guest.vcpu, Runstate::Runnable, 30);
        time::runstate_changed(&control, guest.vcpu, Runstate::Running, 50);
        let (first, second) = (pin(&control, first), pin(&control, second));
        assert_eq!(read::<u32>(&first, 0xfe8), Runstate::Running.number());
        assert_eq!(read::<u64>(&first, 0xff0), 50, "without the flag of an update");
        assert_eq!(read::<u64>(&first, 0xff8), 0);
        assert_eq!(read::<[u64; 3]>(&second, 0), [20, 0, 30]);
        machine.advance(70);
        let info = GuestPtr::<RunstateInfo>::from_address(0x1100);
        assert_eq!(vcpu_op(&guest, VcpuOp::GetRunstateInfo.number(), 0, info.cast()), Ok(0));
        let now = guest.memory.read(info).unwrap();
        assert_eq!((now.state, now.time), (0, [50, 20, 0, 30]));
        assert_eq!(register(VcpuOp::RegisterRunstateMemoryArea, 0), Ok(0));
        time::runstate_changed(&control, guest.vcpu, Runstate::Blocked, 100);
        assert_eq!(read::<u32>(&first, 0xfe8), Runstate::Running.number(), "no longer written");
        assert_eq!(register(VcpuOp::RegisterVcpuTimeMemoryArea, 0x1200), Ok(0));
        let copy = read::<VcpuTimeInfo>(&first, 0x200);
        assert_eq!(guest_time(copy, machine.now()), host.clock.now());
        guest.vcpu.events.reset();
        assert_eq!(machine::frame::state(second.mfn()).unwrap().count, 2, "the allocation's and this test's");
    });
}

#[test]
fn an_area_needs_both_of_its_pages() {
    with_host(1, 1, |_, host| {
        let control = domain(host, 0);
        let mfn = add_page(&control, 1);
        let one_page = |address: u64| {
            let offset = usize::try_from(address & 0xfff).unwrap();
            if address < 0x2000 { Ok((pin(&control, mfn), offset)) } else { Err(Errno::EFAULT) }
        };
        assert!(Area::try_new(0x1fd0, 48, one_page).is_ok());
        assert_eq!(Area::try_new(0x1fd1, 48, one_page).err(), Some(Errno::EFAULT));
        let wrapping = |_| Ok((pin(&control, mfn), 0xff0));
        assert_eq!(Area::try_new(u64::MAX - 15, 48, wrapping).err(), Some(Errno::EFAULT));
    });
}

#[test]
fn deadlines_that_have_passed() {
    with_host(1, 2, |machine, host| {
        let control = domain(host, 0);
        add_page(&control, 1);
        let guest = caller(host, &control, 0);
        let pending = || upcall_pending(&control, guest.vcpu);
        control.events.table().bind_virq(Virq::Timer, 0).unwrap();
        machine.advance(SECOND);
        let at = GuestPtr::<SetSingleshotTimer>::from_address(0x1000);
        let singleshot = |vcpu, timeout_abs_ns, flags| {
            guest
                .memory
                .write(at, &SetSingleshotTimer { timeout_abs_ns, flags, ..SetSingleshotTimer::default() })
                .unwrap();
            vcpu_op(&guest, VcpuOp::SetSingleshotTimer.number(), vcpu, at.cast())
        };
        assert_eq!(singleshot(1, SECOND, 0), Err(Errno::EINVAL.into()), "for oneself only");
        assert_eq!(singleshot(0, SECOND - 1, VCPU_SSHOTTMR_FUTURE), Err(Errno::ETIME.into()));
        assert!(!pending());
        assert_eq!(singleshot(0, SECOND + 1, VCPU_SSHOTTMR_FUTURE), Ok(0));
        assert!(!pending());
        assert_eq!(singleshot(0, SECOND - 1, 0), Ok(0));
        assert!(pending(), "raised at once");
        let period = |period_ns| {
            let at = GuestPtr::<SetPeriodicTimer>::from_address(0x1000);
            guest.memory.write(at, &SetPeriodicTimer { period_ns }).unwrap();
            vcpu_op(&guest, VcpuOp::SetPeriodicTimer.number(), 0, at.cast())
        };
        assert_eq!(period(999_999), Err(Errno::EINVAL.into()));
        assert_eq!(period(u64::MAX), Err(Errno::EINVAL.into()));
        assert_eq!(period(1_000_000), Ok(0));
        assert_eq!(vcpu_op(&guest, VcpuOp::StopPeriodicTimer.number(), 0, GuestPtr::NULL), Ok(0));
        assert_eq!(vcpu_op(&guest, VcpuOp::StopSingleshotTimer.number(), 1, GuestPtr::NULL), Err(Errno::EINVAL.into()));
        for time in [0, -1, 5, i64::MAX] {
            assert_eq!(set_timer_op(&guest, time), Ok(0));
        }
    });
}

#[test]
fn timers_that_come_raise_their_event() {
    with_host(1, 1, |machine, host| {
        let control = domain(host, 0);
        let vcpu = control.vcpu(0).unwrap();
        control.events.table().bind_virq(Virq::Timer, 0).unwrap();
        crate::event::upcall::set_callback(host, &control, 2 << 56 | 0xf3);
        vcpu.clear_wait(Wait::DOWN);
        vcpu.add_wait(Wait::BLOCKED);
        machine.advance(SECOND);
        time::timers::expired(host, &control, vcpu, crate::timer::TimerKind::Periodic);
        assert!(!upcall_pending(&control, vcpu), "it was stopped meanwhile");
        time::timers::expired(host, &control, vcpu, crate::timer::TimerKind::Singleshot);
        assert!(upcall_pending(&control, vcpu));
        assert!(vcpu.is_runnable());
        // Nobody bound it elsewhere: nothing happens.
        send_virq(host, &control, vcpu, Virq::Debug);
        assert_eq!(control.id, DomId(0));
    });
}

#[test]
fn deadlines_come_at_their_time() {
    with_host(1, 1, |machine, host| {
        let control = domain(host, 0);
        let guest = caller(host, &control, 0);
        control.events.table().bind_virq(Virq::Timer, 0).unwrap();
        let word = || {
            let offset = offset_of!(SharedInfo, evtchn_pending);
            let word = memory::atomic::<u64>(control.events.shared_info(), offset).unwrap();
            word.swap(0, core::sync::atomic::Ordering::SeqCst)
        };
        let run = |ticks| {
            machine.advance(ticks);
            crate::timer::run_due(host, machine::CpuId(0));
            word() != 0
        };
        assert_eq!(set_timer_op(&guest, 5_000), Ok(0));
        assert!(!run(4_999));
        assert!(run(1), "to the nanosecond");
        assert!(!run(SECOND), "once");
        time::timers::set_periodic(host, guest.vcpu, 2_000_000).unwrap();
        assert!(!run(1_999_999));
        assert!(run(1));
        assert!(run(2_000_000), "again and again");
        time::timers::stop_periodic(host, guest.vcpu);
        assert!(!run(SECOND));
        // A time that is too far away to be meant comes soon.
        assert_eq!(set_timer_op(&guest, i64::MAX), Ok(0));
        assert!(!run(99_999_999));
        assert!(run(1));
        assert_eq!(set_timer_op(&guest, -5), Ok(0));
        assert!(run(100_000_000));
        // The watchdog ends the machine of a control domain; here it is asked for another domain.
        crate::event::fixture::add_domain(host, 1, 1);
        let other = domain(host, 1);
        assert_eq!(crate::domain::shutdown::set_watchdog(host, &other, 0, 3), Ok(1));
        run(2 * SECOND);
        assert_eq!(crate::domain::shutdown::set_watchdog(host, &other, 1, 3), Ok(0), "served");
        run(2 * SECOND);
        assert_eq!(other.lifecycle.shutdown_reason(), None);
        run(SECOND);
        assert_eq!(other.lifecycle.shutdown_reason(), Some(4));
    });
}
