//! The test dom0's initramfs: Debian's Xen tools with their libraries and scripts, busybox, kernel modules, our init.
//!
//! The paths of programs and folders are those compiled into Debian's tools. The guest's kernel and image stand in
//! `/guest`. What belongs to one run only (script, files put in, marker) is added by `crate::harness`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::guest;
use super::modules;
use super::sysroot::Sysroot;
use super::tree::Tree;

/// Folder of Debian's version-specific Xen programs.
pub(super) const XEN_BIN: &str = "usr/lib/xen-4.17/bin";
/// Programs of that folder; xl needs the helper for saving and migrating.
const XEN_PROGRAMS: [&str; 12] = [
    "xl",
    "xenstored",
    "xenstore-control",
    "xenconsoled",
    "xenconsole",
    "xen-init-dom0",
    "libxl-save-helper",
    "xenctx",
    "xenpm",
    "xentop",
    "xen-hvmctx",
    "xen-diag",
];
/// Clients of xenstore.
const XENSTORE_CLIENTS: [&str; 8] = [
    "xenstore-chmod",
    "xenstore-exists",
    "xenstore-list",
    "xenstore-ls",
    "xenstore-read",
    "xenstore-rm",
    "xenstore-watch",
    "xenstore-write",
];
/// Folder of the scripts that Debian's xl runs for disks and networks.
const SCRIPT_FOLDER: &str = "etc/xen/scripts";
/// Those for files as disks and for bridges, and what they read.
const SCRIPTS: [&str; 10] = [
    "block",
    "block-common.sh",
    "hotplugpath.sh",
    "locking.sh",
    "logging.sh",
    "vif-bridge",
    "vif-common.sh",
    "xen-hotplug-common.sh",
    "xen-network-common.sh",
    "xen-script-common.sh",
];
/// What they need and busybox does not have, or not as they expect it.
const SCRIPT_PROGRAMS: [&str; 3] = ["bin/bash", "usr/bin/flock", "sbin/losetup"];
/// Modules that dom0 needs: the hypercall devices, then what backs guests' disks and networks.
const MODULES: [&str; 10] = [
    "xen-privcmd",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xenfs",
    "loop",
    "tun",
    "bridge",
    "xen-blkback",
    "xen-netback",
];
/// Drivers of devices that a machine may have; loaded by the scripts that want them.
const DRIVERS: [&str; 7] = ["sd_mod", "ahci", "nvme", "virtio_pci", "virtio_blk", "e1000e", "button"];
const LIBGCC: &str = "lib/x86_64-linux-gnu/libgcc_s.so.1";
const XL_CONF: &str = "autoballoon=\"off\"\nclaim_mode=0\n";
const SHELL_RC: &str = "alias poweroff='/sbin/poweroff'\nalias reboot='/sbin/reboot'\nPS1='\\h:\\w# '\n";
const EXAMPLE_CFG: &str = r#"name = "guest"
type = "pvh"
kernel = "/guest/vmlinuz"
ramdisk = "/guest/initrd"
extra = "console=hvc0"
memory = 256
tsc_mode = "native"
vcpus = 1
"#;

/// Whose xl is the one in PATH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tools {
    /// Our own.
    Oxen,
    /// Debian's xen-utils.
    Debian,
}

/// Whose daemons serve the toolstack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Daemons {
    /// Our own.
    Oxen,
    /// Debian's xen-utils.
    Debian,
}

/// What the image is made of.
pub(crate) struct Parts<'a> {
    /// Debian's unpacked Xen user space.
    pub(crate) userland: &'a Sysroot,
    /// Modules of dom0's kernel; none if that kernel came without.
    pub(crate) modules: Option<&'a Path>,
    /// Modules of the guest's kernel; none if that kernel came without.
    pub(crate) guest_modules: Option<&'a Path>,
    /// The guest's kernel.
    pub(crate) guest_kernel: &'a Path,
    /// The same, unpacked: then it is what the example's configuration names.
    pub(crate) guest_elf: Option<&'a Path>,
    /// Whose xl is in PATH.
    pub(crate) tools: Tools,
    /// Our static xl, if it has been built.
    pub(crate) oxen_xl: Option<&'a Path>,
    /// Our static daemons, if they are the ones to run.
    pub(crate) oxen_daemons: &'a [PathBuf],
}

