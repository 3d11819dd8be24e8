//! A log file: lines with or without the time, put aside under a number when it has grown, opened anew when someone else has.
//!
//! `NAME.log` is the newest, then `NAME.log.1`, `NAME.log.2` and so on. A log that cannot be written is no reason to stop, and is told
//! of once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Zoned;

const ESCAPE: u8 = 0x1b;

/// How logs are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Whether lines begin with the time.
    pub(crate) has_time: bool,
    /// Whether a dot stands for each ESC.
    pub(crate) replaces_escape: bool,
    /// Size in bytes above which a file is put aside; 0 for none.
    pub(crate) size: u64,
    /// How many that were put aside are kept.
    pub(crate) files: u32,
}

/// A log file.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    style: Style,
    file: Option<File>,
    length: u64,
    /// Whether the next byte begins a line.
    at_line: bool,
}

impl Log {
    /// Opens a log, which goes on where it was.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open(path: PathBuf, style: Style) -> io::Result<Log> {
        let mut log = Log { path, style, file: None, length: 0, at_line: true };
        log.reopen()?;
        if style.has_time {
            log.write(b"Logfile Opened\n")?;
        }
        Ok(log)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file anew: someone may have moved it away.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.length = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes output.
    ///
    /// # Errors
    /// The first time that it fails, the file system's; then nothing is written until [`Log::reopen`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() || bytes.is_empty() {
            return Ok(());
        }
        let text = self.dressed(bytes);
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let written = self.make_room(length).and_then(|()| match &mut self.file {
            Some(file) => file.write_all(&text),
            None => Ok(()),
        });
        self.length = self.length.saturating_add(length);
        written.inspect_err(|_| self.file = None)
    }

    /// The bytes as they are written.
    fn dressed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line && self.style.has_time {
                text.extend_from_slice(Zoned::now().strftime("[%Y-%m-%d %H:%M:%S] ").to_string().as_bytes());
            }
            let replaced = |byte: &u8| if self.style.replaces_escape && *byte == ESCAPE { b'.' } else { *byte };
            text.extend(line.iter().map(replaced));
            self.at_line = line.ends_with(b"\n");
        }
        text
    }

    /// Puts the file aside if these bytes would make it too long.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        let Style { size, files, .. } = self.style;
        if size == 0 || self.length == 0 || self.length.saturating_add(more) <= size {
            return Ok(());
        }
        for number in (1..files).rev() {
            let old = self.numbered(number);
            if fs::exists(&old)? {
                fs::rename(old, self.numbered(number + 1))?;
            }
        }
        match files {
            0 => fs::remove_file(&self.path)?,
            _ => fs::rename(&self.path, self.numbered(1))?,
        }
        self.reopen()
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { has_time: false, replaces_escape: false, size: 0, files: 2 };

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xenconsoled-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).expect("is there")
    }

    #[test]
    fn a_log_that_has_grown_is_put_aside() {
        let folder = folder("size");
        let path = folder.join("x.log");
        let mut log = Log::open(path.clone(), Style { size: 10, ..PLAIN }).expect("is open");
        for line in ["first\n", "second\n", "third\n", "4\n", "a line longer than a file\n", "6\n"] {
            log.write(line.as_bytes()).expect("has room");
        }
        assert_eq!(read(&path), "6\n");
        assert_eq!(read(&folder.join("x.log.1")), "a line longer than a file\n");
        assert_eq!(read(&folder.join("x.log.2")), "third\n4\n");
        assert!(!folder.join("x.log.3").exists());
        // What is there counts after a restart, too.
        let mut log = Log::open(path.clone(), Style { size: 10, ..PLAIN }).expect("is open");
        log.write(b"123456789").expect("has room");
        assert_eq!((read(&path).as_str(), read(&folder.join("x.log.1")).as_str()), ("123456789", "6\n"));
        let mut log = Log::open(path.clone(), Style { size: 10, files: 0, ..PLAIN }).expect("is open");
        log.write(b"new").expect("has room");
        assert_eq!((read(&path).as_str(), read(&folder.join("x.log.1")).as_str()), ("new", "6\n"));
        fs::remove_dir_all(folder).expect("is ours");
    }

    #[test]
    fn a_log_that_was_moved_away_is_opened_anew() {
        let folder = folder("moved");
        let path = folder.join("x.log");
        let mut log = Log::open(path.clone(), PLAIN).expect("is open");
        log.write(b"one").expect("has room");
        fs::rename(&path, folder.join("old")).expect("is there");
        log.write(b"two").expect("has room");
        log.reopen().expect("is open");
        log.write(b"three").expect("has room");
        assert_eq!((read(&folder.join("old")).as_str(), read(&path).as_str()), ("onetwo", "three"));
        fs::remove_dir_all(&folder).expect("is ours");
        assert!(log.reopen().is_err());
        log.write(b"four").expect("is told of once");
    }

    #[test]
    fn lines_begin_with_the_time() {
        let folder = folder("time");
        let path = folder.join("x.log");
        let style = Style { has_time: true, replaces_escape: true, ..PLAIN };
        let mut log = Log::open(path.clone(), style).expect("is open");
        log.write(b"a\nb").expect("has room");
        log.write(b"c\x1b[1m\n\n").expect("has room");
        let text = read(&path);
        let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_at(22)).collect();
        let said: Vec<&str> = lines.iter().map(|(_, said)| *said).collect();
        assert_eq!(said, ["Logfile Opened", "a", "bc.[1m", ""]);
        assert!(
            lines
                .iter()
                .all(|(time, _)| time.starts_with("[20") && time.ends_with("] ") && time.as_bytes()[11] == b' ')
        );
        fs::remove_dir_all(folder).expect("is ours");
    }
}
