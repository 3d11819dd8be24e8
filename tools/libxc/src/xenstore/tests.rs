//! Tests against a scripted daemon on the other end of a socket pair, and random bytes into the reader.

use std::thread;

use proptest::prelude::*;
use public_abi::io::xs_wire::XsdSockmsg;
use zerocopy::{FromBytes, IntoBytes};

use super::*;

/// What a daemon saw of a request: kind, transaction, payload.
type Seen = (u32, u32, Vec<u8>);

/// A daemon that gives these answers, one per request, and returns the requests.
///
/// An answer of kind `WatchEvent` is sent in front of the next one.
fn daemon(answers: Vec<(XsMessage, &'static [u8])>) -> (Client, thread::JoinHandle<(Vec<Seen>, UnixStream)>) {
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let serve = move || {
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
        // With the socket, so that it stays open until the test is done with both.
        (requests, theirs)
    };
    (Client::over(Connection::Socket(ours)), thread::spawn(serve))
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
