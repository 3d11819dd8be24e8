//! Random hypercalls, from a guest and from the control domain, with a seed: nothing that a domain asks for may stop the
//! hypervisor, break a rule of its memory, change what is not the domain's, or stay when the domain has gone.
//!
//! OXEN_SOAK=N runs N times as long (1000 for a hundred million calls, with `--profile soak`); OXEN_SEED=S begins with seed S. A
//! failure prints the seed and the operation.

mod common;

use common::{CONFIG, with_toolstack, with_toolstack_on};
use keystone::audit::audit;
use keystone::harmless::written;
use keystone::kernel;
use keystone::random::{ARENA, Last, Progress, Random, Subject, command, hammer};
use keystone::snapshot::Snapshot;
use keystone::toolstack::Toolstack;
use keystone::world::Plan;
use machine::DomId;
use machine::cpu::Work;
use public_abi::event_channel::{EventChannelOp, Port};
use public_abi::{Errno, Request};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xen_core::vcpu::Wait;

/// Operations of one domain's life, in a test of the usual length; and hypercalls of such a test.
const OPERATIONS: u64 = 2000;
const CALLS: u64 = 100_000;

/// Operations of one domain's life: in a long run its beginning and end shall not take most of the time.
fn operations() -> u64 {
    if from_environment("OXEN_SOAK", 1) < 100 { OPERATIONS } else { 20 * OPERATIONS }
}

/// A life that takes longer is named: something in it goes on and on, which wants a look.
const SLOW: std::time::Duration = std::time::Duration::from_secs(120);

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs `life` with one seed after the other until so many hypercalls were answered.
fn with_seeds(calls: u64, mut life: impl FnMut(u64, &Arc<Progress>)) {
    let first = from_environment("OXEN_SEED", 1);
    let calls = calls * from_environment("OXEN_SOAK", 1);
    let progress = Arc::new(Progress::default());
    let answered = || progress.calls.lock().unwrap().all();
    let mut shown = 0;
    for seed in first.. {
        let start = std::time::Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| life(seed, &progress)));
        if start.elapsed() > SLOW {
            eprintln!("seed {seed} took {} s; last: {}", start.elapsed().as_secs(), progress.last.lock().unwrap());
        }
        if let Err(reason) = result {
            eprintln!(
                "seed {seed}, {} left, at {}",
                progress.left.load(Ordering::Relaxed),
                progress.last.lock().unwrap()
            );
            resume_unwind(reason);
        }
        let answered = answered();
        if answered / 1_000_000 > shown {
            shown = answered / 1_000_000;
            eprintln!("{answered} calls, seeds {first} to {seed}");
        }
        if answered >= calls {
            println!("SOAK {answered} calls, seeds {first} to {seed}");
            break;
        }
    }
    let calls = progress.calls.lock().unwrap();
    println!("{}", calls.coverage());
    // Otherwise the generator has stopped to make calls that get far.
    assert!(calls.succeeded() > 100, "only {} kinds of calls ever succeeded", calls.succeeded());
}

/// Turns without an operation after which a domain is given up: it has broken its own code, or waits for ever.
const MOST_IDLE_TURNS: u64 = 40;

/// Lets a domain do so many things, while time passes, interrupts come and memory may run out; fewer if it has come to a
/// standstill before.
fn let_run(toolstack: &Toolstack, random: &mut Random, progress: &Progress, operations: u64) {
    let world = toolstack.control.world();
    progress.left.store(operations, Ordering::Relaxed);
    let mut idle = 0;
    let mut left = operations;
    while left > 0 && idle < MOST_IDLE_TURNS {
        if random.once_in(8) {
            // Somebody else wants the CPU: long calls are interrupted.
            world.machine.note_work(0, Work::KICK);
        }
        if random.once_in(4) {
            world.machine.advance(random.below(2_000_000));
        }
        if random.once_in(16) {
            world.fail_allocation(Some(random.below(20)));
        }
        let had_work = world.turn();
        world.fail_allocation(None);
        if !had_work && !world.pass_time() {
            return;
        }
        let now = progress.left.load(Ordering::Relaxed);
        idle = if now == left { idle + 1 } else { 0 };
        left = now;
    }
}

