//! Decompression of kernels: which format, how large, and into one buffer of known size.
//!
//! Before this, `bzimage` found the payload; after it, `elf` parses the result. One file per decoder:
//! `gzip`, `xz` (xz and lzma), `zstd`, `lz4` (legacy and frame), `lzo`; `output` is the buffer they fill.
//!
//! Memory. The output is reserved fallibly and never exceeds the caller's limit. Beside it decoders use, at most:
//!
//! | format | fallible | infallible, inside the library |
//! |---|---|---|
//! | gzip | - | 11 KiB decoder state (boxed) |
//! | xz, lzma | the dictionary: grows with the output, at most twice its size (half of it again while it grows) | 30 KiB tables |
//! | zstd | - | the window: the next power of two of the output's size and 0.25 MiB (half of it again while it grows); hostile data can double that |
//! | lz4, lzo | - | - |
//!
//! zstd's window is the one large infallible allocation; `zstd` asks the allocator for that much first and gives it
//! back, so that an allocator without memory gives [`ImageError::OutOfMemory`] here, not a panic in the library.
//! Stack: decoders are not inlined, so that their states (some 10 KiB for lzma, less for the others) do not add up in
//! one frame. Measured in threads of a release build: 16 KiB are enough for everything but lzma, which needs 26 KiB.

mod gzip;
mod lz4;
mod lzo;
mod output;
mod xz;
mod zstd;

use core::fmt;

use alloc::vec::Vec;

use crate::ImageError;
use crate::bytes::{Bytes, narrow};
use output::Output;

/// The compressions that Linux's build can choose for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// The .xz format; Linux uses it with the x86 branch filter and CRC32.
    Xz,
    /// RFC 8878.
    Zstd,
    /// The format of `lz4 -l`: blocks of 8 MiB without checksums; what Linux uses.
    Lz4Legacy,
    /// The LZ4 frame format 1.6.
    Lz4Frame,
    /// bzip2: known, not supported.
    Bzip2,
    /// The .lzma format ("LZMA alone").
    Lzma,
    /// The format of the `lzop` program.
    Lzo,
}

impl Compression {
    /// Finds the format by its magic number.
    #[must_use]
    pub fn detect(data: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Compression); 8] = [
            (&[0x1f, 0x8b], Compression::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4Legacy),
            (&[0x04, 0x22, 0x4d, 0x18], Compression::Lz4Frame),
            (b"BZh", Compression::Bzip2),
            // No magic in the format: the properties byte of the default settings and a dictionary of at least 64 KiB.
            (&[0x5d, 0, 0], Compression::Lzma),
            (&[0x89, b'L', b'Z', b'O', 0], Compression::Lzo),
        ];
        MAGICS.iter().find(|(magic, _)| data.starts_with(magic)).map(|&(_, compression)| compression)
    }

    /// The name as users know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4Legacy => "lz4 (legacy)",
            Self::Lz4Frame => "lz4",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Size of the uncompressed size that Linux's build appends (arch/x86/boot/compressed/Makefile, `size_append`).
const APPENDED_SIZE: u64 = 4;

/// The uncompressed size that the payload of a bzImage ends with, in bytes. For gzip this is the format's own trailer.
///
/// # Errors
/// The payload is shorter than that number.
pub fn appended_size(payload: &[u8]) -> Result<u32, ImageError> {
    let bytes = Bytes::new(payload);
    bytes.u32(bytes.len().saturating_sub(APPENDED_SIZE), "appended uncompressed size")
}

/// Decompresses the payload of a bzImage, which ends with its uncompressed size. That size allocates the output and
/// is verified, as is every checksum of the format.
///
/// # Errors
/// Unknown or unsupported format, corrupt data, another size than declared, more than `limit_bytes`, out of memory.
pub fn decompress(payload: &[u8], limit_bytes: usize) -> Result<Vec<u8>, ImageError> {
    let compression = detect(payload)?;
    let bytes = Bytes::new(payload);
    let declared = narrow(appended_size(payload)?.into(), "appended uncompressed size")?;
    let data = match compression {
        // The number is part of the gzip member.
        Compression::Gzip => bytes,
        _ => bytes.part(0, bytes.len().saturating_sub(APPENDED_SIZE), "compressed payload")?,
    };
    run(compression, data, Output::exactly(compression, declared, limit_bytes)?)
}

/// Decompresses a file on its own (`vmlinux.xz`), whose size is not known before.
///
/// The output grows by doubling, so up to half of it is used once more while it grows.
///
/// # Errors
/// As [`decompress`].
pub fn decompress_file(data: &[u8], limit_bytes: usize) -> Result<Vec<u8>, ImageError> {
    let compression = detect(data)?;
    let output = match compression {
        // The trailer has the size (modulo 2^32).
        Compression::Gzip => {
            Output::exactly(compression, narrow(appended_size(data)?.into(), "gzip ISIZE")?, limit_bytes)?
        }
        _ => Output::growing(compression, limit_bytes),
    };
    run(compression, Bytes::new(data), output)
}

/// The format, when there is a decoder for it. This comes before any number of the data is believed.
fn detect(data: &[u8]) -> Result<Compression, ImageError> {
    match Compression::detect(data) {
        Some(Compression::Bzip2) => Err(ImageError::CompressionUnsupported(Compression::Bzip2)),
        Some(compression) => Ok(compression),
        None => Err(ImageError::NotAKernel { first: crate::bytes::first_four(data) }),
    }
}

fn run(compression: Compression, data: Bytes<'_>, mut output: Output) -> Result<Vec<u8>, ImageError> {
    match compression {
        Compression::Gzip => gzip::decode(data, &mut output)?,
        Compression::Xz => xz::decode_xz(data, &mut output)?,
        Compression::Lzma => xz::decode_lzma(data, &mut output)?,
        Compression::Zstd => zstd::decode(data, &mut output)?,
        Compression::Lz4Legacy => lz4::decode_legacy(data, &mut output)?,
        Compression::Lz4Frame => lz4::decode_frame(data, &mut output)?,
        Compression::Lzo => lzo::decode(data, &mut output)?,
        Compression::Bzip2 => return Err(ImageError::CompressionUnsupported(compression)),
    }
    output.finish()
}
