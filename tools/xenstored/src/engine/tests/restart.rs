//! A daemon that is killed and its successor: everything that a client was told is still so.

use proptest::prelude::*;
use public_abi::io::xs_wire::ERROR_COMM;

use super::*;
use crate::persist;
use crate::ring::Ring;
use crate::ring::tests::Page;
use XsMessage as M;

impl Bench {
    /// The daemon is killed, and another one starts from the records, as they are in the file.
    fn restart(&mut self) {
        let frames = [&persist::MAGIC[..], &persist::frame(&self.records).expect("is small")].concat();
        let (records, _) = persist::read(&frames).expect("is whole");
        let engine = Engine::restore(records);
        // What a fresh file would hold is the same again.
        assert!(Engine::restore(engine.whole()).knows_the_same(&engine));
        self.engine = engine;
    }
}

#[test]
fn nodes_permissions_watches_and_domains_survive() {
    let mut bench = Bench::new();
    let (control, guest, model) = (bench.socket(), bench.domain(3), bench.domain(4));
    bench.ok(control, M::Write, 0, "/a/b\0v");
    bench.ok(control, M::SetPerms, 0, "/a/b\0r0\0w4\0");
    bench.ok(control, M::Write, 0, "/gone/b\0v");
    bench.ok(control, M::Rm, 0, "/gone\0");
    bench.ok(control, M::SetTarget, 0, "4\x003\0");
    bench.ok(control, M::SetPerms, 0, "@releaseDomain\0r0\0");
    bench.ok(guest, M::Watch, 0, "data\0mine\0");
    bench.ok(guest, M::Watch, 0, "/a\0other\0");
    bench.ok(guest, M::Watch, 0, "/a\0dropped\0");
    bench.ok(guest, M::Unwatch, 0, "/a\0dropped\0");
    bench.sweep(&[(3, Life::ShutDown), (4, Life::Running)]);
    bench.messages(model);
    bench.restart();
    let control = bench.socket();
    assert_eq!(bench.ok(control, M::Read, 0, "/a/b\0"), "v");
    assert_eq!(bench.ok(control, M::GetPerms, 0, "/a/b\0"), "r0\0w4\0");
    assert_eq!(bench.ok(control, M::GetPerms, 0, "@releaseDomain\0"), "r0\0");
    bench.refused(control, M::Read, 0, "/gone\0", "ENOENT");
    assert_eq!(bench.ok(control, M::IsDomainIntroduced, 0, "3\0"), "T\0");
    let (guest, model) =
        (bench.engine.connection_of(3).expect("is known"), bench.engine.connection_of(4).expect("is known"));
    for id in [guest, model] {
        bench.messages(id);
    }
    bench.ok(control, M::Write, 0, "/local/domain/3/data\0v");
    bench.ok(control, M::Write, 0, "/a/b\0w");
    assert_eq!(bench.events(guest), ["data mine", "/a/b other"]);
    bench.ok(model, M::Write, 0, "/local/domain/3/data\0w");
    bench.ok(control, M::Watch, 0, "@releaseDomain\0r\0");
    bench.events(control);
    bench.sweep(&[(3, Life::ShutDown), (4, Life::Running)]);
    assert!(bench.events(control).is_empty(), "that domain 3 has stopped was told before");
    assert!(bench.engine.store.is_consistent());
}

#[test]
fn an_open_transaction_ends_with_eagain() {
    let mut bench = Bench::new();
    let guest = bench.domain(3);
    bench.ok(guest, M::TransactionStart, 0, "\0");
    bench.ok(guest, M::TransactionStart, 0, "\0");
    bench.ok(guest, M::Write, 1, "x\x001");
    bench.ok(guest, M::TransactionEnd, 2, "T\0");
    bench.restart();
    let guest = bench.engine.connection_of(3).expect("is known");
    bench.messages(guest);
    bench.ok(guest, M::Write, 1, "y\x001");
    bench.refused(guest, M::TransactionEnd, 2, "T\0", "ENOENT");
    bench.refused(guest, M::TransactionEnd, 1, "T\0", "EAGAIN");
    assert_eq!(bench.ok(guest, M::Directory, 0, "/local/domain/3\0"), "");
    assert_ne!(bench.ok(guest, M::TransactionStart, 0, "\0"), "1\0");
}