/// The image without what belongs to one run.
pub(crate) fn tree(parts: &Parts) -> Result<Tree> {
    let applets = guest::applets(parts.userland)?;
    let mut tree = skeleton();
    let userland = parts.userland;
    add_xen_tools(&mut tree, userland)?;
    for script in SCRIPTS {
        let path = format!("{SCRIPT_FOLDER}/{script}");
        tree.copy(&path, &userland.resolve(&path)?)?;
    }
    for program in SCRIPT_PROGRAMS {
        userland.install(&mut tree, program)?;
    }
    tree.symlink(
        "usr/local/bin/xl",
        match parts.tools {
            Tools::Debian => "/usr/local/bin/debian-xl",
            Tools::Oxen => "/usr/local/bin/oxen-xl",
        },
    );
    tree.symlink("usr/local/bin/debian-xl", &format!("/{XEN_BIN}/xl"));
    if let Some(xl) = parts.oxen_xl {
        tree.copy("usr/local/bin/oxen-xl", xl)?;
    }
    for daemon in parts.oxen_daemons {
        let name = daemon.file_name().and_then(|name| name.to_str()).context("a daemon without a name")?;
        // It comes before Debian's in PATH.
        tree.copy(&format!("usr/local/bin/{name}"), daemon)?;
    }
    guest::busybox(&mut tree, userland, &applets)?;
    modules::install(&mut tree, parts.modules, "order", &MODULES)?;
    modules::install(&mut tree, parts.modules, "drivers", &DRIVERS)?;
    tree.copy("guest/vmlinuz", parts.guest_kernel).context("the guest's kernel")?;
    let guest = guest::tree(userland, &applets, parts.guest_modules).context("the guest's image")?;
    tree.file("guest/initrd", 0o644, super::cpio::archive(&guest)?);
    let mut config = EXAMPLE_CFG.to_owned();
    if let Some(elf) = parts.guest_elf {
        tree.copy("guest/vmlinux", elf).context("the guest's unpacked kernel")?;
        config = config.replace("/guest/vmlinuz", "/guest/vmlinux");
    }
    tree.file("guest/pvh.cfg", 0o644, config.into_bytes());
    Ok(tree)
}

/// Debian's Xen tools with the libraries that they need.
pub(crate) fn add_xen_tools(tree: &mut Tree, userland: &Sysroot) -> Result<()> {
    for program in XEN_PROGRAMS {
        userland.install(tree, &format!("{XEN_BIN}/{program}"))?;
    }
    for client in XENSTORE_CLIENTS {
        userland.install(tree, &format!("usr/bin/{client}"))?;
    }
    // glibc loads this one by name when a thread is cancelled, so no file says that it is needed.
    tree.copy(LIBGCC, &userland.resolve(LIBGCC)?)
}

/// What init and scripts read: the messages to the harness, and functions for scenarios.
pub(crate) fn add_run_library(tree: &mut Tree) {
    tree.file("oxen/report.sh", 0o644, include_bytes!("dom0-report.sh").to_vec());
    tree.file("oxen/lib.sh", 0o644, include_bytes!("dom0-lib.sh").to_vec());
}

/// Folders, devices and configuration files.
fn skeleton() -> Tree {
    let mut tree = Tree::new();
    tree.device("dev/console", 0o600, 5, 1);
    tree.device("dev/null", 0o666, 1, 3);
    for dir in [
        "proc",
        "sys",
        "tmp",
        "root",
        "run/xen",
        "run/lock",
        "var/lib/xen",
        "var/lib/xenstored",
        "var/lib/xen/dump",
        "var/log/xen/console",
        "etc/xen/auto",
        "mnt",
    ] {
        tree.directory(dir);
    }
    tree.symlink("var/run", "../run");
    tree.symlink("var/lock", "../run/lock");
    tree.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n".into());
    tree.file("etc/group", 0o644, "root:x:0:\n".into());
    tree.file("etc/xen/xl.conf", 0o644, XL_CONF.into());
    tree.file("etc/shrc", 0o644, SHELL_RC.into());
    tree.file("sbin/poweroff", 0o755, guest::POWEROFF.into());
    tree.file("sbin/reboot", 0o755, guest::REBOOT.into());
    tree.file("init", 0o755, include_bytes!("dom0-init.sh").to_vec());
    add_run_library(&mut tree);
    tree
}
