//! What a client may do to a tree: permissions and limits are asked for here, and what was looked at and changed is noted.
//!
//! The notes are a [`Trace`]. A transaction needs both halves: what it looked at must still be so when it ends, and what it
//! changed is carried over. Without a transaction only the changes count: they become records and watch events
//! (`crate::engine::changes`).

use std::collections::BTreeMap;
use std::rc::Rc;

use public_abi::Errno;

use super::{Node, Tree};
use crate::limits::Limits;
use crate::path;
use crate::perms::{self, Permission, Permissions, Rights, Who};

/// Bytes that a note costs beside its path.
const NOTE_COST: usize = 96;

/// Who is told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// Nobody: a node that was made on the way to another, of which everyone hears.
    Nobody,
    /// Watches of this very path: it went with a node above, of which everyone hears.
    Here,
    /// Watches of this path and those above.
    Everyone,
}

/// A path whose node came, went or became another.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The permissions before; `None` if there was no node.
    pub(crate) before: Option<Permissions>,
    /// Who is told.
    pub(crate) told: Told,
}

/// What was looked at in a node, or in the absence of one.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The names of the children, beside value and permissions.
    children: bool,
}

/// What was looked at and what was changed, by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    seen: BTreeMap<String, Seen>,
    /// Bytes of all this, and of values that were written.
    bytes: usize,
    /// The changes.
    pub(crate) changes: BTreeMap<String, Change>,
}

impl Trace {
    fn see(&mut self, path: &str, children: bool) {
        match self.seen.get_mut(path) {
            Some(seen) => seen.children |= children,
            None => {
                self.bytes += NOTE_COST + path.len();
                self.seen.insert(path.to_owned(), Seen { children });
            }
        }
    }

    fn change(&mut self, path: &str, before: Option<Permissions>, told: Told) {
        let bytes = &mut self.bytes;
        let change = self.changes.entry(path.to_owned()).or_insert_with(|| {
            *bytes += NOTE_COST + path.len();
            Change { before, told }
        });
        change.told = change.told.max(told);
    }

    /// Whether all that was looked at is the same in both trees.
    pub(super) fn holds(&self, then: &Tree, now: &Tree) -> bool {
        self.seen.iter().all(|(path, seen)| match (then.get(path), now.get(path)) {
            (None, None) => true,
            (Some(then), Some(now)) => {
                then.generation == now.generation
                    && (!seen.children || then.children_generation == now.children_generation)
            }
            _ => false,
        })
    }

    /// Bytes that it costs.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many paths were looked at; those that were changed are among them.
    fn looked_at(&self) -> usize {
        self.seen.len()
    }
}

/// A client's hands on a tree.
pub(crate) struct Access<'a> {
    /// The tree.
    pub(crate) tree: &'a mut Tree,
    /// Where notes go.
    pub(crate) trace: &'a mut Trace,
    /// The client.
    pub(crate) who: Who,
    /// The limits.
    pub(crate) limits: &'a Limits,
    /// Bytes that the client's domain has beside its nodes.
    pub(crate) other_bytes: u64,
    /// Whether the notes are a transaction's, which has a limit of its own.
    pub(crate) in_transaction: bool,
}

