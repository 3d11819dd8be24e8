//! Where the daemon says things: a file, or standard error while it is in the foreground.

use std::fs::{File, OpenOptions};
use std::io::{Write, stderr};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where messages go if no file is named and nobody is at the terminal.
const DEFAULT: &str = "/var/log/xen/xenstored.log";

/// The log.
#[derive(Default)]
pub(super) struct Log {
    file: Option<File>,
}

impl Log {
    /// Opens the file that is named; in the background, else the usual one if there is such a folder.
    ///
    /// # Errors
    /// The named file cannot be opened.
    pub(super) fn open(named: Option<&Path>, in_background: bool) -> std::io::Result<Log> {
        let file = match named {
            Some(path) => Some(append(path)?),
            None => append(Path::new(DEFAULT)).ok().filter(|_| in_background),
        };
        Ok(Log { file })
    }

    /// Goes on in another file.
    ///
    /// # Errors
    /// It cannot be opened; the log stays where it was.
    pub(super) fn switch(&mut self, path: &Path) -> std::io::Result<()> {
        self.file = Some(append(path)?);
        Ok(())
    }

    /// Says something. A log that cannot be written is no reason to stop.
    pub(super) fn say(&mut self, text: &str) {
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
