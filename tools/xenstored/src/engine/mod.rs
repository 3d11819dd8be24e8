//! The daemon without its devices: bytes of clients in, bytes for clients and records out.
//!
//! The shell (`crate::daemon`) gives it what was read ([`Engine::receive`]), writes the records that this made
//! ([`Engine::take_records`]), and only then sends what waits ([`Engine::output`]). What needs the machine in the middle of
//! a request is asked of a [`Host`]. Order of reading: this file, `request`, `changes`, `domain`, `control`, `restore`.

mod changes;
mod control;
mod domain;
mod output;
mod request;
mod restore;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use libxc::xenstore::wire::{self, Reader};
use public_abi::Errno;
use public_abi::io::xs_wire::{ERROR_PROTO, XsMessage};

pub(crate) use domain::{Domain, Life};
pub(crate) use output::Output;

use crate::limits::Limits;
use crate::path::{INTRODUCE_DOMAIN, RELEASE_DOMAIN};
use crate::perms::{self, Permissions, Who};
use crate::persist::Record;
use crate::ring::Place;
use crate::store::Tree;
use crate::store::transaction::Transaction;
use watch::Watches;

/// Bytes that may wait for a client before its next request is looked at.
const ENOUGH_OUTPUT: usize = 64 << 10;
/// Bytes of memory that may wait for a program on a socket before it is cut off: it has stopped reading.
const MOST_FOR_SOCKET: usize = 2 << 20;
/// Bytes of memory that may wait for the control domain's kernel before events for it are dropped.
const MOST_FOR_KERNEL: usize = 16 << 20;

/// A connection's number; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A program of the control domain.
    Socket,
    /// A domain's ring.
    Domain(u16),
}

/// What only the machine can do.
pub(crate) trait Host {
    /// Maps a domain's ring and binds its event channel; where the ring begins.
    ///
    /// # Errors
    /// What the client is answered.
    fn introduce(&mut self, domain: u16, gfn: u64, port: u32) -> Result<Place, Errno>;

    /// Binds another event channel and clears the ring.
    ///
    /// # Errors
    /// What the client is answered.
    fn rebind(&mut self, domain: u16, port: u32) -> Result<Place, Errno>;

    /// Gives ring and event channel back.
    fn release(&mut self, domain: u16);

    /// Says something in the log.
    fn log(&mut self, text: &str);

    /// Goes on with the log in another file.
    ///
    /// # Errors
    /// The file cannot be opened.
    fn log_to(&mut self, file: &str) -> Result<(), Errno>;

    /// Writes a file.
    ///
    /// # Errors
    /// That cannot be done.
    fn write_file(&mut self, file: &str, text: &str) -> Result<(), Errno>;
}

/// A client.
#[derive(Clone, Debug)]
struct Connection {
    peer: Peer,
    reader: Reader,
    /// A ring's index up to which requests were read.
    taken: u32,
    output: Output,
    transactions: BTreeMap<u32, Transaction>,
    last_transaction: u32,
    watches: u64,
    watch_bytes: u64,
    /// Why it is not listened to any more (`ERROR_*`).
    failure: Option<u32>,
    /// Whether the log has told that it has much.
    was_warned: bool,
}

impl Connection {
    fn new(peer: Peer, place: Place) -> Connection {
        Connection {
            peer,
            reader: Reader::default(),
            taken: place.taken,
            output: Output::at(place.given),
            transactions: BTreeMap::new(),
            last_transaction: 0,
            watches: 0,
            watch_bytes: 0,
            failure: None,
            was_warned: false,
        }
    }
}

/// The daemon.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    store: Tree,
    /// Permissions of the names of events.
    special: BTreeMap<String, Permissions>,
    connections: BTreeMap<ConnectionId, Connection>,
    last_connection: u64,
    domains: BTreeMap<u16, Domain>,
    /// Domains that something may be left of when they are gone.
    mentioned: BTreeSet<u16>,
    watches: Watches,
    records: Vec<Record>,
    /// The limits.
    pub(crate) limits: Limits,
    /// Whether nodes of a domain that is gone stay, as the control domain's.
    pub(crate) keep_orphans: bool,
    /// Whether requests go to the log.
    pub(crate) is_tracing: bool,
}

impl Engine {
    /// A daemon without clients, with the nodes that are always there.
    pub(crate) fn new() -> Engine {
        let mut engine = Engine::empty();
        for path in ["/tool", "/tool/xenstored"] {
            engine.store.set(path, std::rc::Rc::new([]), perms::private(0));
        }
        engine
    }

    /// A daemon without even those: records will fill it.
    pub(crate) fn empty() -> Engine {
        let special = [INTRODUCE_DOMAIN, RELEASE_DOMAIN].map(|name| (name.to_owned(), perms::private(0)));
        Engine {
            store: Tree::new(),
            special: special.into(),
            connections: BTreeMap::new(),
            last_connection: 0,
            domains: BTreeMap::new(),
            mentioned: BTreeSet::new(),
            watches: Watches::default(),
            records: Vec::new(),
            limits: Limits::default(),
            keep_orphans: false,
            is_tracing: false,
        }
    }

