//! The daemon with its devices: one thread that waits for signals, event channels, xenstore and terminals, and serves what is ready.
//!
//! Order of reading: this file, `guests` (which guests there are, by xenstore), `hypervisor` (the hypervisor's own log), `signals`.

mod guests;
mod hypervisor;
mod signals;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libxc::linux::Evtchn;
use libxc::trap::Events;
use libxc::xenstore::Client;
use libxc::{Handle, Privcmd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use service::background::{self, Ready, Result};
use service::messages::Messages;

use crate::options::Options;
use guests::Guest;
use hypervisor::HypervisorLog;
use signals::Signals;

/// Where messages go in the background.
const LOG: &str = "/var/log/xen/xenconsoled.log";
/// How often it is looked whether xenstored is back.
const STORE_PAUSE: Duration = Duration::from_millis(100);

/// Runs as the options say; comes back when the daemon is in the background or has ended.
pub(crate) fn run(options: &Options) -> ExitCode {
    let result =
        if options.interactive || options.in_background { serve(options) } else { background::start("xenconsoled") };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xenconsoled: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// All of the daemon.
struct Daemon {
    options: Options,
    handle: Handle<Privcmd>,
    events: Evtchn,
    store: Client,
    /// Whether it was told that xenstored is away.
    is_store_away: bool,
    guests: BTreeMap<u16, Guest>,
    hypervisor: Option<HypervisorLog>,
    signals: Signals,
    messages: Messages,
    /// Whose lock ends with the daemon.
    _pid_file: File,
}

/// What is ready.
#[derive(Debug, Default)]
struct Awake {
    has_events: bool,
    /// Guests whose terminals are.
    terminals: Vec<u16>,
}

fn serve(options: &Options) -> Result<()> {
    let pid_file = lock(&options.pid_file)?;
    let messages = Messages::open(None, Path::new(LOG), options.in_background).map_err(|error| error.to_string())?;
    if options.log.has_guests() || options.log.has_hypervisor() {
        let folder = &options.log_dir;
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut daemon = open(options, messages, pid_file).map_err(|error| error.to_string())?;
    daemon.watch_domains().map_err(|error| error.to_string())?;
    daemon.sweep();
    let ready = Ready { pid_file: Some(&options.pid_file), print_pid: false, in_background: options.in_background };
    ready.say()?;
    daemon.turn_forever()
}

/// Opens the devices and xenstore.
fn open(options: &Options, messages: Messages, pid_file: File) -> libxc::Result<Daemon> {
    let handle = Handle::new(Privcmd::open()?)?;
    let events = Evtchn::open_nonblocking()?;
    let store = Client::open()?;
    // Consoles go on without it.
    store.set_patience(Duration::ZERO);
    let signals = Signals::catch().map_err(|error| libxc::Error::system("catching signals", error))?;
    let mut daemon = Daemon {
        options: options.clone(),
        handle,
        events,
        store,
        is_store_away: false,
        guests: BTreeMap::new(),
        hypervisor: None,
        signals,
        messages,
        _pid_file: pid_file,
    };
    if options.log.has_hypervisor() {
        daemon.hypervisor = Some(HypervisorLog::open(&daemon.options, &daemon.events)?);
        // What was said before.
        daemon.log_hypervisor();
    }
    Ok(daemon)
}

/// Takes the process id's file for this daemon alone.
fn lock(path: &Path) -> Result<File> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(format!("another xenconsoled has {}", path.display())),
        Err(error) => Err(failed(error.into())),
    }
}

impl Daemon {
    /// Comes back when a signal says so.
    fn turn_forever(&mut self) -> Result<()> {
        // Whoever looked before has read events already.
        let mut has_more = true;
        loop {
            let awake = self.wait(has_more)?;
            if self.signals.end() {
                return Ok(());
            }
            if self.signals.hang_up() {
                self.reopen_logs();
            }
            if awake.has_events {
                self.take_events();
            }
            for domain in awake.terminals {
                self.serve_terminal(domain);
            }
            // Last of what makes requests, which may have read events before their answers.
            has_more = self.hear_store();
            let now = Instant::now();
            let ready: Vec<u16> = self.guests.keys().copied().collect();
            for domain in ready {
                self.serve_ring(domain, now);
            }
        }
    }

    /// Waits until something is ready, unless there is more to do at once.
    fn wait(&self, has_more: bool) -> Result<Awake> {
        let connection = self.store.connection();
        let [hang_up, end] = self.signals.descriptors();
        let mut descriptors = vec![
            PollFd::new(&self.events, PollFlags::IN),
            PollFd::new(hang_up, PollFlags::IN),
            PollFd::new(end, PollFlags::IN),
        ];
        let first = descriptors.len();
        let mut domains = Vec::new();
        for (domain, guest) in &self.guests {
            if let Some((terminal, flags)) = guest.console.waits_for() {
                descriptors.push(PollFd::new(terminal, flags));
                domains.push(*domain);
            }
        }
        if let Some(connection) = &connection {
            descriptors.push(PollFd::new(&**connection, PollFlags::IN));
        }
        let now = Instant::now();
        let pauses = self.guests.values().filter_map(|guest| guest.console.pause(now));
        let at_once = has_more.then_some(Duration::ZERO);
        let pause = pauses.chain(connection.is_none().then_some(STORE_PAUSE)).chain(at_once).min();
        let timeout = pause.and_then(|pause| Timespec::try_from(pause).ok());
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Awake::default()),
            Err(error) => return Err(format!("poll: {error}")),
        }
        let is_ready = |index: usize| descriptors.get(index).is_some_and(|descriptor| !descriptor.revents().is_empty());
        let ready = domains.iter().enumerate().filter(|(index, _)| is_ready(first + index));
        Ok(Awake { has_events: is_ready(0), terminals: ready.map(|(_, domain)| *domain).collect() })
    }

    /// Takes all events there are. Their channels stay masked until they are served.
    fn take_events(&mut self) {
        loop {
            match self.events.next_masked() {
                Ok(Some(port)) if self.hypervisor.as_ref().is_some_and(|log| log.port() == port) => {
                    self.log_hypervisor()
                }
                Ok(Some(port)) => {
                    for guest in self.guests.values_mut().filter(|guest| guest.console.port() == Some(port)) {
                        guest.console.is_told();
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.messages.say(&error.to_string());
                    return;
                }
            }
        }
    }

    fn log_hypervisor(&mut self) {
        let Some(log) = &mut self.hypervisor else {
            return;
        };
        if let Err(error) = log.carry(&self.handle).and_then(|()| self.events.unmask(log.port())) {
            self.messages.say(&format!("the hypervisor's log: {error}"));
        }
    }

    fn serve_ring(&mut self, domain: u16, now: Instant) {
        let Some(guest) = self.guests.get_mut(&domain) else {
            return;
        };
        let todo = guest.console.carry_output(now);
        for complaint in guest.console.complaints() {
            self.messages.say(&format!("domain {domain}: {complaint}"));
        }
        let port = guest.console.port();
        if todo.notify {
            self.notify(port);
        }
        if let Some(port) = port.filter(|_| todo.unmask)
            && let Err(error) = self.events.unmask(port)
        {
            self.messages.say(&format!("domain {domain}: {error}"));
        }
    }

    fn serve_terminal(&mut self, domain: u16) {
        let Some(guest) = self.guests.get_mut(&domain) else {
            return;
        };
        let port = guest.console.port();
        match guest.console.carry_terminal() {
            Ok(true) => self.notify(port),
            Ok(false) => {}
            Err(error) => {
                self.messages.say(&format!("domain {domain}: its terminal: {error}"));
                // It gets another.
                self.reconnect(domain);
            }
        }
    }

    fn notify(&mut self, port: Option<u32>) {
        if let Some(port) = port
            && let Err(error) = self.events.notify(port)
        {
            // The other end may be gone, which xenstore tells next.
            self.messages.say(&error.to_string());
        }
    }

    /// Opens all logs anew.
    fn reopen_logs(&mut self) {
        if let Some(log) = &mut self.hypervisor
            && let Err(error) = log.reopen()
        {
            self.messages.say(&error.to_string());
        }
        let domains: Vec<u16> = self.guests.keys().copied().collect();
        for domain in domains {
            self.reopen_log(domain);
        }
    }
}