impl Access<'_> {
    /// A node, if the client may do this to it.
    ///
    /// # Errors
    /// EACCES if it may not, ENOENT if there is none, which is told only to those who could have made it.
    fn look(&mut self, path: &str, wanted: Rights) -> Result<&Node, Errno> {
        self.check_room()?;
        for nearest in path::ancestors(path) {
            self.trace.see(nearest, false);
            if let Some(node) = self.tree.get(nearest) {
                if !self.who.rights(&node.permissions).cover(wanted) {
                    return Err(Errno::EACCES);
                }
                break;
            }
        }
        self.tree.get(path).ok_or(Errno::ENOENT)
    }

    fn check_room(&self) -> Result<(), Errno> {
        if !self.in_transaction || self.who.is_privileged() {
            return Ok(());
        }
        if self.trace.looked_at() as u64 >= self.limits.transaction_nodes {
            return Err(Errno::ENOSPC);
        }
        self.check_memory(0)
    }

    /// The value.
    ///
    /// # Errors
    /// As `look`.
    pub(crate) fn read(&mut self, path: &str) -> Result<Rc<[u8]>, Errno> {
        self.look(path, Rights::READ).map(|node| Rc::clone(&node.value))
    }

    /// The node, for the names of its children.
    ///
    /// # Errors
    /// As `look`.
    pub(crate) fn directory(&mut self, path: &str) -> Result<&Node, Errno> {
        self.look(path, Rights::READ)?;
        self.trace.see(path, true);
        self.tree.get(path).ok_or(Errno::ENOENT)
    }

    /// The permissions.
    ///
    /// # Errors
    /// As `look`.
    pub(crate) fn permissions(&mut self, path: &str) -> Result<Permissions, Errno> {
        self.look(path, Rights::READ).map(|node| Rc::clone(&node.permissions))
    }

    /// Sets a value; makes the node and those above it where they are missing.
    ///
    /// # Errors
    /// As `look`, ENOSPC or ENOMEM above a limit.
    pub(crate) fn write(&mut self, path: &str, value: &[u8]) -> Result<(), Errno> {
        match self.look(path, Rights::WRITE) {
            Ok(node) => {
                let (permissions, old) = (Rc::clone(&node.permissions), node.value.len());
                self.check_size(path, value.len(), permissions.len(), None)?;
                if perms::owner(&permissions) == self.who.domain {
                    self.check_memory(value.len().saturating_sub(old))?;
                }
                let is_first = !self.trace.changes.contains_key(path);
                self.trace.change(path, Some(Rc::clone(&permissions)), Told::Everyone);
                // The first value that is written over is the store's, each further one the transaction's.
                self.trace.bytes = (self.trace.bytes + value.len()).saturating_sub(if is_first { 0 } else { old });
                self.tree.set(path, value.into(), permissions);
                Ok(())
            }
            Err(Errno::ENOENT) => self.make(path, value),
            Err(error) => Err(error),
        }
    }

    /// Makes a node and those above it where they are missing.
    ///
    /// # Errors
    /// As [`Access::write`].
    pub(crate) fn mkdir(&mut self, path: &str) -> Result<(), Errno> {
        match self.look(path, Rights::WRITE) {
            Ok(_) => Ok(()),
            Err(Errno::ENOENT) => self.make(path, &[]),
            Err(error) => Err(error),
        }
    }

    /// Makes a node that is missing. `look` has asked the nearest one above whether it may be written.
    fn make(&mut self, path: &str, value: &[u8]) -> Result<(), Errno> {
        let missing: Vec<&str> = path::ancestors(path).take_while(|path| self.tree.get(path).is_none()).collect();
        let above = missing.last().and_then(|path| path::parent(path)).ok_or(Errno::EINVAL)?;
        let inherited = self.tree.get(above).map(|node| Rc::clone(&node.permissions)).ok_or(Errno::ENOENT)?;
        let permissions = self.own(inherited);
        if !self.who.is_privileged() {
            let first = missing.last().map(|path| path::leaf(path));
            self.check_parent(above, first)?;
            self.check_size(path, value.len(), permissions.len(), None)?;
            if self.tree.usage(self.who.domain).nodes + missing.len() as u64 > self.limits.nodes {
                return Err(Errno::ENOSPC);
            }
            self.check_memory(value.len() + missing.iter().map(|path| 128 + path.len()).sum::<usize>())?;
        }
        for between in missing.iter().skip(1).rev() {
            self.trace.change(between, None, Told::Nobody);
            self.tree.set(between, Rc::new([]), Rc::clone(&permissions));
        }
        self.trace.change(path, None, Told::Everyone);
        self.trace.bytes += value.len();
        self.tree.set(path, value.into(), permissions);
        Ok(())
    }

    /// What a new node has: its parent's permissions, with the client as its owner, unless that is the control domain.
    fn own(&self, inherited: Permissions) -> Permissions {
        if self.who.is_privileged() {
            return inherited;
        }
        let mut entries: Vec<Permission> = inherited.to_vec();
        if let Some(first) = entries.first_mut() {
            first.domain = self.who.domain;
        }
        entries.into()
    }

    fn check_parent(&self, above: &str, new_child: Option<&str>) -> Result<(), Errno> {
        match self.tree.get(above) {
            Some(node) => self.check_size(above, node.value.len(), node.permissions.len(), new_child),
            None => Ok(()),
        }
    }

    fn check_size(&self, path: &str, value: usize, permissions: usize, new_child: Option<&str>) -> Result<(), Errno> {
        if self.who.is_privileged() {
            return Ok(());
        }
        let children = self.tree.get(path).into_iter().flat_map(Node::children).chain(new_child).map(str::len);
        let size = Node::size(value, permissions, children);
        if size > self.limits.node_size { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    fn check_memory(&self, more: usize) -> Result<(), Errno> {
        if self.who.is_privileged() || self.limits.memory == 0 {
            return Ok(());
        }
        let bytes = self.tree.usage(self.who.domain).bytes + self.other_bytes + more as u64;
        if bytes > self.limits.memory { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Removes a node and all below it. One that is missing is no error if its parent is there.
    ///
    /// # Errors
    /// EINVAL for the root, otherwise as `look`.
    pub(crate) fn remove(&mut self, path: &str) -> Result<(), Errno> {
        let parent = path::parent(path).ok_or(Errno::EINVAL)?;
        match self.look(path, Rights::WRITE).map(|_| ()) {
            Ok(()) => {}
            Err(Errno::ENOENT) if self.tree.get(parent).is_some() => return Ok(()),
            Err(error) => return Err(error),
        }
        let (tree, trace) = (&mut *self.tree, &mut *self.trace);
        tree.walk_from(path, &mut |below, node| {
            trace.see(below, true);
            let told = if below == path { Told::Everyone } else { Told::Here };
            trace.change(below, Some(Rc::clone(&node.permissions)), told);
        });
        tree.remove(path);
        Ok(())
    }

    /// Sets the permissions.
    ///
    /// # Errors
    /// As `look`; EACCES for who is not the owner; EPERM for a domain that gives its node away; ENOSPC for too many.
    pub(crate) fn set_permissions(&mut self, path: &str, permissions: Permissions) -> Result<(), Errno> {
        let who = self.who;
        if !who.is_privileged() && permissions.len() as u64 > self.limits.permissions {
            return Err(Errno::ENOSPC);
        }
        let node = self.look(path, Rights::WRITE)?;
        let (before, value) = (Rc::clone(&node.permissions), Rc::clone(&node.value));
        if !who.owns(&before) {
            return Err(Errno::EACCES);
        }
        if !who.is_privileged() && perms::owner(&permissions) != perms::owner(&before) {
            return Err(Errno::EPERM);
        }
        self.check_size(path, value.len(), permissions.len(), None)?;
        self.trace.change(path, Some(before), Told::Everyone);
        self.tree.set(path, value, permissions);
        Ok(())
    }
}
