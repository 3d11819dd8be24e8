//! Domains: who may do what, limits, device models, and their ends.

use super::*;
use XsMessage as M;

#[test]
fn introduction_and_release() {
    let mut bench = Bench::new();
    let (control, watcher) = (bench.socket(), bench.socket());
    bench.ok(watcher, M::Watch, 0, "@introduceDomain\0i\0");
    bench.ok(watcher, M::Watch, 0, "@releaseDomain\0r\0");
    bench.events(watcher);
    assert_eq!(bench.ok(control, M::IsDomainIntroduced, 0, "3\0"), "F\0");
    let guest = bench.domain(3);
    assert_eq!(bench.events(watcher), ["@introduceDomain i"]);
    assert_eq!(bench.ok(control, M::IsDomainIntroduced, 0, "3\0"), "T\0");
    assert_eq!(bench.ok(guest, M::GetDomainPath, 0, "3\0"), "/local/domain/3\0");
    assert_eq!(bench.host.calls, ["introduce 3 77 9"]);
    for payload in ["0\x001\x002\0", "3\x001\0", "40000\x001\x002\0", "x\x001\x002\0", "4\x001\x000\0"] {
        bench.refused(control, M::Introduce, 0, payload, "EINVAL");
    }
    for kind in [M::Introduce, M::Release, M::Resume, M::SetTarget] {
        bench.refused(guest, kind, 0, "3\0", "EACCES");
    }
    bench.refused(control, M::Release, 0, "4\0", "ENOENT");
    bench.ok(control, M::Resume, 0, "3\0");
    bench.ok(control, M::Release, 0, "3\0");
    assert_eq!(bench.events(watcher), ["@releaseDomain r"]);
    assert_eq!(bench.host.calls.last().map(String::as_str), Some("release 3"));
    bench.host.refuses = true;
    bench.refused(control, M::Introduce, 0, "5\x001\x002\0", "EINVAL");
    assert_eq!(bench.ok(control, M::IsDomainIntroduced, 0, "5\0"), "F\0");
}

#[test]
fn a_second_introduction_begins_anew() {
    let mut bench = Bench::new();
    let guest = bench.domain(3);
    bench.ok(guest, M::Watch, 0, "x\0t\0");
    bench.ok(guest, M::TransactionStart, 0, "\0");
    let control = bench.socket();
    bench.ok(control, M::Introduce, 0, "3\x0077\x0011\0");
    assert_eq!(bench.host.calls.last().map(String::as_str), Some("rebind 3 11"));
    assert_eq!(bench.engine.connection_of(3), Some(guest));
    bench.refused(guest, M::TransactionEnd, 1, "T\0", "ENOENT");
    bench.ok(control, M::Write, 0, "/local/domain/3/x\0");
    assert!(bench.events(guest).is_empty());
}

#[test]
fn a_domain_stays_in_its_own_nodes() {
    let mut bench = Bench::new();
    let (control, guest, other) = (bench.socket(), bench.domain(3), bench.domain(4));
    bench.ok(control, M::Write, 0, "/secret/a\0v");
    bench.ok(control, M::Write, 0, "/public/a\0v");
    bench.ok(control, M::SetPerms, 0, "/public/a\0r0\0b4\0");
    bench.refused(guest, M::Read, 0, "/secret/a\0", "EACCES");
    bench.refused(guest, M::Read, 0, "/secret/nothing\0", "EACCES");
    bench.refused(guest, M::Directory, 0, "/secret\0", "EACCES");
    bench.refused(guest, M::Write, 0, "/secret/b\0v", "EACCES");
    bench.refused(guest, M::Rm, 0, "/secret\0", "EACCES");
    bench.refused(guest, M::GetPerms, 0, "/secret\0", "EACCES");
    assert_eq!(bench.ok(guest, M::Read, 0, "/public/a\0"), "v");
    bench.refused(guest, M::Write, 0, "/public/a\0w", "EACCES");
    bench.refused(guest, M::SetPerms, 0, "/public/a\0r3\0", "EACCES");
    bench.ok(other, M::Write, 0, "/public/a\0w");
    bench.refused(other, M::SetPerms, 0, "/public/a\0n0\0", "EACCES");
    // Its own: children are its own, too, with the permissions from above.
    bench.ok(guest, M::Write, 0, "data/x\x001");
    assert_eq!(bench.ok(guest, M::GetPerms, 0, "data/x\0"), "n3\0");
    bench.refused(other, M::Read, 0, "/local/domain/3/data/x\0", "EACCES");
    bench.ok(guest, M::SetPerms, 0, "data/x\0n3\0r4\0");
    assert_eq!(bench.ok(other, M::Read, 0, "/local/domain/3/data/x\0"), "1");
    bench.refused(guest, M::SetPerms, 0, "data/x\0n4\0", "EPERM");
    // Under a node that it may write, what it makes is its own.
    bench.ok(control, M::Write, 0, "/shared\0");
    bench.ok(control, M::SetPerms, 0, "/shared\0b0\0");
    bench.ok(guest, M::Mkdir, 0, "/shared/g\0");
    assert_eq!(bench.ok(control, M::GetPerms, 0, "/shared/g\0"), "b3\0");
}

