//! Changes whose answers say nothing but that they were made: sent together, so that client and daemon do not wait for each other at
//! each of them.
//!
//! Only inside of a transaction, where it does not matter how many were made before a failure is heard of: nothing of it stays. The
//! kernel's own way takes one request at a time, and gets one.

use public_abi::Errno;
use public_abi::io::xs_wire::XsMessage;

use super::{Client, Connection, Next, Permission, Trouble, Tx, describe, wire};
use crate::error::{Error, Result};

/// Bytes of requests that are sent before their answers are read. Answers to changes are shorter than the changes, so the daemon
/// never waits for room for them, and takes all that was sent.
const MOST_BYTES: usize = 2048;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    kind: XsMessage,
    path: String,
    /// What follows the path, with the zero between them.
    rest: Vec<u8>,
    /// What is not there is no failure.
    may_be_absent: bool,
}

impl Change {
    fn new(kind: XsMessage, path: &str, value: &str) -> Change {
        Change { kind, path: path.to_owned(), rest: [b"\0", value.as_bytes()].concat(), may_be_absent: false }
    }

    fn parts(&self) -> [&[u8]; 2] {
        [self.path.as_bytes(), &self.rest]
    }

    /// Writes a value, making the node and its parents where they are missing.
    pub fn write(path: &str, value: &str) -> Change {
        Change::new(XsMessage::Write, path, value)
    }

    /// Makes a node with an empty value unless it is there.
    pub fn mkdir(path: &str) -> Change {
        Change::new(XsMessage::Mkdir, path, "")
    }

    /// Removes a node and what is under it; one that is not there is no error.
    pub fn remove(path: &str) -> Change {
        Change { may_be_absent: true, ..Change::new(XsMessage::Rm, path, "") }
    }

    /// Sets a node's permissions.
    pub fn set_permissions(path: &str, permissions: &[Permission]) -> Change {
        let entry = |permission: &Permission| format!("{}{}\0", permission.letter, permission.domain);
        let entries: String = permissions.iter().map(entry).collect();
        Change::new(XsMessage::SetPerms, path, &entries)
    }

    /// Its result, if nothing has become of it but an error.
    fn judge(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if self.may_be_absent && error.is_absent() => Ok(()),
            other => other,
        }
    }
}

/// Changes that are under way.
#[derive(Default)]
struct Sent<'c> {
    bytes: Vec<u8>,
    /// The numbers of the requests, and what they are.
    waiting: Vec<(u32, &'c Change)>,
}

impl Client {
    /// Makes a change.
    ///
    /// # Errors
    /// xenstored's.
    pub fn change(&self, tx: Tx, change: &Change) -> Result<()> {
        change.judge(self.request(change.kind, tx, &change.parts()).map(|_| ()))
    }

    /// Makes changes in a transaction, in their order.
    ///
    /// # Errors
    /// Of the first that failed. Others may have been made: the transaction is to be given up.
    pub fn change_all(&self, tx: Tx, changes: &[Change]) -> Result<()> {
        let many = self.connection().filter(|connection| tx != Tx::NONE && connection.takes_many());
        let Some(connection) = many.filter(|_| !self.is_stale(tx)) else {
            return changes.iter().try_for_each(|change| self.change(tx, change));
        };
        match self.send_all(&connection, tx, changes) {
            Ok(()) => Ok(()),
            Err(Trouble::Other(error)) => Err(error),
            Err(lost) => {
                self.look_for_another(lost)?;
                // The transaction is gone with its connection, and begins again.
                Err(Error::Xenstore { request: "changes".into(), errno: Errno::EAGAIN })
            }
        }
    }

    fn send_all(&self, connection: &Connection, tx: Tx, changes: &[Change]) -> Next<()> {
        let mut sent = Sent::default();
        for change in changes {
            let parts: &[&[u8]] = &change.parts();
            if let Some(errno) = self.refusal(connection, change.kind, parts)? {
                self.hear(connection, std::mem::take(&mut sent))?;
                return Err(Error::Xenstore { request: describe(change.kind, parts), errno }.into());
            }
            let number = self.number();
            let bytes = wire::encode(change.kind, number, tx.number, parts)
                .ok_or_else(|| Error::Xenstore { request: describe(change.kind, parts), errno: Errno::E2BIG });
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.hear(connection, sent)?;
                    return Err(error.into());
                }
            };
            if sent.bytes.len() + bytes.len() > MOST_BYTES {
                self.hear(connection, std::mem::take(&mut sent))?;
            }
            sent.bytes.extend(bytes);
            sent.waiting.push((number, change));
        }
        self.hear(connection, sent)
    }

    /// Sends what is to be sent, and hears all answers, also those behind a failure.
    fn hear(&self, connection: &Connection, sent: Sent<'_>) -> Next<()> {
        self.send(connection, &sent.bytes)?;
        let mut first = Ok(());
        for (number, change) in sent.waiting {
            let result = match self.answer(connection, change.kind, number, &change.parts()) {
                Ok(_) => Ok(()),
                Err(Trouble::Other(error @ Error::Xenstore { .. })) => change.judge(Err(error)),
                Err(trouble) => return Err(trouble),
            };
            first = first.and(result);
        }
        Ok(first?)
    }
}
