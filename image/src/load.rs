//! From a kernel and the address it goes to, to the writes that load it. Nothing here writes: the caller carries the
//! pieces out, in its own kind of guest memory and as preemptibly as it likes.
//!
//! Before this, `placement` decided the address; after it `pvh` describes the result to the kernel.

use core::iter::FusedIterator;

use crate::bytes::Bytes;
use crate::elf::Segment;
use crate::{GpaRange, ImageError, Kernel};

/// One write to guest physical memory. Never empty, never crosses a multiple of the chunk size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Copy bytes of the file.
    Copy {
        /// Where to.
        gpa: u64,
        /// From where in the file.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Clear memory (bss, and what a segment's file part does not fill).
    Zero {
        /// From where.
        gpa: u64,
        /// How many bytes.
        len: u64,
    },
}

/// The pieces of a kernel, in the order of its segments.
#[derive(Clone, Debug)]
pub struct Pieces<'k> {
    segments: core::slice::Iter<'k, Segment>,
    /// What is left of the current segment's bytes in the file, and where they are.
    bytes: u64,
    offset: u64,
    at: u64,
    end: u64,
    /// Added to each address, modulo 2^64; `pieces` has checked that no real address wraps.
    shift: u64,
    /// A power of two.
    chunk: u64,
}

/// The pieces that load `kernel` with the lowest byte of its span at `start`. For a kernel where it was linked this is
/// `kernel.span.start()`. Pieces end at every multiple of `chunk` bytes, a power of two: the page size for callers
/// that map guest memory page by page.
///
/// Holes between segments are not written.
///
/// # Errors
/// `chunk` is not a power of two, or the kernel would wrap around the address space there.
pub fn pieces<'k>(kernel: &'k Kernel<'_>, start: u64, chunk: u64) -> Result<Pieces<'k>, ImageError> {
    if !chunk.is_power_of_two() {
        return Err(ImageError::Argument { what: "chunk size", value: chunk, problem: "not a power of two" });
    }
    span_at(kernel, start)?;
    Ok(Pieces {
        segments: kernel.segments.iter(),
        bytes: 0,
        offset: 0,
        at: 0,
        end: 0,
        shift: start.wrapping_sub(kernel.span.start()),
        chunk,
    })
}

/// The bytes of a piece, for whoever has the whole file in memory.
///
/// # Errors
/// The file does not have them.
pub fn bytes(file: &[u8], offset: u64, len: u64) -> Result<&[u8], ImageError> {
    Bytes::new(file).part(offset, len, "bytes of a segment").map(Bytes::as_slice)
}

/// The addresses that the kernel takes when the lowest byte of its span is at `start`.
///
/// # Errors
/// It would wrap around the address space.
pub fn span_at(kernel: &Kernel<'_>, start: u64) -> Result<GpaRange, ImageError> {
    GpaRange::new(start, kernel.span.len()).ok_or(ImageError::Argument {
        what: "load address",
        value: start,
        problem: "the kernel wraps around the address space",
    })
}

/// The PVH entry point of a kernel loaded with the lowest byte of its span at `start`.
///
/// # Errors
/// As [`Kernel::pvh_entry`], or the entry is not below 4 GiB there.
pub fn pvh_entry_at(kernel: &Kernel<'_>, start: u64) -> Result<u32, ImageError> {
    let linked = u64::from(kernel.pvh_entry()?);
    // The entry is in the span, so the distance does not wrap.
    let entry = span_at(kernel, start)?.start().saturating_add(linked.saturating_sub(kernel.span.start()));
    u32::try_from(entry).map_err(|_| ImageError::Argument {
        what: "PVH entry point",
        value: entry,
        problem: "not below 4 GiB",
    })
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        while self.at == self.end {
            let segment = self.segments.next()?;
            (self.bytes, self.offset) = (segment.length, segment.offset);
            self.at = segment.range.start().wrapping_add(self.shift);
            self.end = segment.range.end().wrapping_add(self.shift);
        }
        let gpa = self.at;
        // To the next multiple of the chunk size: `chunk` is a power of two, so the mask is right and nothing wraps.
        let mask = self.chunk.wrapping_sub(1);
        let to_border = self.chunk.saturating_sub(gpa & mask);
        let len = to_border.min(self.end.wrapping_sub(gpa));
        if self.bytes == 0 {
            self.at = gpa.wrapping_add(len);
            return Some(Piece::Zero { gpa, len });
        }
        let len = len.min(self.bytes);
        let offset = self.offset;
        // The parser has checked that they are in the file and in the range.
        (self.bytes, self.offset) = (self.bytes.saturating_sub(len), offset.saturating_add(len));
        self.at = gpa.wrapping_add(len);
        Some(Piece::Copy { gpa, offset, len })
    }
}

impl FusedIterator for Pieces<'_> {}
