//! Domains: their rings come and go, they are device models of each other, they stop and die.
//!
//! What hypervisor and kernel must do for that is asked of the [`Host`]. [`Engine::sweep`] is told how all domains are whenever
//! one of them may have ended (VIRQ_DOM_EXC), and when the daemon starts.

use std::collections::BTreeMap;
use std::rc::Rc;

use public_abi::Errno;
use public_abi::domid::DOMID_FIRST_RESERVED;

use super::request::{Answer, fields, number, one};
use super::{Connection, ConnectionId, Engine, Host, Peer};
use crate::limits::Limits;
use crate::path::{INTRODUCE_DOMAIN, RELEASE_DOMAIN};
use crate::perms::{self, Permission, Permissions, Who};
use crate::persist::Record;
use crate::ring::Place;
use crate::store::access::{Access, Trace};

/// A domain that the daemon knows.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    /// Its connection, while its ring is in use.
    pub(crate) connection: Option<ConnectionId>,
    /// Where it said that its ring is.
    pub(crate) gfn: u64,
    /// Its event channel.
    pub(crate) port: u32,
    /// Whether `@releaseDomain` has told that it stopped.
    pub(crate) is_shut_down: bool,
    /// Whose device model it is.
    pub(crate) target: Option<u16>,
}

/// How a domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs, or could.
    Running,
    /// It has shut down or crashed.
    ShutDown,
    /// It is being destroyed.
    Dying,
}

impl Engine {
    /// Notes domains of which something may be left when they are gone.
    pub(super) fn mention(&mut self, permissions: &[Permission]) {
        self.mentioned.extend(permissions.iter().map(|entry| entry.domain).filter(|domain| *domain != 0));
    }

    /// A domain's ring is in use: by INTRODUCE, or, for the control domain's kernel, from the start.
    pub(crate) fn adopt(&mut self, domain: u16, gfn: u64, port: u32, place: Place) -> ConnectionId {
        let id = self.connect(Peer::Domain(domain), place);
        let known = Domain { connection: Some(id), gfn, port, is_shut_down: false, target: None };
        self.domains.insert(domain, known);
        self.records.push(Record::Introduced { domain, gfn, port, taken: place.taken, given: place.given });
        self.tell_special(INTRODUCE_DOMAIN);
        id
    }

    /// The connection of a domain whose ring is in use.
    pub(crate) fn connection_of(&self, domain: u16) -> Option<ConnectionId> {
        self.domains.get(&domain).and_then(|domain| domain.connection)
    }

    /// All domains whose rings are in use.
    pub(crate) fn introduced(&self) -> Vec<(u16, Domain)> {
        let in_use = self.domains.iter().filter(|(_, domain)| domain.connection.is_some());
        in_use.map(|(number, domain)| (*number, domain.clone())).collect()
    }

    /// Where a domain's connection is: what its ring goes on with after a restart.
    pub(crate) fn place_of(&self, id: ConnectionId) -> Option<Place> {
        let Connection { taken, output, .. } = self.connections.get(&id)?;
        Some(Place { taken: *taken, given: output.position() })
    }

    pub(super) fn introduce(&mut self, host: &mut dyn Host, payload: &[u8]) -> Result<(), Errno> {
        let fields = fields(payload);
        let [domain, gfn, port, ..] = fields.as_slice() else {
            return Err(Errno::EINVAL);
        };
        let (domain, port) = (number::<u16>(domain)?, number::<u32>(port)?);
        // Some toolstacks print the frame number with a sign.
        let gfn = number::<u64>(gfn).or_else(|_| number::<i64>(gfn).map(i64::cast_unsigned))?;
        if domain == 0 || domain >= DOMID_FIRST_RESERVED || port == 0 {
            return Err(Errno::EINVAL);
        }
        if self.connection_of(domain).is_some() {
            if let Ok(place) = host.rebind(domain, port) {
                self.rebound(domain, port, place);
                self.records.push(Record::Rebound { domain, port, taken: place.taken, given: place.given });
                return Ok(());
            }
            // What is left of the connection is of no use to anybody.
            self.disconnect_domain(domain);
            host.release(domain);
            self.records.push(Record::Released { domain });
        }
        let place = host.introduce(domain, gfn, port)?;
        self.adopt(domain, gfn, port, place);
        Ok(())
    }

    /// A domain begins anew on its ring, without watches and transactions.
    pub(super) fn rebound(&mut self, domain: u16, port: u32, place: Place) {
        let Some(known) = self.domains.get_mut(&domain) else {
            return;
        };
        known.port = port;
        if let Some(id) = known.connection {
            self.watches.remove_all(id);
            self.connections.insert(id, Connection::new(Peer::Domain(domain), place));
        }
    }

    /// The domain asked for a new beginning by its page; the ring is cleared.
    pub(crate) fn reconnected(&mut self, domain: u16, place: Place) {
        let port = self.domains.get(&domain).map_or(0, |known| known.port);
        self.rebound(domain, port, place);
        self.records.push(Record::Rebound { domain, port, taken: place.taken, given: place.given });
    }

    /// Ends a domain's connection; `false` if it had none.
    pub(super) fn disconnect_domain(&mut self, domain: u16) -> bool {
        let connection = self.domains.get_mut(&domain).and_then(|known| known.connection.take());
        if let Some(id) = connection {
            self.disconnect(id);
        }
        connection.is_some()
    }

    pub(super) fn release(&mut self, host: &mut dyn Host, payload: &[u8]) -> Result<(), Errno> {
        let domain = number::<u16>(one(payload)?)?;
        if domain == 0 {
            return Err(Errno::EINVAL);
        }
        if !self.disconnect_domain(domain) {
            return Err(Errno::ENOENT);
        }
        host.release(domain);
        self.records.push(Record::Released { domain });
        self.tell_special(RELEASE_DOMAIN);
        Ok(())
    }

