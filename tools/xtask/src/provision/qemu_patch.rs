//! A private copy of the installed QEMU in which guests' reads of control registers are checked rightly.
//!
//! QEMU 10 tests the wrong condition when it decides which SVM intercept a `mov %crN, reg` belongs to, so that reads of
//! CR2, CR3, CR4 and CR8 count as reads of CR0. Debian's Xen 4.17 intercepts those and then crashes every PVH and HVM
//! guest. One conditional branch too many is the whole fault: this file finds that branch in the program and replaces it
//! by a no-operation of the same length, in a copy in the cache. Oxen never sets that intercept and needs no copy.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::qemu::{self, Qemu};
use super::{packages, qemu_private};
use crate::paths::Paths;
use crate::progress;

/// One place of the pattern: a byte that must be there, or any byte (displacements that the linker chose).
const ANY: Option<u8> = None;

const fn is(byte: u8) -> Option<u8> {
    Some(byte)
}

/// The code around the branch, as compilers write it for this source line: sub $2, cmp $2, jbe, test, jne, load of the
/// intercept number, test of it, the branch `je`, and the addition of the register number that the branch skips.
const PATTERN: [Option<u8>; 37] = [
    is(0x83),
    is(0xe8),
    is(0x02),
    is(0x3c),
    is(0x02),
    is(0x76),
    ANY,
    is(0xf6),
    is(0xc2),
    is(0xf7),
    is(0x0f),
    is(0x85),
    ANY,
    ANY,
    ANY,
    ANY,
    is(0x41),
    is(0x0f),
    is(0xb6),
    is(0x44),
    is(0x24),
    is(0x18),
    is(0x84),
    is(0xc0),
    is(0x0f),
    is(0x84),
    ANY,
    ANY,
    ANY,
    ANY,
    is(0x01),
    is(0xd0),
    is(0x41),
    is(0x88),
    is(0x44),
    is(0x24),
    is(0x18),
];
/// Where the branch lies in the pattern, and the six-byte no-operation that takes its place.
const BRANCH: usize = 24;
const NOP6: [u8; 6] = [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00];

/// The QEMU under which Debian's real Xen runs: the patched copy, or Debian 12's QEMU 7.2, which lacks the fault.
pub(crate) fn for_real_xen(paths: &Paths) -> Result<Qemu> {
    let stock = qemu::stock(paths)?;
    match patched_copy(paths, &stock) {
        Ok(copy) => Ok(copy),
        Err(error) => {
            progress::note(&format!(
                "the installed QEMU cannot be patched ({error:#}); using a private copy of QEMU 7.2"
            ));
            qemu_private::qemu72(paths)
        }
    }
}

/// The patched copy, made when it does not exist yet for this very program.
fn patched_copy(paths: &Paths, stock: &Qemu) -> Result<Qemu> {
    let original = &stock.program;
    let meta = std::fs::metadata(original).with_context(|| format!("cannot read {}", original.display()))?;
    let changed = meta.modified()?.duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let copy = paths.cache.join(format!("qemu-fixed-{}-{changed}", meta.len()));
    if !copy.is_file() {
        let _lock = packages::lock(paths)?;
        let mut program = std::fs::read(original).with_context(|| format!("cannot read {}", original.display()))?;
        patch(&mut program)?;
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

/// Replaces the branch.
///
/// # Errors
/// The pattern is not there, or more than once: this is another build of QEMU, which must not be touched.
fn patch(program: &mut [u8]) -> Result<()> {
    let mut found = program.windows(PATTERN.len()).enumerate().filter(|(_, window)| matches(window)).map(|(at, _)| at);
    let (first, second) = (found.next(), found.next());
    drop(found);
    match (first, second) {
        (Some(at), None) => {
            program[at + BRANCH..at + BRANCH + NOP6.len()].copy_from_slice(&NOP6);
            Ok(())
        }
        (None, _) => bail!("the branch was not found in this build"),
        (Some(_), Some(_)) => bail!("the branch was found more than once in this build"),
    }
}

fn matches(window: &[u8]) -> bool {
    window.iter().zip(PATTERN).all(|(byte, wanted)| wanted.is_none_or(|wanted| wanted == *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Vec<u8> {
        PATTERN.iter().map(|byte| byte.unwrap_or(0xaa)).collect()
    }

    #[test]
    fn the_one_branch_becomes_a_nop_and_nothing_else_changes() {
        let mut program = [vec![0x90; 100], code(), vec![0x90; 100]].concat();
        let before = program.clone();
        patch(&mut program).unwrap();
        let changed: Vec<usize> = (0..program.len()).filter(|at| program[*at] != before[*at]).collect();
        assert_eq!(changed, (124..130).collect::<Vec<_>>());
        assert!(patch(&mut program).is_err(), "a patched program has no branch left");
    }

    #[test]
    fn two_matches_are_refused() {
        let mut program = [code(), code()].concat();
        let error = patch(&mut program).unwrap_err();
        assert!(error.to_string().contains("more than once"));
    }
}
