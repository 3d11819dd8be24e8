//! Sets of Debian packages, downloaded and unpacked below the cache, never installed.
//!
//! A set is complete exactly when its folder exists: it is filled under another name and renamed at the end, so an
//! interrupted run leaves nothing half done, and a second run finds the folder and does nothing. A lock file keeps two
//! runs apart. The folder's name is the key; its `packages.txt` says which versions it holds.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::{self, Record};
use crate::paths::Paths;
use crate::progress;

/// Unpacked kernel: `boot/vmlinuz-VERSION` and `lib/modules/VERSION`.
#[derive(Clone, Debug)]
pub(crate) struct KernelFiles {
    /// The bzImage.
    pub(crate) image: PathBuf,
    /// Folder of its modules, if there is one.
    pub(crate) modules: Option<PathBuf>,
}

/// Xen's user space for dom0 (xl, xenstored, xenconsoled and their libraries), its scripts for disks and networks with the programs
/// that they call and busybox lacks, and a static busybox.
pub(crate) fn xen_userland(paths: &Paths) -> Result<PathBuf> {
    ensure(paths, "xen-userland-2", "Debian's Xen tools and busybox", || {
        // The scripts, their shell, flock, losetup and its library.
        let scripts = ["xen-utils-common", "bash", "util-linux", "mount", "libsmartcols1"];
        library_closure(&[&["xen-utils-4.17", "xenstore-utils", "busybox-static"][..], &scripts].concat())
    })
}

/// Bochs with its BIOS and all its libraries.
pub(crate) fn bochs(paths: &Paths) -> Result<PathBuf> {
    ensure(paths, "bochs-1", "the emulator Bochs", || library_closure(&["bochs", "bochsbios", "vgabios"]))
}

/// Debian's Xen 4.17, uncompressed, ready for QEMU's `-kernel`.
pub(crate) fn xen_hypervisor(paths: &Paths) -> Result<PathBuf> {
    let root = ensure(paths, "xen-hypervisor-1", "Debian's Xen 4.17", || {
        Ok(vec![required("xen-hypervisor-4.17-amd64")?.spec()])
    })?;
    let image = root.join("boot/xen-4.17-amd64");
    if !image.is_file() {
        let packed = root.join("boot/xen-4.17-amd64.gz");
        let file = File::open(&packed).with_context(|| format!("cannot open {}", packed.display()))?;
        let mut unpacked = tempfile::NamedTempFile::new_in(&root)?;
        std::io::copy(&mut flate2::read::GzDecoder::new(file), &mut unpacked)
            .with_context(|| format!("cannot decompress {}", packed.display()))?;
        unpacked.persist(&image).with_context(|| format!("cannot write {}", image.display()))?;
    }
    Ok(image)
}

