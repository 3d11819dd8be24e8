//! The store: a tree of nodes of which a copy costs nothing.
//!
//! A [`Tree`] is cloned by sharing its root; whoever changes a node afterwards gets a node of its own, and the nodes on the way
//! to it. That is how a transaction sees one moment. Paths are valid (`crate::path`); nobody is asked for permission here: that
//! is [`access`]'s work, which comes next.

pub(crate) mod access;
pub(crate) mod transaction;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::path;
use crate::perms::{self, Permissions};

/// Bytes that a node costs beside what it holds.
const NODE_COST: u64 = 64;

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The value.
    pub(crate) value: Rc<[u8]>,
    /// The permissions.
    pub(crate) permissions: Permissions,
    children: BTreeMap<Rc<str>, Rc<Node>>,
    /// When value or permissions changed last.
    generation: u64,
    /// When a child came or went last.
    children_generation: u64,
}

impl Node {
    /// The names of the children, in order.
    pub(crate) fn children(&self) -> impl Iterator<Item = &str> {
        self.children.keys().map(|name| &**name)
    }

    /// The generation that DIRECTORY_PART tells.
    pub(crate) fn children_generation(&self) -> u64 {
        self.children_generation
    }

    /// Bytes that count against `node-size`, for a node with these in it.
    pub(crate) fn size(value: usize, permissions: usize, children: impl Iterator<Item = usize>) -> u64 {
        let names: usize = children.map(|length| length + 1).sum();
        (value + permissions * size_of::<crate::perms::Permission>() + names) as u64
    }

    /// Bytes that it counts for in its owner's memory.
    fn cost(&self, name: &str) -> u64 {
        NODE_COST + (self.value.len() + self.permissions.len() * 4 + 2 * name.len()) as u64
    }
}

/// What a domain owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Nodes.
    pub(crate) nodes: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// The nodes.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Rc<Node>,
    usage: BTreeMap<u16, Usage>,
    /// The last generation that was given out.
    generation: u64,
}

impl Tree {
    /// A root that belongs to the control domain.
    pub(crate) fn new() -> Tree {
        let root = Node {
            value: Rc::new([]),
            permissions: perms::private(0),
            children: BTreeMap::new(),
            generation: 0,
            children_generation: 0,
        };
        let usage = BTreeMap::from([(0, Usage { nodes: 1, bytes: root.cost("") })]);
        Tree { root: Rc::new(root), usage, generation: 0 }
    }

    /// A node.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        path::parts(path).try_fold(&*self.root, |node, part| node.children.get(part).map(|child| &**child))
    }

    /// What a domain owns.
    pub(crate) fn usage(&self, domain: u16) -> Usage {
        self.usage.get(&domain).copied().unwrap_or_default()
    }

    /// What every domain owns.
    pub(crate) fn usages(&self) -> impl Iterator<Item = (u16, Usage)> {
        self.usage.iter().map(|(domain, usage)| (*domain, *usage))
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> u64 {
        self.usage.values().map(|usage| usage.nodes).sum()
    }

    fn edit(&mut self, path: &str) -> Option<&mut Node> {
        // Looked up first, so that a node that is not there costs no copies.
        self.get(path)?;
        path::parts(path)
            .try_fold(Rc::make_mut(&mut self.root), |node, part| node.children.get_mut(part).map(Rc::make_mut))
    }

    fn charge(&mut self, owner: u16, bytes: u64) {
        let usage = self.usage.entry(owner).or_default();
        usage.nodes += 1;
        usage.bytes += bytes;
    }

    fn refund(&mut self, owner: u16, nodes: u64, bytes: u64) {
        if let Some(usage) = self.usage.get_mut(&owner) {
            usage.nodes = usage.nodes.saturating_sub(nodes);
            usage.bytes = usage.bytes.saturating_sub(bytes);
            if usage.nodes == 0 {
                self.usage.remove(&owner);
            }
        }
    }

    /// Sets value and permissions of a node, and makes it if its parent is there; `false` if that is not.
    pub(crate) fn set(&mut self, path: &str, value: Rc<[u8]>, permissions: Permissions) -> bool {
        self.generation += 1;
        let generation = self.generation;
        let (name, owner) = (path::leaf(path), perms::owner(&permissions));
        let (before, cost) = match path::parent(path) {
            Some(above) => {
                let Some(parent) = self.edit(above) else {
                    return false;
                };
                match parent.children.get_mut(name) {
                    Some(node) => change(Rc::make_mut(node), name, value, permissions, generation),
                    None => {
                        let children = BTreeMap::new();
                        let node = Node { value, permissions, children, generation, children_generation: generation };
                        let cost = node.cost(name);
                        parent.children.insert(name.into(), Rc::new(node));
                        parent.children_generation = generation;
                        (None, cost)
                    }
                }
            }
            None => change(Rc::make_mut(&mut self.root), name, value, permissions, generation),
        };
        if let Some((owner, cost)) = before {
            self.refund(owner, 1, cost);
        }
        self.charge(owner, cost);
        true
    }

    /// Removes a node with all below it; `false` if it is not there, or the root.
    pub(crate) fn remove(&mut self, path: &str) -> bool {
        if self.get(path).is_none() {
            return false;
        }
        self.generation += 1;
        let generation = self.generation;
        let Some(parent) = path::parent(path).and_then(|parent| self.edit(parent)) else {
            return false;
        };
        let Some(removed) = parent.children.remove(path::leaf(path)) else {
            return false;
        };
        parent.children_generation = generation;
        let mut gone = Vec::new();
        walk_node(path, &removed, &mut |path, node| {
            gone.push((perms::owner(&node.permissions), node.cost(path::leaf(path))));
        });
        for (owner, bytes) in gone {
            self.refund(owner, 1, bytes);
        }
        true
    }

    /// Shows every node to `visit`, parents first.
    pub(crate) fn walk(&self, visit: &mut impl FnMut(&str, &Node)) {
        walk_node("/", &self.root, visit);
    }

    /// As [`Tree::walk`], of a node and those below it.
    pub(crate) fn walk_from(&self, path: &str, visit: &mut impl FnMut(&str, &Node)) {
        if let Some(node) = self.get(path) {
            walk_node(path, node, visit);
        }
    }

    /// Whether the sums are right; for CONTROL's `check` and for tests.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut usage: BTreeMap<u16, Usage> = BTreeMap::new();
        self.walk(&mut |path, node| {
            let sum = usage.entry(perms::owner(&node.permissions)).or_default();
            sum.nodes += 1;
            sum.bytes += node.cost(path::leaf(path));
        });
        usage == self.usage
    }
}

