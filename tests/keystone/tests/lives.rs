//! What guests can do with their lives, and how these end: by themselves, by a fault, by the toolstack.

mod common;

use common::{CONFIG, with_toolstack, with_toolstack_on};
use core::mem::offset_of;
use keystone::guest::{self, Cpu};
use keystone::kernel;
use keystone::processor::Operation;
use keystone::snapshot::{Snapshot, entries};
use keystone::toolstack::Toolstack;
use keystone::world::Plan;
use libxc::trap::{Events, Foreign, Trap};
use machine::codec::vmcb::{GuestState, exit};
use machine::frame;
use machine::{DomId, Gfn, Mfn, PAGE_SIZE_U64};
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{AllocUnbound, BindInterdomain, BindIpi, BindVirq, EventChannelOp, Port};
use public_abi::hvm_op::{EvtchnUpcallVector, GetTime, HvmOp};
use public_abi::memory::{AddToPhysmap, MapSpace, MemoryOp, MemoryReservation};
use public_abi::sched::{SchedOp, SchedPoll, SchedShutdown, ShutdownReason};
use public_abi::vcpu::{SetSingleshotTimer, VcpuOp};
use public_abi::virq::Virq;
use public_abi::x86::{SharedInfo, VcpuInfo};
use public_abi::{GuestPtr, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xen_core::p2m::Kind;

/// Creates a domain that runs this on its first vCPU, and unpauses it.
fn start(toolstack: &Toolstack, name: &str, code: impl FnOnce(&mut Cpu) + Send + 'static) -> u16 {
    let config = CONFIG.replace("\"g\"", &format!("\"{name}\""));
    let built = toolstack.create(&config).unwrap_or_else(|failure| panic!("{failure}"));
    guest::run(&toolstack.control.world().machine, DomId(built.domid), 0, move |cpu| {
        cpu.enter_long_mode();
        code(cpu);
    });
    toolstack.handle().domain_unpause(built.domid).expect("is unpaused");
    built.domid
}

/// Waits until a domain has stopped; how it did.
fn end(toolstack: &Toolstack, domid: u16) -> ShutdownReason {
    let world = toolstack.control.world();
    let reason = || world.domain(domid).lifecycle.shutdown_reason();
    assert!(world.run_until(|| reason().is_some()), "domain {domid} never stops");
    let info = toolstack.handle().domain_info(domid).expect("can be asked").expect("is there");
    let told = info.shutdown().expect("has stopped").expect("a known reason");
    assert_eq!(u32::from(reason().unwrap_or(u8::MAX)), told.number());
    told
}

/// Runs guest code in a domain of its own to its end; afterwards the host is as it was.
fn live(code: impl FnOnce(&mut Cpu) + Send + 'static) -> ShutdownReason {
    with_toolstack(|toolstack| {
        let before = Snapshot::take(toolstack);
        let domid = start(toolstack, "g", code);
        let reason = end(toolstack, domid);
        toolstack.destroy(domid).expect("is destroyed");
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
        reason
    })
}

fn shut_down(cpu: &mut Cpu, reason: ShutdownReason) {
    let answer = cpu.sched_op(SchedOp::Shutdown, &mut SchedShutdown { reason: reason.number() });
    panic!("the guest goes on after its shutdown: {answer:?}");
}

#[test]
fn every_reason_to_stop_arrives() {
    for reason in [ShutdownReason::Poweroff, ShutdownReason::Reboot, ShutdownReason::Suspend, ShutdownReason::Crash] {
        assert_eq!(live(move |cpu| shut_down(cpu, reason)), reason);
    }
}

#[test]
fn a_vcpu_that_halts_with_interrupts_off_powers_off() {
    // The second vCPU was never up.
    assert_eq!(live(|_| ()), ShutdownReason::Poweroff);
}

#[test]
fn three_faults_in_a_row_are_a_restart() {
    let reason = live(|cpu| {
        // Nothing comes back from this.
        cpu.operation(Operation::Exit(exit::SHUTDOWN));
    });
    assert_eq!(reason, ShutdownReason::Reboot);
}

#[test]
fn a_state_that_hardware_refuses_is_a_crash() {
    let reason = live(|cpu| {
        cpu.registers(|guest| guest.vmcb.guest = GuestState::ZERO);
        // The next entry is refused.
        cpu.cpuid(0, 0);
    });
    assert_eq!(reason, ShutdownReason::Crash);
}

#[test]
fn a_spinning_guest_stops_neither_the_toolstack_nor_other_guests() {
    with_toolstack(|toolstack| {
        // The first time the lists of waiting vCPUs and timers grow.
        spin_beside_another(toolstack);
        let before = Snapshot::take(toolstack);
        spin_beside_another(toolstack);
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    });
}

fn spin_beside_another(toolstack: &Toolstack) {
    let spinner = start(toolstack, "spinner", |cpu| {
        loop {
            cpu.spin(1_000_000_000);
        }
    });
    let beats = Arc::new(AtomicU64::new(0));
    let counter = beats.clone();
    let other = start(toolstack, "other", move |cpu| {
        for _ in 0..10 {
            cpu.spin(25_000_000);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(end(toolstack, other), ShutdownReason::Poweroff);
    assert_eq!(beats.load(Ordering::Relaxed), 10);
    let info = toolstack.handle().vcpu_info(spinner, 0).expect("can be asked");
    // The two had the CPU in turns; the other one needed 250 ms of it.
    assert!((100_000_000..600_000_000).contains(&info.cpu_time), "{info:?}");
    toolstack.destroy(other).expect("is destroyed");
    toolstack.destroy(spinner).expect("is destroyed while it spins");
}

/// Ports between two guests: each waits for the other's event, and then answers.
fn exchange_events(rounds: u64, cpus: u16) {
    let plan = Plan { cpus, ..Plan::default() };
    with_toolstack_on(&plan, |toolstack| {
        let beats = Arc::new(AtomicU64::new(0));
        let counter = beats.clone();
        let first = start(toolstack, "first", move |cpu| {
            map_shared_info(cpu);
            // The neighbour has the next number.
            let remote_dom = cpu.cpuid(0x4000_0004, 0)[2] as u16 + 1;
            let mut open = AllocUnbound { dom: DOMID_SELF, remote_dom, ..AllocUnbound::default() };
            assert_eq!(cpu.event_op(EventChannelOp::AllocUnbound, &mut open), Ok(0));
            for _ in 0..rounds {
                wait_for(cpu, open.port, 0);
                counter.fetch_add(1, Ordering::Relaxed);
                assert_eq!(cpu.event_op(EventChannelOp::Send, &mut Port { port: open.port }), Ok(0));
            }
        });
        let world = toolstack.control.world();
        world.settle();
        let second = start(toolstack, "second", move |cpu| {
            map_shared_info(cpu);
            // Ports 1 and 2 are the toolstack's.
            let mut bind = BindInterdomain { remote_dom: first, remote_port: 3, ..BindInterdomain::default() };
            assert_eq!(cpu.event_op(EventChannelOp::BindInterdomain, &mut bind), Ok(0));
            // Binding raises the event here: somebody may have sent before.
            wait_for(cpu, bind.local_port, 0);
            for _ in 0..rounds {
                assert_eq!(cpu.event_op(EventChannelOp::Send, &mut Port { port: bind.local_port }), Ok(0));
                wait_for(cpu, bind.local_port, 0);
            }
        });
        assert_eq!(end(toolstack, first), ShutdownReason::Poweroff);
        assert_eq!(end(toolstack, second), ShutdownReason::Poweroff);
        assert_eq!(beats.load(Ordering::Relaxed), rounds);
        for domid in [first, second] {
            toolstack.destroy(domid).expect("is destroyed");
        }
    });
}

#[test]
fn two_guests_wake_each_other_on_one_cpu_and_on_two() {
    exchange_events(200, 1);
    exchange_events(200, 2);
}

/// The guest frame of shared_info.
const SHARED_INFO: u64 = 0x10_0001;

fn map_shared_info(cpu: &mut Cpu) {
    let mut request = AddToPhysmap {
        domid: DOMID_SELF,
        space: MapSpace::SharedInfo.number(),
        gpfn: SHARED_INFO,
        ..AddToPhysmap::default()
    };
    assert_eq!(cpu.memory_op(MemoryOp::AddToPhysmap, &mut request), Ok(0));
}

/// Takes a port's event if it is pending: the flag first, then the selector, then the event, as the ABI wants it.
fn take_event(cpu: &mut Cpu, port: u32) -> bool {
    let info = SHARED_INFO * PAGE_SIZE_U64 + offset_of!(SharedInfo, vcpu_info) as u64;
    cpu.put(info + offset_of!(VcpuInfo, evtchn_upcall_pending) as u64, &0u8);
    cpu.put(info + offset_of!(VcpuInfo, evtchn_pending_sel) as u64, &0u64);
    let word = SHARED_INFO * PAGE_SIZE_U64 + offset_of!(SharedInfo, evtchn_pending) as u64 + u64::from(port / 64) * 8;
    let bit = 1u64 << (port % 64);
    let pending: u64 = cpu.get(word);
    cpu.put(word, &(pending & !bit));
    pending & bit != 0
}

/// Polls until a port has an event, or until a time; whether it had one.
fn wait_for(cpu: &mut Cpu, port: u32, timeout: u64) -> bool {
    let ports = kernel::SCRATCH + 256;
    cpu.put(ports, &port);
    let poll = SchedPoll { ports: GuestPtr::from_address(ports), nr_ports: 1, timeout, ..SchedPoll::default() };
    assert_eq!(cpu.sched_op(SchedOp::Poll, &mut { poll }), Ok(0));
    let came = take_event(cpu, port);
    assert!(came || timeout != 0, "the poll ended without the event");
    came
}

/// System time in nanoseconds.
fn now(cpu: &mut Cpu) -> u64 {
    let mut time = GetTime::default();
    assert_eq!(cpu.hvm_op(HvmOp::GetTime, &mut time), Ok(0));
    time.now
}

#[test]
fn timers_end_waiting_in_time() {
    let reason = live(|cpu| {
        map_shared_info(cpu);
        let mut timer = BindVirq { virq: Virq::Timer.number(), ..BindVirq::default() };
        assert_eq!(cpu.event_op(EventChannelOp::BindVirq, &mut timer), Ok(0));
        let set = |cpu: &mut Cpu, timeout_abs_ns| {
            let mut request = SetSingleshotTimer { timeout_abs_ns, ..SetSingleshotTimer::default() };
            assert_eq!(cpu.vcpu_op(VcpuOp::SetSingleshotTimer, 0, &mut request), Ok(0));
        };
        // A poll for the timer's event.
        let before = now(cpu);
        set(cpu, before + 5_000_000_000);
        wait_for(cpu, timer.port, 0);
        let waited = now(cpu) - before;
        assert!((4_900_000_000..5_100_000_000).contains(&waited), "{waited}");
        // A poll that ends by its own time, before the event.
        set(cpu, u64::MAX / 2);
        let before = now(cpu);
        assert!(!wait_for(cpu, timer.port, before + 3_000_000));
        assert!(now(cpu) - before < 10_000_000);
        // A halt that ends by the upcall's vector.
        let mut vector = EvtchnUpcallVector { vector: 0xf3, ..EvtchnUpcallVector::default() };
        assert_eq!(cpu.hvm_op(HvmOp::SetEvtchnUpcallVector, &mut vector), Ok(0));
        // The local APIC must be on: x2APIC, and its spurious-interrupt register.
        let base = cpu.read_msr(0x1b).expect("exists");
        assert!(cpu.write_msr(0x1b, base | 0xc00) && cpu.write_msr(0x80f, 0x1ff));
        // An upcall for what was pending before the vector was chosen may come: it is not this one.
        cpu.set_interrupts(true);
        cpu.cpuid(0, 0);
        cpu.interrupts();
        assert!(cpu.write_msr(0x80b, 0), "the end of the interrupt");
        take_event(cpu, timer.port);
        let before = now(cpu);
        set(cpu, before + 7_000_000);
        cpu.halt();
        assert_eq!(cpu.interrupts(), [0xf3]);
        let waited = now(cpu) - before;
        assert!((6_900_000..9_000_000).contains(&waited), "{waited}");
        assert!(take_event(cpu, timer.port));
        assert!(cpu.write_msr(0x80b, 0), "the end of the interrupt");
        cpu.set_interrupts(false);
    });
    assert_eq!(reason, ShutdownReason::Poweroff);
}

#[test]
fn a_second_vcpu_starts_by_interrupts_and_ends_the_domain_with_the_first() {
    for cpus in [1, 2] {
        let plan = Plan { cpus, ..Plan::default() };
        with_toolstack_on(&plan, |toolstack| {
            let built = toolstack.create(CONFIG).unwrap_or_else(|failure| panic!("{failure}"));
            let machine = &toolstack.control.world().machine;
            /// Where the second one begins: the vector of its start-up interrupt says it.
            const START: u64 = 0x9_0000;
            let is_up = Arc::new(AtomicBool::new(false));
            let flag = is_up.clone();
            guest::run(machine, DomId(built.domid), 1, move |cpu| {
                let vmcb = cpu.vmcb();
                assert_eq!((vmcb.guest.cs.base, vmcb.guest.rip, vmcb.guest.cr0 & 1), (START, 0, 0), "real mode");
                cpu.enter_long_mode();
                flag.store(true, Ordering::Release);
                assert_eq!(cpu.cpuid(1, 0)[1] >> 24, 2, "its APIC id");
                assert_eq!(cpu.vcpu_op_plain(VcpuOp::IsUp, 0), Ok(1));
                cpu.write(0x20_0000, b"second");
            });
            guest::run(machine, DomId(built.domid), 0, |cpu| {
                cpu.enter_long_mode();
                assert_eq!(cpu.vcpu_op_plain(VcpuOp::IsUp, 1), Ok(0));
                let base = cpu.read_msr(0x1b).expect("exists");
                assert!(cpu.write_msr(0x1b, base | 0xc00));
                // INIT, then start-up, to APIC id 2 (x2APIC's interrupt command register).
                assert!(cpu.write_msr(0x830, 2 << 32 | 0x4500));
                assert!(cpu.write_msr(0x830, 2 << 32 | 0x4600 | START >> 12));
                while cpu.read(0x20_0000, 6) != b"second" {
                    cpu.spin(100_000);
                }
            });
            toolstack.handle().domain_unpause(built.domid).expect("is unpaused");
            assert_eq!(end(toolstack, built.domid), ShutdownReason::Poweroff, "both have halted");
            assert!(is_up.load(Ordering::Acquire));
            toolstack.destroy(built.domid).expect("is destroyed");
        });
    }
}

#[test]
fn an_ipi_reaches_the_other_vcpu_and_wakes_it() {
    with_toolstack_on(&Plan { cpus: 2, ..Plan::default() }, |toolstack| {
        let built = toolstack.create(CONFIG).unwrap_or_else(|failure| panic!("{failure}"));
        let machine = &toolstack.control.world().machine;
        const ROUNDS: u64 = 50;
        let count = Arc::new(AtomicU64::new(0));
        let counter = count.clone();
        guest::run(machine, DomId(built.domid), 1, move |cpu| {
            cpu.enter_long_mode();
            let mut bind = BindIpi { vcpu: 1, ..BindIpi::default() };
            cpu.set_scratch(kernel::SCRATCH + 0x800);
            assert_eq!(cpu.event_op(EventChannelOp::BindIpi, &mut bind), Ok(0));
            cpu.put(0x20_0000, &u64::from(bind.port));
            for _ in 0..ROUNDS {
                wait_for_at(cpu, bind.port, kernel::SCRATCH + 0xa00);
                let counted = counter.fetch_add(1, Ordering::Relaxed) + 1;
                cpu.put(0x20_0008, &counted);
            }
        });
        guest::run(machine, DomId(built.domid), 0, |cpu| {
            cpu.enter_long_mode();
            map_shared_info(cpu);
            let base = cpu.read_msr(0x1b).expect("exists");
            assert!(cpu.write_msr(0x1b, base | 0xc00));
            assert!(cpu.write_msr(0x830, 2 << 32 | 0x4500) && cpu.write_msr(0x830, 2 << 32 | 0x4690));
            let port = loop {
                match cpu.get::<u64>(0x20_0000) {
                    0 => cpu.spin(10_000),
                    port => break port as u32,
                }
            };
            for round in 1..=ROUNDS {
                assert_eq!(cpu.event_op(EventChannelOp::Send, &mut Port { port }), Ok(0));
                while cpu.get::<u64>(0x20_0008) < round {
                    cpu.spin(10_000);
                }
            }
        });
        toolstack.handle().domain_unpause(built.domid).expect("is unpaused");
        assert_eq!(end(toolstack, built.domid), ShutdownReason::Poweroff);
        assert_eq!(count.load(Ordering::Relaxed), ROUNDS);
        toolstack.destroy(built.domid).expect("is destroyed");
    });
}

/// As `wait_for`, with its arguments elsewhere.
fn wait_for_at(cpu: &mut Cpu, port: u32, place: u64) {
    cpu.put(place, &port);
    let poll = SchedPoll { ports: GuestPtr::from_address(place), nr_ports: 1, ..SchedPoll::default() };
    while !take_event(cpu, port) {
        assert_eq!(cpu.sched_op(SchedOp::Poll, &mut { poll }), Ok(0));
    }
}

#[test]
fn a_paused_domain_does_nothing_until_it_is_unpaused_as_often() {
    with_toolstack(|toolstack| {
        let beats = Arc::new(AtomicU64::new(0));
        let counter = beats.clone();
        let domid = start(toolstack, "g", move |cpu| {
            loop {
                cpu.spin(100_000);
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let world = toolstack.control.world();
        assert!(world.run_until(|| beats.load(Ordering::Relaxed) > 3));
        for _ in 0..2 {
            toolstack.handle().domain_pause(domid).expect("is paused");
        }
        let before = beats.load(Ordering::Relaxed);
        for _ in 0..20 {
            world.machine.advance(10_000_000);
            world.settle();
        }
        assert_eq!(beats.load(Ordering::Relaxed), before);
        toolstack.handle().domain_unpause(domid).expect("is unpaused once");
        world.machine.advance(10_000_000);
        world.settle();
        assert_eq!(beats.load(Ordering::Relaxed), before);
        toolstack.handle().domain_unpause(domid).expect("is unpaused twice");
        assert!(world.run_until(|| beats.load(Ordering::Relaxed) > before + 3));
        toolstack.destroy(domid).expect("is destroyed");
    });
}

#[test]
fn a_mapped_page_outlives_its_domain_and_not_its_mapping() {
    with_toolstack(|toolstack| {
        let before = Snapshot::take(toolstack);
        let domid = start(toolstack, "g", |cpu| cpu.write(0x20_0000, b"last words"));
        end(toolstack, domid);
        let page = toolstack.trap().foreign(domid, &[0x200]).expect("can be mapped");
        let free = frame::free_pages();
        toolstack.destroy(domid).expect("is destroyed");
        let mut bytes = [0; 10];
        page.read_at(0, &mut bytes);
        assert_eq!(&bytes, b"last words");
        let world = toolstack.control.world();
        let at = Gfn::new(page.gfn());
        let mfn = world.domain(0).p2m.lookup(at).frame_at(at);
        assert_eq!(frame::state(mfn).map(|state| state.owner), Some(DomId(domid)), "it is still the dead one's");
        // Nobody else gets it meanwhile.
        let other = toolstack.create(CONFIG).expect("is created");
        assert!(entries(&world.domain(other.domid)).iter().all(|(.., found)| *found != mfn));
        toolstack.destroy(other.domid).expect("is destroyed");
        assert!(frame::free_pages() > free);
        drop(page);
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    });
}

#[test]
fn what_the_control_domain_balloons_out_is_lent_to_nobody() {
    with_toolstack(|toolstack| {
        // From the middle of its RAM, at a page that its kernel does not use.
        const GFN: u64 = 0xe00;
        let control = &toolstack.control;
        let world = control.world();
        let before = Snapshot::take(toolstack);
        let list = control.take_buffer(4096).expect("there is memory");
        let request = |operation: MemoryOp| {
            control.write(list, &GFN.to_le_bytes());
            let mut one = MemoryReservation {
                extent_start: GuestPtr::from_address(list),
                nr_extents: 1,
                domid: DOMID_SELF,
                ..MemoryReservation::default()
            };
            control.exchange(&mut one, |arg| Request::MemoryOp { cmd: operation.number().into(), arg })
        };
        control.write(GFN * PAGE_SIZE_U64, b"its own");
        assert_eq!(request(MemoryOp::DecreaseReservation), Ok(1));
        assert_eq!(world.domain(0).p2m.lookup(Gfn::new(GFN)).kind, Kind::Reserved);
        // Guests take all memory that there is.
        let mut domids = Vec::new();
        loop {
            let config = CONFIG.replace("\"g\"", &format!("\"g{}\"", domids.len()));
            match toolstack.create(&config) {
                Ok(built) => domids.push(built.domid),
                Err(failure) => {
                    assert!(failure.to_string().contains("out of memory"), "{failure}");
                    break;
                }
            }
        }
        assert!(domids.len() > 5, "{domids:?}");
        for domid in &domids {
            let found = entries(&world.domain(*domid));
            let has =
                |(_, order, _, mfn): &(Gfn, u32, Kind, Mfn)| (mfn.number()..mfn.number() + (1 << order)).contains(&GFN);
            assert!(!found.iter().any(has), "domain {domid} has frame {GFN:#x}");
        }
        assert_eq!(frame::state(Mfn::new(GFN)).map(|state| state.owner), Some(DomId::CONTROL));
        assert_eq!(request(MemoryOp::PopulatePhysmap), Ok(1), "it gets its own frame back, without any free memory");
        assert_eq!(world.domain(0).p2m.lookup(Gfn::new(GFN)).mfn, Mfn::new(GFN));
        for domid in domids {
            toolstack.destroy(domid).expect("is destroyed");
        }
        control.give_buffer(list, 4096);
        let after = Snapshot::take(toolstack);
        assert_eq!(before.others(), after.others());
    });
}

#[test]
fn the_toolstack_hears_of_an_end_while_it_waits() {
    with_toolstack(|toolstack| {
        let events = toolstack.trap().events().expect("event channels");
        let port = events.bind_virq(Virq::DomExc).expect("can be bound");
        let domid = start(toolstack, "g", |cpu| {
            cpu.spin(3_000_000_000);
            shut_down(cpu, ShutdownReason::Reboot);
        });
        assert_eq!(events.wait().ok(), Some(port));
        assert_eq!(end(toolstack, domid), ShutdownReason::Reboot);
        toolstack.destroy(domid).expect("is destroyed");
        assert_eq!(events.wait().ok(), Some(port));
        events.unbind(port).expect("is bound");
        let error = events.wait().expect_err("nothing is left that could happen");
        assert!(error.to_string().contains("nothing will ever happen"), "{error}");
    });
}