    pub(super) fn resume(&mut self, payload: &[u8]) -> Result<(), Errno> {
        let domain = number::<u16>(one(payload)?)?;
        let known = self.domains.get_mut(&domain).filter(|known| known.connection.is_some());
        known.ok_or(Errno::ENOENT)?.is_shut_down = false;
        self.records.push(Record::Shutdown { domain, is_shut_down: false });
        Ok(())
    }

    pub(super) fn set_target(&mut self, payload: &[u8]) -> Result<(), Errno> {
        let fields = fields(payload);
        let [domain, target] = fields.as_slice() else {
            return Err(Errno::EINVAL);
        };
        let (domain, target) = (number::<u16>(domain)?, number::<u16>(target)?);
        // A device model of the control domain would be a control domain.
        if domain == 0 || target == 0 {
            return Err(Errno::EINVAL);
        }
        self.connection_of(target).ok_or(Errno::ENOENT)?;
        let known = self.domains.get_mut(&domain).filter(|known| known.connection.is_some());
        known.ok_or(Errno::ENOENT)?.target = Some(target);
        self.records.push(Record::Target { domain, target });
        Ok(())
    }

    pub(super) fn is_introduced(&self, payload: &[u8]) -> Answer {
        let domain = number::<u16>(one(payload)?)?;
        let is_introduced = domain == DOMID_FIRST_RESERVED || self.connection_of(domain).is_some();
        Ok(if is_introduced { b"T\0".to_vec() } else { b"F\0".to_vec() })
    }

    /// Told how all domains are: who has stopped or is gone is said, and what they leave is removed.
    pub(crate) fn sweep(&mut self, host: &mut dyn Host, lives: &BTreeMap<u16, Life>) {
        let mut known: Vec<u16> = self.domains.keys().chain(&self.mentioned).copied().collect();
        known.sort_unstable();
        known.dedup();
        let mut news = false;
        for domain in known.into_iter().filter(|domain| *domain != 0) {
            news |= match lives.get(&domain) {
                Some(Life::Running) => false,
                Some(Life::ShutDown) => self.note_shutdown(domain),
                Some(Life::Dying) => self.note_dying(host, domain),
                None => self.bury(host, domain),
            };
        }
        if news {
            self.tell_special(RELEASE_DOMAIN);
        }
    }

    fn note_shutdown(&mut self, domain: u16) -> bool {
        let Some(known) = self.domains.get_mut(&domain).filter(|known| !known.is_shut_down) else {
            return false;
        };
        known.is_shut_down = true;
        self.records.push(Record::Shutdown { domain, is_shut_down: true });
        true
    }

    fn note_dying(&mut self, host: &mut dyn Host, domain: u16) -> bool {
        let was_connected = self.disconnect_domain(domain);
        if was_connected {
            host.release(domain);
            self.records.push(Record::Released { domain });
        }
        was_connected
    }

    /// A domain is gone: nothing of it may be left for the next one with its number. Whether it was known.
    fn bury(&mut self, host: &mut dyn Host, domain: u16) -> bool {
        self.note_dying(host, domain);
        self.clear_nodes(domain);
        let was_known = self.domains.contains_key(&domain);
        self.forget(domain);
        self.records.push(Record::Gone { domain });
        was_known
    }

    /// Takes a domain out of everything but the tree.
    pub(super) fn forget(&mut self, domain: u16) {
        self.disconnect_domain(domain);
        self.domains.remove(&domain);
        self.mentioned.remove(&domain);
        for known in self.domains.values_mut().filter(|known| known.target == Some(domain)) {
            known.target = None;
        }
        for permissions in self.special.values_mut() {
            if let Some(fewer) = without(permissions, domain) {
                *permissions = fewer;
            }
        }
    }

    /// Removes a domain's nodes, and its name from the permissions of others.
    fn clear_nodes(&mut self, domain: u16) {
        let (mut owned, mut named) = (Vec::<String>::new(), Vec::new());
        self.store.walk(&mut |path, node| {
            if perms::owner(&node.permissions) == domain && path != "/" && !self.keep_orphans {
                owned.push(path.to_owned());
            } else if let Some(fewer) = without(&node.permissions, domain) {
                named.push((path.to_owned(), fewer));
            }
        });
        let mut trace = Trace::default();
        for path in &owned {
            let (limits, who) = (Limits::default(), Who::CONTROL);
            let (tree, trace) = (&mut self.store, &mut trace);
            let mut access = Access { tree, trace, who, limits: &limits, other_bytes: 0, in_transaction: false };
            // An error says that it has gone with one above it.
            access.remove(path).ok();
        }
        self.publish(&trace.changes);
        for (path, permissions) in named {
            if let Some(value) = self.store.get(&path).map(|node| Rc::clone(&node.value)) {
                self.store.set(&path, value, permissions);
                self.records.extend(self.store.get(&path).map(|node| Record::node(&path, node)));
            }
        }
    }
}

/// Permissions without a domain, or `None` if it is not among them. A node that it owned becomes the control domain's.
fn without(permissions: &Permissions, domain: u16) -> Option<Permissions> {
    if permissions.iter().all(|entry| entry.domain != domain) {
        return None;
    }
    let owner = permissions.first().map(|first| match first.domain == domain {
        true => Permission { domain: 0, ..*first },
        false => *first,
    });
    let others = permissions.iter().skip(1).filter(|entry| entry.domain != domain).copied();
    Some(owner.into_iter().chain(others).collect())
}
