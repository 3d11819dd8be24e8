//! The small guest that tests create: a static busybox and an init that greets and serves a shell.
//!
//! In dom0 it stands at `/guest/initrd`. Any kernel with Xen's console built in can boot it; modules are loaded only when the
//! word `oxen.modules` is on the kernel's command line.

use std::path::Path;

use anyhow::Result;

use super::modules;
use super::sysroot::Sysroot;
use super::tree::Tree;

/// Linux runs /sbin/poweroff and /sbin/reboot when the toolstack asks for an orderly end through xenstore. Our init is
/// no real one, so these end the kernel directly.
pub(super) const POWEROFF: &str = "#!/bin/busybox sh\nsync\nexec /bin/busybox poweroff -f\n";
/// The same for a restart.
pub(super) const REBOOT: &str = "#!/bin/busybox sh\nsync\nexec /bin/busybox reboot -f\n";

/// busybox's shell prefers its built-in programs to those in PATH, so interactive shells need these names.
const SHELL_RC: &str = "alias poweroff='/sbin/poweroff'\nalias reboot='/sbin/reboot'\n";

/// Modules for disks and networks.
const MODULES: [&str; 2] = ["xen-blkfront", "xen-netfront"];

/// The guest's file system. `modules` are those of its kernel, if there are any.
pub(crate) fn tree(userland: &Sysroot, applets: &[String], modules: Option<&Path>) -> Result<Tree> {
    let mut tree = Tree::new();
    tree.device("dev/console", 0o600, 5, 1);
    tree.device("dev/null", 0o666, 1, 3);
    for dir in ["proc", "sys", "tmp", "run", "root"] {
        tree.directory(dir);
    }
    busybox(&mut tree, userland, applets)?;
    tree.file("sbin/poweroff", 0o755, POWEROFF.into());
    tree.file("sbin/reboot", 0o755, REBOOT.into());
    tree.file("etc/shrc", 0o644, SHELL_RC.into());
    tree.file("init", 0o755, include_bytes!("guest-init.sh").to_vec());
    modules::install(&mut tree, modules, "order", &MODULES)?;
    Ok(tree)
}

/// busybox at /bin/busybox, and a link in /bin for each of its programs that nothing else provides.
pub(crate) fn busybox(tree: &mut Tree, userland: &Sysroot, applets: &[String]) -> Result<()> {
    tree.copy("bin/busybox", &userland.resolve("bin/busybox")?)?;
    for applet in applets {
        let path = format!("bin/{applet}");
        let replaced = matches!(applet.as_str(), "poweroff" | "reboot");
        if applet != "busybox" && !replaced && !tree.contains(&path) {
            tree.symlink(&path, "busybox");
        }
    }
    Ok(())
}

/// The names of the programs inside of this busybox. Being static it runs on the development machine too.
pub(crate) fn applets(userland: &Sysroot) -> Result<Vec<String>> {
    use anyhow::Context;

    let program = userland.resolve("bin/busybox")?;
    let output = std::process::Command::new(&program)
        .arg("--list")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    anyhow::ensure!(!names.is_empty(), "{} --list says nothing", program.display());
    Ok(names)
}