/// Changes a node that is there. Gives whose it was and what it cost, and what it costs.
fn change(
    node: &mut Node,
    name: &str,
    value: Rc<[u8]>,
    permissions: Permissions,
    generation: u64,
) -> (Option<(u16, u64)>, u64) {
    let before = (perms::owner(&node.permissions), node.cost(name));
    (node.value, node.permissions, node.generation) = (value, permissions, generation);
    (Some(before), node.cost(name))
}

fn walk_node(path: &str, node: &Node, visit: &mut impl FnMut(&str, &Node)) {
    // Not recursive: a path has up to 1500 parts.
    let mut left = vec![(path.to_owned(), node)];
    while let Some((path, node)) = left.pop() {
        visit(&path, node);
        left.extend(node.children.iter().rev().map(|(name, child)| (path::child(&path, name), &**child)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            assert!(tree.set(path, Rc::from(path.as_bytes()), perms::private(3)), "{path} has a parent");
        }
        tree
    }

    #[test]
    fn a_copy_keeps_its_moment() {
        let mut tree = with(&["/a", "/a/b", "/c"]);
        let copy = tree.clone();
        assert!(tree.set("/a/b", Rc::from(&b"new"[..]), perms::private(4)));
        assert!(tree.remove("/c"));
        assert_eq!(&*copy.get("/a/b").expect("is there").value, b"/a/b");
        assert!(copy.get("/c").is_some() && tree.get("/c").is_none());
        assert_eq!((copy.usage(3).nodes, tree.usage(3).nodes, tree.usage(4).nodes), (3, 1, 1));
        assert!(copy.is_consistent() && tree.is_consistent());
    }

    #[test]
    fn a_node_needs_its_parent_and_goes_with_it() {
        let mut tree = with(&["/a", "/a/b", "/a/b/c"]);
        assert!(!tree.set("/x/y", Rc::new([]), perms::private(3)));
        assert!(!tree.remove("/x") && !tree.remove("/"));
        assert!(tree.remove("/a/b"));
        assert_eq!((tree.len(), tree.usage(3).nodes), (2, 1));
        assert!(tree.is_consistent());
    }

    #[test]
    fn walks_go_from_parents_to_children_in_order() {
        let mut seen = Vec::new();
        with(&["/b", "/a", "/a/c", "/a/b"]).walk(&mut |path, _| seen.push(path.to_owned()));
        assert_eq!(seen, ["/", "/a", "/a/b", "/a/c", "/b"]);
    }
}
