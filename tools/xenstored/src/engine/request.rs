//! A request: decoded, carried out, answered.
//!
//! Requests about nodes go through [`Access`] to the store or to a transaction's tree; those about domains are in `domain`,
//! CONTROL in `control`. Payloads are as docs/misc/xenstore.txt of Xen says.

use libxc::xenstore::wire::Message;
use public_abi::Errno;
use public_abi::io::xs_wire::{PAYLOAD_MAX, XsMessage};

use super::watch::{self, Watch};
use super::{ConnectionId, Engine, Host, Peer};
use crate::path;
use crate::perms;
use crate::persist::Record;
use crate::store::access::{Access, Trace};
use crate::store::transaction::Transaction;

/// The payload of an answer that has nothing to say.
pub(super) const OK: &[u8] = b"OK\0";

/// What a request is answered.
pub(super) type Answer = Result<Vec<u8>, Errno>;

/// A payload's strings: those that a zero ends.
pub(super) fn fields(payload: &[u8]) -> Vec<&[u8]> {
    let mut fields: Vec<&[u8]> = payload.split(|&byte| byte == 0).collect();
    fields.pop();
    fields
}

/// A payload that is one string.
pub(super) fn one(payload: &[u8]) -> Result<&[u8], Errno> {
    match fields(payload).as_slice() {
        [field] if field.len() + 1 == payload.len() => Ok(*field),
        _ => Err(Errno::EINVAL),
    }
}

/// A decimal number.
pub(super) fn number<T: std::str::FromStr>(field: &[u8]) -> Result<T, Errno> {
    std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()).ok_or(Errno::EINVAL)
}

impl Engine {
    /// Carries a request out and answers it.
    pub(super) fn handle(&mut self, host: &mut dyn Host, id: ConnectionId, message: &Message) {
        let header = message.header;
        if self.is_tracing {
            let peer = self.connections.get(&id).map(|connection| connection.peer);
            let name = message.kind().map_or("unknown", XsMessage::name);
            let text = String::from_utf8_lossy(&message.payload).replace('\0', " ");
            host.log(&format!("{peer:?} {} {name} tx {} {}", id.0, header.tx_id, text.escape_debug()));
        }
        let kind = message.kind().filter(|kind| is_request(*kind));
        let answer = match kind {
            Some(kind) => self.answer(host, id, kind, header.tx_id, &message.payload),
            None => Err(Errno::ENOSYS),
        };
        match (kind, answer) {
            (Some(kind), Ok(payload)) => {
                self.send_answer(id, kind, header.req_id, header.tx_id, &payload);
                if kind == XsMessage::Watch {
                    self.first_event(id, &message.payload);
                }
            }
            (_, Err(errno)) => {
                let name = format!("{}\0", errno.name());
                self.send_answer(id, XsMessage::Error, header.req_id, header.tx_id, name.as_bytes());
            }
            (None, Ok(_)) => {}
        }
        self.check_soft_limit(host, id);
    }

