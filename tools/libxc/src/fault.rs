//! A switch that lets the n-th thing that a toolstack asks for fail, or ends the toolstack there as a kill would.
//!
//! It is always compiled in, off unless somebody turns it on, and costs a look at one word then. `xl` turns it on by the
//! environment ([`VARIABLE`]); tests do it for every n, until an operation passes untouched (`tests/keystone`). What is asked for goes
//! by here just before it is asked: hypercalls ([`crate::Handle`]), mappings ([`crate::trap`]), requests to xenstored
//! ([`crate::xenstore`]), and what devices and files need of the machine ([`crate::device::host`]).
//!
//! The switch is the calling thread's, so that tests do not meet each other's.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::str::FromStr;

use public_abi::Errno;

/// The environment variable by which `xl` is told.
pub const VARIABLE: &str = "OXEN_FAIL";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A hypercall.
    Hypercall,
    /// A mapping of another domain's pages, or memory for hypercalls.
    Map,
    /// A request to xenstored.
    Store,
    /// Something of the machine: a device, an interface, a file.
    Host,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Hypercall, Kind::Map, Kind::Store, Kind::Host];

    /// Its name in [`VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hypercall => "hypercall",
            Kind::Map => "map",
            Kind::Store => "store",
            Kind::Host => "host",
        }
    }
}

/// How it fails.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// With this error. What was asked for is not done.
    Error(Errno),
    /// The connection to xenstored is cut; for any other kind an I/O error.
    Cut,
    /// The process ends there, by this function.
    End(fn() -> !),
}

/// What shall fail.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Things of this kind count; `None`: all.
    pub kind: Option<Kind>,
    /// Which one, counted from 0.
    pub number: u64,
    /// How.
    pub how: How,
}

/// What came of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Things of the kind that were asked for.
    pub asked: u64,
    /// What failed, if it came to that.
    pub failed: Option<String>,
}

/// How something fails now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// With this error.
    Error(Errno),
    /// By a connection that is cut.
    Cut,
}

impl Fault {
    /// The error, where there is no connection to cut.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Fault::Error(errno) => errno,
            Fault::Cut => Errno::EIO,
        }
    }
}

thread_local! {
    /// Whether the switch is on: all that is looked at otherwise.
    static IS_ON: Cell<bool> = const { Cell::new(false) };
    static ARMED: RefCell<Option<(Plan, Report)>> = const { RefCell::new(None) };
}

/// Turns the switch on.
pub fn arm(plan: Plan) {
    ARMED.replace(Some((plan, Report::default())));
    IS_ON.set(true);
}

/// Turns the switch off; what it has done, if it was on.
pub fn disarm() -> Option<Report> {
    IS_ON.set(false);
    ARMED.take().map(|(_, report)| report)
}

/// Whether the switch is on, and what was to fail has failed.
pub fn has_failed() -> bool {
    ARMED.with_borrow(|armed| armed.as_ref().is_some_and(|(_, report)| report.failed.is_some()))
}

/// Whether something is to fail now; to be asked just before it is done, with what it is in words.
#[inline]
pub(crate) fn check(kind: Kind, what: impl FnOnce() -> String) -> Result<(), Fault> {
    if IS_ON.get() { check_armed(kind, what()) } else { Ok(()) }
}

#[cold]
fn check_armed(kind: Kind, what: String) -> Result<(), Fault> {
    let how = ARMED.with_borrow_mut(|armed| {
        let (plan, report) = armed.as_mut()?;
        if plan.kind.is_some_and(|wanted| wanted != kind) {
            return None;
        }
        let number = report.asked;
        report.asked += 1;
        // Only this one: what follows must cope with the failure, not with a dead world.
        (number == plan.number).then(|| {
            report.failed = Some(what);
            plan.how
        })
    });
    match how {
        None => Ok(()),
        Some(How::Error(errno)) => Err(Fault::Error(errno)),
        Some(How::Cut) => Err(Fault::Cut),
        Some(How::End(end)) => end(),
    }
}

/// The same for things of the machine, as the kernel would refuse them. For those who serve [`crate::device::host::Host`], and for
/// a toolstack's own files.
///
/// # Errors
/// The error, if it is the one that is to fail.
pub fn check_host(what: impl FnOnce() -> String) -> std::io::Result<()> {
    check(Kind::Host, what).map_err(|fault| std::io::Error::from_raw_os_error(fault.errno().number()))
}

