//! The console: a relay between the user's terminal and the pseudo-terminal that xenconsoled made for the guest.
//!
//! xenconsoled writes the pty's name to `console/tty` in xenstore. Ctrl-] leaves; so does the end of the domain, which
//! closes the pty. When the pty was closed and the domain is there, xenconsoled has ended: the one that takes its place is waited for.
//! One client at a time holds a lock file, as Xen's xenconsole does.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libxc::xenstore::{Client, Tx};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::failure::{Failure, Outcome};
use crate::output::{note, print_to};
use crate::session::hypervisor;

/// Ctrl-], the character that leaves.
const ESCAPE: u8 = 0x1d;
/// How long xenconsoled may take to make the pty, as in libxl.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one that was restarted may take.
const LONG_PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether the domain is still there meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// The token of the watch on the pty's name.
const TOKEN: &str = "console-tty";

/// A guest's console, open.
pub struct Console {
    domid: u16,
    /// It watches the pty's name.
    store: Client,
    pty: File,
    lock: Lock,
}

/// Why there is nothing more to relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The user has left.
    Left,
    /// The pty was closed.
    Closed,
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

fn tty_path(domid: u16) -> String {
    format!("/local/domain/{domid}/console/tty")
}

/// Waits until xenconsoled has made the pty of a domain; gives its name.
pub fn wait_for_tty(store: &Client, domid: u16) -> Outcome<String> {
    let tty = watch_tty(store, domid)?;
    store.unwatch(&tty_path(domid), TOKEN)?;
    Ok(tty)
}

/// The same, and the watch goes on.
fn watch_tty(store: &Client, domid: u16) -> Outcome<String> {
    let path = tty_path(domid);
    store.watch(&path, TOKEN)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match store.read(Tx::NONE, &path)? {
            Some(tty) if !tty.is_empty() => return Ok(tty),
            _ => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if store.next_event(Some(left))?.is_none() {
            store.unwatch(&path, TOKEN)?;
            return Err(Failure::new(format!(
                "xenconsoled made no console for domain {domid} in {} s; is it running?",
                PATIENCE.as_secs()
            )));
        }
    }
}

fn open_pty(tty: &str) -> std::io::Result<File> {
    let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0);
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(tty)
}

impl Console {
    /// Opens the console of a domain.
    pub fn open(domid: u16) -> Outcome<Console> {
        let store = Client::open()?;
        let tty = watch_tty(&store, domid)?;
        let lock = Self::lock(domid)?;
        let failed = |error| Failure::new(format!("opening {tty}, the console of domain {domid}: {error}"));
        let pty = open_pty(&tty).map_err(failed)?;
        Ok(Console { domid, store, pty, lock })
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
        let result = self.relay_all();
        drop(terminal);
        drop(self.lock);
        result
    }

