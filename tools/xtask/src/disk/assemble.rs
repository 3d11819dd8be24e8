//! From Debian's files to disks: our programs and units, accounts, names, and the file system.
//!
//! What is done to the files stands in `assemble.sh`; here it is decided whether it must be done again. The disks lie in
//! `target/oxen/disks`, whose file `key` says what they were made of.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{DOM0_LABEL, Disk, Disks, recipe};
use crate::artifacts;
use crate::initramfs::dom0 as programs;
use crate::initramfs::sysroot::Sysroot;
use crate::initramfs::tree::{Kind, Tree};
use crate::paths::Paths;
use crate::provision::{apt, packages};

/// The work on the files.
const SCRIPT: &str = include_str!("assemble.sh");
/// Where the units are in the sources.
const UNITS: &str = "tools/systemd";

/// What the control domain's disk has beside Debian.
pub(super) struct Contents {
    /// Ours; it replaces what is there.
    ours: Tree,
    /// Debian's Xen tools and the libraries that they need, where there is nothing yet.
    tools: Tree,
}

impl Contents {
    /// Builds and reads all of it.
    pub(super) fn gather(paths: &Paths) -> Result<Self> {
        let mut ours = Tree::new();
        ours.copy("usr/local/sbin/xl", &artifacts::xl(paths)?)?;
        for daemon in artifacts::daemons(paths)? {
            let name = daemon.file_name().and_then(|name| name.to_str()).context("a daemon without a name")?;
            ours.copy(&format!("usr/local/sbin/{name}"), &daemon)?;
        }
        add_units(&mut ours, &paths.root.join(UNITS))?;
        let mut tools = Tree::new();
        programs::add_xen_tools(&mut tools, &Sysroot::new(packages::xen_userland(paths)?))?;
        Ok(Self { ours, tools })
    }
}

/// The units, where `tools/systemd/README.md` wants them.
fn add_units(tree: &mut Tree, folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "service" | "mount" => format!("etc/systemd/system/{name}"),
            "conf" => "etc/modules-load.d/xen.conf".to_owned(),
            "md" => continue,
            _ => format!("usr/local/lib/oxen/{name}"),
        };
        tree.copy(&to, &path)?;
    }
    Ok(())
}

/// Tells whether disks were made of the same things.
pub(super) fn key(contents: &Contents) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    (recipe::fingerprint(), SCRIPT).hash(&mut hasher);
    for tree in [&contents.ours, &contents.tools] {
        for (path, node) in tree.iter() {
            (path, node.mode).hash(&mut hasher);
            match &node.kind {
                Kind::Directory => 0_u8.hash(&mut hasher),
                Kind::File(bytes) => bytes.hash(&mut hasher),
                Kind::Symlink(target) => target.hash(&mut hasher),
                Kind::CharDevice { .. } => bail!("/{path}: a disk's devices come from its kernel"),
            }
        }
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

/// The disks, if they were made with this key.
pub(super) fn existing(paths: &Paths, key: &str) -> Option<Disks> {
    let folder = folder(paths);
    std::fs::read_to_string(folder.join("key")).is_ok_and(|found| found == key).then(|| disks(&folder))
}

fn folder(paths: &Paths) -> PathBuf {
    paths.images.join("disks")
}

fn disks(folder: &Path) -> Disks {
    let disk = |name: &str| Disk {
        image: folder.join(format!("{name}.img")),
        kernel: folder.join(format!("{name}.vmlinuz")),
        initramfs: folder.join(format!("{name}.initrd")),
    };
    Disks { dom0: disk("dom0"), guest: disk("guest") }
}

/// Makes the disks of both archives; they appear when all is done.
pub(super) fn make(paths: &Paths, contents: &Contents, key: &str, dom0: &Path, guest: &Path) -> Result<Disks> {
    let work = tempfile::Builder::new().prefix("disks-").tempdir_in(&paths.cache)?;
    let place = |name: &str| work.path().join(name);
    write_tree(&contents.ours, &place("ours"))?;
    write_tree(&contents.tools, &place("tools"))?;
    std::fs::write(place("assemble.sh"), SCRIPT)?;
    std::fs::create_dir(place("out"))?;
    // Files belong to root on the disks: whoever is not root makes fakeroot remember that.
    let mut command = if apt::is_root() { Command::new("sh") } else { Command::new("fakeroot") };
    if !apt::is_root() {
        command.arg("sh");
    }
    let output = command
        .arg(place("assemble.sh"))
        .arg(work.path())
        .args([dom0, guest])
        .arg(DOM0_LABEL)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .context("cannot run sh")?;
    if !output.status.success() {
        bail!("assemble.sh failed: {}", apt::last_lines(&output.stderr));
    }
    std::fs::write(place("out").join("key"), key)?;
    let folder = folder(paths);
    if folder.exists() {
        // A machine that runs from them keeps its files open.
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    std::fs::rename(place("out"), &folder).with_context(|| format!("cannot write {}", folder.display()))?;
    Ok(disks(&folder))
}

/// Writes a tree below a folder of this machine.
fn write_tree(tree: &Tree, folder: &Path) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};

    std::fs::create_dir(folder)?;
    for (path, node) in tree.iter() {
        let place = folder.join(path);
        match &node.kind {
            Kind::Directory => std::fs::create_dir(&place)?,
            Kind::File(bytes) => {
                std::fs::write(&place, bytes)?;
                std::fs::set_permissions(&place, std::fs::Permissions::from_mode(node.mode))?;
            }
            Kind::Symlink(target) => symlink(target, &place)?,
            Kind::CharDevice { .. } => bail!("/{path}: a disk's devices come from its kernel"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(xl: &str) -> Contents {
        let mut ours = Tree::new();
        ours.file("usr/local/sbin/xl", 0o755, xl.into());
        ours.symlink("usr/local/sbin/link", "xl");
        Contents { ours, tools: Tree::new() }
    }

    #[test]
    fn another_program_makes_another_key() {
        assert_eq!(key(&contents("a")).unwrap(), key(&contents("a")).unwrap());
        assert_ne!(key(&contents("a")).unwrap(), key(&contents("b")).unwrap());
    }

    #[test]
    fn a_tree_is_written_as_it_is() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("ours");
        write_tree(&contents("text").ours, &place).unwrap();
        let xl = place.join("usr/local/sbin/xl");
        assert_eq!(std::fs::read_to_string(&xl).unwrap(), "text");
        assert_eq!(std::fs::metadata(&xl).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_link(place.join("usr/local/sbin/link")).unwrap(), Path::new("xl"));
    }

    #[test]
    fn every_unit_finds_its_place() {
        let paths = Paths::find().unwrap();
        let mut tree = Tree::new();
        add_units(&mut tree, &paths.root.join(UNITS)).unwrap();
        for path in [
            "etc/systemd/system/xenstored.service",
            "etc/systemd/system/proc-xen.mount",
            "etc/modules-load.d/xen.conf",
            "usr/local/lib/oxen/xendomains",
        ] {
            assert!(tree.contains(path), "{path}");
        }
    }
}
