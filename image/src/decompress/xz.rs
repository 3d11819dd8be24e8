//! xz and lzma by `lzma-rust2`, without its `optimization` feature: no unsafe code. It knows the branch filters, of
//! which Linux uses x86 (`xz --x86 --lzma2`, scripts/xz_wrap.sh).
//!
//! Its dictionary grows with the output (fallibly), so a header that declares 4 GiB costs nothing.

use lzma_rust2::{Action, Error, LzmaStream, Result, Status, StreamResult, XzStream};

use super::output::Output;
use crate::ImageError;
use crate::bytes::{Bytes, widen};

/// The library's "no limit": memory is bounded by the output, see above.
const NO_MEMORY_LIMIT: u32 = u32::MAX;
/// Offset of the check's kind in the stream flags (xz file format 2.1.1.2).
const CHECK_OFFSET: u64 = 7;
/// None, CRC32, CRC64.
const CHECKS: [u8; 3] = [0, 1, 4];

/// Unpacks one xz stream that is all of `data`.
#[inline(never)]
pub(super) fn decode_xz(data: Bytes<'_>, output: &mut Output) -> core::result::Result<(), ImageError> {
    let check = data.u8(CHECK_OFFSET, "xz stream flags")?;
    if !CHECKS.contains(&check) {
        return Err(ImageError::Field {
            what: "xz stream flags",
            offset: data.position(CHECK_OFFSET),
            value: check.into(),
            // SHA-256 would run code that picks SSE by CPUID: not in a hypervisor. No kernel build uses it.
            problem: "the integrity check is none of none, CRC32, CRC64",
        });
    }
    let mut stream = XzStream::new(false);
    let read = pump(data, output, |input, room| stream.process(input, room, Action::Finish))?;
    nothing_after(data, output, read)
}

/// Unpacks one lzma file that is all of `data`.
#[inline(never)]
pub(super) fn decode_lzma(data: Bytes<'_>, output: &mut Output) -> core::result::Result<(), ImageError> {
    // The literal tables have 2^(lc + lp) times 1.5 KiB and are allocated infallibly. liblzma has the same bound.
    let properties = data.u8(0, "lzma properties")?;
    let (lc, lp) = (properties % 9, properties / 9 % 5);
    if lc.saturating_add(lp) > 4 {
        return Err(ImageError::Field {
            what: "lzma properties",
            offset: data.position(0),
            value: properties.into(),
            problem: "lc + lp is more than 4",
        });
    }
    let mut stream = LzmaStream::new_mem_limit(NO_MEMORY_LIMIT, None);
    let read = pump(data, output, |input, room| stream.process(input, room, Action::Finish))?;
    let unused = widen(stream.unused_input().len());
    nothing_after(data, output, read.saturating_sub(unused))
}

/// Runs a decoder to its end; the offset where it stopped.
fn pump(
    data: Bytes<'_>,
    output: &mut Output,
    mut process: impl FnMut(&[u8], &mut [u8]) -> Result<StreamResult>,
) -> core::result::Result<u64, ImageError> {
    let mut at = 0;
    loop {
        let rest = data.part(at, data.len().saturating_sub(at), "compressed data")?;
        let result = process(rest.as_slice(), output.room(1)?).map_err(|error| match error {
            Error::OutOfMemory(_) => output.no_memory("xz or lzma dictionary"),
            other => output.corrupt(data.position(at), format_args!("{other:?}")),
        })?;
        output.advance(result.bytes_produced)?;
        at = at.saturating_add(widen(result.bytes_consumed));
        if result.status == Status::StreamEnd {
            return Ok(at);
        }
        if result.bytes_consumed == 0 && result.bytes_produced == 0 {
            // Without progress there are two explanations.
            return Err(if output.left() == 0 {
                output.overflow()
            } else {
                output.corrupt(at, format_args!("the data ends too early"))
            });
        }
    }
}

fn nothing_after(data: Bytes<'_>, output: &Output, end: u64) -> core::result::Result<(), ImageError> {
    match data.len().saturating_sub(end) {
        0 => Ok(()),
        after => Err(output.corrupt(end, format_args!("{after} bytes after the end of the stream"))),
    }
}