/// Bytes of the control domain that no guest may change: its kernel, and a page that it has written.
fn witness(toolstack: &Toolstack) -> Vec<u8> {
    toolstack.control.read(kernel::BASE, (kernel::SCRATCH - kernel::BASE) as usize)
}

#[test]
fn a_guest_that_asks_for_anything_harms_only_itself() {
    with_toolstack(|toolstack| {
        let world = toolstack.control.world();
        let witness_before = witness(toolstack);
        let mut before = None;
        with_seeds(CALLS, |seed, progress| {
            let mut random = Random::new(seed ^ 0x5eed);
            let domid = toolstack.create(CONFIG).unwrap_or_else(|failure| panic!("{failure}")).domid;
            let subject = Subject { domain: domid, neighbour: domid, ram_frames: 1024, is_control: false };
            world.machine.program_vcpu(DomId(domid), 0, hammer(subject, seed, progress.clone()));
            toolstack.handle().domain_unpause(domid).expect("is unpaused");
            let_run(toolstack, &mut random, progress, operations());
            audit(world.host);
            assert_eq!(witness(toolstack), witness_before, "the control domain's memory has changed");
            toolstack.destroy(domid).expect("is destroyed");
            audit(world.host);
            check_after(toolstack, &mut before, seed);
        });
    });
}

/// What the control domain's grant table may take on the heap once others have asked for all of its entries: the one thing
/// of another domain that a guest's calls make grow.
const MOST_GROWTH: i64 = 1 << 20;

/// Compares the host with what it was after the first life.
fn check_after(toolstack: &Toolstack, before: &mut Option<Snapshot>, seed: u64) {
    let after = Snapshot::take(toolstack);
    let before = before.get_or_insert_with(|| after.clone());
    let growth = after.heap_bytes() - before.heap_bytes();
    assert!((0..=MOST_GROWTH).contains(&growth), "{growth} bytes more on the heap after the life of seed {seed}");
    let difference = before.difference(&after.with_heap_bytes(before.heap_bytes()));
    assert_eq!(difference, "", "after the life of seed {seed}");
}

/// Makes a random call of the control domain's.
fn ask_for_anything(toolstack: &Toolstack, subject: &Subject, random: &mut Random, progress: &Progress) {
    let (number, arguments, arena) = subject.harmless_hypercall(random);
    *progress.last.lock().unwrap() = Last::hypercall(number, &arguments, &arena);
    let control = &toolstack.control;
    control.write(ARENA, &written(&arena));
    let answer = control.hypercall(number, arguments);
    let command = command(number, &arguments, &arena);
    progress.calls.lock().unwrap().count(number, command, answer);
}

#[test]
fn a_control_domain_that_asks_for_anything_keeps_a_sound_host() {
    with_toolstack(|toolstack| {
        let world = toolstack.control.world();
        let mut before = None;
        with_seeds(CALLS, |seed, progress| {
            let mut random = Random::new(seed ^ 0xc0de);
            let mut guests = Vec::new();
            for number in 0..2 {
                let config = CONFIG.replace("\"g\"", &format!("\"g{number}\""));
                let domid = toolstack.create(&config).unwrap_or_else(|failure| panic!("{failure}")).domid;
                let subject = Subject { domain: domid, neighbour: domid, ram_frames: 1024, is_control: false };
                let guest_progress = Arc::new(Progress::default());
                guest_progress.left.store(operations() / 4, Ordering::Relaxed);
                let program = hammer(subject, seed + number, guest_progress);
                world.machine.program_vcpu(DomId(domid), 0, program);
                guests.push(domid);
            }
            let subject = Subject { domain: 0, neighbour: guests[0], ram_frames: 0x400, is_control: true };
            for _ in 0..operations() {
                if random.once_in(8) {
                    world.machine.note_work(0, Work::KICK);
                }
                ask_for_anything(toolstack, &subject, &mut random, progress);
                if random.once_in(128) {
                    audit(world.host);
                }
            }
            clean_up(toolstack);
            audit(world.host);
            let after = Snapshot::take(toolstack);
            let before = before.get_or_insert_with(|| after.clone());
            let growth = after.heap_bytes() - before.heap_bytes();
            assert!(growth <= MOST_GROWTH, "{growth} bytes more on the heap after seed {seed}");
            assert_eq!(before.others(), after.others(), "after seed {seed}");
        });
    });
}