    /// Says once that a domain has much.
    fn check_soft_limit(&mut self, host: &mut dyn Host, id: ConnectionId) {
        let (who, other_bytes) = (self.who(id), self.other_bytes(id));
        let bytes = self.store.usage(who.domain).bytes + other_bytes;
        if who.is_privileged() || self.limits.memory_soft == 0 || bytes <= self.limits.memory_soft {
            return;
        }
        if let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.was_warned) {
            connection.was_warned = true;
            host.log(&format!("domain {} has {bytes} bytes, more than {}", who.domain, self.limits.memory_soft));
        }
    }

    fn answer(&mut self, host: &mut dyn Host, id: ConnectionId, kind: XsMessage, tx: u32, payload: &[u8]) -> Answer {
        use XsMessage as M;
        let is_restricted = matches!(kind, M::Control | M::Introduce | M::Release | M::Resume | M::SetTarget);
        if is_restricted && !self.who(id).is_privileged() {
            return Err(Errno::EACCES);
        }
        let done = |(): ()| OK.to_vec();
        match kind {
            M::Watch => self.watch(id, payload).map(done),
            M::Unwatch => self.unwatch(id, payload).map(done),
            M::ResetWatches => self.reset(id).map(done),
            M::TransactionStart => self.begin(id),
            M::TransactionEnd => self.end(id, tx, payload).map(done),
            M::Introduce => self.introduce(host, payload).map(done),
            M::Release => self.release(host, payload).map(done),
            M::Resume => self.resume(payload).map(done),
            M::SetTarget => self.set_target(payload).map(done),
            M::GetDomainPath => number::<u16>(one(payload)?).map(|domain| format!("{}\0", path::home(domain)).into()),
            M::IsDomainIntroduced => self.is_introduced(payload),
            M::Control => self.control(host, payload),
            M::GetPerms | M::SetPerms if payload.first() == Some(&b'@') => self.special_permissions(id, kind, payload),
            _ => self.node_request(id, kind, tx, payload),
        }
    }

    /// A request about a node: in a transaction, or at once.
    fn node_request(&mut self, id: ConnectionId, kind: XsMessage, tx: u32, payload: &[u8]) -> Answer {
        let who = self.who(id);
        let other_bytes = self.other_bytes(id);
        let base = self.base(id);
        let limits = self.limits.clone();
        if tx == 0 {
            let mut trace = Trace::default();
            let tree = &mut self.store;
            let access = Access { tree, trace: &mut trace, who, limits: &limits, other_bytes, in_transaction: false };
            let answer = node_answer(access, kind, &base, payload);
            self.publish(&trace.changes);
            return answer;
        }
        let connection = self.connections.get_mut(&id).ok_or(Errno::ENOENT)?;
        let Transaction { work, trace, .. } = connection.transactions.get_mut(&tx).ok_or(Errno::ENOENT)?;
        let access = Access { tree: work, trace, who, limits: &limits, other_bytes, in_transaction: true };
        node_answer(access, kind, &base, payload)
    }

    /// Where a client's relative paths begin.
    fn base(&self, id: ConnectionId) -> String {
        match self.connections.get(&id).map(|connection| connection.peer) {
            Some(Peer::Domain(domain)) => path::home(domain),
            // Against docs/misc/xenstore.txt, but libxl asks for "domid" on the socket.
            _ => path::home(0),
        }
    }

    /// Path, token and bytes to cut off, of WATCH and UNWATCH.
    fn watch_of<'a>(&self, id: ConnectionId, payload: &'a [u8]) -> Result<(String, &'a [u8], u16), Errno> {
        let fields = fields(payload);
        let [name, token, ..] = fields.as_slice() else {
            return Err(Errno::EINVAL);
        };
        let base = self.base(id);
        let path = path::node_or_special(name, &base, self.path_limit())?;
        let is_relative = !name.starts_with(b"/") && !path::is_special(&path);
        let cut = if is_relative { u16::try_from(base.len() + 1).map_err(|_| Errno::EINVAL)? } else { 0 };
        Ok((path, token, cut))
    }

    fn path_limit(&self) -> usize {
        usize::try_from(self.limits.path).unwrap_or(usize::MAX)
    }

    fn watch(&mut self, id: ConnectionId, payload: &[u8]) -> Result<(), Errno> {
        let (path, token, cut) = self.watch_of(id, payload)?;
        let who = self.who(id);
        let other_bytes = self.other_bytes(id);
        let connection = self.connections.get_mut(&id).ok_or(Errno::ENOENT)?;
        let cost = watch::cost(&path, token);
        if !who.is_privileged() {
            if connection.watches >= self.limits.watches {
                return Err(Errno::E2BIG);
            }
            let bytes = self.store.usage(who.domain).bytes + other_bytes + cost;
            if self.limits.memory > 0 && bytes > self.limits.memory {
                return Err(Errno::ENOMEM);
            }
        }
        self.watches.add(&path, Watch { connection: id, token: token.to_vec(), cut })?;
        connection.watches += 1;
        connection.watch_bytes += cost;
        if let Peer::Domain(domain) = connection.peer {
            self.records.push(Record::Watch { domain, path, cut, token: token.to_vec() });
        }
        Ok(())
    }

    /// The event that comes at once, after the answer.
    fn first_event(&mut self, id: ConnectionId, payload: &[u8]) {
        if let Ok((path, token, cut)) = self.watch_of(id, payload) {
            self.send_event(&path, &Watch { connection: id, token: token.to_vec(), cut }, &path);
        }
    }

    fn unwatch(&mut self, id: ConnectionId, payload: &[u8]) -> Result<(), Errno> {
        let (path, token, _) = self.watch_of(id, payload)?;
        self.watches.remove(&path, id, token)?;
        let connection = self.connections.get_mut(&id).ok_or(Errno::ENOENT)?;
        connection.watches = connection.watches.saturating_sub(1);
        connection.watch_bytes = connection.watch_bytes.saturating_sub(watch::cost(&path, token));
        if let Peer::Domain(domain) = connection.peer {
            self.records.push(Record::Unwatch { domain, path, token: token.to_vec() });
        }
        Ok(())
    }

    /// Forgets watches and transactions of a client.
    fn reset(&mut self, id: ConnectionId) -> Result<(), Errno> {
        self.watches.remove_all(id);
        let connection = self.connections.get_mut(&id).ok_or(Errno::ENOENT)?;
        connection.transactions.clear();
        (connection.watches, connection.watch_bytes) = (0, 0);
        if let Peer::Domain(domain) = connection.peer {
            self.records.push(Record::Reset { domain });
        }
        Ok(())
    }

    fn begin(&mut self, id: ConnectionId) -> Answer {
        let is_privileged = self.who(id).is_privileged();
        let connection = self.connections.get_mut(&id).ok_or(Errno::ENOENT)?;
        if !is_privileged && connection.transactions.len() as u64 >= self.limits.transactions {
            return Err(Errno::ENOSPC);
        }
        let mut number = connection.last_transaction;
        loop {
            number = number.wrapping_add(1);
            if number != 0 && !connection.transactions.contains_key(&number) {
                break;
            }
        }
        connection.last_transaction = number;
        connection.transactions.insert(number, Transaction::start(&self.store));
        if let Peer::Domain(domain) = connection.peer {
            self.records.push(Record::Begun { domain, transaction: number });
        }
        Ok(format!("{number}\0").into_bytes())
    }

    fn end(&mut self, id: ConnectionId, tx: u32, payload: &[u8]) -> Result<(), Errno> {
        let is_commit = match one(payload)? {
            b"T" => true,
            b"F" => false,
            _ => return Err(Errno::EINVAL),
        };
        let who = self.who(id);
        let connection = self.connections.get_mut(&id).ok_or(Errno::ENOENT)?;
        let transaction = connection.transactions.remove(&tx).ok_or(Errno::ENOENT)?;
        if let Peer::Domain(domain) = connection.peer {
            self.records.push(Record::Ended { domain, transaction: tx });
        }
        if is_commit {
            let changes = transaction.commit(&mut self.store, who, &self.limits)?;
            self.publish(&changes);
        }
        Ok(())
    }

    /// Permissions of an event's name: the control domain decides who hears of it.
    fn special_permissions(&mut self, id: ConnectionId, kind: XsMessage, payload: &[u8]) -> Answer {
        let fields = fields(payload);
        let (name, entries) = fields.split_first().ok_or(Errno::EINVAL)?;
        let name = path::node_or_special(name, "", self.path_limit())?;
        let who = self.who(id);
        let place = self.special.get_mut(&name).ok_or(Errno::EINVAL)?;
        if kind == XsMessage::GetPerms {
            return if who.rights(place).read { Ok(perms::print(place)) } else { Err(Errno::EACCES) };
        }
        if !who.is_privileged() {
            return Err(Errno::EACCES);
        }
        *place = perms::parse(entries.iter().copied())?;
        let permissions = place.to_vec();
        self.mention(&permissions);
        self.records.push(Record::Special { path: name, permissions });
        Ok(OK.to_vec())
    }
}

