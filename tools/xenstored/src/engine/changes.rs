//! What follows from a change: records for the state, events for those who watch.
//!
//! Called after the store has changed (`request`, `domain`), never before: an event tells what is so.

use std::collections::BTreeMap;

use libxc::xenstore::wire;
use public_abi::io::xs_wire::{ERROR_COMM, XsMessage};

use super::watch::Watch;
use super::{Connection, ConnectionId, Engine, MOST_FOR_KERNEL, MOST_FOR_SOCKET, Peer};
use crate::path;
use crate::perms::{Permissions, Who};
use crate::persist::Record;
use crate::store::access::{Change, Told};

impl Engine {
    /// Records changes and tells of them.
    pub(super) fn publish(&mut self, changes: &BTreeMap<String, Change>) {
        for path in changes.keys() {
            match self.store.get(path).map(|node| Record::node(path, node)) {
                Some(record) => {
                    if let Record::Node { permissions, .. } = &record {
                        self.mention(permissions);
                    }
                    self.records.push(record);
                }
                None => self.records.push(Record::Removed { path: path.clone() }),
            }
        }
        for (path, change) in changes {
            self.tell(path, change);
        }
    }

    fn tell(&mut self, changed: &str, change: &Change) {
        for (watched, watch) in self.watches.matching(changed, change.told) {
            if self.may_hear(self.who(watch.connection), changed, change.before.as_ref()) {
                self.send_event(&watched, &watch, changed);
            }
        }
    }

    /// Whether someone may hear of a change: who could read the node before or can now, or can read the one above it.
    fn may_hear(&self, who: Who, changed: &str, before: Option<&Permissions>) -> bool {
        let can_read = |permissions: &Permissions| who.rights(permissions).read;
        let now = |path: &str| self.store.get(path).is_some_and(|node| can_read(&node.permissions));
        before.is_some_and(can_read) || now(changed) || path::parent(changed).is_some_and(now)
    }

    /// Tells of something that happened to a domain.
    pub(super) fn tell_special(&mut self, name: &str) {
        for (watched, watch) in self.watches.matching(name, Told::Everyone) {
            let who = self.who(watch.connection);
            let can_read = self.special.get(name).is_some_and(|permissions| who.rights(permissions).read);
            if who.is_privileged() || can_read {
                self.send_event(&watched, &watch, name);
            }
        }
    }

    /// Queues an event, unless the same one waits or the client has too much waiting.
    pub(super) fn send_event(&mut self, watched: &str, watch: &Watch, changed: &str) {
        let cut = |path: &str| path.get(usize::from(watch.cut)..).unwrap_or_default().to_owned();
        let encode =
            |path: &str| wire::encode(XsMessage::WatchEvent, 0, 0, &[cut(path).as_bytes(), b"\0", &watch.token, b"\0"]);
        // With a long token not every path fits; the watched one does.
        let Some(bytes) = encode(changed).or_else(|| encode(watched)) else {
            return;
        };
        let id = watch.connection;
        if !self.has_room(id, bytes.len()) {
            if self.connections.get(&id).is_some_and(|connection| connection.peer == Peer::Socket) {
                self.fail(id, ERROR_COMM);
            }
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let is_new = connection.output.event(bytes.clone());
        if let (Peer::Domain(domain), true) = (connection.peer, is_new) {
            self.records.push(Record::Output { domain, bytes });
        }
    }

    /// Whether this many bytes more may wait for a client.
    fn has_room(&self, id: ConnectionId, more: usize) -> bool {
        let Some(Connection { peer, output, .. }) = self.connections.get(&id) else {
            return false;
        };
        match peer {
            Peer::Socket => output.cost() + more <= MOST_FOR_SOCKET,
            Peer::Domain(0) => output.cost() + more <= MOST_FOR_KERNEL,
            Peer::Domain(domain) => {
                let bytes = self.store.usage(*domain).bytes + self.other_bytes(id) + more as u64;
                let most = if self.limits.memory == 0 { MOST_FOR_KERNEL as u64 } else { self.limits.memory };
                bytes <= most
            }
        }
    }
}
