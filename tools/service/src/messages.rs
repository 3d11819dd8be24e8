//! Where a daemon says things: a file, or standard error while it is in the foreground.
//!
//! A line begins with the time in seconds since 1970.

use std::fs::{File, OpenOptions};
use std::io::{Write, stderr};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A daemon's own log.
#[derive(Debug, Default)]
pub struct Messages {
    file: Option<File>,
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
        Ok(Messages { file })
    }

    /// Goes on in another file.
    ///
    /// # Errors
    /// It cannot be opened; the log stays where it was.
    pub fn switch(&mut self, path: &Path) -> std::io::Result<()> {
        self.file = Some(append(path)?);
        Ok(())
    }

    /// Says something. A log that cannot be written is no reason to stop.
    pub fn say(&mut self, text: &str) {
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
