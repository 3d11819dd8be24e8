//! Debian 12 as an archive of files, made by mmdebstrap of the machine's own mirror and kept in the cache.
//!
//! The archive's name has a hash of everything that it is made by, the machine's mirror excepted. Before: the machine's apt
//! sources. After: [`super::assemble`] adds what is ours.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::progress;
use crate::provision::sources::{Places, Syntax};
use crate::provision::{apt, qemu};

/// The release that the disks hold.
const CODENAME: &str = "bookworm";
/// Its suites.
const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", "bookworm-security"];

/// What both disks have: init, login, devices, an initramfs that finds its disk, networks, the file system's tools.
const COMMON: &str = "initramfs-tools,busybox,zstd,systemd-sysv,udev,dbus,login,kmod,e2fsprogs,iproute2,iputils-ping,procps,\
                      netcat-openbsd";

/// One Debian.
struct Recipe {
    name: &'static str,
    /// Beside [`COMMON`].
    packages: &'static str,
    /// Modules of its initramfs: what may be between the kernel and its root file system.
    modules: &'static str,
}

/// For the control domain: the kernel with drivers for real machines, partitions, volumes, and images in formats of QEMU's.
const DOM0: Recipe = Recipe {
    name: "dom0",
    packages: "linux-image-amd64,fdisk,lvm2,qemu-utils",
    modules: "ext4 ahci nvme sd_mod virtio_blk virtio_pci xen-blkfront",
};

/// For guests: the kernel without drivers for real machines, as Debian's own images for clouds have it.
const GUEST: Recipe =
    Recipe { name: "guest", packages: "linux-image-cloud-amd64", modules: "ext4 xen-blkfront xen-netfront" };

/// Options: no documentation and no translations, which nobody reads there, and no waiting for the disk. The disks' own apt does
/// not keep these settings.
const OPTIONS: [&str; 8] = [
    "--variant=minbase",
    "--format=tar",
    "--aptopt=APT::Install-Recommends \"false\"",
    "--aptopt=APT::Sandbox::User \"root\"",
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
];

/// Runs when the archives are unpacked and before their scripts make the initramfs.
const HOOK: &str = include_str!("before-kernel.sh");

/// The archives for the control domain and for guests. What is missing is made, both at the same time.
pub(super) fn both(paths: &Paths) -> Result<(PathBuf, PathBuf)> {
    remove_leftovers(paths);
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| GUEST.ensure(paths));
        let dom0 = DOM0.ensure(paths);
        let guest = guest.join().unwrap_or_else(|_| bail!("the thread that makes the guest's Debian panicked"));
        Ok((dom0?, guest?))
    })
}

/// Removes the folders of runs that were killed (the caller holds the cache's lock). What cannot be removed stays, and what is still
/// mounted somewhere is not touched.
fn remove_leftovers(paths: &Paths) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let Ok(entries) = std::fs::read_dir(&paths.cache) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_work = ["debian-", "disks-"].iter().any(|prefix| name.starts_with(prefix)) && entry.path().is_dir();
        if is_work && !mounts.contains(&name) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// What the archives are made by, for whoever wants to know whether something made of them is stale.
pub(super) fn fingerprint() -> u64 {
    let mut hasher = DefaultHasher::new();
    (DOM0.fingerprint(), GUEST.fingerprint()).hash(&mut hasher);
    hasher.finish()
}

impl Recipe {
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (SUITES, COMMON, self.packages, self.modules, OPTIONS, HOOK).hash(&mut hasher);
        hasher.finish()
    }

    fn ensure(&self, paths: &Paths) -> Result<PathBuf> {
        let place = paths.cache.join(format!("debian-{}-{:016x}.tar", self.name, self.fingerprint()));
        if !place.is_file() {
            self.make(paths, &place).with_context(|| format!("cannot make Debian 12 for {}", self.name))?;
        }
        Ok(place)
    }

    fn make(&self, paths: &Paths, place: &Path) -> Result<()> {
        let step = progress::step(&format!("making Debian 12 for {} of packages (mmdebstrap)", self.name));
        // Unpacked here and not in /tmp, which may be small, or mounted without devices.
        let work = tempfile::Builder::new().prefix("debian-").tempdir_in(&paths.cache)?;
        let (hook, tar) = (work.path().join("before-kernel.sh"), work.path().join("tar"));
        std::fs::write(&hook, HOOK)?;
        let mut lists = Vec::new();
        for (name, text) in mirror()? {
            let list = work.path().join(name);
            std::fs::write(&list, text)?;
            lists.push(list);
        }
        let modules = self.modules;
        let output = Command::new("mmdebstrap")
            .args(OPTIONS)
            .arg(format!("--include={COMMON},{}", self.packages))
            .arg(format!("--essential-hook=sh '{}' \"$1\" '{modules}'", hook.display()))
            .arg(CODENAME)
            .arg(&tar)
            .args(&lists)
            .env("TMPDIR", work.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .context("cannot run mmdebstrap")?;
        if !output.status.success() {
            bail!("mmdebstrap failed: {}", apt::last_lines(&output.stderr));
        }
        std::fs::rename(&tar, place).with_context(|| format!("cannot write {}", place.display()))?;
        step.done();
        Ok(())
    }
}

/// The machine's own sources for the release, as files' names and texts; on a machine with another release, the same archive's
/// suites of this one.
fn mirror() -> Result<Vec<(&'static str, String)>> {
    let known = Places::find()?.read()?;
    let serves = |wanted: &str| known.iter().any(|source| source.suites.iter().any(|suite| suite == wanted));
    let own = if serves(CODENAME) { CODENAME.to_owned() } else { qemu::codename()? };
    let mut lists = [("mirror.list", String::new()), ("mirror.sources", String::new())];
    for source in &known {
        let suites: Vec<String> = source
            .suites
            .iter()
            .map(|suite| suite.replace(&own, CODENAME))
            .filter(|suite| SUITES.contains(&suite.as_str()))
            .collect();
        if !suites.is_empty() {
            let text = &mut lists[usize::from(source.syntax == Syntax::Deb822)].1;
            *text += &source.text_with(&suites);
            text.push('\n');
        }
    }
    let lists: Vec<_> = lists.into_iter().filter(|(_, text)| !text.is_empty()).collect();
    anyhow::ensure!(!lists.is_empty(), "none of the machine's apt sources serves the suite {CODENAME} or {own}");
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_that_changes_has_another_name() {
        let other = Recipe { packages: "linux-image-amd64", ..DOM0 };
        assert_ne!(other.fingerprint(), DOM0.fingerprint());
        assert_ne!(GUEST.fingerprint(), DOM0.fingerprint());
    }
}
