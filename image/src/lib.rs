//! Kernel images: what is in the file, where it wants to lie in guest physical memory, and how a PVH kernel is told
//! about its machine. Pure functions on bytes and numbers: nothing here writes guest memory.
//!
//! The data travels through the modules in this order:
//!
//! 1. [`unpack`]: a file as it is on disk, to the ELF file inside. [`bzimage`] finds the payload of a Linux bzImage,
//!    [`decompress`] unpacks it.
//! 2. [`elf`]: the ELF file, or those of its [`Parts`] that matter, to a [`Kernel`]: segments, entry and Xen [`notes`], all
//!    checked.
//! 3. [`placement`]: the guest's RAM and the sizes, to addresses that do not overlap.
//! 4. [`load`]: the kernel and its address, to the copies and zero ranges that the caller carries out.
//! 5. [`pvh`]: the bytes of the start-of-day block whose address goes into `%ebx`.
//!
//! Users: the hypervisor builds dom0 with it before any OS runs, the toolstack's library builds guests with it. In
//! both cases the input is hostile: each number is checked before use, an error says which field at which offset is
//! wrong, and memory use is bounded by the limit that the caller passes (README.md has the table).
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

extern crate alloc;

mod bytes;
pub mod bzimage;
pub mod decompress;
pub mod elf;
mod error;
mod file;
pub mod load;
pub mod notes;
pub mod placement;
pub mod pvh;
mod range;

use alloc::borrow::Cow;

pub use decompress::Compression;
pub use elf::Kernel;
pub use error::{ImageError, Reason};
pub use file::Parts;
pub use range::GpaRange;

/// From a kernel file as it is on disk to the ELF file inside.
///
/// A bzImage gives its decompressed payload, a compressed file its content, and a plain ELF file passes through
/// without a copy.
///
/// `limit_bytes` bounds the decompressed size; see [`decompress`] for what decoders use beside the output.
///
/// # Errors
/// The file is none of the three, or what it says about itself is not true, or memory is short.
pub fn unpack(file: &[u8], limit_bytes: usize) -> Result<Cow<'_, [u8]>, ImageError> {
    if elf::is_elf(file) {
        return Ok(Cow::Borrowed(file));
    }
    let content = if let Some(header) = bzimage::Header::parse(file)? {
        decompress::decompress(header.payload(file)?, limit_bytes)?
    } else if Compression::detect(file).is_some() {
        decompress::decompress_file(file, limit_bytes)?
    } else {
        return Err(ImageError::NotAKernel { first: bytes::first_four(file) });
    };
    if !elf::is_elf(&content) {
        return Err(ImageError::NotAKernel { first: bytes::first_four(&content) });
    }
    Ok(Cow::Owned(content))
}
