//! Requests about nodes, watches and transactions, as programs and domains make them.

use super::*;
use XsMessage as M;

#[test]
fn nodes_are_written_read_listed_and_removed() {
    let mut bench = Bench::new();
    let id = bench.socket();
    assert_eq!(bench.ok(id, M::Directory, 0, "/\0"), "tool\0");
    assert_eq!(bench.ok(id, M::Write, 0, "/a/b\0value"), "OK\0");
    assert_eq!(bench.ok(id, M::Read, 0, "/a/b\0"), "value");
    assert_eq!(bench.ok(id, M::Read, 0, "/a\0"), "");
    bench.ok(id, M::Mkdir, 0, "/a/c\0");
    bench.ok(id, M::Mkdir, 0, "/a/b\0");
    assert_eq!(bench.ok(id, M::Read, 0, "/a/b\0"), "value", "mkdir leaves what is there");
    assert_eq!(bench.ok(id, M::Directory, 0, "/a\0"), "b\0c\0");
    assert_eq!(bench.ok(id, M::Directory, 0, "/a/b\0"), "");
    bench.ok(id, M::Rm, 0, "/a\0");
    bench.refused(id, M::Read, 0, "/a/b\0", "ENOENT");
    bench.ok(id, M::Rm, 0, "/a\0");
    bench.refused(id, M::Rm, 0, "/a/b\0", "ENOENT");
    bench.refused(id, M::Rm, 0, "/\0", "EINVAL");
}

#[test]
fn requests_that_make_no_sense() {
    let mut bench = Bench::new();
    let id = bench.socket();
    for payload in ["", "/a", "/a\0b\0", "a b\0", "/a/\0"] {
        bench.refused(id, M::Read, 0, payload, "EINVAL");
    }
    bench.refused(id, M::Write, 0, "/a", "EINVAL");
    bench.refused(id, M::Watch, 0, "/a\0", "EINVAL");
    bench.refused(id, M::TransactionEnd, 0, "T\0", "ENOENT");
    bench.refused(id, M::Read, 9, "/tool\0", "ENOENT");
    bench.refused(id, M::SetPerms, 0, "/tool\0x1\0", "EINVAL");
    bench.refused(id, M::WatchEvent, 0, "/a\0", "ENOSYS");
    let unknown = [&99_u32.to_le_bytes()[..], &[5, 0, 0, 0], &[0; 8]].concat();
    bench.send(id, &unknown);
    let answers = bench.messages(id);
    assert_eq!((answers.len(), answers[0].payload.as_slice()), (1, &b"ENOSYS\0"[..]));
}

#[test]
fn directories_come_in_parts() {
    let mut bench = Bench::new();
    let id = bench.socket();
    for number in 0..1500 {
        bench.ok(id, M::Write, 0, &format!("/many/{number:04}\0"));
    }
    bench.refused(id, M::Directory, 0, "/many\0", "E2BIG");
    let (mut names, mut generation) = (String::new(), None);
    loop {
        let part = bench.ok(id, M::DirectoryPart, 0, &format!("/many\0{}\0", names.len()));
        let (count, rest) = part.split_once('\0').expect("a generation");
        assert_eq!(generation.get_or_insert(count.to_owned()), count);
        if let Some(last) = rest.strip_suffix("\0\0") {
            names += last;
            names.push('\0');
            break;
        }
        names += rest;
    }
    assert_eq!(names.split_terminator('\0').count(), 1500);
    assert_eq!(
        bench.ok(id, M::DirectoryPart, 0, "/many\x0099999\0").split_once('\0').map(|(_, rest)| rest),
        Some("\0")
    );
    bench.ok(id, M::Write, 0, "/many/x\0");
    let part = bench.ok(id, M::DirectoryPart, 0, "/many\x000\0");
    assert!(!part.starts_with(generation.as_deref().expect("is known")), "the generation changes with the children");
}

