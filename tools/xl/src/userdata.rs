//! User data: files that a toolstack keeps for a domain, where libxl keeps them.
//!
//! `/var/lib/xen/userdata-d.DOMID.UUID.NAME`; the name "libxl-json" holds the configuration. Writers hold the lock file
//! `userdata-l.….domain-userdata-lock`, which libxl takes, too, and replace a file by renaming, so that a reader sees the
//! old or the new content and never a part (tools/libs/light/libxl_dom.c, libxl_internal.c of Xen).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libxc::fault;
use libxc::plan::nodes::format_uuid;
use rustix::fs::{FlockOperation, flock};

use crate::failure::{Failure, Outcome};
use crate::output::note;

/// Where the files are.
pub const DIRECTORY: &str = "/var/lib/xen";
/// The file that holds the configuration.
pub const CONFIGURATION: &str = "libxl-json";
/// The file in which `xl config-update` leaves a configuration for the next build: the text of a configuration file.
pub const UPDATED: &str = "xl";

/// The user data of one domain.
pub struct UserData {
    directory: PathBuf,
    domid: u16,
    uuid: String,
}

/// A lock on a domain's user data, released when dropped.
struct Lock {
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // As libxl does: the file goes while the lock is held, and who waits for it looks again.
        if let Err(error) = fs::remove_file(&self.path) {
            note(format_args!("xl: warning: removing {}: {error}", self.path.display()));
        }
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            note(format_args!("xl: warning: unlocking {}: {error}", self.path.display()));
        }
    }
}

impl UserData {
    /// The user data of a domain.
    pub fn new(domid: u16, uuid: &[u8; 16]) -> UserData {
        UserData::below(Path::new(DIRECTORY), domid, uuid)
    }

    /// The same in another directory than the usual one.
    pub fn below(directory: &Path, domid: u16, uuid: &[u8; 16]) -> UserData {
        UserData { directory: directory.into(), domid, uuid: format_uuid(uuid) }
    }

    fn path(&self, kind: char, name: &str) -> PathBuf {
        self.directory.join(format!("userdata-{kind}.{}.{}.{name}", self.domid, self.uuid))
    }

    fn lock(&self) -> Outcome<Lock> {
        let path = self.path('l', "domain-userdata-lock");
        let doing = || format!("locking {}", path.display());
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", doing()));
        fault::check_host(doing).map_err(failed)?;
        loop {
            let mut options = OpenOptions::new();
            let file =
                options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
            flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            // Its last holder may have removed the file before we got the lock.
            let ours = file.metadata().map_err(failed)?;
            match fs::metadata(&path) {
                Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(Lock { file, path }),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Stores a file.
    pub fn store(&self, name: &str, content: &[u8]) -> Outcome {
        let _lock = self.lock()?;
        self.write(name, content)
    }

    /// Changes a file, if there is one, while nobody else does.
    pub fn change(&self, name: &str, change: impl FnOnce(&[u8]) -> Outcome<Vec<u8>>) -> Outcome {
        let _lock = self.lock()?;
        match self.read(name)? {
            Some(content) => self.write(name, &change(&content)?),
            None => Ok(()),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> Outcome {
        let (new, path) = (self.path('n', name), self.path('d', name));
        let write = || {
            fault::check_host(|| format!("writing {}", path.display()))?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(content)?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| Failure::new(format!("writing {}: {error}", path.display())))
    }

    /// Removes a file; one that is not there is no error.
    pub fn remove(&self, name: &str) -> Outcome {
        let path = self.path('d', name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::new(format!("removing {}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    /// The content of a file; `None` if there is none.
    pub fn read(&self, name: &str) -> Outcome<Option<Vec<u8>>> {
        let path = self.path('d', name);
        match fault::check_host(|| format!("reading {}", path.display())).and_then(|()| fs::read(&path)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(format!("reading {}: {error}", path.display()))),
        }
    }

    /// Removes all files of the domain.
    pub fn remove_all(&self) -> Outcome {
        let _lock = self.lock()?;
        // One that somebody else has just removed is gone.
        self.each(|path| {
            fs::remove_file(path).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
        })
    }

    /// Gives all files of the domain to another UUID.
    pub fn rename_all(&self, uuid: &[u8; 16]) -> Outcome {
        let _lock = self.lock()?;
        let new = format_uuid(uuid);
        self.each(|path| {
            let renamed = path.to_string_lossy().replace(&self.uuid, &new);
            fs::rename(path, renamed)
        })
    }

    /// Goes through the files of the domain, but for the lock.
    fn each(&self, act: impl Fn(&Path) -> std::io::Result<()>) -> Outcome {
        let doing = || format!("looking for files in {}", self.directory.display());
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", doing()));
        fault::check_host(doing).map_err(failed)?;
        let middle = format!(".{}.{}.", self.domid, self.uuid);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let ours = name
                .strip_prefix("userdata-")
                .and_then(|rest| rest.get(1..))
                .is_some_and(|rest| rest.starts_with(&middle));
            if ours && !name.ends_with("domain-userdata-lock") {
                act(&path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_directory(name: &str) -> (UserData, PathBuf) {
        let directory = std::env::temp_dir().join(format!("xl-userdata-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let uuid = format_uuid(&[1; 16]);
        (UserData { directory: directory.clone(), domid: 7, uuid }, directory)
    }

    #[test]
    fn files_come_and_go() {
        let (data, directory) = in_directory("files");
        data.store(CONFIGURATION, b"{}").expect("is stored");
        let name = "userdata-d.7.01010101-0101-0101-0101-010101010101.libxl-json";
        assert_eq!(fs::read(directory.join(name)).expect("is there"), b"{}");
        assert_eq!(data.read(CONFIGURATION).expect("is readable").as_deref(), Some(b"{}".as_slice()));
        data.change(CONFIGURATION, |old| Ok([old, b"!"].concat())).expect("is changed");
        assert_eq!(data.read(CONFIGURATION).expect("is readable").as_deref(), Some(b"{}!".as_slice()));
        data.change("absent", |_| panic!("there is no such file")).expect("is no error");
        fs::write(directory.join("userdata-d.70.x.libxl-json"), b"").expect("another domain's");
        data.rename_all(&[2; 16]).expect("is renamed");
        assert_eq!(data.read(CONFIGURATION).expect("is readable"), None);
        let renamed = UserData { uuid: format_uuid(&[2; 16]), directory: directory.clone(), domid: 7 };
        renamed.remove_all().expect("is removed");
        let left: Vec<_> =
            fs::read_dir(&directory).expect("is there").map(|entry| entry.expect("is readable").file_name()).collect();
        assert_eq!(left, ["userdata-d.70.x.libxl-json"], "no lock and no file of the domain stays");
        fs::remove_dir_all(directory).expect("is removable");
    }
}
