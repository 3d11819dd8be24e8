//! Where a daemon says things: a file, or standard error while it is in the foreground.
//!
//! A line begins with the time in seconds since 1970. What clients do makes daemons say things: so that none of them fills the disk, only
//! some lines a minute are written, but all of them to a file that was asked for by name.

use std::fs::{File, OpenOptions};
use std::io::{Write, stderr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A daemon's own log.
#[derive(Debug, Default)]
pub struct Messages {
    file: Option<File>,
    limit: Option<Limit>,
}

/// How many lines there may be at once.
const BURST: u64 = 200;
/// How long it takes until there may be another.
const PER_LINE: Duration = Duration::from_secs(3);

/// How much is said.
#[derive(Debug)]
struct Limit {
    /// Lines that may be written now.
    left: u64,
    /// Since when there were none more.
    since: Instant,
    left_out: u64,
}

impl Limit {
    /// Whether a line may be written; also how many were not since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let more = now.duration_since(self.since).as_secs() / PER_LINE.as_secs();
        if more > 0 {
            (self.left, self.since) = (self.left.saturating_add(more).min(BURST), now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.left_out))
            }
            None => {
                self.left_out += 1;
                None
            }
        }
    }
}

impl Messages {
    /// Opens the file that is named; in the background, else the usual one if it can be opened.
    ///
    /// # Errors
    /// The named file cannot be opened.
    pub fn open(named: Option<&Path>, usual: &Path, in_background: bool) -> std::io::Result<Messages> {
        let file = match named {
            Some(path) => Some(append(path)?),
            None => append(usual).ok().filter(|_| in_background),
        };
        let limit = Limit { left: BURST, since: Instant::now(), left_out: 0 };
        Ok(Messages { file, limit: named.is_none().then_some(limit) })
    }

    /// Goes on in another file.
    ///
    /// # Errors
    /// It cannot be opened; the log stays where it was.
    pub fn switch(&mut self, path: &Path) -> std::io::Result<()> {
        (self.file, self.limit) = (Some(append(path)?), None);
        Ok(())
    }

    /// Says something. A log that cannot be written is no reason to stop.
    pub fn say(&mut self, text: &str) {
        match self.limit.as_mut().map(|limit| limit.take(Instant::now())) {
            Some(None) => return,
            Some(Some(count)) if count > 0 => self.write(&format!("{count} lines were left out")),
            _ => {}
        }
        self.write(text);
    }

    fn write(&mut self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = format!("{}.{:03} {}\n", now.as_secs(), now.subsec_millis(), text.trim_end());
        let result = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => stderr().write_all(line.as_bytes()),
        };
        drop(result);
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_fills_the_disk() {
        let start = Instant::now();
        let mut limit = Limit { left: BURST, since: start, left_out: 0 };
        let said = (0..1000).filter(|_| limit.take(start).is_some()).count();
        assert_eq!(u64::try_from(said), Ok(BURST));
        assert_eq!(limit.take(start + PER_LINE), Some(800));
        assert_eq!(limit.take(start + PER_LINE), None);
        assert_eq!(limit.take(start + PER_LINE * 3), Some(1));
        assert_eq!(limit.take(start + PER_LINE * 3), Some(0));
    }
}
