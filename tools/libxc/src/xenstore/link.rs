//! The way to xenstored, and the way back to it: a daemon that was restarted is connected to again.
//!
//! A [`Link`] knows where the daemon listens, and for how long it may be away. What must be said to it again then is the client's
//! business (`super`), which counts the connections so that nothing of an old one is taken for a thing of the new.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Where xenstored listens.
const SOCKET: &str = "/var/run/xenstored/socket";
/// The kernel's way to it.
const XENBUS: &str = "/dev/xen/xenbus";
/// How long a daemon that is being restarted may take to listen, for a client that has not been connected before.
const OPENING: Duration = Duration::from_secs(10);
/// How long a daemon may be away before its clients give up, unless they say otherwise.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is looked for.
const PAUSE: Duration = Duration::from_millis(20);

/// A connection: its descriptor is readable when the daemon has sent something, or has gone.
pub struct Connection(Way);

enum Way {
    Socket(UnixStream),
    Device(File),
}

impl Connection {
    pub(super) fn socket(socket: UnixStream) -> Connection {
        Connection(Way::Socket(socket))
    }

    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.0 {
            Way::Socket(socket) => (&*socket).write_all(bytes),
            Way::Device(file) => (&*file).write_all(bytes),
        }
    }

    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Way::Socket(socket) => (&*socket).read(bytes),
            Way::Device(file) => (&*file).read(bytes),
        }
    }

    /// Cuts it, as the daemon's end would; the kernel's own way cannot be cut.
    pub(super) fn cut(&self) -> io::Result<()> {
        match &self.0 {
            Way::Socket(socket) => socket.shutdown(Shutdown::Both),
            Way::Device(_) => Ok(()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Way::Socket(socket) => socket.as_fd(),
            Way::Device(file) => file.as_fd(),
        }
    }
}

/// The connection, if there is one, and what is needed for another.
pub(super) struct Link {
    current: RefCell<Option<Rc<Connection>>>,
    /// Where to connect again; `None` if this connection is the only one. The kernel's way is not lost with a daemon.
    place: Option<PathBuf>,
    patience: Cell<Duration>,
    lost: Cell<Option<Instant>>,
    /// How many connections there have been.
    count: Cell<u32>,
}

impl Link {
    /// Connects to this machine's xenstored.
    pub(super) fn open() -> Result<Link> {
        let deadline = Instant::now() + OPENING;
        let failed = |refused| Error::system(format!("connecting to {SOCKET} (is xenstored running?)"), refused);
        loop {
            match UnixStream::connect(SOCKET) {
                Ok(socket) => return Ok(Link::over(Connection::socket(socket), Some(SOCKET.into()))),
                // There is a socket and nobody behind it: a daemon has been here, and may be back soon.
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
                    if Instant::now() >= deadline {
                        return Err(failed(refused));
                    }
                    thread::sleep(PAUSE);
                }
                Err(refused) => {
                    let device = OpenOptions::new().read(true).write(true).open(XENBUS);
                    return device
                        .map(|file| Link::over(Connection(Way::Device(file)), None))
                        .map_err(|_| failed(refused));
                }
            }
        }
    }

    /// Connects to a daemon that listens at `place`.
    pub(super) fn to(place: &Path) -> Result<Link> {
        let socket = UnixStream::connect(place);
        let socket = socket.map_err(|error| Error::system(format!("connecting to {}", place.display()), error))?;
        Ok(Link::over(Connection::socket(socket), Some(place.to_owned())))
    }

    /// A link over a connection that there is.
    pub(super) fn over(connection: Connection, place: Option<PathBuf>) -> Link {
        Link {
            current: RefCell::new(Some(Rc::new(connection))),
            place,
            patience: Cell::new(PATIENCE),
            lost: Cell::new(None),
            count: Cell::new(1),
        }
    }

    pub(super) fn set_patience(&self, patience: Duration) {
        self.patience.set(patience);
    }

    /// The connection; `None` while there is none.
    pub(super) fn connection(&self) -> Option<Rc<Connection>> {
        self.current.borrow().clone()
    }

    /// Which connection the current one is, or the last one was, counted from 1.
    pub(super) fn count(&self) -> u32 {
        self.count.get()
    }

    /// The connection is broken; `false` if there can be no other.
    pub(super) fn lose(&self) -> bool {
        self.current.replace(None);
        if self.lost.get().is_none() {
            self.lost.set(Some(Instant::now()));
        }
        self.place.is_some()
    }

    /// All that was to be said on the new connection has been: the time until one gives up begins anew with the next loss.
    pub(super) fn is_settled(&self) {
        self.lost.set(None);
    }

    /// Connects again, until the deadline; `None` if that has passed.
    ///
    /// # Errors
    /// The daemon has been away for too long.
    pub(super) fn again(&self, deadline: Option<Instant>) -> Result<Option<Rc<Connection>>> {
        let Some(place) = &self.place else {
            return Err(Error::system("reading from xenstored", ErrorKind::UnexpectedEof));
        };
        loop {
            let refused = match UnixStream::connect(place) {
                Ok(socket) => {
                    let connection = Rc::new(Connection::socket(socket));
                    self.current.replace(Some(Rc::clone(&connection)));
                    self.count.set(self.count.get().wrapping_add(1));
                    return Ok(Some(connection));
                }
                Err(refused) => refused,
            };
            let away = self.lost.get().map_or(Duration::ZERO, |lost| lost.elapsed());
            if away >= self.patience.get() {
                // Not the kernel's error number: that there is no daemon must not be taken for that there is no node.
                return Err(Error::Protocol(format!(
                    "xenstored has gone, and has not come back in {} s (connecting to {}: {refused})",
                    away.as_secs(),
                    place.display()
                )));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            thread::sleep(left.map_or(PAUSE, |left| left.min(PAUSE)));
        }
    }
}
