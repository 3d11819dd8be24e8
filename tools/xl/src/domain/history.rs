//! The list of domain ids that were in use a short while ago, which libxl does not give out again.
//!
//! `/run/xen/domid-history`: a line per id, seconds of uptime and id; entries older than a minute are dropped
//! (`libxl__mark_domid_recent`).

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libxc::fault;
use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};

use crate::failure::{Failure, Outcome};

/// The list's name.
const NAME: &str = "domid-history";
/// Seconds for which an id counts as recent.
const RECENT: i64 = 60;

/// Notes in a directory that a domain's id has just gone out of use.
pub(crate) fn note(directory: &Path, domid: u16) -> Outcome {
    let path = directory.join(NAME).display().to_string();
    let doing = || format!("noting domain {domid} in {path}");
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", doing()));
    fault::check_host(doing).map_err(failed)?;
    let mut options = OpenOptions::new();
    let lock =
        options.write(true).create(true).truncate(false).mode(0o644).open(format!("{path}.lock")).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let old = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    let new = format!("{path}.new");
    fs::write(&new, with_entry(&old, clock_gettime(ClockId::Monotonic).tv_sec, domid)).map_err(failed)?;
    fs::rename(&new, &path).map_err(failed)
}

/// Forgets all ids.
///
/// # Errors
/// The kernel's; that there is no list is one.
pub(crate) fn clear(directory: &Path) -> std::io::Result<()> {
    fs::remove_file(directory.join(NAME))
}

/// The list with an entry added and old ones dropped.
fn with_entry(list: &str, now: i64, domid: u16) -> String {
    let recent = |line: &&str| {
        let seconds = line.split(' ').next().and_then(|seconds| seconds.parse::<i64>().ok());
        seconds.is_some_and(|seconds| seconds + RECENT > now)
    };
    let mut lines: String = list.lines().filter(recent).map(|line| format!("{line}\n")).collect();
    lines.push_str(&format!("{now} {domid}\n"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_entries_go() {
        assert_eq!(with_entry("10 1\n50 2\nnonsense\n", 80, 3), "50 2\n80 3\n");
    }
}
