//! A file system in memory: what an initramfs will hold.
//!
//! Paths are relative to the root and without a leading slash in the archive; callers may write them with one. Parent
//! folders come by themselves. [`super::cpio`] writes the tree out.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder.
    Directory,
    /// A regular file with its contents.
    File(Vec<u8>),
    /// A symbolic link with its target.
    Symlink(String),
    /// A character device node.
    CharDevice {
        /// Major number, as in Linux's devices.txt.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One path's kind and permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Permission bits, 0..=0o7777.
    pub(crate) mode: u32,
    /// What it is.
    pub(crate) kind: Kind,
}

/// The whole file system, in path order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// An empty file system.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// All nodes in path order; parents come before what they hold.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Whether something stands at the path.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(relative(path))
    }

    /// Makes a folder with mode 0755.
    pub(crate) fn directory(&mut self, path: &str) {
        self.insert(path, 0o755, Kind::Directory);
    }

    /// Puts a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: Vec<u8>) {
        self.insert(path, mode, Kind::File(contents));
    }

    /// Puts a symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, 0o777, Kind::Symlink(target.to_owned()));
    }

    /// Puts a character device.
    pub(crate) fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.insert(path, mode, Kind::CharDevice { major, minor });
    }

    /// Copies a file of the development machine; an executable one becomes 0755, others 0644.
    pub(crate) fn copy(&mut self, path: &str, host: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;

        let meta = std::fs::metadata(host).with_context(|| format!("cannot read {}", host.display()))?;
        anyhow::ensure!(meta.is_file(), "{} is not a regular file", host.display());
        let contents = std::fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
        let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        self.file(path, mode, contents);
        Ok(())
    }

    /// The same tree below a folder.
    pub(crate) fn below(&self, folder: &str) -> Self {
        let mut tree = Self::new();
        for (path, node) in self.iter() {
            tree.insert(&format!("{folder}/{path}"), node.mode, node.kind.clone());
        }
        tree
    }

    fn insert(&mut self, path: &str, mode: u32, kind: Kind) {
        let path = relative(path);
        for (at, _) in path.match_indices('/') {
            self.nodes.entry(path[..at].to_owned()).or_insert(Node { mode: 0o755, kind: Kind::Directory });
        }
        self.nodes.insert(path.to_owned(), Node { mode, kind });
    }
}

fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_made_once_and_keep_their_mode() {
        let mut tree = Tree::new();
        tree.insert("tmp", 0o1777, Kind::Directory);
        tree.file("/tmp/deep/file", 0o600, vec![1]);
        let nodes: Vec<_> = tree.iter().map(|(path, node)| (path, node.mode)).collect();
        assert_eq!(nodes, [("tmp", 0o1777), ("tmp/deep", 0o755), ("tmp/deep/file", 0o600)]);
    }

    #[test]
    fn a_missing_host_file_is_named() {
        let error = Tree::new().copy("x", Path::new("/no/such/file")).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/file"));
    }
}