#[test]
fn half_a_request_and_half_an_answer_survive() {
    let mut bench = Bench::new();
    let guest = bench.domain(3);
    let mut ring = Ring::fresh(Page::new());
    let value = vec![b'v'; 1500];
    let request = [
        wire::encode(M::Write, 1, 0, &[b"x\0", &value]).expect("is short"),
        wire::encode(M::Read, 2, 0, &[b"x\0"]).expect("is short"),
    ]
    .concat();
    let (mut sent, mut answers) = (0, Vec::new());
    let mut step = |bench: &mut Bench, ring: &mut Ring<Page>, guest, is_killed_before_publishing: bool| {
        sent += ring.page().request(&request[sent..]);
        let bytes = ring.take().expect("is in order");
        bench.engine.receive_from_ring(&mut bench.host, guest, &bytes, ring.place().taken);
        bench.records.extend(bench.engine.take_records());
        if !is_killed_before_publishing {
            ring.publish();
            let waiting = bench.engine.output(guest).expect("is there").waiting();
            let count = ring.give(&waiting).expect("is in order");
            bench.engine.output(guest).expect("is there").take(count);
        }
        let page = ring.page().clone();
        bench.restart();
        let guest = bench.engine.connection_of(3).expect("is known");
        let waiting = bench.engine.output(guest).expect("is there").len();
        let place = bench.engine.place_of(guest).expect("is known");
        let (resumed, done) = Ring::resume(page, place, waiting).ok().expect("is in order");
        *ring = resumed;
        bench.engine.skip_output(guest, done);
        answers.extend(ring.page().answer());
        guest
    };
    let mut guest = step(&mut bench, &mut ring, guest, false);
    for round in 0..8 {
        guest = step(&mut bench, &mut ring, guest, round % 2 == 0);
    }
    assert_eq!(sent, request.len());
    let mut reader = Reader::default();
    reader.push(&answers);
    let messages: Vec<Message> = std::iter::from_fn(|| reader.take().expect("is short")).collect();
    assert_eq!(messages.iter().map(|message| message.header.req_id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(messages[1].payload, value);
}

/// A step of a random life: which client, which request, which name.
type Step = (usize, usize, usize);

fn act(bench: &mut Bench, ids: &[ConnectionId], (who, what, name): Step) {
    let id = ids[who % ids.len()];
    let path = ["/a", "/a/b", "/local/domain/3/x", "/local/domain/4/y", "/a/b/c"][name % 5];
    let (kind, tx, payload) = match what {
        0 => (M::Write, 0, format!("{path}\0{what}{name}")),
        1 => (M::Write, 1, format!("{path}\0in transaction")),
        2 => (M::Rm, 0, format!("{path}\0")),
        3 => (M::Rm, 1, format!("{path}\0")),
        4 => (M::SetPerms, 0, format!("{path}\0b{}\0r4\0", [0, 3][name % 2])),
        5 => (M::Watch, 0, format!("{path}\0{name}\0")),
        6 => (M::Unwatch, 0, format!("{path}\0{name}\0")),
        7 => (M::TransactionStart, 0, "\0".into()),
        8 => (M::TransactionEnd, 1, "T\0".into()),
        9 => (M::TransactionEnd, 2, "F\0".into()),
        10 => (M::ResetWatches, 0, "\0".into()),
        11 => (M::SetTarget, 0, "4\x003\0".into()),
        12 => (M::Introduce, 0, format!("{}\x0077\x008\0", 3 + name % 3)),
        _ => (M::Release, 0, "5\0".into()),
    };
    let bytes = wire::encode(kind, 1, tx, &[payload.as_bytes()]).expect("is short");
    // Sometimes a part of a request comes later, or never.
    let cut = if name == 7 { bytes.len() / 2 } else { bytes.len() };
    bench.send(id, &bytes[..cut]);
}

proptest! {
    /// After any life, the successor knows what the killed daemon knew.
    #[test]
    fn the_successor_knows_the_same(steps in prop::collection::vec((0_usize..4, 0_usize..14, 0_usize..8), 0..80), ends in any::<bool>()) {
        let mut bench = Bench::new();
        let ids = [bench.socket(), bench.socket(), bench.domain(3), bench.domain(4)];
        for step in steps {
            act(&mut bench, &ids, step);
        }
        if ends {
            bench.sweep(&[(4, Life::Running)]);
        }
        let before = bench.engine.clone();
        bench.restart();
        prop_assert!(bench.engine.store.is_consistent());
        prop_assert!(bench.engine.knows_the_same(&before), "{:#?}\n{:#?}", before.whole(), bench.engine.whole());
    }
}

/// What the daemon does with a domain whose request made its predecessor panic (`daemon::poison`).
#[test]
fn a_domain_that_is_cut_off_may_begin_anew() {
    let mut bench = Bench::new();
    let (guest, other) = (bench.domain(3), bench.domain(4));
    bench.ok(guest, M::Watch, 0, "data\0mine\0");
    bench.restart();
    bench.engine.fail(guest, ERROR_COMM);
    assert!(!bench.engine.wants_input(guest) && bench.engine.wants_input(other));
    // It stays so over the next restart.
    bench.records.extend(bench.engine.take_records());
    bench.restart();
    assert_eq!(bench.engine.failure(guest), Some(ERROR_COMM));
    bench.engine.reconnected(3, Place { taken: 0, given: 0 });
    let guest = bench.engine.connection_of(3).expect("is known");
    assert!(bench.engine.wants_input(guest));
    bench.ok(guest, M::Write, 0, "data\0v");
    assert!(bench.events(guest).is_empty(), "its watches are gone");
}
