//! A client of xenstored: requests, transactions that are retried, watches.
//!
//! The daemon is reached by its socket, or, where it runs elsewhere, by /dev/xen/xenbus; the protocol is the same
//! (docs/misc/xenstore.txt). A client is synchronous: a request waits for its answer, and watch events that come meanwhile
//! are kept for [`Client::next_event`].

pub mod wire;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use public_abi::Errno;
use public_abi::io::xs_wire::{PAYLOAD_MAX, XsMessage};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{Error, Result};
use crate::fault::{self, Fault, Kind};
use wire::{Message, Reader};

/// Where xenstored listens.
const SOCKET: &str = "/var/run/xenstored/socket";
/// The kernel's way to it.
const XENBUS: &str = "/dev/xen/xenbus";
/// How often a transaction is tried against others before it is given up.
const ATTEMPTS: u32 = 100;

/// A transaction's number; 0 is no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tx(u32);

impl Tx {
    /// Outside of any transaction.
    pub const NONE: Tx = Tx(0);
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

enum Connection {
    Socket(UnixStream),
    Device(File),
}

impl Connection {
    fn write_all(&self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Connection::Socket(socket) => (&*socket).write_all(bytes),
            Connection::Device(file) => (&*file).write_all(bytes),
        }
    }

    fn read(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Connection::Socket(socket) => (&*socket).read(bytes),
            Connection::Device(file) => (&*file).read(bytes),
        }
    }

    /// Cuts it, as the daemon's end would; the kernel's own connection cannot be cut.
    fn cut(&self) -> std::io::Result<()> {
        match self {
            Connection::Socket(socket) => socket.shutdown(std::net::Shutdown::Both),
            Connection::Device(_) => Ok(()),
        }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Socket(socket) => socket.as_fd(),
            Connection::Device(file) => file.as_fd(),
        }
    }
}

/// A connection to xenstored.
pub struct Client {
    connection: Connection,
    reader: RefCell<Reader>,
    events: RefCell<VecDeque<Event>>,
    next_request: Cell<u32>,
}

impl Client {
    /// Connects.
    pub fn open() -> Result<Client> {
        let connection = match UnixStream::connect(SOCKET) {
            Ok(socket) => Connection::Socket(socket),
            Err(refused) => match OpenOptions::new().read(true).write(true).open(XENBUS) {
                Ok(file) => Connection::Device(file),
                Err(_) => {
                    return Err(Error::system(format!("connecting to {SOCKET} (is xenstored running?)"), refused));
                }
            },
        };
        Ok(Client::over(connection))
    }

    /// A client over a socket that is connected already.
    pub fn from_socket(socket: UnixStream) -> Client {
        Client::over(Connection::Socket(socket))
    }

    fn over(connection: Connection) -> Client {
        Client { connection, reader: RefCell::default(), events: RefCell::default(), next_request: Cell::new(1) }
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
        self.request(XsMessage::Write, tx, &[path.as_bytes(), b"\0", value.as_bytes()]).map(|_| ())
    }

    /// Makes a node with an empty value unless it is there.
    pub fn mkdir(&self, tx: Tx, path: &str) -> Result<()> {
        self.request(XsMessage::Mkdir, tx, &[path.as_bytes(), b"\0"]).map(|_| ())
    }

    /// Removes a node and what is under it; one that is not there is no error.
    pub fn remove(&self, tx: Tx, path: &str) -> Result<()> {
        match self.request(XsMessage::Rm, tx, &[path.as_bytes(), b"\0"]) {
            Err(error) if error.is_absent() => Ok(()),
            other => other.map(|_| ()),
        }
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
        let entry = |permission: &Permission| format!("{}{}\0", permission.letter, permission.domain);
        let entries: String = permissions.iter().map(entry).collect();
        self.request(XsMessage::SetPerms, tx, &[path.as_bytes(), b"\0", entries.as_bytes()]).map(|_| ())
    }

    /// Tells xenstored that a domain's ring is ready.
    pub fn introduce(&self, domain: u16, gfn: u64, port: u32) -> Result<()> {
        let payload = format!("{domain}\0{gfn}\0{port}\0");
        self.request(XsMessage::Introduce, Tx::NONE, &[payload.as_bytes()]).map(|_| ())
    }

    /// Tells xenstored that a domain's ring is gone.
    pub fn release(&self, domain: u16) -> Result<()> {
        self.request(XsMessage::Release, Tx::NONE, &[format!("{domain}\0").as_bytes()]).map(|_| ())
    }

