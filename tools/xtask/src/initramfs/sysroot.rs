//! Programs out of an unpacked set of Debian packages, with the shared libraries they need.
//!
//! The packages' files lie below one folder as they would below `/`. [`Sysroot::install`] copies a program into a
//! [`Tree`] at its own path and follows DT_NEEDED through all libraries ([`super::elf`]). Comes after
//! `provision::packages` and before [`super::dom0`].

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::elf;
use super::tree::Tree;

/// Where Debian's dynamic loader looks for libraries on x86-64.
const LIBRARY_DIRS: [&str; 4] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib"];

/// More symbolic links than this in one path are a loop; Linux's own limit.
const MAX_LINKS: usize = 40;

/// A folder that looks like the root of a Debian system.
#[derive(Clone, Debug)]
pub(crate) struct Sysroot {
    root: PathBuf,
}

impl Sysroot {
    /// A sysroot at a folder of the development machine.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The host file behind a path of the sysroot; symbolic links are followed inside of the sysroot, so that a link to
    /// `/etc/x` never reads the development machine's own file.
    ///
    /// # Errors
    /// The path does not exist, or its links go round in circles.
    pub(crate) fn resolve(&self, path: &str) -> Result<PathBuf> {
        let mut pending: Vec<String> = components(Path::new(path)).rev().collect();
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            let host = self.root.join(&done).join(&name);
            let meta = std::fs::symlink_metadata(&host)
                .with_context(|| format!("/{path} is missing below {}", self.root.display()))?;
            if !meta.is_symlink() {
                done.push(name);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                bail!("/{path} below {}: too many symbolic links", self.root.display());
            }
            let target =
                std::fs::read_link(&host).with_context(|| format!("cannot read the link {}", host.display()))?;
            if target.is_absolute() {
                done = PathBuf::new();
            }
            pending.extend(components(&target).rev());
        }
        Ok(self.root.join(done))
    }

    /// Copies a program to its own path in the tree, and every library it needs.
    ///
    /// # Errors
    /// The program or one of its libraries is missing, or not a well-formed ELF file; both names are given.
    pub(crate) fn install(&self, tree: &mut Tree, path: &str) -> Result<()> {
        let host = self.resolve(path)?;
        tree.copy(path, &host)?;
        self.install_needs(tree, &host)
    }

    /// Adds what one ELF file needs, and what those libraries need in turn. Scripts need nothing.
    pub(crate) fn install_needs(&self, tree: &mut Tree, host: &Path) -> Result<()> {
        let mut pending = vec![host.to_path_buf()];
        while let Some(file) = pending.pop() {
            let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            if !elf::is_elf(&bytes) {
                continue;
            }
            let needs = elf::needs(&bytes).with_context(|| format!("{}", file.display()))?;
            for path in needs
                .interpreter
                .iter()
                .map(|path| Ok(path.trim_start_matches('/').to_owned()))
                .chain(needs.libraries.iter().map(|name| self.library(name)))
            {
                let path = path.with_context(|| format!("needed by {}", file.display()))?;
                if tree.contains(&path) {
                    continue;
                }
                let library = self.resolve(&path).with_context(|| format!("needed by {}", file.display()))?;
                tree.copy(&path, &library)?;
                pending.push(library);
            }
        }
        Ok(())
    }

    /// The sysroot path of a library, searched as the dynamic loader does.
    fn library(&self, name: &str) -> Result<String> {
        LIBRARY_DIRS.iter().map(|dir| format!("{dir}/{name}")).find(|path| self.resolve(path).is_ok()).with_context(
            || format!("the shared library {name} is in none of the packages unpacked in {}", self.root.display()),
        )
    }
}

/// The named steps of a path, without root and `.`.
fn components(path: &Path) -> impl DoubleEndedIterator<Item = String> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::ParentDir => Some("..".to_owned()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A minimal ELF64 shared object that needs the given libraries: one PT_LOAD over the whole file, one PT_DYNAMIC.
    fn shared_object(libraries: &[&str]) -> Vec<u8> {
        let mut strings = vec![0_u8];
        let mut offsets = Vec::new();
        for library in libraries {
            offsets.push(strings.len() as u64);
            strings.extend_from_slice(library.as_bytes());
            strings.push(0);
        }
        let dynamic_at = 64 + 2 * 56;
        let dynamic_len = (libraries.len() as u64 + 2) * 16;
        let strings_at = dynamic_at + dynamic_len;
        let total = strings_at + strings.len() as u64;
        let base = 0x10_0000_u64;
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(16, 0);
        for half in [3_u16, 62] {
            out.extend(half.to_le_bytes());
        }
        out.extend(1_u32.to_le_bytes());
        for word in [0_u64, 64, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 2, 64, 0, 0] {
            out.extend(half.to_le_bytes());
        }
        for (kind, at, len) in [(1_u32, 0, total), (2, dynamic_at, dynamic_len)] {
            out.extend(kind.to_le_bytes());
            out.extend(4_u32.to_le_bytes());
            for word in [at, base + at, base + at, len, len, 8] {
                out.extend(word.to_le_bytes());
            }
        }
        for offset in offsets {
            out.extend(1_u64.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        for word in [5_u64, base + strings_at, 0, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(strings);
        out
    }

    fn sysroot_with(libraries: &[(&str, &[&str])]) -> (tempfile::TempDir, Sysroot) {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("usr/lib/x86_64-linux-gnu");
        std::fs::create_dir_all(&lib).unwrap();
        for (name, needs) in libraries {
            std::fs::write(lib.join(name), shared_object(needs)).unwrap();
        }
        let sysroot = Sysroot::new(dir.path().to_path_buf());
        (dir, sysroot)
    }

    #[test]
    fn the_closure_follows_libraries_of_libraries_through_links_and_cycles() {
        let (dir, sysroot) = sysroot_with(&[("libone.so.1.2", &["libtwo.so"]), ("libtwo.so", &["libone.so.1"])]);
        symlink("libone.so.1.2", dir.path().join("usr/lib/x86_64-linux-gnu/libone.so.1")).unwrap();
        std::fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        std::fs::write(dir.path().join("usr/bin/tool"), shared_object(&["libone.so.1"])).unwrap();
        let mut tree = Tree::new();
        sysroot.install(&mut tree, "usr/bin/tool").unwrap();
        assert!(tree.contains("usr/lib/x86_64-linux-gnu/libone.so.1"));
        assert!(tree.contains("usr/lib/x86_64-linux-gnu/libtwo.so"));
    }

    #[test]
    fn a_missing_library_names_itself_and_who_needs_it() {
        let (dir, sysroot) = sysroot_with(&[("liba.so", &["libgone.so.9"])]);
        let host = dir.path().join("usr/lib/x86_64-linux-gnu/liba.so");
        let error = format!("{:#}", sysroot.install_needs(&mut Tree::new(), &host).unwrap_err());
        assert!(error.contains("libgone.so.9") && error.contains("liba.so"), "{error}");
    }

    #[test]
    fn links_stay_inside_of_the_sysroot_and_loops_end() {
        let (dir, sysroot) = sysroot_with(&[]);
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("/etc/hostname", dir.path().join("link")).unwrap();
        assert!(sysroot.resolve("link").is_err(), "the host's file must not be reached");
        std::fs::write(dir.path().join("etc/hostname"), "inside").unwrap();
        assert_eq!(sysroot.resolve("link").unwrap(), dir.path().join("etc/hostname"));
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(format!("{:#}", sysroot.resolve("loop").unwrap_err()).contains("too many"));
    }
}
