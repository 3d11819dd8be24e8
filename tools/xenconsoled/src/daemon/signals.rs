//! Signals as descriptors: SIGHUP opens the logs anew, SIGTERM and SIGINT end the daemon.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// The signals that have come.
#[derive(Debug)]
pub(super) struct Signals {
    hang_up: UnixStream,
    end: UnixStream,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn catch() -> io::Result<Signals> {
        let (hang_up, to_hang_up) = pair()?;
        let (end, to_end) = pair()?;
        pipe::register(SIGHUP, to_hang_up)?;
        pipe::register(SIGTERM, to_end.try_clone()?)?;
        pipe::register(SIGINT, to_end)?;
        Ok(Signals { hang_up, end })
    }

    /// Readable when one has come.
    pub(super) fn descriptors(&self) -> [&UnixStream; 2] {
        [&self.hang_up, &self.end]
    }

    /// Whether the logs are to be opened anew.
    pub(super) fn hang_up(&self) -> bool {
        has_come(&self.hang_up)
    }

    /// Whether the daemon is to end.
    pub(super) fn end(&self) -> bool {
        has_come(&self.end)
    }
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

/// Takes all that have come.
fn has_come(mut stream: &UnixStream) -> bool {
    let mut bytes = [0; 64];
    stream.read(&mut bytes).is_ok_and(|count| count > 0)
}
