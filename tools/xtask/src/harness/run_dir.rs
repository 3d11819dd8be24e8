//! Files of one run: a folder that vanishes at its end, and a log of the console that stays.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::paths::Paths;

/// Logs that are kept; older ones are removed.
const KEPT_LOGS: usize = 40;

/// One run's files.
#[derive(Debug)]
pub(crate) struct RunDir {
    dir: TempDir,
    log: PathBuf,
}

impl RunDir {
    /// Makes the folder and names the log `NAME-PID-COUNT.log`; removes what killed runs and old runs left.
    pub(crate) fn new(paths: &Paths, name: &str) -> Result<Self> {
        remove_dead_runs(&paths.runs);
        remove_old_logs(&paths.logs);
        let pid = std::process::id();
        let dir = tempfile::Builder::new()
            .prefix(&format!("{pid}-"))
            .tempdir_in(&paths.runs)
            .context("cannot make a folder for this run")?;
        let log = (0..)
            .map(|count| paths.logs.join(format!("{name}-{pid}-{count}.log")))
            .find(|path| !path.exists())
            .context("no free name for the log")?;
        Ok(Self { dir, log })
    }

    /// Writes a file that lives as long as the run.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The path of a file that lives as long as the run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Opens the log for writing.
    pub(crate) fn create_log(&self) -> Result<File> {
        File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))
    }

    /// Where the log is.
    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }
}

/// Removes the folders of runs whose process no longer exists (they were killed). What cannot be removed stays.
fn remove_dead_runs(runs: &Path) {
    for path in entries(runs) {
        let owner = path.file_name().and_then(|name| name.to_str()?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            drop(std::fs::remove_dir_all(path));
        }
    }
}

fn remove_old_logs(logs: &Path) {
    let mut files: Vec<_> =
        entries(logs).into_iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).collect();
    files.sort();
    let surplus = files.len().saturating_sub(KEPT_LOGS);
    for (_, path) in files.into_iter().take(surplus) {
        drop(std::fs::remove_file(path));
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_leaves_nothing_and_a_living_one_keeps_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join(format!("{}-a", std::process::id()));
        let dead = dir.path().join(format!("{}-b", u32::MAX));
        std::fs::create_dir(&mine).unwrap();
        std::fs::create_dir(&dead).unwrap();
        remove_dead_runs(dir.path());
        assert!(mine.exists() && !dead.exists());
    }
}