#[test]
fn watches_fire_once_at_first_and_then_for_each_change() {
    let mut bench = Bench::new();
    let (id, other) = (bench.socket(), bench.socket());
    bench.send(id, &wire::encode(M::Watch, 1, 0, &[b"/a\0token\0"]).expect("is short"));
    let messages = bench.messages(id);
    assert_eq!(
        messages.iter().map(|message| message.kind()).collect::<Vec<_>>(),
        [Some(M::Watch), Some(M::WatchEvent)]
    );
    assert_eq!(messages[1].payload, b"/a\0token\0");
    bench.refused(id, M::Watch, 0, "/a\0token\0", "EEXIST");
    bench.ok(other, M::Write, 0, "/a/b/c\x001");
    bench.ok(other, M::Write, 0, "/ab\x001");
    bench.ok(other, M::SetPerms, 0, "/a/b/c\0n0\0r3\0");
    assert_eq!(bench.events(id), ["/a/b/c token"], "the same event waits once");
    bench.ok(other, M::Write, 0, "/a/b/c\x001");
    bench.ok(other, M::Rm, 0, "/a/b\0");
    assert_eq!(bench.events(id), ["/a/b/c token", "/a/b token"]);
    bench.ok(id, M::Watch, 0, "/x/y\0deep\0");
    bench.ok(other, M::Write, 0, "/x/y\0");
    bench.ok(other, M::Write, 0, "/x/y/z\0");
    bench.events(id);
    bench.ok(other, M::Rm, 0, "/x\0");
    assert_eq!(bench.events(id), ["/x/y deep"], "what goes with a node above is told to those who watch it");
    bench.ok(id, M::Unwatch, 0, "/a\0token\0");
    bench.refused(id, M::Unwatch, 0, "/a\0token\0", "ENOENT");
    bench.ok(other, M::Write, 0, "/a/n\0");
    assert!(bench.events(id).is_empty());
}

#[test]
fn a_transaction_is_seen_at_its_end_and_once_per_path() {
    let mut bench = Bench::new();
    let (id, watcher) = (bench.socket(), bench.socket());
    bench.ok(watcher, M::Watch, 0, "/\0t\0");
    let tx: u32 = bench.ok(id, M::TransactionStart, 0, "\0").trim_end_matches('\0').parse().expect("a number");
    for value in ["1", "2"] {
        bench.ok(id, M::Write, tx, &format!("/a/b\0{value}"));
    }
    bench.ok(id, M::Write, tx, "/c\x003");
    bench.refused(watcher, M::Read, 0, "/a/b\0", "ENOENT");
    assert_eq!(bench.ok(id, M::Read, tx, "/a/b\0"), "2");
    assert!(bench.events(watcher).is_empty());
    bench.ok(id, M::TransactionEnd, tx, "T\0");
    assert_eq!(bench.events(watcher), ["/a/b t", "/c t"]);
    assert_eq!(bench.ok(watcher, M::Read, 0, "/a/b\0"), "2");
    bench.refused(id, M::Read, tx, "/a/b\0", "ENOENT");
}

#[test]
fn transactions_in_each_others_way_and_given_up_ones() {
    let mut bench = Bench::new();
    let (one, two) = (bench.socket(), bench.socket());
    assert_eq!(bench.ok(one, M::TransactionStart, 0, "\0"), "1\0");
    assert_eq!(bench.ok(two, M::TransactionStart, 0, "\0"), "1\0");
    for id in [one, two] {
        bench.refused(id, M::Read, 1, "/count\0", "ENOENT");
        bench.ok(id, M::Write, 1, "/count\x001");
    }
    bench.ok(one, M::TransactionEnd, 1, "T\0");
    bench.refused(two, M::TransactionEnd, 1, "T\0", "EAGAIN");
    bench.refused(two, M::TransactionEnd, 1, "T\0", "ENOENT");
    bench.ok(two, M::TransactionStart, 0, "\0");
    bench.ok(two, M::Rm, 2, "/count\0");
    bench.refused(two, M::TransactionEnd, 2, "X\0", "EINVAL");
    bench.ok(two, M::TransactionEnd, 2, "F\0");
    assert_eq!(bench.ok(one, M::Read, 0, "/count\0"), "1");
    bench.ok(one, M::TransactionStart, 0, "\0");
    bench.ok(one, M::ResetWatches, 0, "\0");
    bench.refused(one, M::TransactionEnd, 2, "T\0", "ENOENT");
}

