//! Which guests there are and where their consoles are, by the hypervisor and xenstore.
//!
//! `@introduceDomain` and `@releaseDomain` tell that domains have come or gone; then the hypervisor is asked. Below
//! `/local/domain/ID/console` is where a guest's ring is, and there the terminal's name is told. While xenstored is away, nothing of
//! this happens and the consoles go on; when it is back, all watches fire.

use std::time::Duration;

use libxc::Result;
use libxc::linux::{ForeignPages, granted_page};
use libxc::trap::{Events, Trap};
use libxc::xenstore::Tx;

use super::Daemon;
use crate::console::{Address, Console};
use crate::log::{Log, Style};
use crate::options::Options;

/// The events that tell of domains, and their watches' token.
const DOMAINS: [&str; 2] = ["@introduceDomain", "@releaseDomain"];
const DOMAINS_TOKEN: &str = "domains";
/// How often new events are looked for before anything else gets its turn.
const ROUNDS: usize = 8;
/// The token of the watches on consoles.
const CONSOLE_TOKEN: &str = "console";
/// The grant that a toolstack has made of a console's page (GNTTAB_RESERVED_CONSOLE, public/grant_table.h).
const RING_GRANT: u32 = 0;
/// What is in `console/type` if this daemon is to serve it.
const TYPE: &str = "xenconsoled";

/// A guest.
pub(super) struct Guest {
    uuid: [u8; 16],
    pub(super) console: Console<ForeignPages>,
    is_watched: bool,
    /// Whether its terminal's name was written.
    is_told: bool,
}

/// How logs are written.
pub(super) fn style(options: &Options, has_time: bool) -> Style {
    Style { has_time, replaces_escape: options.replace_escape, size: options.log_size, files: options.log_files }
}

fn directory(domain: u16) -> String {
    format!("/local/domain/{domain}/console")
}

/// The domain whose console's directory this path is in.
fn domain_of(path: &str) -> Option<u16> {
    let (domain, rest) = path.strip_prefix("/local/domain/")?.split_once('/')?;
    (rest == "console" || rest.starts_with("console/")).then(|| domain.parse().ok()).flatten()
}

impl Daemon {
    /// Watches for domains.
    ///
    /// # Errors
    /// xenstore's.
    pub(super) fn watch_domains(&self) -> Result<()> {
        DOMAINS.iter().try_for_each(|name| self.store.watch(name, DOMAINS_TOKEN))
    }

    /// Takes the events of xenstore, also those that come while others are attended to: answers are read behind them, so nothing
    /// would wake the daemon for what is waiting in the client by then. Whether there may be more: a guest that keeps changing its nodes
    /// must not keep others waiting.
    pub(super) fn hear_store(&mut self) -> bool {
        (0..ROUNDS).all(|_| self.hear_events())
    }

