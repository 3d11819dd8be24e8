//! From records to a daemon and back: what a killed daemon knew, its successor knows.
//!
//! [`Engine::apply`] takes records in the order in which they were made; [`Engine::whole`] gives the fewest that say the same.
//! Programs on sockets are not among them: their connections end with the daemon, which they see.

use std::collections::BTreeSet;

use super::watch::{self, Watch};
use super::{Connection, ConnectionId, Domain, Engine, Peer};
use crate::persist::Record;
use crate::ring::Place;
use crate::store::transaction::Transaction;

impl Engine {
    /// The daemon that these records tell of. Transactions that were open can only end with EAGAIN.
    pub(crate) fn restore(records: Vec<Record>) -> Engine {
        let mut engine = Engine::empty();
        let mut open = BTreeSet::new();
        for record in records {
            match record {
                Record::Begun { domain, transaction } => {
                    open.insert((domain, transaction));
                }
                Record::Ended { domain, transaction } => {
                    open.remove(&(domain, transaction));
                }
                record => {
                    if let Record::Reset { domain }
                    | Record::Rebound { domain, .. }
                    | Record::Released { domain }
                    | Record::Gone { domain } = record
                    {
                        open.retain(|(of, _)| *of != domain);
                    }
                    engine.apply(record);
                }
            }
        }
        for (domain, number) in open {
            let lost = Transaction::lost(&engine.store);
            if let Some(connection) = engine.connection_of_mut(domain) {
                connection.last_transaction = connection.last_transaction.max(number);
                connection.transactions.insert(number, lost);
            }
        }
        engine
    }

    fn connection_of_mut(&mut self, domain: u16) -> Option<&mut Connection> {
        let id = self.connection_of(domain)?;
        self.connections.get_mut(&id)
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Node { path, value, permissions } => {
                self.mention(&permissions);
                self.store.set(&path, value.into(), permissions.into());
            }
            Record::Removed { path } => {
                self.store.remove(&path);
            }
            Record::Special { path, permissions } => {
                self.mention(&permissions);
                self.special.insert(path, permissions.into());
            }
            Record::Introduced { domain, gfn, port, taken, given } => {
                let connection = Some(self.connect(Peer::Domain(domain), Place { taken, given }));
                let known = Domain { connection, gfn, port, is_shut_down: false, target: None };
                self.domains.insert(domain, known);
            }
            Record::Rebound { domain, port, taken, given } => self.rebound(domain, port, Place { taken, given }),
            Record::Released { domain } => {
                self.disconnect_domain(domain);
            }
            Record::Gone { domain } => self.forget(domain),
            Record::Target { domain, target } => {
                if let Some(known) = self.domains.get_mut(&domain) {
                    known.target = Some(target);
                }
            }
            Record::Shutdown { domain, is_shut_down } => {
                if let Some(known) = self.domains.get_mut(&domain) {
                    known.is_shut_down = is_shut_down;
                }
            }
            record => self.apply_to_connection(record),
        }
    }

    fn apply_to_connection(&mut self, record: Record) {
        let (Record::Watch { domain, .. }
        | Record::Unwatch { domain, .. }
        | Record::Reset { domain }
        | Record::Input { domain, .. }
        | Record::Output { domain, .. }
        | Record::Failed { domain, .. }) = record
        else {
            return;
        };
        let Some(id) = self.connection_of(domain) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match record {
            Record::Watch { path, cut, token, .. } => {
                let cost = watch::cost(&path, &token);
                if self.watches.add(&path, Watch { connection: id, token, cut }).is_ok() {
                    connection.watches += 1;
                    connection.watch_bytes += cost;
                }
            }
            Record::Unwatch { path, token, .. } if self.watches.remove(&path, id, &token).is_ok() => {
                connection.watches = connection.watches.saturating_sub(1);
                connection.watch_bytes = connection.watch_bytes.saturating_sub(watch::cost(&path, &token));
            }
            Record::Reset { .. } => {
                self.watches.remove_all(id);
                (connection.watches, connection.watch_bytes) = (0, 0);
            }
            Record::Input { taken, rest, .. } => {
                connection.taken = taken;
                connection.reader = Default::default();
                connection.reader.push(&rest);
            }
            Record::Output { bytes, .. } => connection.output.answer(bytes),
            Record::Failed { error, .. } => {
                connection.failure = Some(error);
                connection.reader = Default::default();
            }
            _ => {}
        }
    }

    /// Records of everything.
    pub(crate) fn whole(&self) -> Vec<Record> {
        let mut records = Vec::new();
        self.store.walk(&mut |path, node| records.push(Record::node(path, node)));
        for (path, permissions) in &self.special {
            records.push(Record::Special { path: path.clone(), permissions: permissions.to_vec() });
        }
        for (&domain, known) in &self.domains {
            self.domain_records(domain, known, &mut records);
        }
        for (path, Watch { connection, token, cut }) in self.watches.iter() {
            if let Some(Peer::Domain(domain)) = self.peer(*connection) {
                let (path, token) = (path.to_owned(), token.clone());
                records.push(Record::Watch { domain, path, cut: *cut, token });
            }
        }
        records
    }

    fn peer(&self, id: ConnectionId) -> Option<Peer> {
        self.connections.get(&id).map(|connection| connection.peer)
    }

    fn domain_records(&self, domain: u16, known: &Domain, records: &mut Vec<Record>) {
        let connection = known.connection.and_then(|id| self.connections.get(&id));
        let (taken, given) = connection.map_or((0, 0), |connection| (connection.taken, connection.output.position()));
        records.push(Record::Introduced { domain, gfn: known.gfn, port: known.port, taken, given });
        records.push(Record::Shutdown { domain, is_shut_down: known.is_shut_down });
        records.extend(known.target.map(|target| Record::Target { domain, target }));
        let Some(Connection { reader, output, transactions, failure, .. }) = connection else {
            records.push(Record::Released { domain });
            return;
        };
        records.push(Record::Input { domain, taken, rest: reader.rest().to_vec() });
        if output.len() > 0 {
            records.push(Record::Output { domain, bytes: output.waiting() });
        }
        records.extend(failure.map(|error| Record::Failed { domain, error }));
        records.extend(transactions.keys().map(|&transaction| Record::Begun { domain, transaction }));
    }

    /// Takes away what an earlier daemon had given already.
    pub(crate) fn skip_output(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.output.take(bytes);
        }
    }

    /// Whether two daemons know the same; for tests.
    #[cfg(test)]
    pub(crate) fn knows_the_same(&self, other: &Engine) -> bool {
        // The store may have been filled in another order, but holds the same.
        let sorted = |engine: &Engine| {
            let mut records: Vec<String> = engine.whole().iter().map(|record| format!("{record:?}")).collect();
            records.sort();
            records
        };
        sorted(self) == sorted(other)
    }
}