/// Destroys all domains but the control domain, and closes all of that one's event channels.
fn clean_up(toolstack: &Toolstack) {
    let handle = toolstack.handle();
    for info in handle.domains().expect("can be asked").iter().filter(|info| info.domid != 0) {
        toolstack.destroy(info.domid).or_else(|_| handle.domain_destroy(info.domid)).expect("is destroyed");
    }
    let cmd = EventChannelOp::Close.number();
    for port in 1..64 {
        let close = |arg| Request::EventChannelOp { cmd, arg };
        let closed = toolstack.control.exchange(&mut Port { port }, close);
        assert!(matches!(closed, Ok(0) | Err(Errno::EINVAL)), "{closed:?}");
    }
}

/// Lets all vCPUs of a domain ask for anything, each on its own.
fn let_all_ask(toolstack: &Toolstack, domid: u16, neighbour: u16, seed: u64) -> Vec<Arc<Progress>> {
    let world = toolstack.control.world();
    let domain = world.domain(domid);
    let subject = Subject { domain: domid, neighbour, ram_frames: 1024, is_control: false };
    let start = |vcpu: &xen_core::vcpu::Vcpu| {
        let progress = Arc::new(Progress::default());
        progress.left.store(operations(), Ordering::Relaxed);
        let program = hammer(subject, seed + u64::from(vcpu.index), progress.clone());
        world.machine.program_vcpu(DomId(domid), u16::try_from(vcpu.index).expect("few"), program);
        // The guest would start its other vCPUs itself; the program sets the registers that it needs.
        vcpu.is_initialised.store(true, Ordering::Relaxed);
        vcpu.clear_wait(Wait::DOWN);
        progress
    };
    let progress = domain.vcpus().iter().map(start).collect();
    drop(domain);
    toolstack.handle().domain_unpause(domid).expect("is unpaused");
    progress
}

/// Two guests with two vCPUs each on two CPUs, and the control domain beside them: all at the same time, in one arena a domain.
#[test]
fn vcpus_that_ask_for_anything_at_the_same_time_meet_no_race() {
    let plan = Plan { cpus: 3, threads: true, ..Plan::default() };
    with_toolstack_on(&plan, |toolstack| {
        let world = toolstack.control.world();
        let mut before = None;
        with_seeds(CALLS / 20, |seed, progress| {
            let mut random = Random::new(seed ^ 0xaced);
            let create = |number: u64| {
                let config = CONFIG.replace("\"g\"", &format!("\"g{number}\""));
                toolstack.create(&config).unwrap_or_else(|failure| panic!("{failure}")).domid
            };
            let (first, second) = (create(0), create(1));
            let mut all = let_all_ask(toolstack, first, second, seed * 4);
            all.extend(let_all_ask(toolstack, second, first, seed * 4 + 2));
            let subject = Subject { domain: 0, neighbour: first, ram_frames: 0x400, is_control: true };
            for _ in 0..operations() / 8 {
                ask_for_anything(toolstack, &subject, &mut random, progress);
            }
            for guest in &all {
                progress.calls.lock().unwrap().add(&guest.calls.lock().unwrap());
            }
            clean_up(toolstack);
            audit(world.host);
            let after = Snapshot::take(toolstack);
            let before = before.get_or_insert_with(|| after.clone());
            assert_eq!(before.others(), after.others(), "after seed {seed}");
        });
    });
}
