//! The machine under the daemon: rings of domains and their event channels, by libxc.
//!
//! A [`Machine`] can lack all of it: then the daemon serves programs only, as a test on a development machine does. `rings` moves
//! the bytes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use libxc::linux::{Evtchn, ForeignPages, granted_page, kernel_store};
use libxc::trap::{Events, Trap};
use libxc::{Handle, Privcmd};
use public_abi::Errno;
use public_abi::virq::Virq;

use service::messages::Messages;

use crate::engine::{Host, Life};
use crate::ring::{Place, Ring};

/// The grant that a toolstack has made of a domain's ring (GNTTAB_RESERVED_XENSTORE, public/grant_table.h).
const RING_GRANT: u32 = 1;

/// What goes wrong is said, and is EINVAL for the client.
type Result<T> = std::result::Result<T, String>;

/// A domain's ring and event channel.
pub(super) struct Line {
    pub(super) ring: Ring<ForeignPages>,
    /// Our port.
    port: u32,
    /// There may be something to do.
    pub(super) is_ready: bool,
    /// Requests were taken, which the domain does not know yet.
    pub(super) has_taken: bool,
    /// The domain was told that it broke the protocol.
    pub(super) has_failed: bool,
}

/// How a ring came into use.
pub(super) struct Start {
    /// Where it is.
    pub(super) place: Place,
    /// How many of the bytes that waited the domain has been given already; `None` if the ring begins anew.
    pub(super) given: Option<usize>,
    /// The domain's event channel.
    pub(super) port: u32,
}

/// Hypervisor and kernel.
struct Xen {
    handle: Handle<Privcmd>,
    events: Evtchn,
    /// The port of VIRQ_DOM_EXC.
    ends: u32,
}

/// All that the daemon has of the machine.
pub(super) struct Machine {
    xen: Option<Xen>,
    pub(super) lines: BTreeMap<u16, Line>,
    pub(super) log: Messages,
}

/// What event channels tell.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// A domain may have ended.
    pub(super) ends: bool,
}

impl Machine {
    /// One without Xen.
    pub(super) fn without_xen(log: Messages) -> Machine {
        Machine { xen: None, lines: BTreeMap::new(), log }
    }

    /// Opens the devices.
    ///
    /// # Errors
    /// libxc's.
    pub(super) fn open(log: Messages) -> libxc::Result<Machine> {
        let handle = Handle::new(Privcmd::open()?)?;
        let events = Evtchn::open_nonblocking()?;
        let ends = events.bind_virq(Virq::DomExc)?;
        Ok(Machine { xen: Some(Xen { handle, events, ends }), lines: BTreeMap::new(), log })
    }

    /// The descriptor that is readable when an event channel has something.
    pub(super) fn event_descriptor(&self) -> Option<RawFd> {
        self.xen.as_ref().map(|xen| xen.events.as_fd().as_raw_fd())
    }

    /// Takes all events there are.
    pub(super) fn take_events(&mut self) -> Told {
        let mut told = Told::default();
        let Some(xen) = &self.xen else {
            return told;
        };
        loop {
            match xen.events.next_pending() {
                Ok(Some(port)) if port == xen.ends => told.ends = true,
                Ok(Some(port)) => {
                    for line in self.lines.values_mut().filter(|line| line.port == port) {
                        line.is_ready = true;
                    }
                }
                Ok(None) => return told,
                Err(error) => {
                    self.log.say(&error.to_string());
                    return told;
                }
            }
        }
    }

    /// How all domains are.
    pub(super) fn lives(&mut self) -> Option<BTreeMap<u16, Life>> {
        let domains = self.xen.as_ref()?.handle.domains();
        let life = |info: &libxc::verbs::domain::DomainInfo| match info.shutdown() {
            _ if info.is_dying() => Life::Dying,
            Some(_) => Life::ShutDown,
            None => Life::Running,
        };
        match domains {
            Ok(domains) => Some(domains.iter().map(|info| (info.domid, life(info))).collect()),
            Err(error) => {
                self.log.say(&error.to_string());
                None
            }
        }
    }

    /// Connects to the control domain's kernel, also where an earlier daemon was (its place, and bytes that waited).
    ///
    /// # Errors
    /// What failed.
    pub(super) fn connect_kernel(&mut self, earlier: Option<(Place, usize)>) -> Result<Start> {
        let (page, port) = kernel_store().map_err(|error| error.to_string())?;
        self.start_line(0, page, port, earlier)
    }

