//! Whatever fails while a domain is made, or goes: the message names the step, and the host is as it was.
//!
//! Each test fails the first allocation or request, then the second, and so on until none is left to fail, all on one host, which
//! must be the same again after each. What a toolstack can be refused on its own side, and by which errors: `faults.rs`.

mod common;

use common::{CONFIG, with_toolstack};
use keystone::snapshot::Snapshot;
use keystone::toolstack::{Failure, Toolstack};
use libxc::build::Built;
use libxc::xenstore::Client;
use std::os::unix::net::UnixStream;

/// Creates a domain again and again with something failing at a later point each time, until nothing fails. Gives how often
/// something failed.
fn fail_everywhere(
    toolstack: &Toolstack,
    arm: impl Fn(Option<u64>),
    is_due: impl Fn() -> bool,
    may_succeed: bool,
    check: impl Fn(&Failure),
) -> u64 {
    let before = Snapshot::take(toolstack);
    let mut step = 0;
    for n in 0.. {
        arm(Some(n));
        let result = toolstack.create(CONFIG);
        let has_failed = !is_due();
        arm(None);
        match result {
            Ok(Built { domid, .. }) => {
                assert!(!has_failed || may_succeed, "failure {n} was seen by nobody");
                toolstack.destroy(domid).expect("is destroyed");
            }
            Err(failure) => {
                assert!(has_failed, "{failure}");
                check(&failure);
                if let Failure::Build(error) = &failure {
                    assert!(error.to_string().starts_with(&format!("step {} of the plan (", error.number)), "{error}");
                    assert!(error.left_behind.is_none(), "{error}");
                    assert!(error.number >= step, "failure {n} blames step {}, an earlier one {step}", error.number);
                    step = error.number;
                }
            }
        }
        let difference = before.difference(&Snapshot::take(toolstack));
        assert_eq!(difference, "", "after failure {n} of a creation");
        if !has_failed {
            return n;
        }
    }
    unreachable!("there is an end")
}

#[test]
fn every_allocation_that_fails_leaves_nothing_behind() {
    with_toolstack(|toolstack| {
        let world = toolstack.control.world();
        // Some are tried again in another way: a large page that cannot be had is made of small ones.
        let failures = fail_everywhere(
            toolstack,
            |n| world.fail_allocation(n),
            || world.failure_is_due(),
            true,
            |failure| {
                assert!(failure.to_string().contains("memory"), "{failure}");
            },
        );
        assert!(failures > 30, "{failures}");
    });
}

#[test]
fn every_request_to_xenstored_that_fails_leaves_nothing_behind() {
    with_toolstack(|toolstack| {
        let store = &toolstack.store;
        let arm = |n| store.fail_request(n);
        let failures = fail_everywhere(
            toolstack,
            arm,
            || store.failure_is_due(),
            false,
            |failure| {
                assert!(failure.to_string().contains("ENOSPC"), "{failure}");
            },
        );
        assert!(failures > 60, "{failures}");
    });
}

/// A domain's end needs no memory, so that a host that has none can be helped.
#[test]
fn destroying_never_fails_for_want_of_memory() {
    with_toolstack(|toolstack| {
        let before = Snapshot::take(toolstack);
        let world = toolstack.control.world();
        let built = toolstack.create(CONFIG).expect("is created");
        world.fail_allocation(Some(0));
        toolstack.destroy(built.domid).expect("is destroyed");
        assert!(world.failure_is_due(), "an allocation was made");
        world.fail_allocation(None);
        assert_eq!(before.difference(&Snapshot::take(toolstack)), "");
    });
}

/// If taking back fails as well, the message says so; what does not need the dead daemon is done all the same.
#[test]
fn what_is_left_behind_is_admitted() {
    with_toolstack(|toolstack| {
        let (plan, _) = toolstack.plan(CONFIG).expect("fits");
        let (closed, _) = UnixStream::pair().expect("a socket pair");
        let dead = Client::from_socket(closed);
        let elf = keystone::kernel::elf();
        let kernel = image::Kernel::parse(&elf).expect("is a kernel");
        let payloads = libxc::build::Payloads { kernel: &kernel, ramdisk: toolstack.ramdisk() };
        let domains = || -> Vec<_> {
            toolstack.handle().domains().expect("can be asked").iter().map(|domain| domain.domid).collect()
        };
        let before = domains();
        let error = libxc::build::build(&plan, &payloads, toolstack.handle(), &dead).expect_err("nobody answers");
        assert!(error.left_behind.is_some());
        assert!(error.to_string().contains("taking back what was done failed, too"), "{error}");
        assert_eq!(domains(), before, "the domain itself is gone");
    });
}
