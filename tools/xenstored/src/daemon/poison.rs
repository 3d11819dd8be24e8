//! A request that makes the daemon panic must not do so again after each restart.
//!
//! The daemon notes for which domain it is at work. When it panics then, the domain's number goes into a file, and the next daemon
//! cuts that domain's connection: it is told that it failed, and may begin anew. A panic is a bug of ours, but all other domains
//! must not suffer from it for ever. The control domain is let off: its kernel cannot begin anew, and who can make requests there can
//! end the daemon anyway. (A program on a socket loses its connection with the daemon.)

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The domain that the daemon is at work for; [`NOBODY`] if for none.
static CURRENT: AtomicU32 = AtomicU32::new(NOBODY);
const NOBODY: u32 = u32::MAX;

/// Says for whom the daemon is at work, until it is dropped.
#[must_use]
pub(super) struct Work(());

impl Work {
    /// Begins to work for a domain.
    pub(super) fn begin(domain: u16) -> Work {
        CURRENT.store(domain.into(), Ordering::Relaxed);
        Work(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        CURRENT.store(NOBODY, Ordering::Relaxed);
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("poison")
}

/// From now on a panic leaves the number of the domain that was worked for.
pub(super) fn watch_out(folder: &Path) {
    let folder = folder.to_owned();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Before anything else is done, which may fail, too.
        leave(&folder);
        usual(info);
    }));
}

/// Leaves the number of the domain that is worked for.
fn leave(folder: &Path) {
    let domain = CURRENT.load(Ordering::Relaxed);
    if domain != NOBODY && domain != 0 {
        // If it cannot be written, the next daemon has to do without.
        drop(fs::write(file(folder), domain.to_string()));
    }
}

/// The domain that an earlier daemon panicked for; it is told once.
pub(super) fn take(folder: &Path) -> Option<u16> {
    let text = fs::read_to_string(file(folder)).ok()?;
    fs::remove_file(file(folder)).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_domain_it_was_for() {
        let folder = std::env::temp_dir().join(format!("xenstored-poison-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        leave(&folder);
        assert_eq!(take(&folder), None, "it was for nobody");
        {
            let _work = Work::begin(0);
            leave(&folder);
            assert_eq!(take(&folder), None, "the control domain is let off");
        }
        let done = std::panic::catch_unwind(|| {
            let _work = Work::begin(7);
            leave(&folder);
            std::panic::resume_unwind(Box::new("a bug"));
        });
        assert!(done.is_err());
        assert_eq!((take(&folder), take(&folder)), (Some(7), None));
        fs::remove_dir_all(folder).expect("is ours");
    }
}
