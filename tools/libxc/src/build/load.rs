//! Copying into the new domain's memory: kernel, RAM disk, and what the plan made.

use image::load::{Piece, pieces};
use image::{GpaRange, ImageError};

use super::{Payload, Payloads};
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::plan::Source;
use crate::plan::layout::PAGE;
use crate::trap::Trap;

/// Pieces of the kernel end at multiples of this; a window never spans them either.
const CHUNK: u64 = 2 << 20;

/// Copies `source` to `range`, and sets what is left of the range to zero.
pub(super) fn load<T: Trap>(
    handle: &Handle<T>,
    domain: u16,
    range: GpaRange,
    source: &Source,
    payloads: &Payloads<'_>,
) -> Result<()> {
    match source {
        Source::Kernel => load_kernel(handle, domain, range, payloads),
        Source::Ramdisk => copy(handle, domain, range, payloads.ramdisk),
        Source::Made { bytes, .. } => copy(handle, domain, range, bytes.as_slice().into()),
        Source::IdentityPageTable => copy(handle, domain, range, identity_page_table().as_slice().into()),
    }
}

fn copy<T: Trap>(handle: &Handle<T>, domain: u16, range: GpaRange, bytes: Payload<'_>) -> Result<()> {
    let length = bytes.len();
    if length > range.len() {
        return Err(Error::Protocol(format!(
            "{length} bytes do not fit into {range}; did a file change since the plan was made?"
        )));
    }
    let mut memory = handle.fresh_memory(domain);
    memory.write(range.start(), bytes, range.end())?;
    memory.clear(range.start() + length, range.len() - length, range.end())
}

fn load_kernel<T: Trap>(handle: &Handle<T>, domain: u16, range: GpaRange, payloads: &Payloads<'_>) -> Result<()> {
    let mut memory = handle.fresh_memory(domain);
    for piece in pieces(payloads.kernel, range.start(), CHUNK).map_err(image_error)? {
        match piece {
            Piece::Copy { gpa, offset, len } => {
                let bytes = payloads.kernel_file.part(offset, len);
                let bytes = bytes.ok_or_else(|| Error::Protocol("the kernel's file is not the one it was".into()))?;
                memory.write(gpa, bytes, range.end())?;
            }
            Piece::Zero { gpa, len } => memory.clear(gpa, len, range.end())?,
        }
    }
    Ok(())
}

fn image_error(error: ImageError) -> Error {
    Error::Protocol(error.to_string())
}

/// A page directory of 4 MiB pages that maps each address below 4 GiB to itself; Intel processors use it while the guest
/// has paging off.
fn identity_page_table() -> Vec<u8> {
    /// Present, writable, user, accessed, dirty, large.
    const FLAGS: u32 = 0xe7;
    (0..PAGE as u32 / 4).flat_map(|index| (index << 22 | FLAGS).to_le_bytes()).collect()
}
