//! One guest's console: its ring, its pseudo-terminal, its log, and what is carried between them in one turn of the daemon.
//!
//! Nothing here waits, and no guest gets more than its share: [`Allowance`] says how often its ring is looked at, `Backlog` how much is
//! kept of what it says. The daemon (`crate::daemon`) knows when there is something to do.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use libxc::trap::Foreign;
use rustix::event::PollFlags;

use crate::backlog::Backlog;
use crate::log::Log;
use crate::options::Overflow;
use crate::pty::Pty;
use crate::ring::Ring;
use service::index::BadIndex;

/// How often a ring is looked at in one period.
const LOOKS: u32 = 100;
/// The period.
const PERIOD: Duration = Duration::from_millis(200);

/// How often a guest is served, so that one that notifies without end does not keep the daemon from others.
#[derive(Debug)]
struct Allowance {
    left: u32,
    until: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance { left: LOOKS, until: now + PERIOD }
    }

    /// Takes one look, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        if now >= self.until {
            *self = Allowance::new(now);
        }
        let has_one = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_one
    }
}

/// Where a guest's console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The page.
    pub(crate) gfn: u64,
    /// The guest's event channel.
    pub(crate) port: u32,
}

/// A ring in use.
struct Line<P> {
    ring: Ring<P>,
    address: Address,
    /// Our event channel.
    port: u32,
}

/// What the daemon has to do for a guest after a turn.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Todo {
    /// Tell the guest to look at its ring.
    pub(crate) notify: bool,
    /// Let its event channel deliver again.
    pub(crate) unmask: bool,
}

/// A guest's console.
pub(crate) struct Console<P> {
    line: Option<Line<P>>,
    pty: Option<Pty>,
    pub(crate) log: Option<Log>,
    pub(crate) backlog: Backlog,
    allowance: Allowance,
    /// The guest has notified us, whose event channel stays masked until its ring has been looked at.
    is_ready: bool,
    /// It was told that its indices make no sense, which is told once: the guest may go on with it for ever.
    is_bad: bool,
    /// What there is to say about it.
    complaints: Vec<String>,
}

impl<P: Foreign> Console<P> {
    /// One that is not in use.
    pub(crate) fn new(overflow: Overflow) -> Console<P> {
        Console {
            line: None,
            pty: None,
            log: None,
            backlog: Backlog::new(overflow),
            allowance: Allowance::new(Instant::now()),
            is_ready: false,
            is_bad: false,
            complaints: Vec::new(),
        }
    }

    /// Puts a ring in use, and makes a pseudo-terminal if there is none.
    ///
    /// # Errors
    /// The kernel's: there is no pseudo-terminal.
    pub(crate) fn connect(&mut self, page: P, address: Address, port: u32) -> io::Result<()> {
        if self.pty.is_none() {
            self.pty = Some(Pty::open()?);
        }
        self.line = Some(Line { ring: Ring::new(page), address, port });
        // What came before was not told.
        (self.is_ready, self.is_bad) = (true, false);
        Ok(())
    }

    /// Takes the ring out of use; gives our event channel.
    pub(crate) fn disconnect(&mut self) -> Option<u32> {
        self.line.take().map(|line| line.port)
    }

    /// Where the ring in use is.
    pub(crate) fn address(&self) -> Option<Address> {
        self.line.as_ref().map(|line| line.address)
    }

    /// Our event channel.
    pub(crate) fn port(&self) -> Option<u32> {
        self.line.as_ref().map(|line| line.port)
    }

    /// The name of the pseudo-terminal.
    pub(crate) fn tty(&self) -> Option<&str> {
        self.pty.as_ref().map(Pty::name)
    }

    /// The guest has notified us.
    pub(crate) fn is_told(&mut self) {
        self.is_ready = true;
    }

