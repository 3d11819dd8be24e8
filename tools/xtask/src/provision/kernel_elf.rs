//! The ELF file inside of a kernel image, kept in the cache.
//!
//! A bzImage is unpacked anew in every `xl create`, which takes seconds under emulation; tests that create many guests
//! use the ELF file instead (`--domu-elf`).

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use super::packages;
use crate::paths::Paths;
use crate::progress;

/// Bytes of the largest kernel that is unpacked.
const LARGEST_KERNEL: usize = 512 << 20;

/// The unpacked form of a kernel image; made when it is not there yet for this very file.
///
/// # Errors
/// The file is no kernel image, or packed in a way that the `image` crate does not know.
pub(crate) fn unpacked(paths: &Paths, kernel: &Path) -> Result<PathBuf> {
    let meta = std::fs::metadata(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let changed = meta.modified()?.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let name = kernel.file_name().unwrap_or_default().display();
    let place = paths.cache.join(format!("elf-{name}-{}-{changed}", meta.len()));
    if place.is_file() {
        return Ok(place);
    }
    let _lock = packages::lock(paths)?;
    if !place.is_file() {
        let step = progress::step(&format!("unpacking {}", kernel.display()));
        let packed = std::fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
        let elf = image::unpack(&packed, LARGEST_KERNEL).with_context(|| format!("{}", kernel.display()))?;
        let fresh = tempfile::NamedTempFile::new_in(&paths.cache)?.into_temp_path();
        std::fs::write(&fresh, &elf)?;
        fresh.persist(&place).with_context(|| format!("cannot write {}", place.display()))?;
        step.done();
    }
    Ok(place)
}