    /// A new client.
    pub(crate) fn connect(&mut self, peer: Peer, place: Place) -> ConnectionId {
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        self.connections.insert(id, Connection::new(peer, place));
        id
    }

    /// A client has gone: so have its watches and transactions.
    pub(crate) fn disconnect(&mut self, id: ConnectionId) {
        self.watches.remove_all(id);
        self.connections.remove(&id);
    }

    /// Whether anything that a client sends now would be looked at.
    pub(crate) fn wants_input(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            let is_bound = matches!(connection.peer, Peer::Domain(domain) if domain != 0);
            connection.failure.is_none()
                && connection.output.len() < ENOUGH_OUTPUT
                && (!is_bound || (connection.output.answers() as u64) < self.limits.outstanding.max(1))
        })
    }

    /// Bytes of a client on a socket.
    pub(crate) fn receive(&mut self, host: &mut dyn Host, id: ConnectionId, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.failure.is_none()) {
            connection.reader.push(bytes);
        }
        self.handle_all(host, id);
        self.record_input(id);
    }

    /// Bytes from a domain's ring, up to this index.
    pub(crate) fn receive_from_ring(&mut self, host: &mut dyn Host, id: ConnectionId, bytes: &[u8], taken: u32) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.taken = taken;
        }
        self.receive(host, id, bytes);
    }

    /// Handles requests that had to wait until the client takes its answers.
    pub(crate) fn proceed(&mut self, host: &mut dyn Host, id: ConnectionId) {
        if self.handle_all(host, id) {
            self.record_input(id);
        }
    }

    /// Handles the requests that are there, as far as the client takes its answers; whether there was any.
    fn handle_all(&mut self, host: &mut dyn Host, id: ConnectionId) -> bool {
        let mut has_handled = false;
        while self.wants_input(id) {
            let Some(connection) = self.connections.get_mut(&id) else {
                break;
            };
            match connection.reader.take() {
                Ok(Some(message)) => {
                    has_handled = true;
                    self.handle(host, id, &message);
                }
                Ok(None) => break,
                Err(wire::TooLong(length)) => {
                    host.log(&format!("{:?} sent a message of {length} bytes", connection.peer));
                    self.fail(id, ERROR_PROTO);
                }
            }
        }
        has_handled
    }

    fn record_input(&mut self, id: ConnectionId) {
        if let Some(Connection { peer: Peer::Domain(domain), reader, taken, .. }) = self.connections.get(&id) {
            self.records.push(Record::Input { domain: *domain, taken: *taken, rest: reader.rest().to_vec() });
        }
    }

    /// A client broke the protocol, by an `ERROR_*`: it is not listened to any more.
    pub(crate) fn fail(&mut self, id: ConnectionId, error: u32) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.failure = Some(error);
            connection.reader = Reader::default();
            if let Peer::Domain(domain) = connection.peer {
                self.records.push(Record::Failed { domain, error });
            }
        }
    }

    /// Why a client is not listened to any more.
    pub(crate) fn failure(&self, id: ConnectionId) -> Option<u32> {
        self.connections.get(&id).and_then(|connection| connection.failure)
    }

    /// What waits for a client. To be sent only when the records are safe.
    pub(crate) fn output(&mut self, id: ConnectionId) -> Option<&mut Output> {
        self.connections.get_mut(&id).map(|connection| &mut connection.output)
    }

    /// What has changed since the last call.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// As whom a connection asks.
    fn who(&self, id: ConnectionId) -> Who {
        match self.connections.get(&id).map(|connection| connection.peer) {
            Some(Peer::Domain(domain)) => {
                Who { domain, target: self.domains.get(&domain).and_then(|domain| domain.target) }
            }
            Some(Peer::Socket) => Who::CONTROL,
            // Nobody asks for a connection that is gone; if so, as a domain that there never is.
            None => Who { domain: u16::MAX, target: None },
        }
    }

    /// Bytes that a connection costs beside its domain's nodes.
    fn other_bytes(&self, id: ConnectionId) -> u64 {
        self.connections.get(&id).map_or(0, |connection| {
            let noted = match connection.peer {
                Peer::Domain(_) => connection.transactions.values().map(|open| open.trace.bytes() as u64).sum(),
                // Nobody asks what a program has.
                Peer::Socket => 0,
            };
            connection.watch_bytes + connection.output.cost() as u64 + noted
        })
    }

    fn send_answer(&mut self, id: ConnectionId, kind: XsMessage, request: u32, tx: u32, payload: &[u8]) {
        let bytes = wire::encode(kind, request, tx, &[payload])
            .or_else(|| wire::encode(XsMessage::Error, request, tx, &[b"E2BIG\0"]));
        let (Some(connection), Some(bytes)) = (self.connections.get_mut(&id), bytes) else {
            return;
        };
        if let Peer::Domain(domain) = connection.peer {
            self.records.push(Record::Output { domain, bytes: bytes.clone() });
        }
        connection.output.answer(bytes);
    }
}