/// The kernel that Debian's `linux-image-amd64` stands for.
pub(crate) fn kernel(paths: &Paths) -> Result<KernelFiles> {
    let root = ensure(paths, "kernel-1", "Debian's kernel", || {
        let meta = required("linux-image-amd64")?;
        let name = meta
            .depends
            .iter()
            .flatten()
            .find(|name| name.starts_with("linux-image-"))
            .context("the package linux-image-amd64 depends on no linux-image package")?;
        Ok(vec![required(name)?.spec()])
    })?;
    let boot = root.join("boot");
    let image = std::fs::read_dir(&boot)
        .with_context(|| format!("cannot read {}", boot.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .with_context(|| format!("no vmlinuz in {}", boot.display()))?;
    Ok(kernel_files(&image))
}

/// A kernel image and, where they stand beside it as in a package or on a system, its modules.
pub(crate) fn kernel_files(image: &Path) -> KernelFiles {
    let modules = image.file_name().and_then(|name| {
        let version = name.to_str()?.strip_prefix("vmlinuz-")?;
        let beside = image.parent()?.parent()?.join("lib/modules").join(version);
        beside.is_dir().then_some(beside)
    });
    KernelFiles { image: image.to_path_buf(), modules }
}

/// The folder of an unpacked set; fills it first when it is missing. `choose` names the packages as `NAME=VERSION`.
pub(crate) fn ensure(
    paths: &Paths,
    key: &str,
    what: &str,
    choose: impl Fn() -> Result<Vec<String>>,
) -> Result<PathBuf> {
    let set = paths.cache.join("sets").join(key);
    if !set.is_dir() {
        let _lock = lock(paths)?;
        if !set.is_dir() {
            fill(paths, &set, what, choose).with_context(|| format!("cannot provide {what}"))?;
        }
    }
    Ok(set.join("root"))
}

/// Downloads and unpacks into a temporary folder, then renames it. Lists that are empty or name versions that the
/// archive no longer has are refreshed once.
fn fill(paths: &Paths, set: &Path, what: &str, choose: impl Fn() -> Result<Vec<String>>) -> Result<()> {
    let step = progress::step(&format!("fetching {what}"));
    let work = tempfile::Builder::new()
        .prefix("unpack-")
        .tempdir_in(&paths.cache)
        .context("cannot make a folder in the cache")?;
    let debs = work.path().join("debs");
    std::fs::create_dir(&debs)?;
    let fetch = || -> Result<Vec<String>> {
        let specs = choose()?;
        apt::download(&specs, &debs)?;
        Ok(specs)
    };
    let specs = match fetch() {
        Ok(specs) => specs,
        Err(first) => {
            step.now("refreshing apt's package lists");
            apt::update().with_context(|| format!("after: {first:#}"))?;
            fetch()?
        }
    };
    let content = work.path().join("set");
    let root = content.join("root");
    std::fs::create_dir_all(&root)?;
    for entry in std::fs::read_dir(&debs)? {
        let deb = entry?.path();
        step.now(&format!("unpacking {}", deb.file_name().unwrap_or_default().display()));
        let output = Command::new("dpkg-deb").arg("-x").args([&deb, &root]).output().context("cannot run dpkg-deb")?;
        if !output.status.success() {
            bail!("cannot unpack {}: {}", deb.display(), apt::last_lines(&output.stderr));
        }
    }
    std::fs::write(content.join("packages.txt"), specs.join("\n") + "\n")?;
    std::fs::create_dir_all(paths.cache.join("sets"))?;
    std::fs::rename(&content, set).with_context(|| format!("cannot put the packages into {}", set.display()))?;
    step.done();
    Ok(())
}

/// Holds the cache against other runs until it is dropped.
pub(crate) fn lock(paths: &Paths) -> Result<File> {
    let path = paths.cache.join("lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        progress::note("another xtask is filling the cache; waiting for it");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

impl Record {
    fn spec(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

fn required(name: &str) -> Result<Record> {
    apt::show(name)?.with_context(|| format!("apt knows no package {name}"))
}

/// Whether a package holds shared libraries, by Debian's names for such packages.
fn is_library(name: &str) -> bool {
    name.starts_with("lib") || name == "zlib1g"
}

/// The named packages and all libraries that they need, directly or through other libraries.
/// Interpreters and services that xen-utils also depends on are left out: nothing we run uses them.
fn library_closure(names: &[&str]) -> Result<Vec<String>> {
    let mut found = BTreeMap::new();
    let mut pending: VecDeque<String> = names.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = pending.pop_front() {
        if found.contains_key(&name) {
            continue;
        }
        let record = required(&name)?;
        for choice in &record.depends {
            if let Some(first) = choice.first().filter(|name| is_library(name)) {
                pending.push_back(first.clone());
            }
        }
        found.insert(name, record.spec());
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_beside_a_packaged_kernel_only() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path().join("boot");
        std::fs::create_dir_all(&boot).unwrap();
        let modules = dir.path().join("lib/modules/6.1.0-9-amd64");
        std::fs::create_dir_all(&modules).unwrap();
        let files = kernel_files(&boot.join("vmlinuz-6.1.0-9-amd64"));
        assert_eq!(files.modules.as_deref(), Some(modules.as_path()));
        assert!(kernel_files(&boot.join("bzImage")).modules.is_none());
    }
}
