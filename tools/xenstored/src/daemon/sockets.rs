//! The socket, and the programs that are connected to it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::fs::Mode;
use rustix::process::umask;

use crate::engine::{ConnectionId, Engine, Host, Output, Peer};
use crate::ring::Place;

/// The listener's token.
pub(super) const LISTENER: Token = Token(0);
/// Tokens of connections are their numbers and this.
pub(super) const FIRST_CLIENT: usize = 2;
/// Bytes that are read at a time, so that everyone gets a turn.
const BITE: usize = 16 << 10;

/// A program.
struct Program {
    stream: UnixStream,
    /// There may be bytes to read; the kernel tells only when it becomes so.
    is_readable: bool,
    /// The program writes no more: what it has written ends with an end, which the kernel does not tell again.
    is_ending: bool,
    /// There may be room to write.
    is_writable: bool,
}

/// All of them.
pub(super) struct Sockets {
    listener: UnixListener,
    programs: BTreeMap<ConnectionId, Program>,
    /// There may be someone to accept.
    may_accept: bool,
    /// For what is read: made once.
    bytes: Vec<u8>,
}

impl Sockets {
    /// Listens. A socket that an earlier daemon left is replaced.
    ///
    /// # Errors
    /// The file system's, or epoll's.
    pub(super) fn listen(folder: &Path, registry: &Registry) -> io::Result<Sockets> {
        let path = folder.join("socket");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // For root alone, from its first moment.
        let before = umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(&path);
        umask(before);
        let mut listener = listener?;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Sockets { listener, programs: BTreeMap::new(), may_accept: true, bytes: vec![0; BITE] })
    }

    /// The kernel says that something is ready.
    pub(super) fn ready(&mut self, event: &mio::event::Event) {
        if event.token() == LISTENER {
            self.may_accept = true;
        }
        let number = event.token().0.checked_sub(FIRST_CLIENT).and_then(|number| u64::try_from(number).ok());
        if let Some(program) = number.and_then(|number| self.programs.get_mut(&ConnectionId(number))) {
            program.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            program.is_ending |= event.is_read_closed() || event.is_error();
            program.is_writable |= event.is_writable();
        }
    }

    /// Accepts who waits.
    pub(super) fn accept(&mut self, engine: &mut Engine, host: &mut dyn Host, registry: &Registry) {
        while self.may_accept {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let id = engine.connect(Peer::Socket, Place { taken: 0, given: 0 });
                    let token = usize::try_from(id.0).map(|number| Token(number + FIRST_CLIENT));
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let registered =
                        token.map_err(io::Error::other).and_then(|token| registry.register(&mut stream, token, both));
                    match registered {
                        Ok(()) => {
                            let program = Program { stream, is_readable: true, is_ending: false, is_writable: true };
                            self.programs.insert(id, program);
                        }
                        Err(error) => {
                            host.log(&format!("a connection was refused: {error}"));
                            engine.disconnect(id);
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        host.log(&format!("accepting a connection: {error}"));
                    }
                    self.may_accept = false;
                }
            }
        }
    }

    /// Gives every program that has sent something a turn; whether any has more.
    pub(super) fn read(&mut self, engine: &mut Engine, host: &mut dyn Host) -> bool {
        let mut has_more = false;
        let mut gone = Vec::new();
        for (&id, program) in &mut self.programs {
            engine.proceed(host, id);
            if !program.is_readable || !engine.wants_input(id) {
                continue;
            }
            match program.stream.read(&mut self.bytes) {
                Ok(0) => gone.push(id),
                Ok(count) => {
                    engine.receive(host, id, self.bytes.get(..count).unwrap_or_default());
                    // Less than there was room for is all that has come; the kernel tells of more (epoll(7)).
                    program.is_readable = count == BITE || program.is_ending;
                    has_more |= program.is_readable;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => has_more = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => program.is_readable = false,
                Err(_) => gone.push(id),
            }
        }
        for id in gone {
            self.end(engine, id);
        }
        has_more
    }

    /// Sends what waits, as far as there is room; whether that made room for requests.
    pub(super) fn write(&mut self, engine: &mut Engine, host: &mut dyn Host) -> bool {
        let mut has_more = false;
        let mut gone = Vec::new();
        for (&id, program) in &mut self.programs {
            let was_full = !engine.wants_input(id);
            if let Some(output) = engine.output(id) {
                match program.send(output) {
                    Ok(()) => {}
                    Err(_) => gone.push(id),
                }
            }
            if engine.failure(id).is_some() {
                host.log(&format!("connection {} is cut off: it broke the protocol or does not read", id.0));
                gone.push(id);
            }
            has_more |= was_full && engine.wants_input(id);
        }
        for id in gone {
            self.end(engine, id);
        }
        has_more
    }

    fn end(&mut self, engine: &mut Engine, id: ConnectionId) {
        // A closed descriptor leaves the poll by itself.
        self.programs.remove(&id);
        engine.disconnect(id);
    }
}

impl Program {
    fn send(&mut self, output: &mut Output) -> io::Result<()> {
        while self.is_writable && output.len() > 0 {
            match self.stream.write(output.front()) {
                Ok(count) => output.take(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
