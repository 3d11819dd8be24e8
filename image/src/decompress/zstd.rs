//! zstd (RFC 8878) by `ruzstd`. Frames may follow each other, skippable frames are skipped, checksums are verified.
//!
//! Memory. The library keeps the declared window in a buffer that grows with the data, up to the declared size:
//! Debian's 6.12 kernel declares 128 MiB, a hostile one terabytes. No match reaches back over more than the whole
//! output, so a window larger than the output's limit is declared smaller to the library (`Frame::clamp_window`):
//! the result is the same and the buffer is bounded.

use alloc::vec::Vec;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::Read;

use super::output::Output;
use crate::ImageError;
use crate::bytes::{Bytes, widen};

/// Skippable frames have magics 0x184d2a50 to 0x184d2a5f (RFC 8878 section 3.1.2).
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
const SKIPPABLE_MASK: u32 = 0xffff_fff0;
/// The longest frame header: magic, descriptor, window descriptor, dictionary ID, content size.
const LONGEST_HEADER: usize = 4 + 1 + 1 + 4 + 8;
/// Offset of the frame header descriptor.
const DESCRIPTOR: u64 = 4;
/// Offset of the window descriptor, when the frame has one.
const WINDOW_DESCRIPTOR: u64 = 5;
/// In the frame header descriptor: no window descriptor, the content size is the window.
const SINGLE_SEGMENT: u8 = 1 << 5;
/// The largest block, and so the smallest window that does not change what a frame means.
const LARGEST_BLOCK: u64 = 128 << 10;
/// What the library's window buffer adds to a power of two.
const WINDOW_SLACK: usize = (256 << 10) + 1;

/// Unpacks all frames in `data`.
#[inline(never)]
pub(super) fn decode(data: Bytes<'_>, output: &mut Output) -> Result<(), ImageError> {
    if let Some(declared) = output.declared() {
        probe_window(declared)?;
    }
    let mut at = 0;
    while at < data.len() {
        let magic = data.u32(at, "zstd frame magic")?;
        let frame = if magic & SKIPPABLE_MASK == SKIPPABLE_MAGIC {
            let size = data.u32(at.saturating_add(4), "zstd skippable frame size")?;
            let len = u64::from(size).saturating_add(8);
            data.part(at, len, "zstd skippable frame")?;
            len
        } else {
            decode_frame(data.part(at, data.len().saturating_sub(at), "zstd frame")?, output)?
        };
        at = at.saturating_add(frame);
    }
    Ok(())
}

/// Unpacks the frame at the start of `data`; the size of the frame.
fn decode_frame(data: Bytes<'_>, output: &mut Output) -> Result<u64, ImageError> {
    let header = header_with_clamped_window(data, widen(output.left()))?;
    let mut header_rest = header.as_slice();
    // A new decoder for each frame: a used one would reserve the declared window at once.
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(u64::MAX);
    decoder.init(&mut header_rest).map_err(|error| output.corrupt(data.position(0), format_args!("{error}")))?;
    if decoder.content_size() > widen(output.left()) {
        return Err(output.overflow());
    }
    let mut at = widen(header.len().saturating_sub(header_rest.len()));
    while !decoder.is_finished() {
        let blocks = data.part(at, data.len().saturating_sub(at), "zstd block")?;
        let mut rest = blocks.as_slice();
        // One block at a time: after it everything that has left the window is moved to the output, or is too much.
        decoder
            .decode_blocks(&mut rest, BlockDecodingStrategy::UptoBlocks(1))
            .map_err(|error| output.corrupt(data.position(at), format_args!("{error}")))?;
        at = data.len().saturating_sub(widen(rest.len()));
        drain(&mut decoder, data.position(at), output)?;
    }
    match (decoder.get_checksum_from_data(), decoder.get_calculated_checksum()) {
        (Some(declared), Some(actual)) if declared != actual => {
            Err(output
                .corrupt(data.position(at), format_args!("XXH64 is {actual:#010x}, the frame says {declared:#010x}")))
        }
        _ => Ok(at),
    }
}

/// Moves to the output what the decoder no longer needs; at the end of the frame that is everything.
fn drain(decoder: &mut FrameDecoder, position: u64, output: &mut Output) -> Result<(), ImageError> {
    let ready = decoder.can_collect();
    if ready > output.left() {
        return Err(output.overflow());
    }
    let mut left = ready;
    while left != 0 {
        let room = output.room(left)?;
        let written = decoder.read(room).unwrap_or(0);
        if written == 0 {
            return Err(output.corrupt(position, format_args!("{left} bytes are missing")));
        }
        output.advance(written)?;
        left = left.saturating_sub(written);
    }
    Ok(())
}

/// The first bytes of the frame, at least its header, with a window of hardly more than `output_left` bytes.
fn header_with_clamped_window(data: Bytes<'_>, output_left: u64) -> Result<Vec<u8>, ImageError> {
    let descriptor = data.u8(DESCRIPTOR, "zstd frame header descriptor")?;
    let mut header = Vec::new();
    header
        .try_reserve_exact(LONGEST_HEADER)
        .map_err(|_| ImageError::OutOfMemory { what: "zstd frame header", bytes: widen(LONGEST_HEADER) })?;
    header.extend(data.as_slice().iter().take(LONGEST_HEADER));
    // With a single segment the window is the content size, which `decode_frame` compares with the output.
    if descriptor & SINGLE_SEGMENT == 0 {
        let declared = data.u8(WINDOW_DESCRIPTOR, "zstd window descriptor")?;
        let enough = window_descriptor(output_left.max(LARGEST_BLOCK));
        // Descriptors are ordered as the sizes they mean.
        if let Some(window) = header.get_mut(5) {
            *window = declared.min(enough);
        }
    }
    Ok(header)
}

/// The smallest power of two that holds `size`, as a window descriptor: the exponent over 2^10 in the upper five bits.
fn window_descriptor(size: u64) -> u8 {
    let exponent = size.checked_next_power_of_two().map_or(63, u64::trailing_zeros).saturating_sub(10).min(31);
    u8::try_from(exponent).unwrap_or(31) << 3
}

/// The library allocates its window infallibly, doubling it as the data grows. This asks for the most it will hold at
/// once, for `declared` bytes of output, and gives it back.
fn probe_window(declared: usize) -> Result<(), ImageError> {
    let last = declared.checked_next_power_of_two().and_then(|size| size.checked_add(WINDOW_SLACK));
    let no_memory = || ImageError::OutOfMemory { what: "zstd window", bytes: last.map_or(u64::MAX, widen) };
    let last_size = last.ok_or_else(no_memory)?;
    let mut before: Vec<u8> = Vec::new();
    let mut after: Vec<u8> = Vec::new();
    before.try_reserve_exact(last_size / 2).map_err(|_| no_memory())?;
    after.try_reserve_exact(last_size).map_err(|_| no_memory())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_descriptors_hold_what_was_asked_for() {
        for size in [1, 1 << 10, (1 << 10) + 1, 128 << 10, 57_644_480, 1 << 27, 1 << 41, u64::MAX] {
            let descriptor = window_descriptor(size);
            let window = 1u64 << (10 + (descriptor >> 3));
            assert!(window >= size.min(1 << 41), "{size}: {window}");
            assert!(window <= size.max(1 << 9).saturating_mul(2), "{size}: {window}");
        }
    }
}
