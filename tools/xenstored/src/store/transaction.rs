//! A transaction: a tree of its own, and what it looked at and changed in it ([`Trace`]).
//!
//! At the end all that it looked at must be in the store as it was at the start; then its changes are carried over, as if
//! everything had happened at this moment. If not, the client hears EAGAIN and starts again. Two transactions that make different
//! children of one node do not disturb each other.

use std::collections::BTreeMap;
use std::rc::Rc;

use public_abi::Errno;

use super::Tree;
use super::access::{Change, Trace};
use crate::limits::Limits;
use crate::perms::Who;

/// An open transaction.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    /// The store at its start.
    base: Tree,
    /// The store as the transaction sees it.
    pub(crate) work: Tree,
    /// Its notes.
    pub(crate) trace: Trace,
    /// It was open when the daemon was killed, and can only end with EAGAIN.
    is_lost: bool,
}

impl Transaction {
    /// Begins.
    pub(crate) fn start(store: &Tree) -> Transaction {
        Transaction { base: store.clone(), work: store.clone(), trace: Trace::default(), is_lost: false }
    }

    /// One that an earlier daemon began: what it did there is forgotten.
    pub(crate) fn lost(store: &Tree) -> Transaction {
        Transaction { is_lost: true, ..Transaction::start(store) }
    }

    /// Ends: carries the changes over to the store, and gives them.
    ///
    /// # Errors
    /// EAGAIN if others were in its way, ENOSPC if the client's domain would have too many nodes. The store is as before.
    pub(crate) fn commit(self, store: &mut Tree, who: Who, limits: &Limits) -> Result<BTreeMap<String, Change>, Errno> {
        if self.is_lost || !self.trace.holds(&self.base, store) {
            return Err(Errno::EAGAIN);
        }
        let nodes = |tree: &Tree| tree.usage(who.domain).nodes;
        let more = nodes(&self.work).saturating_sub(nodes(&self.base));
        if !who.is_privileged() && more > 0 && nodes(store) + more > limits.nodes {
            return Err(Errno::ENOSPC);
        }
        // Parents come before their children, as paths are ordered.
        for path in self.trace.changes.keys() {
            match self.work.get(path) {
                Some(node) => {
                    store.set(path, Rc::clone(&node.value), Rc::clone(&node.permissions));
                }
                None => {
                    store.remove(path);
                }
            }
        }
        Ok(self.trace.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Access;
    use super::*;

    /// Does something in a tree as the control domain.
    fn with<R>(tree: &mut Tree, trace: &mut Trace, work: impl FnOnce(&mut Access<'_>) -> R) -> R {
        let limits = Limits::default();
        work(&mut Access { tree, trace, who: Who::CONTROL, limits: &limits, other_bytes: 0, in_transaction: true })
    }

    fn write(transaction: &mut Transaction, path: &str) {
        with(&mut transaction.work, &mut transaction.trace, |access| access.write(path, b"1")).expect("writes");
    }

    fn end(transaction: Transaction, store: &mut Tree) -> Result<Vec<String>, Errno> {
        let changes = transaction.commit(store, Who::CONTROL, &Limits::default())?;
        assert!(store.is_consistent());
        Ok(changes.into_keys().collect())
    }

    fn store(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            with(&mut tree, &mut Trace::default(), |access| access.write(path, b"0")).expect("writes");
        }
        tree
    }

    #[test]
    fn children_of_one_node_do_not_disturb_each_other() {
        let mut store = store(&["/a"]);
        let (mut one, mut two) = (Transaction::start(&store), Transaction::start(&store));
        write(&mut one, "/a/1");
        write(&mut two, "/a/2/3");
        assert_eq!(end(one, &mut store), Ok(vec!["/a/1".into()]));
        assert_eq!(end(two, &mut store), Ok(vec!["/a/2".into(), "/a/2/3".into()]));
        assert!(store.get("/a/1").is_some() && store.get("/a/2/3").is_some());
    }

    #[test]
    fn what_was_looked_at_must_not_have_changed() {
        let mut store = store(&["/a/b", "/c"]);
        let mut reader = Transaction::start(&store);
        let mut lister = Transaction::start(&store);
        let mut misser = Transaction::start(&store);
        let mut other = Transaction::start(&store);
        let read = |transaction: &mut Transaction, path: &str| {
            with(&mut transaction.work, &mut transaction.trace, |access| access.read(path)).map(|value| value.to_vec())
        };
        assert_eq!(read(&mut reader, "/a/b"), Ok(b"0".to_vec()));
        with(&mut lister.work, &mut lister.trace, |access| access.directory("/a").map(|_| ())).expect("lists");
        assert_eq!(read(&mut misser, "/a/new"), Err(Errno::ENOENT));
        assert_eq!(read(&mut other, "/c"), Ok(b"0".to_vec()));

        let mut writer = Transaction::start(&store);
        write(&mut writer, "/a/b");
        write(&mut writer, "/a/new");
        end(writer, &mut store).expect("is the first");
        assert_eq!(read(&mut reader, "/a/b"), Ok(b"0".to_vec()), "a transaction sees one moment");
        for transaction in [reader, lister, misser] {
            assert_eq!(end(transaction, &mut store), Err(Errno::EAGAIN));
        }
        assert_eq!(end(other, &mut store), Ok(vec![]));
    }

    #[test]
    fn a_removal_and_what_came_after_it() {
        let mut store = store(&["/a/b/c", "/a/d"]);
        let mut transaction = Transaction::start(&store);
        with(&mut transaction.work, &mut transaction.trace, |access| access.remove("/a")).expect("removes");
        write(&mut transaction, "/a/b");
        end(transaction.clone(), &mut store).expect("nobody is in the way");
        assert!(store.get("/a/b").is_some() && store.get("/a/b/c").is_none() && store.get("/a/d").is_none());
        assert_eq!(end(transaction, &mut store), Err(Errno::EAGAIN), "not a second time");
    }

    #[test]
    fn a_lost_transaction_only_ends() {
        let mut store = store(&[]);
        assert_eq!(end(Transaction::lost(&store.clone()), &mut store), Err(Errno::EAGAIN));
    }
}
