//! Follows a run with a Linux control domain from its first byte to its verdict.
//!
//! Fed by `qemu::machine` with console bytes; shows the text, acts on the messages of dom0's init, recognises crashes,
//! and answers the requests of the protocol. What it has seen ends in [`Watch::verdict`].

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::console::crash::{Detector, DomainEnd, Sign};
use crate::console::files::{Incoming, State};
use crate::console::filter::{Filter, Piece};
use crate::console::protocol::{self, Message};
use crate::exit::Verdict;
use crate::qemu::machine::{End, Flow, Link, Observer};
use crate::qemu::terminal::{Escape, Keys};

/// After a crash: time for the rest of the epitaph to be printed.
const EPITAPH: Duration = Duration::from_secs(3);
/// After a kernel panic that the hypervisor has not confirmed.
const SUSPICION: Duration = Duration::from_secs(20);
/// After the time limit: time for dom0 to stop the script and send files.
const GRACE: Duration = Duration::from_secs(60);
/// After dom0 said its last word: time to power off.
const POWER_OFF: Duration = Duration::from_secs(30);

/// What the deadline that is set stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// The run's own time limit, or that of the case under way, or none.
    Limit,
    /// One of the shorter times above.
    Grace,
    Epitaph,
    Suspicion,
    PowerOff,
}

/// What a run tells while it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum News<'a> {
    /// The machine starts now; everything is fetched and built.
    Booting {
        /// Where the console's log is written.
        log: &'a Path,
    },
    /// dom0 got this far.
    Milestone {
        /// Name, as in the protocol.
        name: &'a str,
        /// Seconds since the start of the machine.
        seconds: f64,
    },
    /// Something worth telling.
    Notice(&'a str),
    /// One of several cases begins.
    CaseBegins(&'a str),
    /// One of several cases has ended.
    CaseEnded {
        /// Its name, as it began.
        name: &'a str,
        /// How it ended.
        text: &'a str,
    },
}

/// Where the console's text and the news go.
pub(crate) struct Sinks<'a> {
    /// The log file; all bytes of the console.
    pub(crate) log: File,
    /// The person's view of the console.
    pub(crate) screen: Box<dyn Write + 'a>,
    /// Told what happens.
    pub(crate) news: Box<dyn FnMut(News<'_>) + 'a>,
}

/// Everything seen so far.
pub(crate) struct Watch<'a> {
    filter: Filter,
    detector: Detector,
    sinks: Sinks<'a>,
    started: Instant,
    limit: Option<Instant>,
    /// How long a run may take, and if it has cases, the time to the first, between two words of them, and to its end.
    pace: Option<Duration>,
    waiting: Waiting,
    /// Milestones passed, in order.
    milestones: Vec<String>,
    /// Cases begun and ended: each is said twice, since a line can be damaged, and told once.
    cases_begun: Vec<String>,
    cases_ended: Vec<String>,
    status: Option<u8>,
    failure: Option<String>,
    panic: bool,
    crash: bool,
    timed_out: bool,
    no_power_off: bool,
    quit: bool,
    files: Incoming,
    escape: Option<Escape>,
    early_keys: Vec<u8>,
}

impl<'a> Watch<'a> {
    /// Watches for a run's marker. `escape`: whether keys come from a terminal in raw mode.
    pub(crate) fn new(marker: &str, files: usize, limit: Option<Duration>, escape: bool, sinks: Sinks<'a>) -> Self {
        let started = Instant::now();
        Self {
            filter: Filter::new(marker),
            detector: Detector::default(),
            sinks,
            started,
            limit: limit.map(|limit| started + limit),
            pace: limit,
            waiting: Waiting::Limit,
            milestones: Vec::new(),
            cases_begun: Vec::new(),
            cases_ended: Vec::new(),
            status: None,
            failure: None,
            panic: false,
            crash: false,
            timed_out: false,
            no_power_off: false,
            quit: false,
            files: Incoming::new(files),
            escape: escape.then(Escape::default),
            early_keys: Vec::new(),
        }
    }

    /// How the run ended.
    pub(crate) fn verdict(&self, end: &End) -> Verdict {
        if self.panic {
            return Verdict::HypervisorPanic;
        }
        if self.crash {
            return Verdict::Dom0Crash;
        }
        if self.timed_out {
            return Verdict::TimedOut;
        }
        if let Some(failure) = &self.failure {
            return Verdict::Broken(failure.clone());
        }
        if let (Some(status), false) = (self.status, matches!(end, End::Interrupted)) {
            return Verdict::Status(status);
        }
        let reached = match self.milestones.last() {
            Some(last) => format!("the last milestone was {last}"),
            None => "dom0's init was never reached".to_owned(),
        };
        Verdict::Broken(match end {
            End::Interrupted => return Verdict::Interrupted(reached),
            End::Stopped if self.quit => format!("ended by Ctrl-A X; {reached}"),
            End::Stopped => format!("the machine was stopped; {reached}"),
            End::Exited { status, messages } if messages.is_empty() => {
                format!("the emulator ended ({status}) before dom0 reported a status; {reached}")
            }
            End::Exited { status, messages } => {
                format!("the emulator ended ({status}): {messages}; {reached}")
            }
        })
    }

    /// Whether dom0 said good-bye but the machine stayed on.
    pub(crate) fn power_off_failed(&self) -> bool {
        self.no_power_off
    }