#[test]
fn a_domain_hears_only_of_what_it_may_read() {
    let mut bench = Bench::new();
    let (control, guest) = (bench.socket(), bench.domain(3));
    bench.ok(guest, M::Watch, 0, "/\0all\0");
    bench.ok(guest, M::Watch, 0, "data\0mine\0");
    bench.ok(guest, M::Watch, 0, "@releaseDomain\0r\0");
    bench.events(guest);
    bench.ok(control, M::Write, 0, "/secret/a\0v");
    bench.ok(control, M::Write, 0, "/local/domain/3/data/x\0v");
    assert_eq!(bench.events(guest), ["data/x mine", "/local/domain/3/data/x all"]);
    bench.domain(4);
    bench.sweep(&[(3, Life::Running)]);
    assert!(bench.events(guest).is_empty(), "@releaseDomain is the control domain's");
    bench.refused(guest, M::SetPerms, 0, "@releaseDomain\0n0\0r3\0", "EACCES");
    bench.ok(control, M::SetPerms, 0, "@releaseDomain\0n0\0r3\0");
    assert_eq!(bench.ok(guest, M::GetPerms, 0, "@releaseDomain\0"), "n0\0r3\0");
    bench.domain(4);
    bench.sweep(&[(3, Life::Running)]);
    assert_eq!(bench.events(guest), ["@releaseDomain r"]);
    // Taking the right away is the last that it hears.
    bench.ok(control, M::Write, 0, "/p\0v");
    bench.ok(control, M::SetPerms, 0, "/p\0r0\0");
    bench.events(guest);
    bench.ok(control, M::SetPerms, 0, "/p\0n0\0");
    assert_eq!(bench.events(guest), ["/p all"]);
    bench.ok(control, M::Write, 0, "/p\0w");
    assert!(bench.events(guest).is_empty());
}

