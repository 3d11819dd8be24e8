//! What a command works with: the hypervisor and xenstore, and domains by name.

use libxc::trap::Trap;
use libxc::verbs::domain::DomainInfo;
use libxc::xenstore::{Client, Tx};
use libxc::{Handle, Privcmd};

use crate::failure::{Failure, Outcome};

/// The hypervisor and xenstore: those of this machine, or in tests of a fake one.
pub struct Session<T: Trap = Privcmd> {
    /// The hypervisor.
    pub handle: Handle<T>,
    /// xenstore.
    pub store: Client,
}

/// Opens the hypervisor alone.
pub fn hypervisor() -> Outcome<Handle<Privcmd>> {
    Ok(Handle::new(Privcmd::open()?)?)
}

impl Session {
    /// Opens both.
    pub fn open() -> Outcome<Session> {
        Ok(Session { handle: hypervisor()?, store: Client::open()? })
    }
}

impl<T: Trap> Session<T> {
    /// The name of a domain; empty if it has none.
    pub fn name(&self, domid: u16) -> Outcome<String> {
        Ok(self.store.read(Tx::NONE, &format!("/local/domain/{domid}/name"))?.unwrap_or_default())
    }

    /// The domain of that name.
    pub fn by_name(&self, name: &str) -> Outcome<Option<u16>> {
        for domain in self.handle.domains()? {
            if self.name(domain.domid)? == name {
                return Ok(Some(domain.domid));
            }
        }
        Ok(None)
    }

    /// The domain that the user means by a name or an id. An id need not exist.
    pub fn find(&self, text: &str) -> Outcome<u16> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map_err(|_| Failure::new(format!("{text} is too large for a domain id")));
        }
        match self.by_name(text)? {
            Some(domid) => Ok(domid),
            None => {
                Err(Failure::new(format!("{text} is an invalid domain identifier: there is no domain of that name")))
            }
        }
    }

    /// The domain that the user means, which must exist.
    pub fn info(&self, text: &str) -> Outcome<DomainInfo> {
        let domid = self.find(text)?;
        let info = self.handle.domain_info(domid)?;
        info.ok_or_else(|| Failure::new(format!("Domain '{text}' does not exist.")))
    }

    /// The kind of guest: "pvh", "hvm", "pv"; empty if it is not recorded.
    pub fn guest_type(&self, domid: u16) -> Outcome<String> {
        Ok(self.store.read(Tx::NONE, &format!("/libxl/{domid}/type"))?.unwrap_or_default())
    }
}