    fn relay_all(&mut self) -> Outcome {
        let (mut input, mut handle) = (Input::new(stdin()), None);
        while pump(&mut self.pty, &mut input, &mut stdout())? == End::Closed {
            let handle = match &mut handle {
                Some(handle) => handle,
                none => none.insert(hypervisor()?),
            };
            let is_there = || Ok(handle.domain_info(self.domid)?.is_some_and(|info| !info.is_dying()));
            match self.find_again(&mut input, is_there)? {
                Some(pty) => self.pty = pty,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Waits for the pty of another xenconsoled; `None` if the domain ends or the user leaves meanwhile.
    fn find_again(&self, input: &mut Input<impl AsFd>, is_there: impl Fn() -> Outcome<bool>) -> Outcome<Option<File>> {
        let deadline = Instant::now() + LONG_PATIENCE;
        let mut has_told = false;
        while is_there()? {
            // The old name may stay where it is, and its pty be somebody else's by now: only one that was written since will do.
            while self.store.next_event(Some(Duration::ZERO))?.is_some() {
                let tty = self.store.read(Tx::NONE, &tty_path(self.domid))?.unwrap_or_default();
                if let Ok(pty) = open_pty(&tty) {
                    return Ok(Some(pty));
                }
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(format!(
                    "the console of domain {} was closed, and xenconsoled made no other in {} s; is it running?",
                    self.domid,
                    LONG_PATIENCE.as_secs()
                )));
            }
            if !std::mem::replace(&mut has_told, true) {
                // The terminal is raw: it wants to be told to go to the line's beginning.
                note(format_args!("xl: the console was closed; waiting for xenconsoled to open it again\r"));
            }
            if input.has_left(PAUSE)? {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

/// What the user types.
struct Input<F> {
    source: F,
    /// Nothing more will come.
    is_over: bool,
}

impl<F: AsFd> Input<F> {
    fn new(source: F) -> Input<F> {
        Input { source, is_over: false }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let count = rustix::io::read(self.source.as_fd(), buffer);
        let count = count.map_err(|error| Failure::new(format!("console: {}", std::io::Error::from(error))))?;
        self.is_over = count == 0;
        Ok(count)
    }

    /// Waits for a while whether the user leaves; what else is typed has nowhere to go.
    fn has_left(&mut self, pause: Duration) -> Outcome<bool> {
        let mut descriptors = Vec::new();
        if !self.is_over {
            descriptors.push(PollFd::new(&self.source, PollFlags::IN));
        }
        let ready = poll(&mut descriptors, Timespec::try_from(pause).ok().as_ref()).unwrap_or(0);
        drop(descriptors);
        let mut buffer = [0; 4096];
        let count = if ready > 0 { self.read(&mut buffer)? } else { 0 };
        Ok(buffer[..count].contains(&ESCAPE))
    }
}

/// Carries bytes both ways until one side ends. Nobody who reads any more is no error (`xl console guest | head -1`).
fn pump(pty: &mut File, input: &mut Input<impl AsFd>, output: &mut impl Write) -> Outcome<End> {
    let failed = |error: std::io::Error| Failure::new(format!("console: {error}"));
    // The daemon has closed its end.
    let is_closed = |error: &std::io::Error| error.raw_os_error() == Some(Errno::IO.raw_os_error());
    let mut buffer = [0; 4096];
    loop {
        let (from_user, from_guest) = {
            let mut descriptors = vec![PollFd::new(pty, PollFlags::IN)];
            if !input.is_over {
                descriptors.push(PollFd::new(&input.source, PollFlags::IN));
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
                Ok(0) => return Ok(End::Closed),
                Ok(count) => print_to(output, &buffer[..count])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_closed(&error) => return Ok(End::Closed),
                Err(error) => return Err(failed(error)),
            }
        }
        if from_user {
            // At its end nothing more will come from the user; what the guest says is still shown.
            let count = input.read(&mut buffer)?;
            let escape = buffer[..count].iter().position(|&byte| byte == ESCAPE);
            match pty.write_all(&buffer[..escape.unwrap_or(count)]) {
                _ if escape.is_some() => return Ok(End::Left),
                Err(error) if is_closed(&error) => return Ok(End::Closed),
                result => result.map_err(failed)?,
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
        assert_eq!(pump(&mut pty, &mut Input::new(user), &mut output).unwrap(), End::Closed);
        assert_eq!(output, b"hello\n");
    }

    #[test]
    fn what_the_user_types_goes_in_until_the_escape() {
        let (mut pty, mut daemon) = pair();
        let (user, mut typed) = std::io::pipe().unwrap();
        typed.write_all(b"ls\n\x1dnot this").unwrap();
        assert_eq!(pump(&mut pty, &mut Input::new(user), &mut Vec::new()).unwrap(), End::Left);
        drop(pty);
        let mut arrived = String::new();
        daemon.read_to_string(&mut arrived).unwrap();
        assert_eq!(arrived, "ls\n");
    }

    #[test]
    fn the_user_may_leave_while_there_is_no_pty() {
        let (user, mut typed) = std::io::pipe().unwrap();
        let mut input = Input::new(user);
        assert!(!input.has_left(Duration::ZERO).unwrap());
        typed.write_all(b"hello?").unwrap();
        assert!(!input.has_left(Duration::ZERO).unwrap());
        typed.write_all(b"\x1d").unwrap();
        assert!(input.has_left(Duration::ZERO).unwrap());
        drop(typed);
        assert!(!input.has_left(Duration::ZERO).unwrap() && input.is_over, "nobody types any more");
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
        let failure = pump(&mut pty, &mut Input::new(user), &mut Left).unwrap_err();
        assert!(failure.is_silent() && failure.while_doing("create").is_silent());
    }
}