#[test]
fn limits_bind_domains_and_not_the_control_domain() {
    let mut bench = Bench::new();
    let (control, guest) = (bench.socket(), bench.domain(3));
    bench.engine.limits.nodes = 5;
    bench.engine.limits.watches = 2;
    bench.engine.limits.transactions = 2;
    for number in 0..4 {
        bench.ok(guest, M::Write, 0, &format!("n{number}\0"));
    }
    bench.refused(guest, M::Write, 0, "n4\0", "ENOSPC");
    bench.refused(guest, M::Write, 0, "n0/a\0", "ENOSPC");
    bench.ok(guest, M::Rm, 0, "n0\0");
    bench.refused(guest, M::Write, 0, "n1/a/b\0", "ENOSPC");
    bench.ok(guest, M::Write, 0, "n1/a\0");
    // In two transactions at once, together too many.
    bench.ok(guest, M::Rm, 0, "n1\0");
    for tx in [1, 2] {
        bench.ok(guest, M::TransactionStart, 0, "\0");
        bench.ok(guest, M::Write, tx, &format!("t{tx}/a\0"));
    }
    bench.refused(guest, M::TransactionStart, 0, "\0", "ENOSPC");
    bench.ok(guest, M::TransactionEnd, 1, "T\0");
    bench.refused(guest, M::TransactionEnd, 2, "T\0", "ENOSPC");
    bench.refused(guest, M::Write, 0, &format!("n2\0{}", "x".repeat(2049)), "ENOSPC");
    bench.refused(guest, M::SetPerms, 0, "n2\0n3\0r1\0r2\0r4\0r5\0r6\0", "ENOSPC");
    for token in ["a", "b"] {
        bench.ok(guest, M::Watch, 0, &format!("n2\0{token}\0"));
    }
    bench.refused(guest, M::Watch, 0, "n2\0c\0", "E2BIG");
    for number in 0..20 {
        bench.ok(control, M::Write, 0, &format!("/c/{number}\0{}", "x".repeat(4000)));
        bench.ok(control, M::Watch, 0, &format!("/c/{number}\0t\0"));
        bench.ok(control, M::TransactionStart, 0, "\0");
    }
}

#[test]
fn transactions_of_a_domain_touch_so_many_nodes() {
    let mut bench = Bench::new();
    let guest = bench.domain(3);
    bench.engine.limits.transaction_nodes = 10;
    bench.ok(guest, M::TransactionStart, 0, "\0");
    let refused = (0..30).find(|number| bench.ask(guest, M::Write, 1, &format!("n{number}\0")).is_err());
    assert!(refused.is_some_and(|number| number < 10), "{refused:?}");
    bench.refused(guest, M::Read, 1, "other\0", "ENOSPC");
    bench.ok(guest, M::TransactionEnd, 1, "T\0");
}

#[test]
fn memory_is_bounded() {
    let mut bench = Bench::new();
    let (control, guest) = (bench.socket(), bench.domain(3));
    bench.engine.limits.memory = 20_000;
    let full =
        (0..40).find_map(|number| bench.ask(guest, M::Write, 0, &format!("n{number}\0{}", "x".repeat(1500))).err());
    assert_eq!(full.as_deref(), Some("ENOMEM"));
    bench.ok(guest, M::Rm, 0, "n0\0");
    bench.ok(guest, M::Watch, 0, "/local/domain/3\0t\0");
    // A domain that does not take its events: they are dropped, and nobody else notices.
    for number in 0..2000 {
        bench.ok(control, M::Write, 0, &format!("/local/domain/3/t/{number}\0"));
    }
    let waiting = bench.engine.output(guest).expect("is there").len();
    assert!(waiting < 20_000, "{waiting}");
}

#[test]
fn answers_that_are_not_taken_hold_the_next_requests_up() {
    let mut bench = Bench::new();
    let guest = bench.domain(3);
    let request = wire::encode(M::Directory, 1, 0, &[b"/local/domain/3\0"]).expect("is short");
    for _ in 0..100 {
        bench.send(guest, &request);
    }
    assert!(!bench.engine.wants_input(guest));
    assert_eq!(bench.messages(guest).len(), 20);
    bench.engine.proceed(&mut bench.host, guest);
    assert_eq!(bench.messages(guest).len(), 20, "the next come when there is room");
}

#[test]
fn a_device_model_may_do_what_its_target_may() {
    let mut bench = Bench::new();
    let (control, guest, model) = (bench.socket(), bench.domain(3), bench.domain(4));
    bench.ok(guest, M::Write, 0, "x\x001");
    bench.refused(model, M::Read, 0, "/local/domain/3/x\0", "EACCES");
    bench.refused(control, M::SetTarget, 0, "4\x000\0", "EINVAL");
    bench.refused(control, M::SetTarget, 0, "4\x009\0", "ENOENT");
    bench.ok(control, M::SetTarget, 0, "4\x003\0");
    assert_eq!(bench.ok(model, M::Read, 0, "/local/domain/3/x\0"), "1");
    bench.ok(model, M::SetPerms, 0, "/local/domain/3/x\0r3\0");
    bench.refused(guest, M::Read, 0, "/local/domain/4\0", "EACCES");
    // The target is gone; its number comes again for somebody else.
    bench.sweep(&[(4, Life::Running)]);
    let next = bench.domain(3);
    bench.ok(next, M::Write, 0, "x\x001");
    bench.refused(model, M::Read, 0, "/local/domain/3/x\0", "EACCES");
}