    /// Connects to a domain that an earlier daemon was connected to.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn resume(&mut self, domain: u16, gfn: u64, port: u32, earlier: (Place, usize)) -> Result<Start> {
        let page = self.map(domain, gfn)?;
        self.start_line(domain, page, port, Some(earlier))
    }

    fn map(&self, domain: u16, gfn: u64) -> Result<ForeignPages> {
        let xen = self.xen.as_ref().ok_or("this daemon runs without Xen")?;
        granted_page(domain, RING_GRANT).or_else(|not_granted| {
            // A toolstack that grants nothing: the control domain may map the page all the same.
            let mapped = xen.handle.trap().foreign(domain, &[gfn]);
            mapped.map_err(|error| format!("{not_granted}; {error}"))
        })
    }

    /// Binds the event channel and puts the ring in use.
    fn start_line(
        &mut self,
        domain: u16,
        page: ForeignPages,
        port: u32,
        earlier: Option<(Place, usize)>,
    ) -> Result<Start> {
        let xen = self.xen.as_ref().ok_or("this daemon runs without Xen")?;
        let local = xen.events.bind_interdomain(domain, port).map_err(|error| error.to_string())?;
        let (ring, given) = match earlier {
            Some((place, waiting)) => match Ring::resume(page, place, waiting) {
                Ok((ring, given)) => (ring, Some(given)),
                Err(page) => {
                    self.log.say(&format!("the ring of domain {domain} is not where it was: it begins anew"));
                    (Ring::fresh(page), None)
                }
            },
            // The kernel may have begun before the daemon.
            None if domain == 0 => (Ring::adopt(page), Some(0)),
            None => (Ring::fresh(page), Some(0)),
        };
        let place = ring.place();
        self.lines.insert(domain, Line { ring, port: local, is_ready: true, has_taken: false, has_failed: false });
        self.notify(domain);
        Ok(Start { place, given, port })
    }

    /// Tells a domain to look at its ring.
    pub(super) fn notify(&mut self, domain: u16) {
        let (Some(xen), Some(line)) = (&self.xen, self.lines.get(&domain)) else {
            return;
        };
        if let Err(error) = xen.events.notify(line.port) {
            // Its other end may be gone; the next sweep shows it.
            self.log.say(&error.to_string());
        }
    }

    fn unbind(&mut self, port: u32) {
        if let Some(Err(error)) = self.xen.as_ref().map(|xen| xen.events.unbind(port)) {
            self.log.say(&error.to_string());
        }
    }

    fn refuse<T>(&mut self, result: Result<T>) -> std::result::Result<T, Errno> {
        result.map_err(|reason| {
            self.log.say(&reason);
            Errno::EINVAL
        })
    }
}

impl Host for Machine {
    fn introduce(&mut self, domain: u16, gfn: u64, port: u32) -> std::result::Result<Place, Errno> {
        let page = self.map(domain, gfn);
        let page = self.refuse(page)?;
        let started = self.start_line(domain, page, port, None);
        self.refuse(started).map(|start| start.place)
    }

    fn rebind(&mut self, domain: u16, port: u32) -> std::result::Result<Place, Errno> {
        let old = self.lines.get(&domain).map(|line| line.port).ok_or(Errno::ENOENT)?;
        self.unbind(old);
        let xen = self.xen.as_ref().ok_or(Errno::EINVAL)?;
        let bound = xen.events.bind_interdomain(domain, port).map_err(|error| error.to_string());
        let bound = self.refuse(bound)?;
        let line = self.lines.get_mut(&domain).ok_or(Errno::ENOENT)?;
        line.port = bound;
        line.ring.clear();
        (line.is_ready, line.has_failed) = (true, false);
        Ok(line.ring.place())
    }

    fn release(&mut self, domain: u16) {
        if let Some(line) = self.lines.remove(&domain) {
            self.unbind(line.port);
        }
    }

    fn log(&mut self, text: &str) {
        self.log.say(text);
    }

    fn log_to(&mut self, file: &str) -> std::result::Result<(), Errno> {
        self.log.switch(Path::new(file)).map_err(errno)
    }

    fn write_file(&mut self, file: &str, text: &str) -> std::result::Result<(), Errno> {
        std::fs::write(file, text).map_err(errno)
    }
}

/// The error number of the file system's.
fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().and_then(|number| Errno::try_from(number).ok()).unwrap_or(Errno::EIO)
}
