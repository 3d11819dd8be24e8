//! Bootable ISO images: GRUB loads the hypervisor, with dom0's kernel and initramfs as modules.
//!
//! `cargo xtask iso` makes the one for people; `--grub` and `--emulator bochs` make one for a single run. GRUB's tools are
//! installed by `provision::grub` when the first image is asked for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::provision::apt::last_lines;

/// How GRUB starts the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// For Xen, whose Multiboot 2 entry does not come up in every emulator.
    Multiboot1,
    /// For Oxen.
    Multiboot2,
}

/// One line of GRUB's menu.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// What the person reads.
    pub(crate) title: String,
    /// How the hypervisor is started.
    pub(crate) protocol: Protocol,
    /// The hypervisor's command line.
    pub(crate) hypervisor_args: String,
    /// dom0's command line.
    pub(crate) dom0_args: String,
}

/// The files in the image.
#[derive(Clone, Debug)]
pub(crate) struct Files<'a> {
    /// The hypervisor.
    pub(crate) hypervisor: &'a Path,
    /// dom0's kernel.
    pub(crate) kernel: &'a Path,
    /// dom0's initramfs, if it has one.
    pub(crate) initramfs: Option<&'a Path>,
}

/// Makes the image at `out`, in one step: a reader sees the old or the new one.
///
/// # Errors
/// grub-mkrescue fails; its last messages are given.
pub(crate) fn make(out: &Path, files: &Files, entries: &[Entry], seconds: u32) -> Result<()> {
    let folder = out.parent().context("the image's path has no folder")?;
    let work =
        tempfile::Builder::new().prefix("iso-").tempdir_in(folder).context("cannot make a folder for the image")?;
    let root = work.path().join("root");
    let grub = root.join("boot/grub");
    std::fs::create_dir_all(&grub)?;
    let initramfs = files.initramfs.map(|path| (path, "dom0.cpio"));
    for (from, name) in [(files.hypervisor, "oxen"), (files.kernel, "vmlinuz")].into_iter().chain(initramfs) {
        std::fs::copy(from, root.join("boot").join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    std::fs::write(grub.join("grub.cfg"), menu(entries, initramfs.is_some(), seconds))?;
    let image: PathBuf = work.path().join("image.iso");
    let output = Command::new("grub-mkrescue")
        // For BIOS machines alone: the hypervisor has no other entry yet, and the image stays small.
        .args(["-d", crate::provision::grub::MODULES, "-o"])
        .args([&image, &root])
        .output()
        .context("cannot run grub-mkrescue")?;
    if !output.status.success() {
        bail!("grub-mkrescue failed: {}", last_lines(&output.stderr));
    }
    std::fs::rename(&image, out).with_context(|| format!("cannot write {}", out.display()))
}

/// GRUB's configuration. The word `placeholder` is what Debian's own Xen entries carry: loaders differ in whether the
/// first word is the file's name.
fn menu(entries: &[Entry], has_initramfs: bool, seconds: u32) -> String {
    let mut text = format!(
        "serial --unit=0 --speed=115200\n\
         terminal_input console serial\n\
         terminal_output console serial\n\
         set timeout={seconds}\n\
         set default=0\n"
    );
    for entry in entries {
        let (load, module) = match entry.protocol {
            Protocol::Multiboot1 => ("multiboot", "module"),
            Protocol::Multiboot2 => ("multiboot2", "module2"),
        };
        text += &format!(
            "menuentry \"{}\" {{\n\
             \t{load} /boot/oxen placeholder {}\n\
             \t{module} /boot/vmlinuz placeholder {}\n",
            entry.title,
            quote(&entry.hypervisor_args),
            quote(&entry.dom0_args)
        );
        if has_initramfs {
            text += &format!("\t{module} /boot/dom0.cpio\n");
        }
        text += "}\n";
    }
    text
}

/// Words for GRUB's shell: each in single quotes, so that nothing in them is special.
fn quote(args: &str) -> String {
    let words: Vec<String> = args.split_whitespace().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_quotes_what_grub_would_interpret() {
        let entry = Entry {
            title: "Oxen".into(),
            protocol: Protocol::Multiboot2,
            hypervisor_args: "com1=115200,8n1 x=$y;z".into(),
            dom0_args: "a='b'".into(),
        };
        let text = menu(std::slice::from_ref(&entry), true, 5);
        assert!(text.contains("multiboot2 /boot/oxen placeholder 'com1=115200,8n1' 'x=$y;z'\n"), "{text}");
        assert!(text.contains(r"module2 /boot/vmlinuz placeholder 'a='\''b'\'''"), "{text}");
        assert!(text.contains("set timeout=5\n"));
        assert!(text.contains("module2 /boot/dom0.cpio\n}"), "{text}");
        let old = menu(&[Entry { protocol: Protocol::Multiboot1, ..entry }], false, 0);
        assert!(old.contains("\tmultiboot /boot/oxen") && old.contains("\tmodule /boot/vmlinuz"), "{old}");
        assert!(!old.contains("dom0.cpio"), "{old}");
    }
}
