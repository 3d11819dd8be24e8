//! Names of nodes: what a client wrote becomes an absolute path, or is refused.
//!
//! Nothing below this file sees a path that is not absolute and valid (docs/misc/xenstore.txt of Xen, "Paths").

use public_abi::Errno;
use public_abi::io::xs_wire::ABS_PATH_MAX;

/// The event of a domain that was introduced.
pub(crate) const INTRODUCE_DOMAIN: &str = "@introduceDomain";
/// The event of a domain that stopped or went.
pub(crate) const RELEASE_DOMAIN: &str = "@releaseDomain";

/// Where a domain's relative paths begin.
pub(crate) fn home(domain: u16) -> String {
    format!("/local/domain/{domain}")
}

/// Whether it names an event rather than a node.
pub(crate) fn is_special(path: &str) -> bool {
    path.starts_with('@')
}

/// The absolute path of a node's name. `base` is where relative ones begin.
///
/// # Errors
/// EINVAL for what is no path.
pub(crate) fn node(name: &[u8], base: &str, most: usize) -> Result<String, Errno> {
    let name = std::str::from_utf8(name).map_err(|_| Errno::EINVAL)?;
    let path = if name.starts_with('/') { name.to_owned() } else { format!("{base}/{name}") };
    if is_valid(&path, most) && !is_special(name) { Ok(path) } else { Err(Errno::EINVAL) }
}

/// As [`node`], or the name of an event.
///
/// # Errors
/// EINVAL for neither.
pub(crate) fn node_or_special(name: &[u8], base: &str, most: usize) -> Result<String, Errno> {
    match name {
        b"@introduceDomain" => Ok(INTRODUCE_DOMAIN.to_owned()),
        b"@releaseDomain" => Ok(RELEASE_DOMAIN.to_owned()),
        _ => node(name, base, most),
    }
}

/// Whether it is absolute, of allowed characters, without empty parts, and short enough: the limit of a user counts from
/// below a domain's home.
fn is_valid(path: &str, most: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    path == "/"
        || path.len() <= ABS_PATH_MAX
            && below_home(path).len() <= most
            && path.bytes().all(allowed)
            && path.starts_with('/')
            && !path.ends_with('/')
            && !path.as_bytes().windows(2).any(|pair| pair == b"//")
}

/// The part of a path below /local/domain/N/, or all of it.
fn below_home(path: &str) -> &str {
    let number_and_rest = path.strip_prefix("/local/domain/").and_then(|rest| rest.split_once('/'));
    match number_and_rest {
        Some((number, rest)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => path,
    }
}

/// The node above; `None` for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/') {
        Some(("", "")) | None => None,
        Some(("", _)) => Some("/"),
        Some((parent, _)) => Some(parent),
    }
}

/// The last part of a path; empty for the root.
pub(crate) fn leaf(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(_, leaf)| leaf)
}

/// The names on the way from the root.
pub(crate) fn parts(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    // By bytes: names are short, and a search made for long texts takes its time to begin.
    std::iter::from_fn(move || {
        loop {
            let end = rest.bytes().position(|byte| byte == b'/');
            let (part, after) = end.map_or((rest, ""), |end| (&rest[..end], &rest[end + 1..]));
            if part.is_empty() && end.is_none() {
                return None;
            }
            rest = after;
            if !part.is_empty() {
                return Some(part);
            }
        }
    })
}

/// A path and those above it, from the inside out.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| parent(path))
}

/// The path of a child.
pub(crate) fn child(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_checked() {
        for good in ["/", "/a", "/a-b/c_d/0@", "/local/domain/3/x"] {
            assert_eq!(node(good.as_bytes(), "", 3072).as_deref(), Ok(good));
        }
        for bad in ["//", "/a/", "/a//b", "/a b", "/a.b", "/\u{e4}", "", "@releaseDomain", "/a\n"] {
            assert_eq!(node(bad.as_bytes(), "/local/domain/1", 3072).err(), Some(Errno::EINVAL), "{bad:?}")
        }
        assert_eq!(node(b"/\xff", "", 3072).err(), Some(Errno::EINVAL));
        assert_eq!(node_or_special(b"@releaseDomain", "", 3072).as_deref(), Ok(RELEASE_DOMAIN));
        assert!(node_or_special(b"@other", "", 3072).is_err());
    }

    #[test]
    fn relative_paths_begin_at_home() {
        assert_eq!(node(b"data/x", &home(7), 3072).as_deref(), Ok("/local/domain/7/data/x"));
    }

    #[test]
    fn lengths_have_limits() {
        let long = format!("/{}", "a".repeat(3071));
        assert!(node(long.as_bytes(), "", 3072).is_ok());
        assert!(node(format!("{long}a").as_bytes(), "", 4000).is_err(), "the protocol's limit");
        assert!(node(b"/abcd", "", 4).is_err(), "the user's limit");
        assert!(node(b"/local/domain/12/abcd", "", 4).is_ok(), "which counts from a home");
    }

    #[test]
    fn ways_up() {
        assert_eq!(ancestors("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!((parent("/"), leaf("/a/b"), leaf("/")), (None, "b", ""));
        assert_eq!((child("/", "a"), child("/a", "b")), ("/a".into(), "/a/b".into()));
        assert_eq!(parts("/a/b").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(parts("/").count(), 0);
    }
}