#[test]
fn control_commands() {
    let mut bench = Bench::new();
    let id = bench.socket();
    assert!(bench.ok(id, M::Control, 0, "help\0").contains("memreport [<file>]\n"));
    assert_eq!(bench.ok(id, M::Control, 0, "check\0"), "OK\0");
    assert!(bench.ok(id, M::Control, 0, "quota\0").contains("watches          :      128"));
    bench.ok(id, M::Control, 0, "quota\0set\0watches\x007\0");
    assert_eq!(bench.engine.limits.watches, 7);
    bench.refused(id, M::Control, 0, "quota\0set\0nothing\x007\0", "EINVAL");
    bench.domain(3);
    assert!(bench.ok(id, M::Control, 0, "quota\x003\0").contains("nodes            :        1"));
    bench.refused(id, M::Control, 0, "quota\x004\0", "ENOENT");
    bench.ok(id, M::Control, 0, "print\0hello\0");
    bench.ok(id, M::Control, 0, "logfile\0/tmp/x\0");
    bench.refused(id, M::Control, 0, "logfile\0x\0", "EINVAL");
    bench.ok(id, M::Control, 0, "memreport\0/tmp/r\0");
    bench.ok(id, M::Control, 0, "log\0on\0");
    bench.ok(id, M::Read, 0, "/tool\0");
    bench.ok(id, M::Control, 0, "log\0off\0");
    bench.refused(id, M::Control, 0, "live-update\0", "EINVAL");
    let said = bench.host.calls.join("\n");
    for part in ["log hello", "write /tmp/r 6 nodes", "READ tx 0 /tool"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let guest = bench.domain(4);
    bench.refused(guest, M::Control, 0, "help\0", "EACCES");
}

#[test]
fn a_program_that_does_not_read_is_cut_off_and_bounded() {
    let mut bench = Bench::new();
    let (reader, writer) = (bench.socket(), bench.socket());
    let token = "t".repeat(3000);
    bench.ok(reader, M::Watch, 0, &format!("/\0{token}\0"));
    for number in 0..3000 {
        bench.ok(writer, M::Write, 0, &format!("/n/{number}\0"));
    }
    assert!(bench.engine.failure(reader).is_some());
    assert!(bench.engine.output(reader).expect("is there").len() <= super::super::MOST_FOR_SOCKET);
    // One that sends requests and does not read its answers is not listened to until it does.
    let request = wire::encode(M::Directory, 1, 0, &[b"/n\0"]).expect("is short");
    let busy = bench.socket();
    for _ in 0..200 {
        if bench.engine.wants_input(busy) {
            bench.send(busy, &request);
        }
    }
    assert!(!bench.engine.wants_input(busy) || bench.engine.output(busy).expect("is there").len() < 80_000);
    bench.messages(busy);
    assert!(bench.engine.wants_input(busy));
}

#[test]
fn a_path_may_be_as_deep_as_it_is_long() {
    let mut bench = Bench::new();
    let id = bench.socket();
    let deep = "/a".repeat(1536);
    bench.ok(id, M::TransactionStart, 0, "\0");
    bench.ok(id, M::Write, 0, &format!("{deep}\x001"));
    assert_eq!(bench.ok(id, M::Read, 0, &format!("{deep}\0")), "1");
    bench.refused(id, M::Write, 0, &format!("{deep}/a\x001"), "EINVAL");
    bench.ok(id, M::Rm, 0, "/a\0");
    assert_eq!(bench.ok(id, M::Control, 0, "check\0"), "OK\0");
}

#[test]
fn relative_paths_of_programs_are_the_control_domains() {
    let mut bench = Bench::new();
    let id = bench.socket();
    bench.ok(id, M::Write, 0, "/local/domain/0/domid\x000");
    assert_eq!(bench.ok(id, M::Read, 0, "domid\0"), "0");
    bench.ok(id, M::Watch, 0, "name\0t\0");
    bench.ok(id, M::Write, 0, "/local/domain/0/name\0Domain-0");
    let other = bench.socket();
    bench.ok(other, M::Write, 0, "name\0Domain-0");
    assert_eq!(bench.events(id), ["name t"]);
}