    /// The fetched files in the order of the request.
    pub(crate) fn into_files(self) -> Vec<State> {
        self.files.into_states()
    }

    fn wait(&mut self, what: Waiting, time: Duration, link: &mut Link) {
        self.waiting = what;
        link.set_deadline(time);
    }

    /// Returns to the run's own time limit.
    fn wait_for_limit(&mut self, link: &mut Link) {
        self.waiting = Waiting::Limit;
        match self.limit {
            Some(limit) => link.set_deadline(limit.saturating_duration_since(Instant::now())),
            None => link.clear_deadline(),
        }
    }

    /// A case has begun or ended: whatever comes next has its own time. A machine that hangs is not waited for as long as all its
    /// cases might take.
    fn restart_limit(&mut self, link: &mut Link) {
        self.limit = self.pace.map(|pace| Instant::now() + pace);
        if self.waiting == Waiting::Limit {
            self.wait_for_limit(link);
        }
    }

    fn text(&mut self, bytes: &[u8], link: &mut Link) {
        // A closed pipe on our side must not end the run: its verdict still counts.
        drop(self.sinks.screen.write_all(bytes).and_then(|()| self.sinks.screen.flush()));
        for sign in self.detector.feed(bytes) {
            match sign {
                Sign::HypervisorPanic => self.panic = true,
                Sign::NoBoot(reason) => {
                    self.failure.get_or_insert(reason);
                }
                Sign::Dom0(DomainEnd::Crash) => self.crash = true,
                Sign::Dom0(DomainEnd::PowerOff | DomainEnd::Reboot) => continue,
                Sign::KernelPanic => {
                    if self.waiting == Waiting::Limit {
                        self.wait(Waiting::Suspicion, SUSPICION, link);
                    }
                    continue;
                }
            }
            if self.waiting != Waiting::Epitaph {
                self.wait(Waiting::Epitaph, EPITAPH, link);
            }
        }
    }

    fn message(&mut self, message: Message, link: &mut Link) {
        if self.waiting == Waiting::Suspicion {
            self.wait_for_limit(link);
        }
        match message {
            Message::Milestone(name, _) => {
                let seconds = self.started.elapsed().as_secs_f64();
                (self.sinks.news)(News::Milestone { name: &name, seconds });
                if name == "shell" {
                    link.send(&std::mem::take(&mut self.early_keys));
                }
                self.milestones.push(name);
            }
            Message::Notice(text) => (self.sinks.news)(News::Notice(&text)),
            Message::CaseBegins(name) => {
                if !self.cases_begun.contains(&name) {
                    (self.sinks.news)(News::CaseBegins(&name));
                    self.cases_begun.push(name);
                    self.restart_limit(link);
                }
            }
            Message::CaseEnded(name, text) => {
                if !self.cases_ended.contains(&name) {
                    (self.sinks.news)(News::CaseEnded { name: &name, text: &text });
                    self.cases_ended.push(name);
                    self.restart_limit(link);
                }
            }
            Message::Failed(text) => self.failure = Some(format!("dom0 did not come up: {text}")),
            Message::Status(status) => self.status = Some(status),
            Message::File(index, piece) => self.files.take(index, piece),
            Message::Await => {
                let missing: Vec<String> = self.files.incomplete().iter().map(ToString::to_string).collect();
                let answer =
                    if missing.is_empty() { "bye\n".to_owned() } else { format!("again {}\n", missing.join(" ")) };
                link.send(answer.as_bytes());
            }
            Message::End => {
                if self.waiting != Waiting::PowerOff {
                    self.wait(Waiting::PowerOff, POWER_OFF, link);
                }
            }
        }
    }

    fn reached(&self, name: &str) -> bool {
        self.milestones.iter().any(|milestone| milestone == name)
    }
}

impl Observer for Watch<'_> {
    fn console(&mut self, bytes: &[u8], link: &mut Link) -> Flow {
        drop(self.sinks.log.write_all(bytes));
        for piece in self.filter.feed(bytes) {
            match piece {
                Piece::Text(text) => self.text(&text, link),
                Piece::Message(line) => {
                    if let Some(message) = protocol::decode(&line) {
                        self.message(message, link);
                    }
                }
            }
        }
        Flow::Continue
    }

    fn deadline(&mut self, link: &mut Link) -> Flow {
        match self.waiting {
            Waiting::Epitaph | Waiting::Grace => Flow::Stop,
            Waiting::Suspicion => {
                self.crash = true;
                Flow::Stop
            }
            Waiting::PowerOff => {
                self.no_power_off = true;
                Flow::Stop
            }
            Waiting::Limit => {
                self.timed_out = true;
                if !self.reached("script") || self.status.is_some() {
                    return Flow::Stop;
                }
                link.send(b"stop\n");
                self.wait(Waiting::Grace, GRACE, link);
                Flow::Continue
            }
        }
    }

    fn keys(&mut self, bytes: &[u8], link: &mut Link) -> Flow {
        let keys = match &mut self.escape {
            Some(escape) => escape.feed(bytes),
            None => Keys::Send(bytes.to_vec()),
        };
        match keys {
            Keys::Quit => {
                self.quit = true;
                return Flow::Stop;
            }
            // Before the shell reads, keys would be lost or answer the boot's own questions.
            Keys::Send(bytes) if !self.reached("shell") => self.early_keys.extend(bytes),
            Keys::Send(bytes) => link.send(&bytes),
        }
        Flow::Continue
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
