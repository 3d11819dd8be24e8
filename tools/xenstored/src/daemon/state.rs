//! The file that outlives the daemon: frames of records (`crate::persist`), appended turn by turn, and written anew when it
//! has grown.
//!
//! What the kernel has taken by write() survives a kill of the daemon; that is all that is needed, so nothing is synced to a disk
//! (docs/design/0007). Only one daemon can have it: the folder's lock ends with the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::persist::{self, Record};

/// Bytes of changes after which the file is written anew, at least.
const ENOUGH: usize = 1 << 20;

/// The file, open for writing.
pub(super) struct State {
    path: PathBuf,
    boot: String,
    file: Option<File>,
    /// Bytes of the state that the file begins with.
    whole: usize,
    /// Bytes of changes after it.
    changes: usize,
    /// Held as long as the daemon lives.
    _lock: File,
}

impl State {
    /// Takes the folder, and gives what an earlier daemon of this boot left in it. The file is not written to before
    /// [`State::rewrite`].
    ///
    /// # Errors
    /// Another daemon has the folder, or it cannot be used.
    pub(super) fn open(folder: &Path) -> io::Result<(State, Option<Vec<Record>>)> {
        fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let path = folder.join("state");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result?,
        };
        let earlier = persist::read(&bytes).map(|(records, _)| records);
        let of_this_boot = |records: &Vec<Record>| records.first() == Some(&Record::Boot { id: boot.clone() });
        let earlier = earlier.filter(of_this_boot);
        Ok((State { path, boot, file: None, whole: 0, changes: 0, _lock: lock }, earlier))
    }

    /// Writes the file anew; a kill in the middle leaves the old one.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn rewrite(&mut self, mut records: Vec<Record>) -> io::Result<()> {
        records.insert(0, Record::Boot { id: self.boot.clone() });
        let bytes = [&persist::MAGIC[..], &persist::frame(&records).map_err(io::Error::other)?].concat();
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        fs::rename(&fresh, &self.path)?;
        (self.file, self.whole, self.changes) = (Some(file), bytes.len(), 0);
        Ok(())
    }

    /// Adds what one turn has changed; `false` if the file must be written anew, because it has grown or was not written.
    pub(super) fn append(&mut self, records: &[Record]) -> bool {
        let Ok(frame) = persist::frame(records) else {
            return false;
        };
        let Some(file) = &mut self.file else {
            return false;
        };
        if file.write_all(&frame).is_err() {
            // Half a frame may be in it: nothing can follow.
            self.file = None;
            return false;
        }
        self.changes += frame.len();
        self.changes <= ENOUGH.max(4 * self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xenstored-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        folder
    }

    fn record(domain: u16) -> Record {
        Record::Output { domain, bytes: vec![1; 1000] }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = folder("state");
        let (mut state, earlier) = State::open(&folder).expect("is ours");
        assert_eq!(earlier, None);
        assert!(!state.append(&[record(1)]), "the file begins with a whole state");
        state.rewrite(vec![record(1)]).expect("has room");
        assert!(state.append(&[record(2)]) && state.append(&[record(3)]));
        assert!(State::open(&folder).is_err(), "another daemon has it");
        drop(state);
        // A kill in the middle of a frame.
        let path = folder.join("state");
        let bytes = fs::read(&path).expect("is there");
        fs::write(&path, &bytes[..bytes.len() - 1]).expect("has room");
        let (mut state, earlier) = State::open(&folder).expect("is free");
        assert_eq!(earlier.expect("is there")[1..], [record(1), record(2)]);
        // It is written anew when it has grown.
        state.rewrite(vec![record(7)]).expect("has room");
        assert!((0..2000).any(|_| !state.append(&[record(8)])));
        drop(state);
        // A state of another boot is nobody's.
        let other = persist::frame(&[Record::Boot { id: "other".into() }, record(1)]).expect("is small");
        fs::write(&path, [&persist::MAGIC[..], &other].concat()).expect("has room");
        assert_eq!(State::open(&folder).expect("is free").1, None);
        fs::remove_dir_all(&folder).expect("is ours");
    }
}
