//! A client of xenstored: requests, transactions that are retried, watches.
//!
//! The daemon is reached by its socket, or, where it runs elsewhere, by /dev/xen/xenbus; the protocol is the same
//! (docs/misc/xenstore.txt). A client is synchronous: a request waits for its answer, and watch events that come meanwhile
//! are kept for [`Client::next_event`].
//!
//! When the daemon is restarted, the client connects again (`link`) and sets its watches anew, each of which fires once as
//! watches do: who looks again at every event misses nothing. A request without an answer is made again, as all of them may be; a
//! transaction begins again from its start. (If the daemon ended between doing and saying it, something is done twice.)

mod change;
mod link;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use public_abi::Errno;
use public_abi::io::xs_wire::{PAYLOAD_MAX, XsMessage};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{Error, Result};
use crate::fault::{self, Fault, Kind};
pub use change::Change;
pub use link::Connection;
use link::Link;
use wire::{Message, Reader};

/// How often a transaction is tried against others before it is given up.
const ATTEMPTS: u32 = 100;
/// How often a transaction is tried that the daemon could not look into: C xenstored copies nodes when they are first looked at, and
/// answers EIO when parent and child are of different times because somebody else has removed one of them meanwhile.
const TORN_ATTEMPTS: u32 = 5;
/// How often one request is made when the daemon ends each time before it answers.
const TRIES: u32 = 5;

/// A transaction's number, 0 for no transaction, and the connection that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tx {
    number: u32,
    connection: u32,
}

impl Tx {
    /// Outside of any transaction.
    pub const NONE: Tx = Tx { number: 0, connection: 0 };
}

/// A watch that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The path that changed.
    pub path: String,
    /// The token that the watch was registered with.
    pub token: String,
}

/// Permissions of a node: the owner, then what others may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Which domain.
    pub domain: u16,
    /// `n`one, `r`ead, `w`rite or `b`oth; the first entry's says what everyone else may do.
    pub letter: char,
}

/// Why there is no answer.
enum Trouble {
    /// The daemon has gone.
    Lost(Error),
    /// It is there.
    Other(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Other(error)
    }
}

/// What the daemon sends next.
type Next<T> = std::result::Result<T, Trouble>;

/// A connection to xenstored.
pub struct Client {
    link: Link,
    reader: RefCell<Reader>,
    events: RefCell<VecDeque<Event>>,
    next_request: Cell<u32>,
    /// Paths and tokens, to be set again on a new connection.
    watches: RefCell<Vec<(String, String)>>,
    /// Whether the last request was made more than once.
    was_repeated: Cell<bool>,
}

impl Client {
    /// Connects to this machine's xenstored.
    pub fn open() -> Result<Client> {
        Link::open().map(Client::over)
    }

    /// Connects to a daemon that listens at `place`.
    pub fn connect(place: &Path) -> Result<Client> {
        Link::to(place).map(Client::over)
    }

    /// A client over a socket that is connected already; it cannot connect again.
    pub fn from_socket(socket: UnixStream) -> Client {
        Client::over(Link::over(Connection::socket(socket), None))
    }

    fn over(link: Link) -> Client {
        Client {
            link,
            reader: RefCell::default(),
            events: RefCell::default(),
            next_request: Cell::new(1),
            watches: RefCell::default(),
            was_repeated: Cell::new(false),
        }
    }

    /// Sets for how long the daemon may be away before requests fail: five minutes, if nothing else is said. With zero nothing ever
    /// waits for it, and each request or [`Client::next_event`] looks once whether it is back.
    pub fn set_patience(&self, patience: Duration) {
        self.link.set_patience(patience);
    }

    /// The connection, to wait for events beside other things; `None` while the daemon is away. Events may be here already, read behind
    /// an answer: ask [`Client::next_event`] after the last request before waiting.
    pub fn connection(&self) -> Option<Rc<Connection>> {
        self.link.connection()
    }

