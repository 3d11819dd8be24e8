//! What a run adds to a control domain that boots from a disk (`crate::disk`): its script, files, and the service that runs it.
//!
//! The initramfs of the disk lays everything that is below `/oxen/root` in it over the root file system (`disk/before-kernel.sh`);
//! Linux unpacks archives that follow each other as one. So a run's archive is appended to the disk's own initramfs, and the disk
//! itself stays as it was made.

use anyhow::Result;

use super::cpio;
use super::dom0::{self, Tools};
use super::tree::Tree;

/// Where the disk's initramfs looks for files of a run.
const PREFIX: &str = "oxen/root";

/// Adds what every run from a disk needs; `tools` says whose xl its script finds first.
pub(crate) fn add_service(tree: &mut Tree, tools: Tools) {
    const UNITS: &str = "etc/systemd/system";
    dom0::add_run_library(tree);
    tree.file("oxen/run.sh", 0o755, include_bytes!("disk-run.sh").to_vec());
    tree.file(&format!("{UNITS}/oxen-run.service"), 0o644, include_bytes!("oxen-run.service").to_vec());
    tree.symlink(&format!("{UNITS}/multi-user.target.wants/oxen-run.service"), "../oxen-run.service");
    tree.file("usr/lib/systemd/system-shutdown/oxen", 0o755, include_bytes!("disk-last-word.sh").to_vec());
    let debian = format!("/{}/xl", dom0::XEN_BIN);
    let ours = "/usr/local/sbin/xl";
    tree.symlink("oxen/bin/debian-xl", &debian);
    tree.symlink("oxen/bin/oxen-xl", ours);
    tree.symlink(
        "oxen/bin/xl",
        match tools {
            Tools::Debian => &debian,
            Tools::Oxen => ours,
        },
    );
}

/// A disk's initramfs with a run's files after it.
pub(crate) fn initramfs(own: &[u8], tree: &Tree) -> Result<Vec<u8>> {
    let mut bytes = own.to_vec();
    // An archive begins at a multiple of four; zeros between archives are skipped.
    bytes.resize(own.len().next_multiple_of(4), 0);
    bytes.extend(cpio::archive(&tree.below(PREFIX))?);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_follows_the_disks_initramfs_at_a_word_and_below_the_prefix() {
        let mut tree = Tree::new();
        add_service(&mut tree, Tools::Oxen);
        let bytes = initramfs(&[7; 5], &tree).unwrap();
        assert_eq!(bytes[..8], [7, 7, 7, 7, 7, 0, 0, 0]);
        assert!(bytes[8..].starts_with(b"070701"), "the archive's magic");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("oxen/root/etc/systemd/system/oxen-run.service"));
        assert!(text.contains("oxen/root/oxen/bin/xl"));
    }
}