    /// Watches a path and what is under it, or `@releaseDomain`. An event comes at once, and then for each change.
    pub fn watch(&self, path: &str, token: &str) -> Result<()> {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.request(XsMessage::Watch, Tx::NONE, &parts).map(|_| ())
    }

    /// Stops watching.
    pub fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.request(XsMessage::Unwatch, Tx::NONE, &parts).map(|_| ())
    }

    /// Does `work` in a transaction, again from the start when others were in its way. Nothing of it stays if it fails.
    pub fn transaction<R>(&self, mut work: impl FnMut(Tx) -> Result<R>) -> Result<R> {
        for _ in 0..ATTEMPTS {
            let tx = self.begin()?;
            let done = match work(tx) {
                Ok(done) => done,
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
        text.parse()
            .map(Tx)
            .map_err(|_| Error::Protocol(format!("xenstored named a transaction \"{}\"", text.escape_debug())))
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
            if !self.wait(deadline)? {
                return Ok(None);
            }
            let message = self.next_message()?;
            self.keep_event(message)?;
        }
    }

    /// Waits until there is something to read; `false` when the deadline has passed.
    fn wait(&self, deadline: Option<Instant>) -> Result<bool> {
        if self.reader.borrow().has_message() {
            return Ok(true);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = match left.map(Timespec::try_from) {
            None => None,
            Some(Ok(timeout)) => Some(timeout),
            Some(Err(_)) => None,
        };
        let mut descriptors = [PollFd::from_borrowed_fd(self.connection.descriptor(), PollFlags::IN)];
        match rustix::event::poll(&mut descriptors, timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(Error::system("waiting for xenstored", error)),
        }
    }

    /// Sends a request and waits for its answer.
    fn request(&self, kind: XsMessage, tx: Tx, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let number = self.next_request.get();
        self.next_request.set(number.wrapping_add(1).max(1));
        let describe = || {
            let path = parts.first().map(|path| String::from_utf8_lossy(path).replace('\0', " ")).unwrap_or_default();
            format!("{} {}", kind.name(), path.trim_end())
        };
        let refused = match fault::check(Kind::Store, describe) {
            Ok(()) => None,
            Err(Fault::Error(errno)) => Some(errno),
            Err(Fault::Cut) => {
                self.connection.cut().map_err(|error| Error::system("cutting xenstored off", error))?;
                None
            }
        };
        // A transaction whose end is refused has ended all the same, and nothing of it stays.
        let parts = match refused {
            None => parts,
            Some(_) if kind == XsMessage::TransactionEnd => &[b"F\0".as_slice()],
            Some(errno) => return Err(Error::Xenstore { request: describe(), errno }),
        };
        let bytes = wire::encode(kind, number, tx.0, parts)
            .ok_or_else(|| Error::Xenstore { request: describe(), errno: Errno::E2BIG })?;
        self.connection.write_all(&bytes).map_err(|error| Error::system("writing to xenstored", error))?;
        loop {
            let message = self.next_message()?;
            let (answer, answered) = (known(&message)?, message.header.req_id);
            if answer == XsMessage::WatchEvent {
                self.keep_event(message)?;
            } else if answered != number {
                return Err(Error::Protocol(format!("xenstored answered request {answered} instead of {number}")));
            } else if answer == XsMessage::Error {
                return Err(Error::Xenstore { request: describe(), errno: wire::errno(&message.payload) });
            } else if answer != kind {
                return Err(Error::Protocol(format!("xenstored answered {} with {}", kind.name(), answer.name())));
            } else {
                return match refused {
                    None => Ok(message.payload),
                    Some(errno) => Err(Error::Xenstore { request: describe(), errno }),
                };
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
    fn next_message(&self) -> Result<Message> {
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
            match self.connection.read(&mut bytes) {
                Ok(0) => {
                    return Err(Error::system("reading from xenstored", ErrorKind::UnexpectedEof));
                }
                Ok(count) => reader.push(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::system("reading from xenstored", error)),
            }
        }
    }
}

/// What a message is; one that the protocol does not have is the daemon's mistake.
fn known(message: &Message) -> Result<XsMessage> {
    message.kind().ok_or_else(|| Error::Protocol(format!("xenstored sent an unknown message: {}", message.header.kind)))
}

#[cfg(test)]
mod tests;
