//! Runs one emulator process and feeds an observer with what happens.
//!
//! The process is QEMU ([`super::command`]) or Bochs (`crate::bochs`), with the machine's serial port on its standard input
//! and output. One loop waits for console bytes, keys, signals and a deadline, all of which arrive in one channel. However
//! the loop ends, the process is killed by its id and waited for; should xtask itself be killed, the kernel kills the
//! emulator (parent death signal, set by util-linux's setpriv). The observers are in `crate::harness`.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::paths::find_program;

/// An emulator's command line.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Variables added to its environment.
    pub(crate) env: Vec<(String, String)>,
    /// Where it runs, if not where xtask does.
    pub(crate) folder: Option<PathBuf>,
}

/// What an observer wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Go on.
    Continue,
    /// Enough: kill the machine.
    Stop,
}

/// Someone who watches a machine and talks to its console.
pub(crate) trait Observer {
    /// Bytes came out of the serial console.
    fn console(&mut self, bytes: &[u8], link: &mut Link) -> Flow;
    /// The deadline set through the link has passed; it is unset now.
    fn deadline(&mut self, link: &mut Link) -> Flow;
    /// The person typed something (only when keys were asked for).
    fn keys(&mut self, bytes: &[u8], link: &mut Link) -> Flow {
        link.send(bytes);
        Flow::Continue
    }
}

/// What an observer can do to the machine.
#[derive(Debug)]
pub(crate) struct Link {
    input: Sender<Vec<u8>>,
    deadline: Option<Instant>,
}

impl Link {
    /// Sends bytes to the serial console. Nothing is sent any more once the machine has ended.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The receiver ends with the machine; then there is no one left to tell.
        drop(self.input.send(bytes.to_vec()));
    }

    /// Calls [`Observer::deadline`] after this time from now, instead of any deadline set before.
    pub(crate) fn set_deadline(&mut self, after: Duration) {
        self.deadline = Some(Instant::now() + after);
    }

    /// Waits without a limit.
    pub(crate) fn clear_deadline(&mut self) {
        self.deadline = None;
    }

    /// A link that goes nowhere but to the test, and what is sent through it.
    #[cfg(test)]
    pub(crate) fn for_test() -> (Self, Receiver<Vec<u8>>) {
        let (input, output) = channel();
        let link = Self { input, deadline: None };
        (link, output)
    }

    /// Whether a deadline is set.
    #[cfg(test)]
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline.is_some()
    }
}

/// Why the loop ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The emulator ended by itself.
    Exited {
        /// Its exit status.
        status: ExitStatus,
        /// The last lines it wrote to standard error.
        messages: String,
    },
    /// The observer had enough.
    Stopped,
    /// Ctrl-C or another request to end.
    Interrupted,
}

enum Event {
    Console(Vec<u8>),
    ConsoleClosed,
    Keys(Vec<u8>),
    Signal,
}

/// Kills and reaps the process when dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Requests to end.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// While it lives the loop hears the requests to end; at other times they end xtask as they would end any program.
struct SignalsWatched {
    unwatched: &'static Arc<AtomicBool>,
}

impl SignalsWatched {
    fn begin() -> Result<Self> {
        static UNWATCHED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
        let unwatched = match UNWATCHED.get() {
            Some(unwatched) => unwatched,
            None => {
                let flag = Arc::new(AtomicBool::new(false));
                for signal in SIGNALS {
                    signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))
                        .context("cannot watch for signals")?;
                }
                UNWATCHED.get_or_init(|| flag)
            }
        };
        unwatched.store(false, Ordering::SeqCst);
        Ok(Self { unwatched })
    }
}

impl Drop for SignalsWatched {
    fn drop(&mut self) {
        self.unwatched.store(true, Ordering::SeqCst);
    }
}

/// Runs the machine to its end. `keys`: whether standard input is passed to the observer.
///
/// # Errors
/// The emulator cannot be started.
pub(crate) fn run(launch: &Launch, limit: Option<Duration>, keys: bool, observer: &mut dyn Observer) -> Result<End> {
    let mut child = Guard(spawn(launch)?);
    let (events, inbox) = channel();
    let (input, to_machine) = channel();
    let mut link = Link { input, deadline: limit.map(|limit| Instant::now() + limit) };
    let stdout = child.0.stdout.take().context("the emulator has no output")?;
    let stdin = child.0.stdin.take().context("the emulator has no input")?;
    let mut stderr = child.0.stderr.take().context("the emulator has no error output")?;
    pump(stdout, events.clone(), Event::Console, Event::ConsoleClosed);
    thread::spawn(move || feed(stdin, &to_machine));
    let messages = thread::spawn(move || {
        let mut text = Vec::new();
        // A read error only shortens the text.
        drop(stderr.read_to_end(&mut text));
        messages_that_matter(&text)
    });
    if keys {
        // The end of a file or pipe on standard input is Ctrl-D to the shell.
        let end_of_input = Event::Keys(vec![4]);
        pump(std::io::stdin(), events.clone(), Event::Keys, end_of_input);
    }
    let _watched = SignalsWatched::begin()?;
    let mut signals = Signals::new(SIGNALS).context("cannot watch for signals")?;
    let signals_handle = signals.handle();
    thread::spawn(move || {
        for _ in signals.forever() {
            if events.send(Event::Signal).is_err() {
                break;
            }
        }
    });
    let end = watch(&inbox, &mut link, observer);
    signals_handle.close();
    match end {
        Some(end) => Ok(end),
        None => Ok(End::Exited {
            status: child.0.wait().context("cannot wait for the emulator")?,
            messages: messages.join().unwrap_or_default(),
        }),
    }
}

/// The end of the emulator's messages without those that every AMD model causes under QEMU's TCG.
fn messages_that_matter(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.contains("warning: TCG doesn't support requested feature"))
        .collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

/// The loop. None when the machine closed its console, that is, ended.
fn watch(inbox: &Receiver<Event>, link: &mut Link, observer: &mut dyn Observer) -> Option<End> {
    loop {
        let event = match link.deadline {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        let flow = match event {
            Ok(Event::Console(bytes)) => observer.console(&bytes, link),
            Ok(Event::Keys(bytes)) => observer.keys(&bytes, link),
            Ok(Event::Signal) => return Some(End::Interrupted),
            Ok(Event::ConsoleClosed) | Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                link.deadline = None;
                observer.deadline(link)
            }
        };
        if flow == Flow::Stop {
            return Some(End::Stopped);
        }
    }
}

/// Starts the emulator in a process group of its own, so that Ctrl-C reaches only us.
fn spawn(launch: &Launch) -> Result<Child> {
    let program = &launch.program;
    let mut command = match find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    if let Some(folder) = &launch.folder {
        command.current_dir(folder);
    }
    command
        .args(&launch.arguments)
        .envs(launch.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Reads a source until its end in a thread of its own.
fn pump(mut source: impl Read + Send + 'static, events: Sender<Event>, wrap: fn(Vec<u8>) -> Event, last: Event) {
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            if events.send(wrap(buffer[..count].to_vec())).is_err() {
                return;
            }
        }
        // Without a receiver the loop has ended already.
        drop(events.send(last));
    });
}

/// Writes to the machine's console until either side ends; QEMU takes bytes only as fast as the guest reads them.
fn feed(mut stdin: impl Write, queue: &Receiver<Vec<u8>>) {
    for bytes in queue {
        if stdin.write_all(&bytes).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_about_features_are_left_out() {
        let text = b"qemu: warning: TCG doesn't support requested feature: CPUID.1\nqemu: no such file\n";
        assert_eq!(messages_that_matter(text), "qemu: no such file");
    }
}
