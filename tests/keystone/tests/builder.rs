//! The builder under conditions that are not the best: memory in small pieces, too little memory, too few frames.

mod common;

use common::{CONFIG, with_toolstack, with_toolstack_on};
use keystone::snapshot::{Snapshot, entries};
use keystone::toolstack::{Failure, Toolstack};
use keystone::world::Plan;
use machine::frame::{self, Fill, Kind};
use machine::{DomId, Mfn};
use public_abi::Errno;
use std::sync::atomic::Ordering;

/// Takes every second page of the free memory, so that no two free ones are neighbours. Gives what was taken.
fn take_every_second_page() -> Vec<Mfn> {
    let page = || frame::allocate(0, Kind::Hypervisor, DomId(0), Fill::Any);
    let mut all: Vec<Mfn> = std::iter::from_fn(page).collect();
    all.sort_by_key(|mfn| mfn.number());
    let (odd, even): (Vec<Mfn>, Vec<Mfn>) = all.into_iter().partition(|mfn| mfn.number() % 2 == 1);
    even.into_iter().for_each(|mfn| frame::free(mfn, 0));
    odd
}

#[test]
fn memory_in_small_pieces_is_as_good() {
    with_toolstack(|toolstack| {
        let before = Snapshot::take(toolstack);
        let taken = take_every_second_page();
        let built = toolstack.create(CONFIG).unwrap_or_else(|failure| panic!("{failure}"));
        let entries = entries(&toolstack.control.world().domain(built.domid));
        assert_eq!(entries.len(), 1024 + 9, "one entry a page");
        assert!(entries.iter().all(|(_, order, ..)| *order == 0));
        toolstack.destroy(built.domid).expect("is destroyed");
        taken.into_iter().for_each(|mfn| frame::free(mfn, 0));
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    });
}

/// The message of a creation that must fail, and the host as it was.
fn refused(toolstack: &Toolstack, config: &str) -> String {
    let before = Snapshot::take(toolstack);
    let failure = toolstack.create(config).expect_err("is refused");
    assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    if let Failure::Build(error) = &failure {
        assert!(error.left_behind.is_none(), "{error}");
    }
    failure.to_string()
}

#[test]
fn a_domain_that_is_too_large_says_how_much_is_missing() {
    with_toolstack(|toolstack| {
        let text = refused(toolstack, &CONFIG.replace("memory = 4", "memory = 60"));
        assert!(text.contains("RAM") && text.contains("out of memory") && text.contains("cannot be claimed"), "{text}");
    });
}

#[test]
fn a_configuration_with_mistakes_never_reaches_the_hypervisor() {
    with_toolstack(|toolstack| {
        let calls = toolstack.trap().calls();
        let text = refused(toolstack, "name = \"g\"\nmemory = \"lots\"\nvcpus = [1, 2");
        assert!(text.contains("guest.cfg:2:"), "{text}");
        assert!(text.contains("guest.cfg:3:"), "{text}");
        assert_eq!(toolstack.trap().calls(), calls);
        let text = refused(toolstack, &CONFIG.replace("memory = 4", "memory = 1"));
        assert!(text.contains("kernel") && text.contains("raise memory="), "{text}");
    });
}

#[test]
fn a_host_without_room_for_mappings_is_told_from_one_without_memory() {
    with_toolstack(|toolstack| {
        let all = 0x1_0000;
        let taken = toolstack.control.take_frames(all).expect("all frames are free");
        let text = refused(toolstack, CONFIG);
        assert!(text.contains("mapping") && text.contains("of domain"), "{text}");
        toolstack.control.give_frames(taken, all);
        let built = toolstack.create(CONFIG).expect("is created");
        toolstack.destroy(built.domid).expect("is destroyed");
    });
}

/// What a domain costs besides its RAM: its own object, its vCPU, pages that it shares with the hypervisor, page tables.
#[test]
fn a_small_domain_costs_few_pages() {
    let plan = Plan { memory_mib: 192, ..Plan::default() };
    with_toolstack_on(&plan, |toolstack| {
        let config = CONFIG.replace("memory = 4", "memory = 128").replace("vcpus = 2", "vcpus = 1");
        assert!(config.contains("= 128") && config.contains("vcpus = 1"), "{config}");
        let create = || toolstack.create(&config).unwrap_or_else(|failure| panic!("{failure}"));
        // The first one fills what only grows.
        toolstack.destroy(create().domid).expect("is destroyed");
        let before = Snapshot::take(toolstack);
        let built = create();
        let after = Snapshot::take(toolstack);
        let domain = toolstack.control.world().domain(built.domid);
        let pages = before.free_pages() - after.free_pages() - domain.accounting.pages();
        let (tables, bytes) = (domain.p2m.table_pages(), after.heap_bytes() - before.heap_bytes());
        println!("{pages} pages, {tables} of them tables, and {bytes} bytes on the heap");
        assert!(pages * 4096 + bytes.unsigned_abs() <= 24 * 4096, "{pages} ({tables} tables), {bytes} bytes");
        drop(domain);
        toolstack.destroy(built.domid).expect("is destroyed");
    });
}

#[test]
fn affinity_weight_and_cap_reach_the_schedule() {
    let plan = Plan { cpus: 3, ..Plan::default() };
    with_toolstack_on(&plan, |toolstack| {
        let config = format!("{CONFIG}\ncpus = [\"1\", \"0,2\"]\ncpu_weight = 1000\ncap = 150\n");
        let built = toolstack.create(&config).unwrap_or_else(|failure| panic!("{failure}"));
        let domain = toolstack.control.world().domain(built.domid);
        let units: Vec<_> = domain.vcpus().iter().map(|vcpu| (vcpu.sched.affinity(), vcpu.sched.weight())).collect();
        assert_eq!(units, [(0b010, 1000), (0b101, 1000)]);
        assert_eq!(domain.budget.cap(), 150);
        assert_eq!(domain.accounting.claimed.load(Ordering::Relaxed), 0, "the claim ended with the build");
        drop(domain);
        toolstack.destroy(built.domid).expect("is destroyed");
        let text = refused(toolstack, &format!("{CONFIG}\ncpus = \"7\"\n"));
        assert!(text.contains("cpus") && text.contains("no CPU that this host has"), "{text}");
    });
}

#[test]
fn many_domains_live_side_by_side_and_all_go() {
    with_toolstack(|toolstack| {
        // The first time the lists of waiting vCPUs and timers grow.
        create_and_destroy_some(toolstack);
        let before = Snapshot::take(toolstack);
        create_and_destroy_some(toolstack);
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    });
}

fn create_and_destroy_some(toolstack: &Toolstack) {
    let create = |index| {
        let config = CONFIG.replace("\"g\"", &format!("\"g{index}\""));
        toolstack.create(&config).unwrap_or_else(|failure| panic!("{failure}")).domid
    };
    let domids: Vec<u16> = (0..6).map(create).collect();
    let listed: Vec<u16> = toolstack.handle().domains().expect("can be asked").iter().map(|info| info.domid).collect();
    assert_eq!(listed[1..], domids);
    for domid in domids.iter().rev() {
        toolstack.destroy(*domid).expect("is destroyed");
    }
    let error = toolstack.handle().domain_destroy(domids[0]).expect_err("is gone");
    assert_eq!(error.errno(), Some(Errno::ESRCH));
}
