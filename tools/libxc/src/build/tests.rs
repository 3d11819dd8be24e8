//! Tests of the builder on the fake hypervisor: what a built domain is like, and that a failure anywhere leaves nothing.

use std::sync::Arc;

use image::elf::{Machine, Segment};
use image::notes::Notes;
use image::{GpaRange, Kernel};
use public_abi::hvm_params::HvmParam;

use super::fake::{FakeStore, FakeTrap, Tree, serve};
use super::*;
use crate::plan::layout::SpecialPage;
use crate::plan::pvh::plan;
use crate::plan::spec::{GuestSpec, HostFacts};

const HOST: HostFacts = HostFacts { grant_version: 2, xenstore_domid: 0, console_domid: 0 };
const CODE: [u8; 0x1800] = [0x90; 0x1800];
const RAMDISK: [u8; 5000] = [7; 5000];

/// A small kernel with a bss.
fn kernel() -> Kernel<'static> {
    let span = GpaRange::new(0x10_0000, 0x3000).expect("is no overflow");
    let notes = Notes { phys32_entry: Some(0x10_0010), ..Notes::default() };
    let segment = Segment { range: span, vaddr: 0, flags: 7, align: 0x1000, bytes: &CODE };
    Kernel { machine: Machine::X86_64, entry: 0, segments: vec![segment], span, notes }
}

/// 5 MiB, so that large and small pages are needed, and two vCPUs.
fn spec() -> GuestSpec {
    let mut spec = GuestSpec::new("g", [9; 16], 5 << 10);
    spec.max_vcpus = 2;
    spec.command_line = Some("console=hvc0".into());
    spec
}

/// A fake host: the hypervisor, a client of its xenstored, and that.
fn host() -> (Handle<FakeTrap>, Client, Arc<FakeStore>) {
    let trap = FakeTrap::default();
    trap.largest_order.set(9);
    let store = Arc::new(FakeStore::default());
    let mut tree = Tree::default();
    tree.nodes.insert("/local/domain/0/name".into(), b"Domain-0".to_vec());
    *store.tree.lock().expect("not poisoned") = tree;
    (Handle::new(trap).expect("has memory"), Client::from_socket(serve(store.clone())), store)
}

fn build_it(handle: &Handle<FakeTrap>, client: &Client) -> std::result::Result<Built, BuildError> {
    let kernel = kernel();
    let plan = plan(&spec(), &kernel, RAMDISK.len() as u64, &HOST).expect("fits");
    build(&plan, &Payloads { kernel: &kernel, ramdisk: &RAMDISK }, handle, client)
}

#[test]
fn a_built_domain_has_everything_in_its_place() {
    let (handle, client, store) = host();
    let built = build_it(&handle, &client).expect("is built");
    assert_eq!((built.domid, built.xenstore_port, built.console_port), (1, 1, 2));
    let domains = handle.trap().domains.borrow();
    let domain = &domains[&1];
    assert_eq!(domain.memory.len(), 5 * 256 + 8 + 1);
    assert_eq!(domain.read(0x10_0000, CODE.len()), CODE);
    assert_eq!(domain.read(0x10_1800, 0x1800), [0; 0x1800], "the bss is clear");
    assert_eq!(domain.read(0x10_3000, 5000), RAMDISK);
    assert_eq!(&domain.read(0x10_5000, 4), &[0x78, 0xc5, 0x6e, 0x33], "the start info");
    assert_eq!(domain.read(0xfeff_8000, 0x6000), [0; 0x6000], "the special pages are clear");
    assert_eq!(domain.read(0xfeff_e004, 4), [0xe7, 0, 0x40, 0], "the second entry of the identity map");
    assert_eq!(&domain.read(0xfc00_0000, 8), b"RSD PTR ");
    assert_eq!(domain.params[&HvmParam::StoreEvtchn.number()], 1);
    assert_eq!(domain.params[&HvmParam::ConsoleEvtchn.number()], 2);
    let grants = domain.grants.borrow();
    let console = SpecialPage::Console.gfn() as u32;
    assert_eq!(&grants[..8], [&[1, 0, 0, 0], console.to_le_bytes().as_slice()].concat());
    assert_eq!(domain.records.len(), 3, "MTRRs of two vCPUs, then the registers");
    let tree = store.tree.lock().expect("not poisoned");
    assert_eq!(tree.nodes["/local/domain/1/console/port"], b"2");
    assert_eq!(tree.nodes["/local/domain/0/backend/console/1/0/frontend"], b"/local/domain/1/console");
    assert!(tree.introduced.contains("1"));
}

#[test]
fn memory_in_small_pieces_is_as_good() {
    let (handle, client, _store) = host();
    handle.trap().largest_order.set(0);
    build_it(&handle, &client).expect("is built");
    assert_eq!(handle.trap().domains.borrow()[&1].memory.len(), 5 * 256 + 8 + 1);
}

/// Whatever call fails: a message that names the step, and no domain and no node that was not there before.
#[test]
fn every_hypercall_that_fails_leaves_nothing_behind() {
    let (handle, client, _store) = host();
    build_it(&handle, &client).expect("is built");
    let calls = handle.trap().calls.get();
    assert!(calls > 30, "{calls}");
    for fail_at in 1..=calls {
        let (handle, client, store) = host();
        let before = store.tree.lock().expect("not poisoned").nodes.clone();
        handle.trap().fail_at.set(Some(fail_at));
        match build_it(&handle, &client) {
            Ok(_) => panic!("call {fail_at} failed, and nobody saw it"),
            Err(error) => {
                assert!(error.to_string().starts_with("step "), "{error}");
                assert!(error.left_behind.is_none(), "{error}");
            }
        }
        assert!(handle.trap().domains.borrow().is_empty(), "call {fail_at}: the domain is still there");
        assert_eq!(store.tree.lock().expect("not poisoned").nodes, before, "call {fail_at}");
    }
}

/// The same for xenstored.
#[test]
fn every_request_that_fails_leaves_nothing_behind() {
    let (handle, client, store) = host();
    build_it(&handle, &client).expect("is built");
    let requests = *store.requests.lock().expect("not poisoned");
    assert!(requests > 60, "{requests}");
    for fail_at in 1..=requests {
        let (handle, client, store) = host();
        let before = store.tree.lock().expect("not poisoned").nodes.clone();
        *store.fail_at.lock().expect("not poisoned") = Some(fail_at);
        let error = build_it(&handle, &client).expect_err("a request failed");
        assert!(error.to_string().contains("ENOSPC"), "{error}");
        assert!(handle.trap().domains.borrow().is_empty(), "request {fail_at}: the domain is still there");
        assert_eq!(store.tree.lock().expect("not poisoned").nodes, before, "request {fail_at}");
    }
}

/// If taking back fails as well, the message says so.
#[test]
fn what_is_left_behind_is_admitted() {
    let (handle, client, store) = host();
    handle.trap().fail_at.set(Some(2));
    // The last requests are those of the undo: here all are refused, because the daemon has gone.
    drop(store);
    let kernel = kernel();
    let mut plan = plan(&spec(), &kernel, 0, &HOST).expect("fits");
    plan.steps.insert(1, Step::MaxMemory(1));
    let (closed, _) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    let dead = Client::from_socket(closed);
    drop(client);
    let error = build(&plan, &Payloads { kernel: &kernel, ramdisk: &[] }, &handle, &dead).expect_err("fails");
    assert!(error.left_behind.is_some());
    assert!(error.to_string().contains("taking back what was done failed, too"), "{error}");
    assert!(handle.trap().domains.borrow().is_empty(), "the domain itself is gone all the same");
}