    /// What is to be waited for at the pseudo-terminal.
    pub(crate) fn waits_for(&self) -> Option<(&impl AsFd, PollFlags)> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::OUT, !self.backlog.is_empty());
        flags.set(PollFlags::IN, self.line.as_ref().is_some_and(|line| line.ring.room() > 0));
        self.pty.as_ref().filter(|_| !flags.is_empty()).map(|pty| (pty, flags))
    }

    /// How long until there is something to do, if nothing comes.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        let is_waiting = self.is_ready && self.line.is_some() && !self.backlog.is_full();
        let left = if self.allowance.left > 0 { Duration::ZERO } else { self.allowance.until.duration_since(now) };
        is_waiting.then_some(left)
    }

    /// What there is to say about it, and nothing of it twice.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Carries what the guest has said, if it has told us.
    pub(crate) fn carry_output(&mut self, now: Instant) -> Todo {
        if !self.is_ready || self.line.is_none() || self.backlog.is_full() || !self.allowance.take(now) {
            return Todo::default();
        }
        self.is_ready = false;
        Todo { notify: self.take_output(), unmask: true }
    }

    /// Takes all output; whether there was any.
    fn take_output(&mut self) -> bool {
        let Some(line) = &mut self.line else {
            return false;
        };
        let taken = match line.ring.output() {
            Ok(taken) => taken,
            Err(BadIndex) => {
                if !std::mem::replace(&mut self.is_bad, true) {
                    self.complaints.push("an index of its console makes no sense".into());
                }
                return false;
            }
        };
        if taken.bytes.is_empty() {
            return false;
        }
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(&taken.bytes)
        {
            self.complaints.push(format!("{}: {error}", log.path().display()));
        }
        self.backlog.add(&taken.bytes);
        // It is in the log.
        line.ring.publish(&taken);
        true
    }

    /// Carries bytes between the pseudo-terminal and the rest; whether the guest must be notified.
    ///
    /// # Errors
    /// The pseudo-terminal's; it is gone then.
    pub(crate) fn carry_terminal(&mut self) -> io::Result<bool> {
        let result = self.flush().and_then(|()| self.take_input());
        if result.is_err() {
            self.pty = None;
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(pty) = &mut self.pty else {
            return Ok(());
        };
        while !self.backlog.is_empty() {
            match pty.write(self.backlog.front())? {
                0 => break,
                count => self.backlog.take(count),
            }
        }
        Ok(())
    }

    fn take_input(&mut self) -> io::Result<bool> {
        let (Some(pty), Some(line)) = (&mut self.pty, &mut self.line) else {
            return Ok(false);
        };
        let mut bytes = vec![0; line.ring.room()];
        if bytes.is_empty() {
            return Ok(false);
        }
        let count = pty.read(&mut bytes)?;
        // There was room; a guest that has taken it away since has to do without.
        Ok(line.ring.input(&bytes[..count]) > 0)
    }

    /// The guest is at its end: what it said last goes where it can; gives our event channel.
    pub(crate) fn finish(&mut self) -> Option<u32> {
        self.take_output();
        // Nobody is there to be told that this did not work.
        drop(self.flush());
        self.disconnect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::{Read, Write};

    use super::*;
    use crate::log::Style;
    use crate::ring::tests::Page;

    const ADDRESS: Address = Address { gfn: 7, port: 2 };

    fn console(overflow: Overflow) -> Console<Page> {
        let mut console = Console::new(overflow);
        console.connect(Page::new(), ADDRESS, 5).expect("a pseudo-terminal");
        console
    }

    fn page(console: &mut Console<Page>) -> &mut Page {
        console.line.as_mut().expect("is in use").ring.page()
    }

    fn terminal(console: &Console<Page>) -> fs::File {
        OpenOptions::new().read(true).write(true).open(console.tty().expect("has one")).expect("has a name")
    }

    #[test]
    fn output_goes_to_log_and_terminal_and_input_to_the_guest() {
        let path = std::env::temp_dir().join(format!("xenconsoled-console-{}.log", std::process::id()));
        let style = Style { has_time: false, replaces_escape: false, size: 0, files: 1 };
        let mut console = console(Overflow::Discard);
        console.log = Some(Log::open(path.clone(), style).expect("is open"));
        assert_eq!(console.carry_output(Instant::now()), Todo { notify: false, unmask: true }, "it is looked at once");
        page(&mut console).say(b"hello\n");
        assert_eq!(console.carry_output(Instant::now()), Todo::default(), "it has not notified");
        console.is_told();
        assert_eq!(console.carry_output(Instant::now()), Todo { notify: true, unmask: true });
        assert_eq!(fs::read_to_string(&path).expect("is there"), "hello\n");
        // The terminal is opened later, and shows it.
        let mut user = terminal(&console);
        assert!(!console.carry_terminal().expect("is open"));
        let mut bytes = [0; 16];
        assert_eq!((user.read(&mut bytes).expect("has come"), &bytes[..6]), (6, &b"hello\n"[..]));
        user.write_all(b"ls\n").expect("is open");
        assert!(console.carry_terminal().expect("is open"));
        assert_eq!(page(&mut console).hear(), b"ls\n");
        page(&mut console).say(b"bye\n");
        assert_eq!(console.finish(), Some(5));
        assert_eq!(fs::read_to_string(&path).expect("is there"), "hello\nbye\n", "the last words");
        fs::remove_file(path).expect("is ours");
    }

    #[test]
    fn a_guest_that_notifies_without_end_gets_its_share() {
        let mut console = console(Overflow::Discard);
        let start = Instant::now();
        let mut looks = |now: Instant| {
            let counted = (0..1000).filter(|_| {
                console.is_told();
                console.carry_output(now).unmask
            });
            (counted.count(), console.pause(now))
        };
        let (count, pause) = looks(start + PERIOD);
        assert_eq!((count, pause), (100, Some(PERIOD)));
        assert_eq!(looks(start + PERIOD * 2).0, 100);
        assert!(console.carry_output(start + PERIOD * 3).unmask, "it was told, and is not forgotten");
        assert_eq!(console.pause(start + PERIOD * 3), None);
    }

    #[test]
    fn an_index_that_makes_no_sense_is_told_of_once() {
        let mut console = console(Overflow::Discard);
        for _ in 0..3 {
            page(&mut console).break_index();
            console.is_told();
            assert_eq!(console.carry_output(Instant::now()), Todo { notify: false, unmask: true });
        }
        assert_eq!(console.complaints().len(), 1);
        // The guest comes to its senses.
        page(&mut console).begin_anew();
        page(&mut console).say(b"x");
        console.is_told();
        assert!(console.carry_output(Instant::now()).notify);
    }

    #[test]
    fn a_guest_whose_output_is_kept_waits() {
        let mut console = console(Overflow::Keep);
        console.backlog.set_limit(Some(100));
        let say = |console: &mut Console<Page>| {
            page(console).say(&[b'x'; 100]);
            console.is_told();
            console.carry_output(Instant::now())
        };
        assert!(say(&mut console).notify);
        assert_eq!(say(&mut console), Todo::default(), "it stays in the ring, and its channel masked");
        assert_eq!(console.pause(Instant::now()), None, "only a reader helps");
        assert!(console.waits_for().is_some_and(|(_, flags)| flags.contains(PollFlags::OUT)));
        assert!(!console.carry_terminal().expect("is open"));
        assert!(console.carry_output(Instant::now()).notify, "there is room again");
    }
}
