//! Where things lie on the development machine.
//!
//! Everything that this tool makes stands below `target/oxen` of the workspace, whatever `CARGO_TARGET_DIR` says, so
//! that people and scripts find the images at one place. Every command starts by asking for a [`Paths`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders of the workspace that the commands use.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// Root of the workspace (the folder of the root Cargo.toml).
    pub(crate) root: PathBuf,
    /// `target/oxen`: images for people and for QEMU.
    pub(crate) images: PathBuf,
    /// Downloaded and unpacked packages; safe to delete at any time when no xtask runs.
    pub(crate) cache: PathBuf,
    /// Console logs of the latest runs.
    pub(crate) logs: PathBuf,
    /// One short-lived folder per running machine.
    pub(crate) runs: PathBuf,
}

impl Paths {
    /// Finds the workspace and makes sure that the folders exist.
    pub(crate) fn find() -> Result<Self> {
        let root = workspace_root()?;
        let images = root.join("target/oxen");
        let paths =
            Self { cache: images.join("cache"), logs: images.join("logs"), runs: images.join("runs"), images, root };
        for dir in [&paths.images, &paths.cache, &paths.logs, &paths.runs] {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
        }
        Ok(paths)
    }
}

/// The workspace of this package: the manifest's folder at run time (set by `cargo run`), else where it was compiled.
fn workspace_root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.ends_with("tools/xtask"))
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    manifest
        .parent()
        .and_then(Path::parent)
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not inside of the workspace", manifest.display()))
}

/// Searches `PATH` for a program, without running it.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}
