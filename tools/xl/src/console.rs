//! The console: a relay between the user's terminal and the pseudo-terminal that xenconsoled made for the guest.
//!
//! xenconsoled writes the pty's name to `console/tty` in xenstore. Ctrl-] leaves; so does the end of the domain, which
//! closes the pty. One client at a time holds a lock file, as Xen's xenconsole does.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libxc::xenstore::{Client, Tx};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::failure::{Failure, Outcome};
use crate::output::{note, print_to};

/// Ctrl-], the character that leaves.
const ESCAPE: u8 = 0x1d;
/// How long xenconsoled may take to make the pty, as in libxl.
const PATIENCE: Duration = Duration::from_secs(10);

/// A guest's console, open.
pub struct Console {
    pty: File,
    lock: Lock,
}

/// The lock file; removed when dropped.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            note(format_args!("xl: warning: removing {}: {error}", self.path.display()));
        }
    }
}

/// Waits until xenconsoled has made the pty of a domain; gives its name.
pub fn wait_for_tty(store: &Client, domid: u16) -> Outcome<String> {
    let path = format!("/local/domain/{domid}/console/tty");
    let token = "console-tty";
    store.watch(&path, token)?;
    let deadline = Instant::now() + PATIENCE;
    let tty = loop {
        match store.read(Tx::NONE, &path)? {
            Some(tty) if !tty.is_empty() => break Some(tty),
            _ => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if store.next_event(Some(left))?.is_none() {
            break None;
        }
    };
    store.unwatch(&path, token)?;
    tty.ok_or_else(|| {
        Failure::new(format!(
            "xenconsoled made no console for domain {domid} in {} s; is it running?",
            PATIENCE.as_secs()
        ))
    })
}

impl Console {
    /// Opens the console of a domain.
    pub fn open(store: &Client, domid: u16) -> Outcome<Console> {
        let tty = wait_for_tty(store, domid)?;
        let lock = Self::lock(domid)?;
        let failed = |error| Failure::new(format!("opening {tty}, the console of domain {domid}: {error}"));
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0);
        let pty = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&tty).map_err(failed)?;
        Ok(Console { pty, lock })
    }

    fn lock(domid: u16) -> Outcome<Lock> {
        let path = PathBuf::from(format!("/var/lock/xenconsole.{domid}"));
        let failed = |error: std::io::Error| Failure::new(format!("locking {}: {error}", path.display()));
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { path, _file: file }),
            Err(Errno::WOULDBLOCK) => Err(Failure::new(format!(
                "another client is on the console of domain {domid} (lock {})",
                path.display()
            ))),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Relays until the user leaves or the domain ends.
    pub fn relay(mut self) -> Outcome {
        let terminal = RawTerminal::enter()?;
        let result = pump(&mut self.pty, &stdin(), &mut stdout());
        drop(terminal);
        drop(self.lock);
        result
    }
}

/// Carries bytes both ways until one side ends. Nobody who reads any more is no error (`xl console guest | head -1`).
fn pump(pty: &mut File, input: &impl AsFd, output: &mut impl Write) -> Outcome {
    let failed = |error: std::io::Error| Failure::new(format!("console: {error}"));
    let mut listening = true;
    let mut buffer = [0; 4096];
    loop {
        let (from_user, from_guest) = {
            let mut descriptors = vec![PollFd::new(pty, PollFlags::IN)];
            if listening {
                descriptors.push(PollFd::new(input, PollFlags::IN));
            }
            match poll(&mut descriptors, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
            let ready =
                |index: usize| descriptors.get(index).is_some_and(|descriptor| !descriptor.revents().is_empty());
            (ready(1), ready(0))
        };
        if from_guest {
            match pty.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => print_to(output, &buffer[..count])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The daemon has closed its end: the domain is gone.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Ok(()),
                Err(error) => return Err(failed(error)),
            }
        }
        if from_user {
            let count = rustix::io::read(input.as_fd(), &mut buffer).map_err(|error| failed(error.into()))?;
            match buffer[..count].iter().position(|&byte| byte == ESCAPE) {
                Some(position) => return pty.write_all(&buffer[..position]).map_err(failed),
                // Nothing more will come from the user; what the guest says is still shown.
                None if count == 0 => listening = false,
                None => pty.write_all(&buffer[..count]).map_err(failed)?,
            }
        }
    }
}

/// The user's terminal in raw mode, put back when dropped. Does nothing if standard input is no terminal.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> Outcome<RawTerminal> {
        if !stdin().is_terminal() {
            return Ok(RawTerminal(None));
        }
        let failed = |error| Failure::new(format!("setting the terminal to raw mode: {error}"));
        let old = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = old.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(RawTerminal(Some(old)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(old) = &self.0
            && let Err(error) = tcsetattr(stdin(), OptionalActions::Now, old)
        {
            note(format_args!("xl: warning: restoring the terminal: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// The client's end of a pseudo-terminal, and the daemon's.
    fn pair() -> (File, UnixStream) {
        let (ours, daemons) = UnixStream::pair().unwrap();
        (File::from(OwnedFd::from(ours)), daemons)
    }

    #[test]
    fn what_the_guest_says_goes_out_until_the_daemon_closes_its_end() {
        let (mut pty, mut daemon) = pair();
        let (user, _kept) = std::io::pipe().unwrap();
        daemon.write_all(b"hello\n").unwrap();
        drop(daemon);
        let mut output = Vec::new();
        pump(&mut pty, &user, &mut output).unwrap();
        assert_eq!(output, b"hello\n");
    }

    #[test]
    fn what_the_user_types_goes_in_until_the_escape() {
        let (mut pty, mut daemon) = pair();
        let (user, mut typed) = std::io::pipe().unwrap();
        typed.write_all(b"ls\n\x1dnot this").unwrap();
        pump(&mut pty, &user, &mut Vec::new()).unwrap();
        drop(pty);
        let mut arrived = String::new();
        daemon.read_to_string(&mut arrived).unwrap();
        assert_eq!(arrived, "ls\n");
    }

    /// `xl console guest | head -1`.
    #[test]
    fn a_reader_who_has_left_is_no_error_to_tell() {
        struct Left;
        impl Write for Left {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (mut pty, mut daemon) = pair();
        let (user, _kept) = std::io::pipe().unwrap();
        daemon.write_all(b"hello").unwrap();
        let failure = pump(&mut pty, &user, &mut Left).unwrap_err();
        assert!(failure.is_silent() && failure.while_doing("create").is_silent());
    }
}
