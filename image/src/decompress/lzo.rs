//! LZO as the `lzop` program writes it, which is what Linux uses: framing and checksums here, LZO1X blocks by
//! `lzokay`.
//!
//! The format has no specification beside lzop's own reader; field names are those of its sources. All numbers are
//! big endian.

use super::output::Output;
use crate::ImageError;
use crate::bytes::{Bytes, narrow};

/// Size of the magic.
const MAGIC: u64 = 9;
/// lzop versions from 0.94 on have the fields `version_needed_to_extract`, `level` and `mtime_high`.
const FIRST_LONG_HEADER: u16 = 0x0940;
/// Header flags.
const ADLER32_OF_DATA: u32 = 0x0001;
const ADLER32_OF_BLOCK: u32 = 0x0002;
const EXTRA_FIELD: u32 = 0x0040;
const CRC32_OF_DATA: u32 = 0x0100;
const CRC32_OF_BLOCK: u32 = 0x0200;
const MULTIPART: u32 = 0x0400;
const FILTER: u32 = 0x0800;
const CRC32_OF_HEADER: u32 = 0x1000;
/// Methods 1 to 3 are LZO1X in three settings of the encoder.
const METHODS: core::ops::RangeInclusive<u8> = 1..=3;
/// lzop's own limit for a block, in bytes.
const LARGEST_BLOCK: u32 = 64 << 20;

/// Unpacks one lzop file that is all of `data`.
#[inline(never)]
pub(super) fn decode(data: Bytes<'_>, output: &mut Output) -> Result<(), ImageError> {
    let (flags, mut at) = parse_header(data)?;
    loop {
        let size = data.u32_be(at, "lzop dst_len")?;
        at = at.saturating_add(4);
        if size == 0 {
            break;
        }
        at = decode_block(data, flags, size, at, output)?;
    }
    match data.len().saturating_sub(at) {
        0 => Ok(()),
        after => Err(output.corrupt(data.position(at), format_args!("{after} bytes after the end of the file"))),
    }
}

/// The header's flags and its size in bytes.
fn parse_header(data: Bytes<'_>) -> Result<(u32, u64), ImageError> {
    let version = data.u16_be(MAGIC, "lzop version")?;
    let long = version >= FIRST_LONG_HEADER;
    // After the magic: version, library version, and version needed.
    let mut at = MAGIC.saturating_add(if long { 6 } else { 4 });
    let method = data.u8(at, "lzop method")?;
    if !METHODS.contains(&method) {
        return Err(field(data, "lzop method", at, method.into(), "not LZO1X"));
    }
    // The method and the level.
    at = at.saturating_add(if long { 2 } else { 1 });
    let flags = data.u32_be(at, "lzop flags")?;
    if flags & (EXTRA_FIELD | MULTIPART | FILTER) != 0 {
        return Err(field(data, "lzop flags", at, flags.into(), "extra fields, parts and filters are not supported"));
    }
    // The flags, the mode, and one or two halves of the time.
    at = at.saturating_add(if long { 16 } else { 12 });
    let name = data.u8(at, "lzop name length")?;
    at = at.saturating_add(1).saturating_add(name.into());

    let header = data.part(MAGIC, at.saturating_sub(MAGIC), "lzop header")?.as_slice();
    let actual = if flags & CRC32_OF_HEADER == 0 { adler32(header) } else { crc32fast::hash(header) };
    let declared = data.u32_be(at, "lzop header checksum")?;
    if declared != actual {
        return Err(field(data, "lzop header checksum", at, declared.into(), "does not match the header"));
    }
    Ok((flags, at.saturating_add(4)))
}

/// Unpacks the block whose uncompressed `size` lies before `at`; the offset behind the block.
fn decode_block(data: Bytes<'_>, flags: u32, size: u32, mut at: u64, output: &mut Output) -> Result<u64, ImageError> {
    if size > LARGEST_BLOCK {
        return Err(field(data, "lzop dst_len", at.saturating_sub(4), size.into(), "more than 64 MiB"));
    }
    let stored = data.u32_be(at, "lzop src_len")?;
    if stored > size {
        return Err(field(data, "lzop src_len", at, stored.into(), "larger than dst_len"));
    }
    let is_compressed = stored < size;
    at = at.saturating_add(4);

    // Checksums of the data, then those of the compressed block, which a stored block does not have.
    let mut checksum = |present: bool| -> Result<Option<(u64, u32)>, ImageError> {
        if !present {
            return Ok(None);
        }
        let value = (at, data.u32_be(at, "lzop checksum")?);
        at = at.saturating_add(4);
        Ok(Some(value))
    };
    let data_adler = checksum(flags & ADLER32_OF_DATA != 0)?;
    let data_crc = checksum(flags & CRC32_OF_DATA != 0)?;
    let block_adler = checksum(is_compressed && flags & ADLER32_OF_BLOCK != 0)?;
    let block_crc = checksum(is_compressed && flags & CRC32_OF_BLOCK != 0)?;

    let block = data.part(at, stored.into(), "lzop block")?;
    check(data, block_adler, || adler32(block.as_slice()))?;
    check(data, block_crc, || crc32fast::hash(block.as_slice()))?;

    let size = narrow(size.into(), "lzop dst_len")?;
    let overflow = output.overflow();
    let room = output.room(size)?.get_mut(..size).ok_or(overflow)?;
    if is_compressed {
        match lzokay::decompress::decompress(block.as_slice(), room) {
            Ok(written) if written == size => {}
            Ok(written) => {
                return Err(output.corrupt(block.position(0), format_args!("{written} bytes instead of {size}")));
            }
            Err(error) => return Err(output.corrupt(block.position(0), format_args!("{error}"))),
        }
    } else {
        room.copy_from_slice(block.as_slice());
    }
    check(data, data_adler, || adler32(room))?;
    check(data, data_crc, || crc32fast::hash(room))?;
    output.advance(size)?;
    Ok(at.saturating_add(stored.into()))
}

fn adler32(bytes: &[u8]) -> u32 {
    adler2::adler32_slice(bytes)
}

/// Compares a checksum of the file, if it is there, with the right one.
fn check(data: Bytes<'_>, declared: Option<(u64, u32)>, actual: impl FnOnce() -> u32) -> Result<(), ImageError> {
    match declared {
        Some((offset, value)) if value != actual() => {
            Err(field(data, "lzop checksum", offset, value.into(), "does not match the data"))
        }
        _ => Ok(()),
    }
}

fn field(data: Bytes<'_>, what: &'static str, offset: u64, value: u64, problem: &'static str) -> ImageError {
    ImageError::Field { what, offset: data.position(offset), value, problem }
}
