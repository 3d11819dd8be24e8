//! The daemon with its devices: one thread that waits for sockets and event channels and turns.
//!
//! A turn reads what has come, writes what changed to the state, and only then sends answers and events: what a client was told is in
//! the state. Order of reading: this file, `state`, `sockets`, `rings`, `machine`; `poison`.

mod machine;
mod poison;
mod rings;
mod sockets;
mod state;

use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::ExitCode;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use public_abi::io::xs_wire::ERROR_COMM;
use service::background::{self, Ready, Result};
use service::messages::Messages;

use crate::engine::{Domain, Engine};
use crate::options::Options;
use crate::persist::Record;
use machine::{Machine, Start};
use sockets::Sockets;
use state::State;

/// The event channels' token.
const EVENT_CHANNELS: Token = Token(1);
/// Where messages go if no file is named and nobody is at the terminal.
const LOG: &str = "/var/log/xen/xenstored.log";

/// Runs as the options say; comes back when the daemon is in the background, or when it failed.
pub(crate) fn run(options: &Options) -> ExitCode {
    let result = if options.no_fork || options.in_background { serve(options) } else { background::start("xenstored") };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xenstored: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// All of the daemon.
struct Daemon {
    engine: Engine,
    machine: Machine,
    sockets: Sockets,
    state: State,
    poll: Poll,
}

fn serve(options: &Options) -> Result<()> {
    let said = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    let limits = options.limits()?;
    let log = Messages::open(options.trace_file.as_deref(), Path::new(LOG), options.in_background)
        .map_err(said("the log"))?;
    let folder = options.run_dir.as_path();
    let (state, earlier) = State::open(folder).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => format!("another xenstored has {}", folder.display()),
        _ => format!("{}: {error}", folder.display()),
    })?;
    let machine = if options.no_domain_init && !Path::new("/dev/xen/evtchn").exists() {
        Machine::without_xen(log)
    } else {
        Machine::open(log).map_err(|error| error.to_string())?
    };
    let earlier = earlier.filter(|_| !options.no_recovery);
    let mut engine = earlier.map_or_else(Engine::new, Engine::restore);
    (engine.limits, engine.keep_orphans, engine.is_tracing) =
        (limits, options.keep_orphans, options.trace_file.is_some());
    let poll = Poll::new().map_err(said("epoll"))?;
    if let Some(descriptor) = machine.event_descriptor() {
        let registered = poll.registry().register(&mut SourceFd(&descriptor), EVENT_CHANNELS, Interest::READABLE);
        registered.map_err(said("epoll of /dev/xen/evtchn"))?;
    }
    let sockets = Sockets::listen(folder, poll.registry()).map_err(said("the socket"))?;
    let mut daemon = Daemon { engine, machine, sockets, state, poll };
    if let Some(domain) = poison::take(folder) {
        daemon.cut(domain);
    }
    poison::watch_out(folder);
    daemon.connect_domains(!options.no_domain_init)?;
    daemon.sweep();
    daemon.save();
    let ready = Ready {
        pid_file: options.pid_file.as_deref(),
        print_pid: options.output_pid,
        in_background: options.in_background,
    };
    ready.say()?;
    if options.verbose {
        daemon.machine.log.say("ready");
    }
    daemon.turn_forever()
}

impl Daemon {
    /// Goes on with the rings of an earlier daemon, and connects to the control domain's kernel.
    fn connect_domains(&mut self, with_kernel: bool) -> Result<()> {
        for (domain, known) in self.engine.introduced() {
            if let Err(reason) = self.resume(domain, &known) {
                if domain == 0 {
                    return Err(reason);
                }
                // It may be dead: then the sweep comes next.
                self.machine.log.say(&format!("domain {domain}: {reason}"));
            }
        }
        if with_kernel && self.engine.connection_of(0).is_none() {
            let Start { place, port, .. } = self.machine.connect_kernel(None)?;
            self.engine.adopt(0, 0, port, place);
        }
        Ok(())
    }

    fn resume(&mut self, domain: u16, known: &Domain) -> Result<()> {
        let id = known.connection.ok_or("it has no connection")?;
        let place = self.engine.place_of(id).ok_or("it has no connection")?;
        let waiting = self.engine.output(id).map_or(0, |output| output.len());
        let start = match domain {
            0 => self.machine.connect_kernel(Some((place, waiting)))?,
            _ => self.machine.resume(domain, known.gfn, known.port, (place, waiting))?,
        };
        match start.given {
            Some(given) => self.engine.skip_output(id, given),
            None => self.engine.reconnected(domain, start.place),
        }
        Ok(())
    }

    /// Listens no more to a domain that an earlier daemon panicked for, until it begins anew.
    fn cut(&mut self, domain: u16) {
        if let Some(id) = self.engine.connection_of(domain) {
            self.machine
                .log
                .say(&format!("the earlier daemon panicked at a request of domain {domain}: it is cut off"));
            self.engine.fail(id, ERROR_COMM);
        }
    }

    fn turn_forever(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(256);
        let mut has_more = true;
        loop {
            let timeout = has_more.then_some(std::time::Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            for event in &events {
                if event.token() == EVENT_CHANNELS {
                    if self.machine.take_events().ends {
                        self.sweep();
                    }
                } else {
                    self.sockets.ready(event);
                }
            }
            has_more = self.turn();
        }
    }

    /// One turn; whether there is more to do at once.
    fn turn(&mut self) -> bool {
        self.sockets.accept(&mut self.engine, &mut self.machine, self.poll.registry());
        rings::read(&mut self.engine, &mut self.machine);
        let mut has_more = self.sockets.read(&mut self.engine, &mut self.machine);
        self.save();
        has_more |= rings::write(&mut self.engine, &mut self.machine);
        has_more |= self.sockets.write(&mut self.engine, &mut self.machine);
        has_more
    }

    /// Asks the hypervisor how all domains are.
    fn sweep(&mut self) {
        if let Some(lives) = self.machine.lives() {
            self.engine.sweep(&mut self.machine, &lives);
        }
    }

    /// Writes what has changed. If that fails the daemon goes on, and tries again with the next change: clients are worth
    /// more than a restart.
    fn save(&mut self) {
        let records: Vec<Record> = self.engine.take_records();
        if records.is_empty() || self.state.append(&records) {
            return;
        }
        if let Err(error) = self.state.rewrite(self.engine.whole()) {
            self.machine.log.say(&format!("the state cannot be written, and a restart would lose it: {error}"));
        }
    }
}
