//! Private copies of the installed QEMU with its faults corrected ([`super::qemu_corrections`]).
//!
//! Oxen runs on a copy with a lock where QEMU lacks one, Debian's real Xen on a copy in which guests' reads of control
//! registers are checked rightly, too. Copies lie in the cache and are made again for another build of QEMU.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result};

use super::qemu::{self, Qemu};
use super::qemu_corrections::Correction;
use super::{packages, qemu_private};
use crate::paths::Paths;
use crate::progress;

/// The QEMU under which Oxen runs: the corrected copy, or the installed one, under which a domain dies now and then if the
/// machine has more than one processor.
pub(crate) fn for_oxen(paths: &Paths) -> Result<Qemu> {
    static NOTE: Once = Once::new();
    let stock = qemu::stock(paths)?;
    Ok(corrected_copy(paths, &stock, &[Correction::Lock]).unwrap_or_else(|error| {
        NOTE.call_once(|| {
            progress::note(&format!(
                "the installed QEMU cannot be corrected ({error:#}); unless it has been by its makers, a domain may die of \
                 a race in it"
            ));
        });
        stock
    }))
}

/// The QEMU under which Debian's real Xen runs: the corrected copy, or Debian 12's QEMU 7.2, which lacks the fault of reads of
/// control registers.
pub(crate) fn for_real_xen(paths: &Paths) -> Result<Qemu> {
    let stock = qemu::stock(paths)?;
    match corrected_copy(paths, &stock, &[Correction::Lock, Correction::Branch]) {
        Ok(copy) => Ok(copy),
        Err(error) => {
            progress::note(&format!(
                "the installed QEMU cannot be corrected ({error:#}); using a private copy of QEMU 7.2"
            ));
            qemu_private::qemu72(paths)
        }
    }
}

/// A corrected copy, made when it does not exist yet for this very program.
fn corrected_copy(paths: &Paths, stock: &Qemu, corrections: &[Correction]) -> Result<Qemu> {
    let original = &stock.program;
    let meta = std::fs::metadata(original).with_context(|| format!("cannot read {}", original.display()))?;
    let changed = meta.modified()?.duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let names: Vec<_> = corrections.iter().map(|correction| correction.name()).collect();
    let copy = paths.cache.join(format!("qemu-{}-{}-{changed}", names.join("-"), meta.len()));
    if !copy.is_file() {
        let _lock = packages::lock(paths)?;
        let mut program = std::fs::read(original).with_context(|| format!("cannot read {}", original.display()))?;
        corrections.iter().try_for_each(|correction| correction.apply(&mut program))?;
        let file = tempfile::NamedTempFile::new_in(&paths.cache)?;
        std::fs::write(file.path(), &program)?;
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o755))?;
        // Closed before it is run: Linux refuses to run a file that is open for writing.
        file.into_temp_path().persist(&copy).with_context(|| format!("cannot write {}", copy.display()))?;
        progress::note(&format!("made {}", copy.display()));
    }
    Ok(Qemu { program: copy, first_args: data_dirs(stock)?, ..stock.clone() })
}

/// Where the installed program looks for firmware, as arguments for a copy that lies elsewhere.
fn data_dirs(stock: &Qemu) -> Result<Vec<String>> {
    let output = Command::new(&stock.program)
        .args(["-L", "help"])
        .output()
        .with_context(|| format!("cannot run {}", stock.program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.starts_with('/'))
        .flat_map(|line| ["-L".to_owned(), line.to_owned()])
        .collect())
}