/// The same for mappings and memory: for those who serve [`crate::trap::Trap`].
///
/// # Errors
/// As [`check_host`].
pub fn check_map(what: impl FnOnce() -> String) -> std::result::Result<(), Errno> {
    check(Kind::Map, what).map_err(Fault::errno)
}

/// A text that is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{VARIABLE}={}: it is KIND:NUMBER or KIND:NUMBER:ERROR, such as hypercall:17:ENOMEM; kinds are hypercall, map, \
             store, host and any; instead of an error: cut (store), kill",
            self.0
        )
    }
}

impl std::error::Error for Unknown {}

/// From the text in [`VARIABLE`]: `KIND:NUMBER[:ERROR]`, with the kinds' names or `any`, and an error's name, `cut`, or `kill`,
/// for which `end` stands. Without an error it is the kind's usual one.
pub fn parse(text: &str, end: fn() -> !) -> Result<Plan, Unknown> {
    let unknown = || Unknown(text.into());
    let mut parts = text.split(':');
    let kind = match parts.next().unwrap_or_default() {
        "any" => None,
        name => Some(Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(unknown)?),
    };
    let number = parts.next().and_then(|number| u64::from_str(number).ok()).ok_or_else(unknown)?;
    let how = match (parts.next(), kind) {
        (None, Some(Kind::Store)) => How::Error(Errno::ENOSPC),
        (None, Some(Kind::Host) | None) => How::Error(Errno::EIO),
        (None, Some(Kind::Hypercall | Kind::Map)) => How::Error(Errno::ENOMEM),
        (Some("kill"), _) => How::End(end),
        (Some("cut"), Some(Kind::Store) | None) => How::Cut,
        (Some(name), _) => How::Error(*Errno::ALL.iter().find(|errno| errno.name() == name).ok_or_else(unknown)?),
    };
    if parts.next().is_some() { Err(unknown()) } else { Ok(Plan { kind, number, how }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> ! {
        panic!("the end")
    }

    #[test]
    fn only_the_one_that_was_named_fails() {
        let what = || "x".to_string();
        assert_eq!(check(Kind::Store, what), Ok(()));
        arm(Plan { kind: Some(Kind::Store), number: 1, how: How::Error(Errno::ENOSPC) });
        assert_eq!(check(Kind::Hypercall, what), Ok(()));
        assert_eq!(check(Kind::Store, what), Ok(()));
        assert_eq!(check(Kind::Store, || "y".into()), Err(Fault::Error(Errno::ENOSPC)));
        assert_eq!(check(Kind::Store, what), Ok(()));
        assert_eq!(disarm(), Some(Report { asked: 3, failed: Some("y".into()) }));
        assert_eq!((check(Kind::Store, what), disarm()), (Ok(()), None));
        arm(Plan { kind: None, number: 1, how: How::Cut });
        assert_eq!(check(Kind::Hypercall, what), Ok(()));
        assert_eq!(check_map(what), Err(Errno::EIO));
        assert!(disarm().is_some_and(|report| report.asked == 2));
        arm(Plan { kind: None, number: 0, how: How::End(end) });
        assert!(std::panic::catch_unwind(|| check_host(what)).is_err());
        disarm();
    }

    #[test]
    fn plans_are_read() {
        let read = |text: &str| parse(text, end).map(|plan| (plan.kind, plan.number, format!("{:?}", plan.how)));
        assert_eq!(read("hypercall:17"), Ok((Some(Kind::Hypercall), 17, "Error(ENOMEM)".into())));
        assert_eq!(read("store:0:EAGAIN"), Ok((Some(Kind::Store), 0, "Error(EAGAIN)".into())));
        assert_eq!(read("store:3:cut"), Ok((Some(Kind::Store), 3, "Cut".into())));
        assert!(
            read("any:5:kill").is_ok_and(|(kind, number, how)| (kind, number) == (None, 5) && how.starts_with("End"))
        );
        for bad in ["", "hypercall", "hypercall:x", "nonsense:1", "store:1:ENOSUCH", "host:1:cut", "host:1:EIO:2"] {
            assert!(read(bad).is_err_and(|error| error.to_string().contains(bad)), "{bad}");
        }
    }
}
