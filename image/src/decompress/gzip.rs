//! gzip (RFC 1952): header and trailer here, deflate by `miniz_oxide`. The size in the trailer made the output.

use alloc::boxed::Box;
use core::ops::ControlFlow;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

use super::output::Output;
use crate::ImageError;
use crate::bytes::{Bytes, widen};

/// FLG bits, RFC 1952 section 2.3.1.
const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;
/// CM: the only compression method there is.
const METHOD_DEFLATE: u8 = 8;
/// CRC32 and ISIZE.
const TRAILER: u64 = 8;

/// Unpacks exactly one member that is all of `data`.
#[inline(never)]
pub(super) fn decode(data: Bytes<'_>, output: &mut Output) -> Result<(), ImageError> {
    let header = header_size(data)?;
    let deflated = data.part(header, data.len().saturating_sub(header), "gzip data")?;

    // Some 11 KiB: too much for a hypervisor's stack for the time of the decompression.
    let mut state = Box::<DecompressorOxide>::default();
    let room = output.room(output.left())?;
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) = decompress(&mut state, deflated.as_slice(), room, 0, flags);
    let end = header.saturating_add(widen(read));
    output.advance(written)?;
    match status {
        TINFLStatus::Done => {}
        TINFLStatus::HasMoreOutput => return Err(output.overflow()),
        other => return Err(output.corrupt(end, format_args!("deflate: {other:?}"))),
    }

    let crc = data.u32(end, "gzip CRC32")?;
    let actual = crc32fast::hash(output.written());
    if crc != actual {
        return Err(output.corrupt(end, format_args!("CRC32 is {actual:#010x}, the trailer says {crc:#010x}")));
    }
    // ISIZE was compared through the output's declared size; what is left to see is that nothing follows.
    let after = data.len().saturating_sub(end.saturating_add(TRAILER));
    if after != 0 {
        return Err(output.corrupt(end, format_args!("{after} bytes after the end of the gzip member")));
    }
    data.u32(end.saturating_add(4), "gzip ISIZE").map(drop)
}

/// Size of the member header in bytes.
fn header_size(data: Bytes<'_>) -> Result<u64, ImageError> {
    let method = data.u8(2, "gzip CM")?;
    if method != METHOD_DEFLATE {
        return Err(field("gzip CM", 2, method, "only deflate (8) is defined"));
    }
    let flags = data.u8(3, "gzip FLG")?;
    if flags & FLAGS_RESERVED != 0 {
        return Err(field("gzip FLG", 3, flags, "reserved bits are set"));
    }
    // Behind the fixed part: MTIME, XFL and OS say nothing about the data.
    let mut at: u64 = 10;
    if flags & FLAG_EXTRA != 0 {
        let extra = data.u16(at, "gzip XLEN")?;
        at = at.saturating_add(2).saturating_add(extra.into());
    }
    for (flag, what) in [(FLAG_NAME, "gzip file name"), (FLAG_COMMENT, "gzip comment")] {
        if flags & flag != 0 {
            at = after_string(data, at, what)?;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        let declared = data.u16(at, "gzip CRC16")?;
        let crc = crc32fast::hash(data.part(0, at, "gzip header")?.as_slice());
        // The low half of the CRC32.
        if crc & 0xffff != u32::from(declared) {
            return Err(ImageError::Field {
                what: "gzip CRC16",
                offset: data.position(at),
                value: declared.into(),
                problem: "does not match the header",
            });
        }
        at = at.saturating_add(2);
    }
    Ok(at)
}

/// The offset behind a string that ends with a zero.
fn after_string(data: Bytes<'_>, at: u64, what: &'static str) -> Result<u64, ImageError> {
    let rest = data.part(at, data.len().saturating_sub(at), what)?;
    let end = rest.as_slice().iter().try_fold(at, |position, &byte| {
        let next = position.saturating_add(1);
        if byte == 0 { ControlFlow::Break(next) } else { ControlFlow::Continue(next) }
    });
    match end {
        ControlFlow::Break(next) => Ok(next),
        ControlFlow::Continue(end) => {
            Err(ImageError::Truncated { what, offset: data.position(end), needed: 1, available: 0 })
        }
    }
}

fn field(what: &'static str, offset: u64, value: u8, problem: &'static str) -> ImageError {
    ImageError::Field { what, offset, value: value.into(), problem }
}
