//! Tests of the daemon without its devices: clients are in the same process, and domains' bytes come as from a ring.

mod clients;
mod domains;
mod hostile;
mod model;
mod restart;

use std::collections::BTreeMap;

use libxc::xenstore::wire::{self, Message, Reader};
use public_abi::Errno;
use public_abi::io::xs_wire::XsMessage;

use super::{ConnectionId, Engine, Host, Life, Peer};
use crate::persist::Record;
use crate::ring::Place;

/// A machine that agrees to everything, and remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeHost {
    calls: Vec<String>,
    refuses: bool,
}

impl Host for FakeHost {
    fn introduce(&mut self, domain: u16, gfn: u64, port: u32) -> Result<Place, Errno> {
        self.calls.push(format!("introduce {domain} {gfn} {port}"));
        if self.refuses { Err(Errno::EINVAL) } else { Ok(Place { taken: 0, given: 0 }) }
    }

    fn rebind(&mut self, domain: u16, port: u32) -> Result<Place, Errno> {
        self.calls.push(format!("rebind {domain} {port}"));
        Ok(Place { taken: 0, given: 0 })
    }

    fn release(&mut self, domain: u16) {
        self.calls.push(format!("release {domain}"));
    }

    fn log(&mut self, text: &str) {
        self.calls.push(format!("log {text}"));
    }

    fn log_to(&mut self, file: &str) -> Result<(), Errno> {
        if file.starts_with('/') { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn write_file(&mut self, file: &str, text: &str) -> Result<(), Errno> {
        self.calls.push(format!("write {file} {text}"));
        Ok(())
    }
}

/// A daemon and its machine.
#[derive(Clone)]
pub(super) struct Bench {
    engine: Engine,
    host: FakeHost,
    /// All records so far.
    records: Vec<Record>,
}

/// What a request was answered: the payload as text, or the error's name.
pub(super) type Reply = Result<String, String>;

impl Bench {
    pub(super) fn new() -> Bench {
        let engine = Engine::new();
        let records = engine.whole();
        Bench { engine, host: FakeHost::default(), records }
    }

    pub(super) fn socket(&mut self) -> ConnectionId {
        self.engine.connect(Peer::Socket, Place { taken: 0, given: 0 })
    }

    /// Introduces a domain, whose home it then owns.
    pub(super) fn domain(&mut self, domain: u16) -> ConnectionId {
        let control = self.socket();
        let home = format!("/local/domain/{domain}");
        self.ok(control, XsMessage::Introduce, 0, &format!("{domain}\x0077\x009\0"));
        self.ok(control, XsMessage::Write, 0, &format!("{home}\0"));
        self.ok(control, XsMessage::SetPerms, 0, &format!("{home}\0n{domain}\0"));
        self.engine.disconnect(control);
        self.engine.connection_of(domain).expect("was introduced")
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.engine.receive(&mut self.host, id, bytes);
        self.records.extend(self.engine.take_records());
    }

    /// Takes what waits for a client.
    pub(super) fn messages(&mut self, id: ConnectionId) -> Vec<Message> {
        let mut reader = Reader::default();
        let Some(output) = self.engine.output(id) else {
            return Vec::new();
        };
        while output.len() > 0 {
            let front = output.front().to_vec();
            reader.push(&front);
            output.take(front.len());
        }
        std::iter::from_fn(|| reader.take().expect("the daemon's messages are short")).collect()
    }

    /// Sends a request; gives the answer and throws events away.
    pub(super) fn ask(&mut self, id: ConnectionId, kind: XsMessage, tx: u32, payload: &str) -> Reply {
        let bytes = wire::encode(kind, 5, tx, &[payload.as_bytes()]).expect("is short");
        self.send(id, &bytes);
        let answers: Vec<Message> =
            self.messages(id).into_iter().filter(|message| message.kind() != Some(XsMessage::WatchEvent)).collect();
        let [answer] = answers.as_slice() else { panic!("{} answers", answers.len()) };
        assert_eq!((answer.header.req_id, answer.header.tx_id), (5, tx));
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        if answer.kind() == Some(XsMessage::Error) {
            return Err(text.trim_end_matches('\0').to_owned());
        }
        assert_eq!(answer.kind(), Some(kind));
        Ok(text)
    }

    #[track_caller]
    pub(super) fn ok(&mut self, id: ConnectionId, kind: XsMessage, tx: u32, payload: &str) -> String {
        match self.ask(id, kind, tx, payload) {
            Ok(text) => text,
            Err(error) => panic!("{} {payload:?}: {error}", kind.name()),
        }
    }

    #[track_caller]
    pub(super) fn refused(&mut self, id: ConnectionId, kind: XsMessage, tx: u32, payload: &str, error: &str) {
        assert_eq!(self.ask(id, kind, tx, payload), Err(error.to_owned()), "{} {payload:?}", kind.name());
    }

    /// The events that wait, as "path token".
    pub(super) fn events(&mut self, id: ConnectionId) -> Vec<String> {
        let text =
            |message: Message| String::from_utf8_lossy(&message.payload).trim_end_matches('\0').replace('\0', " ");
        self.messages(id).into_iter().map(text).collect()
    }

    /// The domains that are told to be there, all running; everyone else is gone.
    pub(super) fn sweep(&mut self, lives: &[(u16, Life)]) {
        let lives: BTreeMap<u16, Life> = lives.iter().copied().collect();
        self.engine.sweep(&mut self.host, &lives);
        self.records.extend(self.engine.take_records());
    }
}
