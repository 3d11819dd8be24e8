//! Permissions of a node: who owns it, and what others may do (docs/misc/xenstore.txt, GET_PERMS and SET_PERMS).
//!
//! The first entry names the owner, who may do everything, and what those may do whom no other entry names. The control
//! domain may do everything everywhere.

use std::rc::Rc;

use public_abi::Errno;
use serde::{Deserialize, Serialize};

/// What an entry allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rights {
    /// Reading the value, the children and the permissions, and seeing changes.
    pub(crate) read: bool,
    /// Writing the value, making children, removing.
    pub(crate) write: bool,
}

impl Rights {
    /// Nothing.
    pub(crate) const NONE: Rights = Rights { read: false, write: false };
    /// Reading.
    pub(crate) const READ: Rights = Rights { read: true, write: false };
    /// Writing.
    pub(crate) const WRITE: Rights = Rights { read: false, write: true };
    /// Reading and writing.
    pub(crate) const BOTH: Rights = Rights { read: true, write: true };

    /// Whether these cover those that are wanted.
    pub(crate) fn cover(self, wanted: Rights) -> bool {
        (self.read || !wanted.read) && (self.write || !wanted.write)
    }

    fn letter(self) -> char {
        match (self.read, self.write) {
            (false, false) => 'n',
            (true, false) => 'r',
            (false, true) => 'w',
            (true, true) => 'b',
        }
    }

    fn from_letter(letter: u8) -> Option<Rights> {
        match letter {
            b'n' => Some(Rights::NONE),
            b'r' => Some(Rights::READ),
            b'w' => Some(Rights::WRITE),
            b'b' => Some(Rights::BOTH),
            _ => None,
        }
    }
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Permission {
    /// Whom it is about.
    pub(crate) domain: u16,
    /// What that domain may do; in the first entry, what everyone else may.
    pub(crate) rights: Rights,
}

/// A node's entries; never empty.
pub(crate) type Permissions = Rc<[Permission]>;

/// The owner alone.
pub(crate) fn private(owner: u16) -> Permissions {
    Rc::new([Permission { domain: owner, rights: Rights::NONE }])
}

/// The owner of a node with these.
pub(crate) fn owner(permissions: &[Permission]) -> u16 {
    permissions.first().map_or(0, |first| first.domain)
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// The domain; programs on the sockets are the control domain.
    pub(crate) domain: u16,
    /// The domain that it is the device model of: it may do what that one may.
    pub(crate) target: Option<u16>,
}

impl Who {
    /// The control domain.
    pub(crate) const CONTROL: Who = Who { domain: 0, target: None };

    /// Whether nothing is forbidden.
    pub(crate) fn is_privileged(self) -> bool {
        self.domain == 0
    }

    fn is(self, domain: u16) -> bool {
        self.domain == domain || self.target == Some(domain)
    }

    /// Whether it owns a node with these permissions, or may do as if.
    pub(crate) fn owns(self, permissions: &[Permission]) -> bool {
        self.is_privileged() || self.is(owner(permissions))
    }

    /// What it may do to a node with these permissions.
    pub(crate) fn rights(self, permissions: &[Permission]) -> Rights {
        if self.owns(permissions) {
            return Rights::BOTH;
        }
        let named = permissions.iter().skip(1).find(|entry| self.is(entry.domain));
        named.or(permissions.first()).map_or(Rights::NONE, |entry| entry.rights)
    }
}

/// Reads entries such as `b"r0"`.
///
/// # Errors
/// EINVAL for what is none, or for no entry at all.
pub(crate) fn parse<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Result<Permissions, Errno> {
    let parsed: Option<Vec<Permission>> = entries.map(parse_entry).collect();
    parsed.filter(|entries| !entries.is_empty()).map(Permissions::from).ok_or(Errno::EINVAL)
}

fn parse_entry(entry: &[u8]) -> Option<Permission> {
    let (&letter, number) = entry.split_first()?;
    let domain = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some(Permission { domain, rights: Rights::from_letter(letter)? })
}

/// The entries as GET_PERMS answers them.
pub(crate) fn print(permissions: &[Permission]) -> Vec<u8> {
    let text: String = permissions.iter().map(|entry| format!("{}{}\0", entry.rights.letter(), entry.domain)).collect();
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Permissions {
        parse(text.split(' ').map(str::as_bytes)).expect("are permissions")
    }

    #[test]
    fn entries_are_read_and_printed() {
        assert_eq!(print(&list("n0 r1 w2 b32767")), b"n0\0r1\0w2\0b32767\0");
        for bad in ["", "x0", "n", "n-1", "n65536", "r1x", "r 1"] {
            assert_eq!(parse([bad.as_bytes()].into_iter()).err(), Some(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(parse([].into_iter()).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn who_may_do_what() {
        let node = list("r1 w2 n3 b3");
        let rights = |domain, target| Who { domain, target }.rights(&node);
        assert_eq!(rights(0, None), Rights::BOTH, "the control domain");
        assert_eq!(rights(1, None), Rights::BOTH, "the owner");
        assert_eq!(rights(2, None), Rights::WRITE, "an entry");
        assert_eq!(rights(3, None), Rights::NONE, "the first entry counts");
        assert_eq!(rights(4, None), Rights::READ, "everyone else");
        assert_eq!(rights(4, Some(1)), Rights::BOTH, "the owner's device model");
        assert_eq!(rights(4, Some(2)), Rights::WRITE, "the device model of a named domain");
        assert_eq!(rights(1, Some(3)), Rights::BOTH);
    }
}
