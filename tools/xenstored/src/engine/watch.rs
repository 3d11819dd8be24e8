//! Who watches what, ordered by path, so that an event finds its watches without asking all of them.

use std::collections::BTreeMap;

use public_abi::Errno;

use super::ConnectionId;
use crate::path;
use crate::store::access::Told;

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    /// Whose.
    pub(crate) connection: ConnectionId,
    /// What its events carry.
    pub(crate) token: Vec<u8>,
    /// Bytes to take off the front of its events' paths: it was set with a relative path.
    pub(crate) cut: u16,
}

/// Bytes that a watch counts for in its domain's memory.
pub(crate) fn cost(path: &str, token: &[u8]) -> u64 {
    96 + (path.len() + token.len()) as u64
}

/// All watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches {
    by_path: BTreeMap<String, Vec<Watch>>,
}

impl Watches {
    /// Adds one.
    ///
    /// # Errors
    /// EEXIST if the connection has one with this path and token.
    pub(crate) fn add(&mut self, path: &str, watch: Watch) -> Result<(), Errno> {
        let here = self.by_path.entry(path.to_owned()).or_default();
        if here.iter().any(|other| other.connection == watch.connection && other.token == watch.token) {
            return Err(Errno::EEXIST);
        }
        here.push(watch);
        Ok(())
    }

    /// Removes one.
    ///
    /// # Errors
    /// ENOENT if there is no such watch.
    pub(crate) fn remove(&mut self, path: &str, connection: ConnectionId, token: &[u8]) -> Result<(), Errno> {
        let here = self.by_path.get_mut(path).ok_or(Errno::ENOENT)?;
        let is_it = |watch: &Watch| watch.connection == connection && watch.token == token;
        let index = here.iter().position(is_it).ok_or(Errno::ENOENT)?;
        here.remove(index);
        if here.is_empty() {
            self.by_path.remove(path);
        }
        Ok(())
    }

    /// Removes all of a connection.
    pub(crate) fn remove_all(&mut self, connection: ConnectionId) {
        self.by_path.retain(|_, here| {
            here.retain(|watch| watch.connection != connection);
            !here.is_empty()
        });
    }

    /// Those that hear of a change, with the paths they watch.
    pub(crate) fn matching(&self, changed: &str, told: Told) -> Vec<(String, Watch)> {
        let depth = match told {
            Told::Nobody => 0,
            Told::Here => 1,
            Told::Everyone => usize::MAX,
        };
        // An event's name has nothing above it.
        let paths = path::ancestors(changed).filter(|path| !path.is_empty()).take(depth);
        let found = paths.filter_map(|path| self.by_path.get_key_value(path));
        found.flat_map(|(path, here)| here.iter().map(|watch| (path.clone(), watch.clone()))).collect()
    }

    /// All, with their paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Watch)> {
        self.by_path.iter().flat_map(|(path, here)| here.iter().map(|watch| (path.as_str(), watch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_find_their_watches() {
        let mut watches = Watches::default();
        let watch = |number| Watch { connection: ConnectionId(number), token: b"t".to_vec(), cut: 0 };
        for (number, path) in ["/", "/a", "/a/b", "/ab", "@releaseDomain"].iter().enumerate() {
            watches.add(path, watch(number as u64)).expect("is new");
        }
        assert_eq!(watches.add("/a", watch(1)), Err(Errno::EEXIST));
        let found = |path: &str, told| {
            watches.matching(path, told).into_iter().map(|(_, watch)| watch.connection.0).collect::<Vec<_>>()
        };
        assert_eq!(found("/a/b/c", Told::Everyone), [2, 1, 0]);
        assert_eq!(found("/a/b", Told::Here), [2]);
        assert_eq!(found("/a/b", Told::Nobody), [0; 0]);
        assert_eq!(found("/ab", Told::Everyone), [3, 0]);
        assert_eq!(found("@releaseDomain", Told::Everyone), [4]);
        assert_eq!(watches.remove("/a", ConnectionId(7), b"t"), Err(Errno::ENOENT));
        watches.remove_all(ConnectionId(1));
        assert_eq!(watches.remove("/a", ConnectionId(1), b"t"), Err(Errno::ENOENT));
        assert_eq!(watches.iter().count(), 4);
    }
}