    /// The value of a node; `None` if there is no such node.
    pub fn read(&self, tx: Tx, path: &str) -> Result<Option<String>> {
        match self.request(XsMessage::Read, tx, &[path.as_bytes(), b"\0"]) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of a node's children; `None` if there is no such node.
    pub fn children(&self, tx: Tx, path: &str) -> Result<Option<Vec<String>>> {
        match self.request(XsMessage::Directory, tx, &[path.as_bytes(), b"\0"]) {
            Ok(bytes) => Ok(Some(wire::strings(&bytes))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a value, making the node and its parents where they are missing.
    pub fn write(&self, tx: Tx, path: &str, value: &str) -> Result<()> {
        self.change(tx, &Change::write(path, value))
    }

    /// Makes a node with an empty value unless it is there.
    pub fn mkdir(&self, tx: Tx, path: &str) -> Result<()> {
        self.change(tx, &Change::mkdir(path))
    }

    /// Removes a node and what is under it; one that is not there is no error.
    pub fn remove(&self, tx: Tx, path: &str) -> Result<()> {
        self.change(tx, &Change::remove(path))
    }

    /// Removes a node, and then its parents as far as they have no other children.
    pub fn remove_with_empty_parents(&self, tx: Tx, path: &str) -> Result<()> {
        self.remove(tx, path)?;
        let mut path = path;
        while let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            if self.children(tx, parent)?.is_some_and(|children| !children.is_empty()) {
                break;
            }
            self.remove(tx, parent)?;
            path = parent;
        }
        Ok(())
    }

    /// Sets a node's permissions.
    pub fn set_permissions(&self, tx: Tx, path: &str, permissions: &[Permission]) -> Result<()> {
        self.change(tx, &Change::set_permissions(path, permissions))
    }

    /// Tells xenstored that a domain's ring is ready.
    pub fn introduce(&self, domain: u16, gfn: u64, port: u32) -> Result<()> {
        let payload = format!("{domain}\0{gfn}\0{port}\0");
        self.request(XsMessage::Introduce, Tx::NONE, &[payload.as_bytes()]).map(|_| ())
    }

    /// Tells xenstored that a domain's ring is gone.
    pub fn release(&self, domain: u16) -> Result<()> {
        match self.request(XsMessage::Release, Tx::NONE, &[format!("{domain}\0").as_bytes()]) {
            // It was done the first time.
            Err(error) if error.is_absent() && self.was_repeated.get() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Watches a path and what is under it, or `@releaseDomain`. An event comes at once, and then for each change.
    pub fn watch(&self, path: &str, token: &str) -> Result<()> {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.request(XsMessage::Watch, Tx::NONE, &parts)?;
        self.watches.borrow_mut().push((path.to_owned(), token.to_owned()));
        Ok(())
    }

    /// Stops watching.
    pub fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.request(XsMessage::Unwatch, Tx::NONE, &parts)?;
        self.watches.borrow_mut().retain(|(its_path, its_token)| its_path != path || its_token != token);
        Ok(())
    }

    /// Does `work` in a transaction, again from the start when others were in its way. Nothing of it stays if it fails.
    pub fn transaction<R>(&self, mut work: impl FnMut(Tx) -> Result<R>) -> Result<R> {
        let mut torn = 0;
        for _ in 0..ATTEMPTS {
            let tx = self.begin()?;
            let done = match work(tx) {
                Ok(done) => done,
                // Whatever it was: the daemon has gone, and the transaction with it.
                Err(_) if self.is_stale(tx) => continue,
                Err(Error::Xenstore { errno: Errno::EIO, .. }) if torn + 1 < TORN_ATTEMPTS => {
                    torn += 1;
                    self.end(tx, false)?;
                    continue;
                }
                Err(error) => {
                    // The reason for giving up is worth more than whether that worked, too.
                    return self.end(tx, false).and(Err(error));
                }
            };
            match self.end(tx, true) {
                Ok(()) => return Ok(done),
                Err(Error::Xenstore { errno: Errno::EAGAIN, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Xenstore { request: format!("transaction, tried {ATTEMPTS} times"), errno: Errno::EAGAIN })
    }

    fn begin(&self) -> Result<Tx> {
        let bytes = self.request(XsMessage::TransactionStart, Tx::NONE, &[b"\0"])?;
        let text = wire::strings(&bytes).concat();
        match text.parse() {
            Ok(number) => Ok(Tx { number, connection: self.link.count() }),
            Err(_) => Err(Error::Protocol(format!("xenstored named a transaction \"{}\"", text.escape_debug()))),
        }
    }

    /// Whether a transaction has ended with its connection.
    fn is_stale(&self, tx: Tx) -> bool {
        tx != Tx::NONE && (tx.connection != self.link.count() || self.link.connection().is_none())
    }

    fn end(&self, tx: Tx, commit: bool) -> Result<()> {
        let verdict: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.request(XsMessage::TransactionEnd, tx, &[verdict]).map(|_| ())
    }

    /// The next event of a watch; `None` when `timeout` has passed first.
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(event) = self.events.borrow_mut().pop_front() {
                return Ok(Some(event));
            }
            let Some(connection) = self.connected(deadline)? else {
                return Ok(None);
            };
            // Watches that were set again may have fired.
            if !self.events.borrow().is_empty() {
                continue;
            }
            if !self.wait(&connection, deadline)? {
                return Ok(None);
            }
            match self.next_message(&connection) {
                Ok(message) => self.keep_event(message)?,
                Err(trouble) => self.look_for_another(trouble)?,
            }
        }
    }

    /// Waits until there is something to read; `false` when the deadline has passed.
    fn wait(&self, connection: &Connection, deadline: Option<Instant>) -> Result<bool> {
        if self.reader.borrow().has_message() {
            return Ok(true);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // One that is too long for the kernel is no limit.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut descriptors = [PollFd::new(connection, PollFlags::IN)];
        match rustix::event::poll(&mut descriptors, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(Error::system("waiting for xenstored", error)),
        }
    }

    /// The connection, made anew if the daemon has gone, with all watches; `None` if the deadline has passed first.
    fn connected(&self, deadline: Option<Instant>) -> Result<Option<Rc<Connection>>> {
        loop {
            if let Some(connection) = self.link.connection() {
                return Ok(Some(connection));
            }
            let Some(connection) = self.link.again(deadline)? else {
                return Ok(None);
            };
            *self.reader.borrow_mut() = Reader::default();
            match self.set_watches(&connection) {
                Ok(()) => {
                    self.link.is_settled();
                    return Ok(Some(connection));
                }
                Err(trouble) => self.look_for_another(trouble)?,
            }
        }
    }

    fn set_watches(&self, connection: &Connection) -> Next<()> {
        let watches = self.watches.borrow().clone();
        for (path, token) in &watches {
            let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
            self.exchange(connection, XsMessage::Watch, Tx::NONE, &parts)?;
        }
        Ok(())
    }

    /// A connection that was lost is given up for another, if there can be one.
    fn look_for_another(&self, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Lost(error) => {
                if self.link.lose() {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            Trouble::Other(error) => Err(error),
        }
    }

    /// Makes a request and waits for its answer, whatever it takes.
    fn request(&self, kind: XsMessage, tx: Tx, parts: &[&[u8]]) -> Result<Vec<u8>> {
        self.was_repeated.set(false);
        let mut tries = 0;
        loop {
            let ended = || Error::Xenstore { request: describe(kind, parts), errno: Errno::EAGAIN };
            if self.is_stale(tx) {
                return Err(ended());
            }
            let Some(connection) = self.connected(None)? else {
                return Err(Error::Protocol("a wait without limit has ended".into()));
            };
            tries += 1;
            match self.exchange(&connection, kind, tx, parts) {
                Ok(payload) => return Ok(payload),
                Err(Trouble::Lost(error)) if tries >= TRIES => {
                    self.link.lose();
                    return Err(error);
                }
                Err(trouble) => self.look_for_another(trouble)?,
            }
            self.was_repeated.set(true);
        }
    }

    /// Sends a request and waits for its answer.
    fn exchange(&self, connection: &Connection, kind: XsMessage, tx: Tx, parts: &[&[u8]]) -> Next<Vec<u8>> {
        let number = self.number();
        let refused = self.refusal(connection, kind, parts)?;
        // A transaction whose end is refused has ended all the same, and nothing of it stays.
        let sent = match refused {
            None => parts,
            Some(_) if kind == XsMessage::TransactionEnd => &[b"F\0".as_slice()],
            Some(errno) => return Err(Error::Xenstore { request: describe(kind, parts), errno }.into()),
        };
        let bytes = wire::encode(kind, number, tx.number, sent)
            .ok_or_else(|| Error::Xenstore { request: describe(kind, parts), errno: Errno::E2BIG })?;
        self.send(connection, &bytes)?;
        let payload = self.answer(connection, kind, number, parts)?;
        match refused {
            None => Ok(payload),
            Some(errno) => Err(Error::Xenstore { request: describe(kind, parts), errno }.into()),
        }
    }

    /// A number for a request.
    fn number(&self) -> u32 {
        let number = self.next_request.get();
        self.next_request.set(number.wrapping_add(1).max(1));
        number
    }

    /// With which error the switch of [`fault`] refuses a request, if it does.
    fn refusal(&self, connection: &Connection, kind: XsMessage, parts: &[&[u8]]) -> Result<Option<Errno>> {
        match fault::check(Kind::Store, || describe(kind, parts)) {
            Ok(()) => Ok(None),
            Err(Fault::Error(errno)) => Ok(Some(errno)),
            Err(Fault::Cut) => {
                connection.cut().map_err(|error| Error::system("cutting xenstored off", error))?;
                Ok(None)
            }
        }
    }

    fn send(&self, connection: &Connection, bytes: &[u8]) -> Next<()> {
        connection.write_all(bytes).map_err(|error| Trouble::Lost(Error::system("writing to xenstored", error)))
    }

    /// Waits for the answer to a request.
    fn answer(&self, connection: &Connection, kind: XsMessage, number: u32, parts: &[&[u8]]) -> Next<Vec<u8>> {
        loop {
            let message = self.next_message(connection)?;
            let (answer, answered) = (known(&message)?, message.header.req_id);
            if answer == XsMessage::WatchEvent {
                self.keep_event(message)?;
            } else if answered != number {
                return Err(
                    Error::Protocol(format!("xenstored answered request {answered} instead of {number}")).into()
                );
            } else if answer == XsMessage::Error {
                let errno = wire::errno(&message.payload);
                return Err(Error::Xenstore { request: describe(kind, parts), errno }.into());
            } else if answer != kind {
                let text = format!("xenstored answered {} with {}", kind.name(), answer.name());
                return Err(Error::Protocol(text).into());
            } else {
                return Ok(message.payload);
            }
        }
    }

    fn keep_event(&self, message: Message) -> Result<()> {
        let strings = wire::strings(&message.payload);
        let [path, token] = strings.as_slice() else {
            return Err(Error::Protocol("xenstored sent a watch event without path and token".into()));
        };
        self.events.borrow_mut().push_back(Event { path: path.clone(), token: token.clone() });
        Ok(())
    }

    /// Reads until a message is whole.
    fn next_message(&self, connection: &Connection) -> Next<Message> {
        let mut reader = self.reader.borrow_mut();
        loop {
            let too_long = |wire::TooLong(length)| {
                Error::Protocol(format!("xenstored sent a message of {length} bytes; the most is {PAYLOAD_MAX}"))
            };
            if let Some(message) = reader.take().map_err(too_long)? {
                known(&message)?;
                return Ok(message);
            }
            let mut bytes = [0; 4096];
            let lost = |source: std::io::Error| Trouble::Lost(Error::system("reading from xenstored", source));
            match connection.read(&mut bytes) {
                Ok(0) => return Err(lost(ErrorKind::UnexpectedEof.into())),
                Ok(count) => reader.push(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }
}

/// A request as errors name it.
fn describe(kind: XsMessage, parts: &[&[u8]]) -> String {
    let path = parts.first().map(|path| String::from_utf8_lossy(path).replace('\0', " ")).unwrap_or_default();
    format!("{} {}", kind.name(), path.trim_end())
}

/// What a message is; one that the protocol does not have is the daemon's mistake.
fn known(message: &Message) -> Result<XsMessage> {
    message.kind().ok_or_else(|| Error::Protocol(format!("xenstored sent an unknown message: {}", message.header.kind)))
}

#[cfg(test)]
mod tests;