fn is_request(kind: XsMessage) -> bool {
    !matches!(kind, XsMessage::WatchEvent | XsMessage::Error | XsMessage::Invalid)
}

/// Carries out what needs a tree only.
fn node_answer(mut access: Access<'_>, kind: XsMessage, base: &str, payload: &[u8]) -> Answer {
    let most = usize::try_from(access.limits.path).unwrap_or(usize::MAX);
    let node = |name: &[u8]| path::node(name, base, most);
    let done = |(): ()| OK.to_vec();
    match kind {
        XsMessage::Read => access.read(&node(one(payload)?)?).map(|value| value.to_vec()),
        XsMessage::GetPerms => access.permissions(&node(one(payload)?)?).map(|entries| perms::print(&entries)),
        XsMessage::Mkdir => access.mkdir(&node(one(payload)?)?).map(done),
        XsMessage::Rm => access.remove(&node(one(payload)?)?).map(done),
        XsMessage::Directory => {
            let path = node(one(payload)?)?;
            let names = names(access.directory(&path)?.children());
            if names.len() > PAYLOAD_MAX { Err(Errno::E2BIG) } else { Ok(names) }
        }
        XsMessage::DirectoryPart => directory_part(&mut access, &node, payload),
        XsMessage::Write => {
            let end = payload.iter().position(|&byte| byte == 0).ok_or(Errno::EINVAL)?;
            let (name, value) = payload.split_at(end);
            access.write(&node(name)?, value.get(1..).unwrap_or_default()).map(done)
        }
        XsMessage::SetPerms => {
            let fields = fields(payload);
            let (name, entries) = fields.split_first().ok_or(Errno::EINVAL)?;
            let path = node(name)?;
            access.set_permissions(&path, perms::parse(entries.iter().copied())?).map(done)
        }
        _ => Err(Errno::ENOSYS),
    }
}

fn names<'a>(children: impl Iterator<Item = &'a str>) -> Vec<u8> {
    children.flat_map(|name| name.bytes().chain([0])).collect()
}

/// A part of the children: generation, then as many whole names from an offset as fit, and an empty one at the end.
fn directory_part(access: &mut Access<'_>, node: &dyn Fn(&[u8]) -> Result<String, Errno>, payload: &[u8]) -> Answer {
    let fields = fields(payload);
    let [name, offset] = fields.as_slice() else {
        return Err(Errno::EINVAL);
    };
    let (path, offset) = (node(name)?, number::<usize>(offset)?);
    let node = access.directory(&path)?;
    let names = names(node.children());
    let mut answer = format!("{}\0", node.children_generation()).into_bytes();
    let rest = names.get(offset..).unwrap_or_default();
    let room = (PAYLOAD_MAX - answer.len() - 1).min(rest.len());
    let whole = rest.get(..room).and_then(|part| part.iter().rposition(|&byte| byte == 0)).map_or(0, |last| last + 1);
    answer.extend_from_slice(rest.get(..whole).unwrap_or_default());
    if whole == rest.len() {
        answer.push(0);
    }
    Ok(answer)
}
