//! A pseudo-terminal: this daemon's end, and the name that is told to whoever wants the console.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// A pseudo-terminal, raw: what the guest says is what its reader gets.
pub(crate) struct Pty {
    ours: File,
    name: String,
    /// Held open, so that ours does not hang up whenever a reader leaves.
    _theirs: File,
}

impl Pty {
    /// Makes one.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open() -> io::Result<Pty> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let name = ptsname(&ours, Vec::new())?.into_string().map_err(io::Error::other)?;
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0);
        let theirs = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&name)?;
        let mut terminal = tcgetattr(&theirs)?;
        terminal.make_raw();
        tcsetattr(&theirs, OptionalActions::Now, &terminal)?;
        fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
        Ok(Pty { ours: File::from(ours), name, _theirs: theirs })
    }

    /// The other end's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes as much as there is room for; 0 if there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        none_for_later(self.ours.write(bytes))
    }

    /// Reads what was typed; 0 if nothing was.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        none_for_later(self.ours.read(bytes))
    }
}

fn none_for_later(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_as_they_are() {
        let mut pty = Pty::open().expect("a pseudo-terminal");
        let mut bytes = [0; 16];
        assert_eq!(pty.read(&mut bytes).expect("is open"), 0, "nothing was typed, and it does not wait");
        let mut user = OpenOptions::new().read(true).write(true).open(pty.name()).expect("has a name");
        assert_eq!(pty.write(b"a\nb\r\x03").expect("is open"), 5);
        assert_eq!(user.read(&mut bytes).expect("has come"), 5);
        assert_eq!(&bytes[..5], b"a\nb\r\x03");
        user.write_all(b"x\r").expect("is open");
        assert_eq!(pty.read(&mut bytes).expect("is open"), 2);
        assert_eq!(&bytes[..2], b"x\r");
        drop(user);
        assert_eq!(pty.read(&mut bytes).expect("does not hang up"), 0);
        // Nobody reads: at some time there is no room.
        assert!((0..100).any(|_| pty.write(&[b'x'; 4096]).expect("is open") == 0));
    }
}
