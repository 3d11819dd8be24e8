//! Limits of what a domain may have, with the names and values of Xen 4.17's C xenstored.
//!
//! They bind every domain but the control domain. `options` changes them at start, CONTROL's `quota` while it runs.

/// The limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Nodes that a domain owns (`-E`, `nodes`).
    pub(crate) nodes: u64,
    /// Bytes of a node: value, permissions and names of children (`-S`, `node-size`).
    pub(crate) node_size: u64,
    /// Watches (`-W`, `watches`).
    pub(crate) watches: u64,
    /// Open transactions (`-t`, `transactions`).
    pub(crate) transactions: u64,
    /// Entries of a node's permissions (`-A`, `node-permissions`).
    pub(crate) permissions: u64,
    /// Bytes of a path, below a domain's home if it begins with one (`-M`, `path-max`).
    pub(crate) path: u64,
    /// Answers that a domain has not taken: it is not read from until there are fewer (`-Q outstanding=`).
    pub(crate) outstanding: u64,
    /// Nodes that one transaction has touched (`-Q transaction-nodes=`).
    pub(crate) transaction_nodes: u64,
    /// Bytes of its nodes, watches and transactions, and of what it has not taken; 0 for no limit (`-Q memory=`).
    pub(crate) memory: u64,
    /// Bytes above which the log says so (`-q memory=`).
    pub(crate) memory_soft: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            nodes: 1000,
            node_size: 2048,
            watches: 128,
            transactions: 10,
            permissions: 5,
            path: 3072,
            outstanding: 20,
            transaction_nodes: 1024,
            memory: 2 << 20 | 512 << 10,
            memory_soft: 2 << 20,
        }
    }
}

/// A limit by its name: the name, what it says, and where it is.
type Named = (&'static str, &'static str, fn(&mut Limits) -> &mut u64);

const NAMED: [Named; 9] = [
    ("nodes", "nodes a domain owns", |limits| &mut limits.nodes),
    ("node-size", "bytes of a node", |limits| &mut limits.node_size),
    ("watches", "watches of a domain", |limits| &mut limits.watches),
    ("transactions", "open transactions of a domain", |limits| &mut limits.transactions),
    ("node-permissions", "permissions of a node", |limits| &mut limits.permissions),
    ("path-max", "bytes of a path", |limits| &mut limits.path),
    ("outstanding", "answers a domain has not taken", |limits| &mut limits.outstanding),
    ("transaction-nodes", "nodes of a transaction", |limits| &mut limits.transaction_nodes),
    ("memory", "bytes of a domain", |limits| &mut limits.memory),
];

impl Limits {
    /// Sets one by its name; `false` if there is none of that name.
    pub(crate) fn set(&mut self, name: &str, value: u64) -> bool {
        let found = NAMED.iter().find(|(known, _, _)| *known == name);
        if let Some((_, _, place)) = found {
            *place(self) = value;
        }
        found.is_some()
    }

    /// A line for each.
    pub(crate) fn print(&self) -> String {
        let mut copy = self.clone();
        NAMED.iter().map(|(name, what, place)| format!("{name:17}: {:8} {what}\n", *place(&mut copy))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_names() {
        let mut limits = Limits::default();
        assert!(limits.set("outstanding", 7) && !limits.set("nothing", 1));
        assert_eq!(limits.outstanding, 7);
        let printed = limits.print();
        assert!(printed.contains("outstanding      :        7 answers"), "{printed}");
        assert_eq!(printed.lines().count(), NAMED.len());
    }
}