#[test]
fn domains_stop_and_die() {
    let mut bench = Bench::new();
    let (control, guest) = (bench.socket(), bench.domain(3));
    bench.ok(guest, M::Write, 0, "x/y\x001");
    bench.ok(control, M::Write, 0, "/b\x001");
    bench.ok(control, M::SetPerms, 0, "/b\0n0\0r3\0r5\0");
    bench.ok(control, M::Watch, 0, "@releaseDomain\0r\0");
    bench.events(control);
    let alive = (5, Life::Running);
    bench.sweep(&[(3, Life::Running), alive]);
    assert!(bench.events(control).is_empty());
    bench.sweep(&[(3, Life::ShutDown), alive]);
    assert_eq!(bench.events(control), ["@releaseDomain r"]);
    bench.sweep(&[(3, Life::ShutDown), alive]);
    assert!(bench.events(control).is_empty(), "told once");
    bench.ok(control, M::Resume, 0, "3\0");
    bench.sweep(&[(3, Life::ShutDown), alive]);
    assert_eq!(bench.events(control), ["@releaseDomain r"], "and again after RESUME");
    bench.sweep(&[(3, Life::Dying), alive]);
    assert_eq!(bench.events(control), ["@releaseDomain r"]);
    assert_eq!(bench.ok(control, M::IsDomainIntroduced, 0, "3\0"), "F\0");
    assert_eq!(bench.host.calls.last().map(String::as_str), Some("release 3"));
    bench.sweep(&[alive]);
    assert_eq!(bench.events(control), ["@releaseDomain r"]);
    bench.refused(control, M::Read, 0, "/local/domain/3\0", "ENOENT");
    assert_eq!(bench.ok(control, M::GetPerms, 0, "/b\0"), "n0\0r5\0", "the next domain 3 has no rights");
    bench.sweep(&[]);
    assert_eq!(bench.ok(control, M::GetPerms, 0, "/b\0"), "n0\0");
    assert!(bench.events(control).is_empty(), "domain 5 was never introduced");
    assert_eq!(bench.ok(control, M::Control, 0, "check\0"), "OK\0");
}

#[test]
fn orphans_can_be_kept() {
    let mut bench = Bench::new();
    bench.engine.keep_orphans = true;
    let (control, guest) = (bench.socket(), bench.domain(3));
    bench.ok(guest, M::Write, 0, "x\x001");
    bench.sweep(&[]);
    assert_eq!(bench.ok(control, M::GetPerms, 0, "/local/domain/3/x\0"), "n0\0");
    assert_eq!(bench.ok(control, M::Control, 0, "check\0"), "OK\0");
}

#[test]
fn transactions_count_as_memory() {
    let mut bench = Bench::new();
    let guest = bench.domain(3);
    bench.engine.limits.memory = 50_000;
    bench.ok(guest, M::TransactionStart, 0, "\0");
    // Paths that are not there cost nothing but the note of it.
    let long = "x".repeat(2000);
    let full = (0..60).find_map(|number| match bench.ask(guest, M::Read, 1, &format!("{number}{long}\0")) {
        Err(error) if error != "ENOENT" => Some(error),
        _ => None,
    });
    assert_eq!(full.as_deref(), Some("ENOMEM"));
    bench.ok(guest, M::TransactionEnd, 1, "F\0");
    bench.ok(guest, M::TransactionStart, 0, "\0");
    let write = |value: &str| format!("a\0{value}");
    for _ in 0..100 {
        bench.ok(guest, M::Write, 2, &write(&"v".repeat(1900)));
    }
    bench.ok(guest, M::TransactionEnd, 2, "T\0");
}
