//! The "newc" cpio archive format that Linux unpacks as its initramfs.
//!
//! Source of facts: Linux Documentation/driver-api/early-userspace/buffer-format.rst. The archive depends on the tree
//! alone: owner 0, time 0, inode numbers counted up, entries in path order; so equal trees give equal bytes.

use anyhow::{Context, Result};

use super::tree::{Kind, Tree};

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const TRAILER: &str = "TRAILER!!!";

/// What the header of one entry says; names as in the format's description.
#[derive(Default)]
struct Header {
    ino: u32,
    mode: u32,
    nlink: u32,
    rdev_major: u32,
    rdev_minor: u32,
}

/// Writes the whole tree as one archive.
///
/// # Errors
/// A file of 4 GiB or more cannot be expressed in the format.
pub(crate) fn archive(tree: &Tree) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for (number, (path, node)) in tree.iter().enumerate() {
        let (kind_bits, nlink) = match node.kind {
            Kind::Directory => (S_IFDIR, 2),
            Kind::File(_) => (S_IFREG, 1),
            Kind::Symlink(_) => (S_IFLNK, 1),
            Kind::CharDevice { .. } => (S_IFCHR, 1),
        };
        let (rdev_major, rdev_minor) = match node.kind {
            Kind::CharDevice { major, minor } => (major, minor),
            _ => (0, 0),
        };
        let data: &[u8] = match &node.kind {
            Kind::File(bytes) => bytes,
            Kind::Symlink(target) => target.as_bytes(),
            Kind::Directory | Kind::CharDevice { .. } => &[],
        };
        let header = Header {
            ino: u32::try_from(number + 1).context("too many files for a cpio archive")?,
            mode: kind_bits | node.mode,
            nlink,
            rdev_major,
            rdev_minor,
        };
        append(&mut out, &header, path, data)?;
    }
    append(&mut out, &Header { nlink: 1, ..Header::default() }, TRAILER, &[])?;
    pad(&mut out, 512);
    Ok(out)
}

/// One entry: header, name, data, each part padded to four bytes.
fn append(out: &mut Vec<u8>, header: &Header, name: &str, data: &[u8]) -> Result<()> {
    let size = u32::try_from(data.len())
        .with_context(|| format!("{name}: {} bytes do not fit in a cpio archive", data.len()))?;
    let name_size = u32::try_from(name.len() + 1).context("path name too long")?;
    let fields = [
        header.ino,
        header.mode,
        0, // uid
        0, // gid
        header.nlink,
        0, // mtime
        size,
        0, // device the file was on, major
        0, // and minor
        header.rdev_major,
        header.rdev_minor,
        name_size,
        0, // check sum, unused in this variant
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out, 4);
    out.extend_from_slice(data);
    pad(out, 4);
    Ok(())
}

/// Appends zero bytes up to a multiple of `unit`.
fn pad(out: &mut Vec<u8>, unit: usize) {
    out.resize(out.len().next_multiple_of(unit), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, device number and data.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads the archive back by the format's rules.
    fn parse(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let whole = bytes.len();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + n * 8..14 + n * 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let name_size = usize::try_from(field(11)).unwrap();
            let size = usize::try_from(field(6)).unwrap();
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let data = (110 + name_size).next_multiple_of(4);
            if name == TRAILER {
                return entries;
            }
            let end = (data + size).next_multiple_of(4);
            entries.push((name, field(1), (field(9), field(10)), bytes[data..data + size].to_vec()));
            bytes = &bytes[end..];
            assert_eq!((whole - bytes.len()) % 4, 0);
        }
    }

    fn sample() -> Tree {
        let mut tree = Tree::new();
        tree.device("dev/console", 0o600, 5, 1);
        tree.file("etc/odd", 0o644, b"abc".to_vec());
        tree.file("init", 0o755, b"#!/bin/sh\n".to_vec());
        tree.symlink("bin/sh", "busybox");
        tree
    }

    #[test]
    fn entries_read_back_with_modes_devices_and_links() {
        let entries = parse(&archive(&sample()).unwrap());
        let names: Vec<&str> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(names, ["bin", "bin/sh", "dev", "dev/console", "etc", "etc/odd", "init"]);
        assert_eq!(entries[1].1, 0o120_777);
        assert_eq!(entries[1].3, b"busybox");
        assert_eq!((entries[3].1, entries[3].2, entries[3].3.len()), (0o020_600, (5, 1), 0));
        assert_eq!((entries[5].1, entries[5].3.as_slice()), (0o100_644, &b"abc"[..]));
        assert_eq!(entries[6].1, 0o100_755);
    }

    #[test]
    fn equal_trees_give_equal_archives_whatever_the_order_of_insertion() {
        let mut other = Tree::new();
        other.symlink("bin/sh", "busybox");
        other.file("init", 0o755, b"#!/bin/sh\n".to_vec());
        other.file("etc/odd", 0o644, b"abc".to_vec());
        other.device("dev/console", 0o600, 5, 1);
        let (one, two) = (archive(&sample()).unwrap(), archive(&other).unwrap());
        assert_eq!(one, two);
        assert_eq!(one.len() % 512, 0);
    }
}
