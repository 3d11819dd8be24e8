//! Tests against a scripted daemon on the other end of a socket pair, and random bytes into the reader.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use proptest::prelude::*;
use public_abi::io::xs_wire::XsdSockmsg;
use zerocopy::{FromBytes, IntoBytes};

use super::*;

/// What a daemon saw of a request: kind, transaction, payload.
type Seen = (u32, u32, Vec<u8>);

/// A daemon's side of one connection: gives these answers, one per request; also what it was asked.
///
/// An answer of kind `WatchEvent` is sent in front of the next one.
fn serve(theirs: &mut UnixStream, answers: Vec<(XsMessage, &'static [u8])>) -> Vec<Seen> {
    let mut requests = Vec::new();
    let mut number = None;
    for (kind, payload) in answers {
        if number.is_none() {
            let mut header = [0; 16];
            theirs.read_exact(&mut header).expect("a request");
            let header = XsdSockmsg::read_from_bytes(&header).expect("a header");
            let mut body = vec![0; header.len as usize];
            theirs.read_exact(&mut body).expect("its payload");
            requests.push((header.kind, header.tx_id, body));
            number = Some(header.req_id);
        }
        let event = kind == XsMessage::WatchEvent;
        let req_id = if event { 0 } else { number.take().unwrap_or(0) };
        let len = u32::try_from(payload.len()).expect("is short");
        let header = XsdSockmsg { kind: kind.number(), req_id, tx_id: 0, len };
        // In two writes, so that a reader must put parts together.
        theirs.write_all(header.as_bytes()).expect("is open");
        theirs.write_all(payload).expect("is open");
    }
    requests
}

/// A daemon that gives these answers and returns the requests, with the socket, so that it stays open until the test is done with both.
fn daemon(answers: Vec<(XsMessage, &'static [u8])>) -> (Client, thread::JoinHandle<(Vec<Seen>, UnixStream)>) {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let both = move || (serve(&mut theirs, answers), theirs);
    (Client::from_socket(ours), thread::spawn(both))
}

/// A daemon that is restarted: each life gives answers to one connection. The client, and all requests.
fn lives(name: &str, lives: Vec<Vec<(XsMessage, &'static [u8])>>) -> (Client, thread::JoinHandle<Vec<Vec<Seen>>>) {
    let place = std::env::temp_dir().join(format!("libxc-{name}-{}", std::process::id()));
    drop(std::fs::remove_file(&place));
    let listener = UnixListener::bind(&place).expect("a socket");
    let client = Client::connect(&place).expect("is there");
    let server = thread::spawn(move || {
        let mut listener = Some(listener);
        let seen = lives.into_iter().map(|answers| {
            // Between its lives nobody listens.
            let listener = listener.take().unwrap_or_else(|| UnixListener::bind(&place).expect("a socket"));
            let (mut socket, _) = listener.accept().expect("a client");
            std::fs::remove_file(&place).expect("is ours");
            serve(&mut socket, answers)
        });
        seen.collect()
    });
    (client, server)
}

#[test]
fn requests_and_answers() {
    let (client, daemon) = daemon(vec![
        (XsMessage::Read, b"value"),
        (XsMessage::Error, b"ENOENT\0"),
        (XsMessage::Directory, b"a\0bc\0"),
        (XsMessage::Error, b"EACCES\0"),
    ]);
    assert_eq!(client.read(Tx::NONE, "/x").expect("answers").as_deref(), Some("value"));
    assert_eq!(client.read(Tx::NONE, "/y").expect("answers"), None);
    assert_eq!(client.children(Tx::NONE, "/z").expect("answers"), Some(vec!["a".into(), "bc".into()]));
    let error = client.write(Tx::NONE, "/w", "1").expect_err("is refused");
    assert!(error.to_string().starts_with("xenstore WRITE /w: EACCES"), "{error}");
    let (requests, _socket) = daemon.join().expect("ends");
    assert_eq!(requests[0], (XsMessage::Read.number(), 0, b"/x\0".to_vec()));
    assert_eq!(requests[3], (XsMessage::Write.number(), 0, b"/w\x001".to_vec()));
}

#[test]
fn a_transaction_in_the_way_of_others_is_done_again() {
    let (client, daemon) = daemon(vec![
        (XsMessage::TransactionStart, b"7\0"),
        (XsMessage::Write, b"OK\0"),
        (XsMessage::Error, b"EAGAIN\0"),
        (XsMessage::TransactionStart, b"8\0"),
        (XsMessage::Write, b"OK\0"),
        (XsMessage::TransactionEnd, b"OK\0"),
    ]);
    client.transaction(|tx| client.write(tx, "/a", "b")).expect("succeeds at last");
    let (requests, _socket) = daemon.join().expect("ends");
    let transactions: Vec<u32> = requests.iter().map(|(_, tx, _)| *tx).collect();
    assert_eq!(transactions, [0, 7, 7, 0, 8, 8]);
    assert_eq!(requests[5].2, b"T\0");
}

#[test]
fn a_transaction_that_fails_is_given_up() {
    let (client, daemon) = daemon(vec![
        (XsMessage::TransactionStart, b"7\0"),
        (XsMessage::Error, b"ENOSPC\0"),
        (XsMessage::TransactionEnd, b"OK\0"),
    ]);
    let error = client.transaction(|tx| client.write(tx, "/a", "b")).expect_err("has no space");
    assert_eq!(error.errno(), Some(Errno::ENOSPC));
    assert_eq!(daemon.join().expect("ends").0[2].2, b"F\0");
}

#[test]
fn a_transaction_that_meets_a_removal_is_done_again() {
    // What xl destroy saw while the monitor removed the same domain's nodes.
    let removal =
        |answer| [(XsMessage::TransactionStart, b"7\0".as_slice()), answer, (XsMessage::TransactionEnd, b"OK\0")];
    let torn = || removal((XsMessage::Error, b"EIO\0"));
    let gone = removal((XsMessage::Error, b"ENOENT\0"));
    let (client, seen) = daemon([torn(), torn(), gone].concat());
    client.transaction(|tx| client.remove(tx, "/local/domain/0/backend")).expect("it is gone");
    let ends = |(seen, _): (Vec<Seen>, UnixStream)| -> Vec<Vec<u8>> {
        seen.into_iter().skip(2).step_by(3).map(|(_, _, body)| body).collect()
    };
    assert_eq!(ends(seen.join().expect("has seen all")), [b"F\0", b"F\0", b"T\0"]);
    // A daemon that cannot read what it has says so each time.
    let (client, seen) = daemon((0..TORN_ATTEMPTS).flat_map(|_| torn()).collect());
    let error = client.transaction(|tx| client.remove(tx, "/local/domain/0/backend")).expect_err("it fails each time");
    assert_eq!(error.errno(), Some(Errno::EIO));
    assert_eq!(ends(seen.join().expect("has seen all")).len() as u32, TORN_ATTEMPTS);
}

#[test]
fn events_between_answers_are_kept() {
    let (client, daemon) = daemon(vec![
        (XsMessage::Watch, b"OK\0"),
        (XsMessage::WatchEvent, b"/a\0t\0"),
        (XsMessage::WatchEvent, b"/a/b\0t\0"),
        (XsMessage::Read, b"1"),
    ]);
    client.watch("/a", "t").expect("is registered");
    assert_eq!(client.read(Tx::NONE, "/a").expect("answers").as_deref(), Some("1"));
    for path in ["/a", "/a/b"] {
        let event = client.next_event(None).expect("comes").expect("is there");
        assert_eq!((event.path.as_str(), event.token.as_str()), (path, "t"));
    }
    assert_eq!(client.next_event(Some(Duration::ZERO)).expect("is open"), None);
    drop(daemon.join().expect("ends"));
    assert!(client.next_event(None).is_err(), "the daemon is gone");
}

#[test]
fn a_daemon_that_is_restarted_is_connected_to_again() {
    let (client, daemon) = lives(
        "again",
        vec![
            vec![(XsMessage::Watch, b"OK\0"), (XsMessage::Watch, b"OK\0"), (XsMessage::Unwatch, b"OK\0")],
            // Watches first, then the request that had no answer.
            vec![(XsMessage::WatchEvent, b"/a\0t\0"), (XsMessage::Watch, b"OK\0"), (XsMessage::Read, b"1")],
            vec![(XsMessage::Watch, b"OK\0"), (XsMessage::WatchEvent, b"/a/b\0t\0"), (XsMessage::Write, b"OK\0")],
        ],
    );
    client.watch("/a", "t").expect("is set");
    client.watch("/b", "t").expect("is set");
    client.unwatch("/b", "t").expect("is gone");
    assert_eq!(client.read(Tx::NONE, "/a").expect("answers").as_deref(), Some("1"));
    let event = client.next_event(None).expect("comes").expect("is there");
    assert_eq!(event.path, "/a");
    client.write(Tx::NONE, "/c", "2").expect("answers");
    assert_eq!(client.next_event(None).expect("comes").expect("is there").path, "/a/b");
    let requests = daemon.join().expect("ends");
    let kinds: Vec<Vec<u32>> = requests.iter().map(|life| life.iter().map(|(kind, _, _)| *kind).collect()).collect();
    let number = XsMessage::number;
    assert_eq!(
        kinds[1..],
        [[number(XsMessage::Watch), number(XsMessage::Read)], [number(XsMessage::Watch), number(XsMessage::Write)]]
    );
    assert_eq!(requests[1][0].2, b"/a\0t\0");
}

#[test]
fn a_transaction_ends_with_its_daemon_and_is_begun_again() {
    let (client, daemon) = lives(
        "transaction",
        vec![
            vec![(XsMessage::TransactionStart, b"7\0"), (XsMessage::Read, b"1")],
            vec![
                (XsMessage::TransactionStart, b"1\0"),
                (XsMessage::Read, b"2"),
                (XsMessage::Write, b"OK\0"),
                (XsMessage::TransactionEnd, b"OK\0"),
            ],
        ],
    );
    let mut rounds = Vec::new();
    let done = client.transaction(|tx| {
        rounds.push(client.read(tx, "/a")?);
        client.write(tx, "/a", "3").map_err(|error| Error::Protocol(format!("in other words: {error}")))
    });
    done.expect("succeeds at last");
    assert_eq!(rounds, [Some("1".into()), Some("2".into())]);
    let requests = daemon.join().expect("ends");
    assert!(requests[1][1..].iter().all(|(_, tx, _)| *tx == 1), "a number of the old daemon: {requests:?}");
}

#[test]
fn a_release_that_was_done_already_is_done() {
    let (client, daemon) = lives("release", vec![vec![(XsMessage::Read, b"")], vec![(XsMessage::Error, b"ENOENT\0")]]);
    client.read(Tx::NONE, "/a").expect("answers");
    client.release(3).expect("is released");
    daemon.join().expect("ends");
}

#[test]
fn a_daemon_that_does_not_come_back_is_given_up() {
    let (client, daemon) = lives("gone", vec![vec![(XsMessage::Watch, b"OK\0")]]);
    client.watch("/a", "t").expect("is set");
    daemon.join().expect("ends");
    assert_eq!(client.next_event(Some(Duration::ZERO)).expect("it may come back"), None);
    assert!(client.connection().is_none());
    client.set_patience(Duration::ZERO);
    let error = client.read(Tx::NONE, "/a").expect_err("nobody is there");
    assert!(error.to_string().contains("has not come back in"), "{error}");
    assert!(client.next_event(None).is_err());
}

#[test]
fn a_request_that_ends_the_daemon_each_time_is_given_up() {
    let (client, daemon) = lives("poison", (0..TRIES).map(|_| Vec::new()).collect());
    assert!(client.read(Tx::NONE, "/a").is_err());
    daemon.join().expect("ends");
}

#[test]
fn what_is_too_long_is_not_sent() {
    let (client, _daemon) = daemon(Vec::new());
    let error = client.write(Tx::NONE, "/a", &"x".repeat(4094)).expect_err("is too long");
    assert_eq!(error.errno(), Some(Errno::E2BIG));
}

proptest! {
    /// Random bytes never panic, and never grow into a message longer than the protocol allows.
    #[test]
    fn random_bytes_never_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
        let mut reader = Reader::default();
        for chunk in chunks {
            reader.push(&chunk);
            while let Ok(Some(message)) = reader.take() {
                prop_assert!(message.payload.len() <= 4096);
                prop_assert!(wire::strings(&message.payload).len() <= message.payload.len() + 1);
            }
        }
    }

    /// What one side encodes the other takes, however it is cut.
    #[test]
    fn messages_survive_any_cut(payload in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..216) {
        let bytes = wire::encode(XsMessage::Write, 5, 0, &[&payload]).expect("is short");
        let cut = cut.min(bytes.len());
        let mut reader = Reader::default();
        reader.push(&bytes[..cut]);
        if cut < bytes.len() {
            prop_assert!(matches!(reader.take(), Ok(None)));
        }
        reader.push(&bytes[cut..]);
        prop_assert!(reader.has_message());
        let message = reader.take().expect("is short").expect("is whole");
        prop_assert_eq!((message.kind(), message.header.req_id), (Some(XsMessage::Write), 5));
        prop_assert_eq!(message.payload, payload);
        prop_assert!(reader.rest().is_empty());
    }
}