    /// Takes the events that are there; whether there were any.
    fn hear_events(&mut self) -> bool {
        let mut has_domains = false;
        let mut consoles = std::collections::BTreeSet::new();
        let mut has_any = false;
        loop {
            match self.store.next_event(Some(Duration::ZERO)) {
                Ok(Some(event)) => {
                    has_any = true;
                    if event.token == DOMAINS_TOKEN {
                        has_domains = true;
                    } else {
                        consoles.extend(domain_of(&event.path));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    if !std::mem::replace(&mut self.is_store_away, true) {
                        self.messages.say(&error.to_string());
                    }
                    break;
                }
            }
        }
        if self.store.connection().is_some() && std::mem::take(&mut self.is_store_away) {
            self.messages.say("xenstored is back");
        }
        if has_domains {
            self.sweep();
        }
        for domain in consoles {
            self.refresh(domain);
        }
        has_any
    }

    /// Asks the hypervisor which domains there are.
    pub(super) fn sweep(&mut self) {
        let domains = match self.handle.domains() {
            Ok(domains) => domains,
            Err(error) => return self.messages.say(&error.to_string()),
        };
        let alive = |domain: u16, uuid: Option<[u8; 16]>| {
            domains
                .iter()
                .any(|info| info.domid == domain && !info.is_dying() && uuid.is_none_or(|uuid| info.uuid == uuid))
        };
        let gone = self.guests.iter().filter(|(domain, guest)| !alive(**domain, Some(guest.uuid)));
        let gone: Vec<u16> = gone.map(|(domain, _)| *domain).collect();
        for domain in gone {
            self.close(domain);
        }
        for info in domains.iter().filter(|info| info.domid != 0 && alive(info.domid, None)) {
            let guest = self.guests.entry(info.domid).or_insert_with(|| Guest {
                uuid: info.uuid,
                console: Console::new(self.options.overflow_data),
                is_watched: false,
                is_told: false,
            });
            if !guest.is_watched || !guest.is_told {
                self.refresh(info.domid);
            }
        }
    }

    fn close(&mut self, domain: u16) {
        let Some(mut guest) = self.guests.remove(&domain) else {
            return;
        };
        if let Some(port) = guest.console.finish() {
            self.unbind(port);
        }
        if guest.is_watched
            && let Err(error) = self.store.unwatch(&directory(domain), CONSOLE_TOKEN)
        {
            self.messages.say(&error.to_string());
        }
        if self.options.verbose {
            self.messages.say(&format!("domain {domain} is gone"));
        }
    }

    fn unbind(&mut self, port: u32) {
        if let Err(error) = self.events.unbind(port) {
            self.messages.say(&error.to_string());
        }
    }

    /// Looks where a guest's console is, and tells where its terminal is.
    pub(super) fn refresh(&mut self, domain: u16) {
        if let Err(error) = self.try_refresh(domain) {
            self.messages.say(&format!("domain {domain}: {error}"));
        }
    }

    /// The console begins anew where it is.
    pub(super) fn reconnect(&mut self, domain: u16) {
        if let Some(guest) = self.guests.get_mut(&domain) {
            guest.is_told = false;
            if let Some(port) = guest.console.disconnect() {
                self.unbind(port);
            }
            self.refresh(domain);
        }
    }

    fn try_refresh(&mut self, domain: u16) -> Result<()> {
        let directory = directory(domain);
        let Some(guest) = self.guests.get_mut(&domain) else {
            return Ok(());
        };
        if !guest.is_watched {
            self.store.watch(&directory, CONSOLE_TOKEN)?;
            guest.is_watched = true;
        }
        let read = |name: &str| self.store.read(Tx::NONE, &format!("{directory}/{name}"));
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
        if read("type")?.is_some_and(|kind| kind != TYPE) {
            return Ok(());
        }
        let port = number(read("port")?).and_then(|port| u32::try_from(port).ok()).filter(|port| *port != 0);
        let (Some(gfn), Some(port)) = (number(read("ring-ref")?), port) else {
            return Ok(());
        };
        guest.console.backlog.set_limit(number(read("limit")?));
        let address = Address { gfn, port };
        if guest.console.address() != Some(address) {
            self.connect(domain, address)?;
        }
        self.tell(domain)
    }

    /// Puts a guest's console in use.
    fn connect(&mut self, domain: u16, address: Address) -> Result<()> {
        let Some(guest) = self.guests.get_mut(&domain) else {
            return Ok(());
        };
        if let Some(port) = guest.console.disconnect() {
            self.events.unbind(port)?;
        }
        let page = granted_page(domain, RING_GRANT)
            // A toolstack that grants nothing: the control domain may map the page all the same.
            .or_else(|_| self.handle.trap().foreign(domain, &[address.gfn]))?;
        let port = self.events.bind_interdomain(domain, address.port)?;
        if let Err(error) = guest.console.connect(page, address, port) {
            self.unbind(port);
            return Err(libxc::Error::system("making a terminal", error));
        }
        if self.options.log.has_guests() && guest.console.log.is_none() {
            self.reopen_log(domain);
        }
        if self.options.verbose {
            self.messages.say(&format!("domain {domain}: page {:#x}, port {}", address.gfn, address.port));
        }
        // It may wait for what an earlier daemon has done and not told.
        self.notify(Some(port));
        Ok(())
    }

    /// Writes the terminal's name: also if it is there already, once, as that tells who had the old one that there is another.
    fn tell(&mut self, domain: u16) -> Result<()> {
        let path = format!("{}/tty", directory(domain));
        let Some(guest) = self.guests.get_mut(&domain) else {
            return Ok(());
        };
        let Some(tty) = guest.console.tty() else {
            return Ok(());
        };
        if !guest.is_told || self.store.read(Tx::NONE, &path)?.as_deref() != Some(tty) {
            self.store.write(Tx::NONE, &path, tty)?;
            guest.is_told = true;
        }
        Ok(())
    }

    /// Opens a guest's log, under the name that the guest has now.
    pub(super) fn reopen_log(&mut self, domain: u16) {
        if !self.options.log.has_guests() {
            return;
        }
        let name = self.store.read(Tx::NONE, &format!("/local/domain/{domain}/name"));
        let Some(guest) = self.guests.get_mut(&domain).filter(|guest| guest.console.address().is_some()) else {
            return;
        };
        let name = name.ok().flatten().filter(|name| !name.is_empty());
        let path = match (&guest.console.log, name) {
            (_, Some(name)) => self.options.log_dir.join(format!("guest-{}.log", name.replace('/', "_"))),
            (Some(log), None) => log.path().to_owned(),
            (None, None) => self.options.log_dir.join(format!("guest-{domain}.log")),
        };
        let result = match &mut guest.console.log {
            Some(log) if log.path() == path => log.reopen(),
            log => Log::open(path.clone(), style(&self.options, self.options.timestamp.has_guests()))
                .map(|fresh| *log = Some(fresh)),
        };
        if let Err(error) = result {
            self.messages.say(&format!("{}: {error}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_domains() {
        assert_eq!(domain_of("/local/domain/7/console"), Some(7));
        assert_eq!(domain_of("/local/domain/7/console/port"), Some(7));
        assert_eq!(domain_of("/local/domain/7/consoles"), None);
        assert_eq!(domain_of("/local/domain/x/console"), None);
        assert_eq!(domain_of("@releaseDomain"), None);
    }
}
