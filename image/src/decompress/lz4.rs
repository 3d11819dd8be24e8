//! LZ4: the legacy framing that Linux uses (`lz4 -l`) and the frame format. Framing and checksums here, blocks by
//! `lz4_flex` (its safe decoder).
//!
//! Facts: lz4's doc/lz4_Frame_format.md, version 1.6.

use super::output::Output;
use crate::ImageError;
use crate::bytes::Bytes;

/// "Legacy frame" magic; each block follows with its size and unpacks to at most `LEGACY_BLOCK` bytes.
const LEGACY_MAGIC: u32 = 0x184c_2102;
const LEGACY_BLOCK: usize = 8 << 20;
/// How far a match may reach back, over block borders when blocks are linked.
const HISTORY: usize = 64 << 10;

/// FLG bits of the frame format.
const FLAG_DICTIONARY: u8 = 1 << 0;
const FLAG_RESERVED: u8 = 1 << 1;
const FLAG_CONTENT_CHECKSUM: u8 = 1 << 2;
const FLAG_CONTENT_SIZE: u8 = 1 << 3;
const FLAG_BLOCK_CHECKSUM: u8 = 1 << 4;
const FLAG_INDEPENDENT: u8 = 1 << 5;
/// FLG: version 01 in the upper two bits.
const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
/// In a block's size: its data is not compressed.
const STORED: u32 = 1 << 31;

/// Unpacks legacy frames up to the end of `data`.
#[inline(never)]
pub(super) fn decode_legacy(data: Bytes<'_>, output: &mut Output) -> Result<(), ImageError> {
    // The magic was seen by the detection.
    let mut at: u64 = 4;
    while at < data.len() {
        let size = data.u32(at, "lz4 block size")?;
        at = at.saturating_add(4);
        if size == LEGACY_MAGIC {
            // Frames may be concatenated; no block is that large.
            continue;
        }
        let block = data.part(at, size.into(), "lz4 block")?;
        decode_block(block, output, 0, LEGACY_BLOCK)?;
        at = at.saturating_add(size.into());
    }
    Ok(())
}

/// Unpacks one frame that is all of `data`.
#[inline(never)]
pub(super) fn decode_frame(data: Bytes<'_>, output: &mut Output) -> Result<(), ImageError> {
    let header = FrameHeader::parse(data)?;
    let start = output.written().len();
    let history = if header.flags & FLAG_INDEPENDENT == 0 { HISTORY } else { 0 };
    let mut at = header.size;
    loop {
        let word = data.u32(at, "lz4 block size")?;
        at = at.saturating_add(4);
        if word == 0 {
            break;
        }
        let block = data.part(at, (word & !STORED).into(), "lz4 block")?;
        at = at.saturating_add(block.len());
        if header.flags & FLAG_BLOCK_CHECKSUM != 0 {
            check(block.as_slice(), data, at, "lz4 block checksum")?;
            at = at.saturating_add(4);
        }
        if word & STORED == 0 {
            decode_block(block, output, history, header.block_limit)?;
        } else {
            store_block(block, output, header.block_limit)?;
        }
    }
    let content = output.written().get(start..).unwrap_or_default();
    if header.flags & FLAG_CONTENT_CHECKSUM != 0 {
        check(content, data, at, "lz4 content checksum")?;
        at = at.saturating_add(4);
    }
    let actual = crate::bytes::widen(content.len());
    if let Some(declared) = header.content_size.filter(|&declared| declared != actual) {
        return Err(ImageError::SizeMismatch { what: "lz4 content size", declared, actual });
    }
    match data.len().saturating_sub(at) {
        0 => Ok(()),
        after => Err(output.corrupt(data.position(at), format_args!("{after} bytes after the end of the frame"))),
    }
}

/// What the frame descriptor says.
struct FrameHeader {
    flags: u8,
    /// The largest uncompressed block, in bytes.
    block_limit: usize,
    content_size: Option<u64>,
    /// Of the magic and the descriptor, in bytes.
    size: u64,
}

impl FrameHeader {
    fn parse(data: Bytes<'_>) -> Result<Self, ImageError> {
        let flags = data.u8(4, "lz4 FLG")?;
        let field = |what, offset, value: u8, problem| ImageError::Field {
            what,
            offset: data.position(offset),
            value: value.into(),
            problem,
        };
        if flags & VERSION_MASK != VERSION || flags & FLAG_RESERVED != 0 {
            return Err(field("lz4 FLG", 4, flags, "not version 01, or reserved bits are set"));
        }
        if flags & FLAG_DICTIONARY != 0 {
            return Err(field("lz4 FLG", 4, flags, "dictionaries are not supported"));
        }
        let block_descriptor = data.u8(5, "lz4 BD")?;
        let block_limit = match block_descriptor {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => {
                return Err(field("lz4 BD", 5, block_descriptor, "not a block size of the format"));
            }
        };
        let (content_size, end) =
            if flags & FLAG_CONTENT_SIZE == 0 { (None, 6) } else { (Some(data.u64(6, "lz4 content size")?), 14) };
        let declared = data.u8(end, "lz4 header checksum")?;
        let descriptor = data.part(4, u64::saturating_sub(end, 4), "lz4 frame descriptor")?;
        let [_, actual, ..] = hash(descriptor.as_slice()).to_le_bytes();
        if declared != actual {
            return Err(field("lz4 header checksum", end, declared, "does not match the header"));
        }
        Ok(Self { flags, block_limit, content_size, size: u64::saturating_add(end, 1) })
    }
}

/// Unpacks a block behind what is in the output, to at most `limit` bytes, with matches into the last `history` bytes.
fn decode_block(block: Bytes<'_>, output: &mut Output, history: usize, limit: usize) -> Result<(), ImageError> {
    let left = output.left();
    let (before, room) = output.room_with_history(history, limit)?;
    let room = room.get_mut(..limit.min(left)).unwrap_or_default();
    let room_is_all_there_is = room.len() < limit;
    match lz4_flex::block::decompress_into_with_dict(block.as_slice(), room, before) {
        Ok(written) => output.advance(written),
        // The block does not fit. When it was given less than a block may have, the whole output is too long.
        Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if room_is_all_there_is => Err(output.overflow()),
        Err(error) => Err(output.corrupt(block.position(0), format_args!("{error}"))),
    }
}

fn store_block(block: Bytes<'_>, output: &mut Output, limit: usize) -> Result<(), ImageError> {
    let bytes = block.as_slice();
    if bytes.len() > limit {
        return Err(output.corrupt(block.position(0), format_args!("a block of {} bytes", bytes.len())));
    }
    let overflow = output.overflow();
    let place = output.room(bytes.len())?.get_mut(..bytes.len()).ok_or(overflow)?;
    place.copy_from_slice(bytes);
    output.advance(bytes.len())
}

fn hash(bytes: &[u8]) -> u32 {
    twox_hash::XxHash32::oneshot(0, bytes)
}

/// Compares the checksum of `bytes` with the one at `offset` of `data`.
fn check(bytes: &[u8], data: Bytes<'_>, offset: u64, what: &'static str) -> Result<(), ImageError> {
    let declared = data.u32(offset, what)?;
    if declared == hash(bytes) {
        return Ok(());
    }
    Err(ImageError::Field {
        what,
        offset: data.position(offset),
        value: declared.into(),
        problem: "does not match the data",
    })
}
