//! The buffer that decoders fill: one vector, reserved fallibly, never larger than the caller's limit.
//!
//! `decompress` makes it, a decoder takes `room`, writes into it and says how much with `advance`.

use alloc::vec::Vec;
use core::fmt;

use super::Compression;
use crate::bytes::widen;
use crate::{ImageError, Reason};

/// The first allocation when the size is unknown.
const FIRST_GROWTH: usize = 64 << 10;

pub(super) struct Output {
    compression: Compression,
    /// Bytes from `filled` on are zero and belong to the decoder.
    buffer: Vec<u8>,
    filled: usize,
    /// The size the image declares, when it does.
    declared: Option<usize>,
    /// The largest size the buffer may get.
    limit: usize,
}

impl Output {
    /// For data that declares its size.
    pub(super) fn exactly(compression: Compression, declared: usize, limit: usize) -> Result<Self, ImageError> {
        if declared > limit {
            return Err(ImageError::TooLarge {
                what: "declared uncompressed size",
                size: widen(declared),
                limit: widen(limit),
            });
        }
        let mut output = Self { compression, buffer: Vec::new(), filled: 0, declared: Some(declared), limit: declared };
        output.grow_to(declared)?;
        Ok(output)
    }

    /// For data of unknown size.
    pub(super) fn growing(compression: Compression, limit: usize) -> Self {
        Self { compression, buffer: Vec::new(), filled: 0, declared: None, limit }
    }

    fn grow_to(&mut self, size: usize) -> Result<(), ImageError> {
        let more = size.saturating_sub(self.buffer.len());
        self.buffer
            .try_reserve_exact(more)
            .map_err(|_| ImageError::OutOfMemory { what: "uncompressed kernel", bytes: widen(size) })?;
        // Within the reserved capacity: cannot allocate.
        self.buffer.resize(size, 0);
        Ok(())
    }

    /// Where the next bytes go: at least `wanted` bytes, or all up to the limit. Empty when the output is full.
    pub(super) fn room(&mut self, wanted: usize) -> Result<&mut [u8], ImageError> {
        Ok(self.room_with_history(0, wanted)?.1)
    }

    /// As `room`, with the last `history` bytes written before (fewer at the beginning).
    pub(super) fn room_with_history(
        &mut self,
        history: usize,
        wanted: usize,
    ) -> Result<(&[u8], &mut [u8]), ImageError> {
        let size = self.filled.saturating_add(wanted.max(1)).min(self.limit);
        if size > self.buffer.len() {
            let doubled = self.buffer.len().saturating_mul(2).max(FIRST_GROWTH).min(self.limit);
            self.grow_to(size.max(doubled))?;
        }
        // `filled` never passes the length of the buffer.
        let (written, room) = self.buffer.split_at_mut_checked(self.filled).unwrap_or_default();
        let history = written.get(written.len().saturating_sub(history)..).unwrap_or_default();
        Ok((history, room))
    }

    /// `written` bytes of the room are valid now.
    pub(super) fn advance(&mut self, written: usize) -> Result<(), ImageError> {
        match self.filled.checked_add(written) {
            Some(filled) if filled <= self.buffer.len() => self.filled = filled,
            _ => return Err(self.overflow()),
        }
        Ok(())
    }

    /// All bytes written so far.
    pub(super) fn written(&self) -> &[u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }

    /// How many bytes may still come before the output is full.
    pub(super) fn left(&self) -> usize {
        self.limit.saturating_sub(self.filled)
    }

    /// The size declared, when there is one.
    pub(super) const fn declared(&self) -> Option<usize> {
        self.declared
    }

    /// The error for data that goes on although the output is full.
    pub(super) fn overflow(&self) -> ImageError {
        match self.declared {
            Some(declared) => ImageError::SizeMismatch {
                what: self.compression.name(),
                declared: widen(declared),
                actual: widen(declared).saturating_add(1),
            },
            None => ImageError::TooLarge {
                what: "uncompressed size",
                size: widen(self.limit).saturating_add(1),
                limit: widen(self.limit),
            },
        }
    }

    /// The error for a decoder without memory: what it wants grows with the output, and no further.
    pub(super) fn no_memory(&self, what: &'static str) -> ImageError {
        ImageError::OutOfMemory { what, bytes: widen(self.limit) }
    }

    /// The error for data that the decoder refuses at `offset`.
    pub(super) fn corrupt(&self, offset: u64, reason: fmt::Arguments<'_>) -> ImageError {
        ImageError::Corrupt { compression: self.compression, offset, reason: Reason::new(reason) }
    }

    /// The bytes, when they are as many as declared.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, ImageError> {
        if let Some(declared) = self.declared
            && declared != self.filled
        {
            return Err(ImageError::SizeMismatch {
                what: self.compression.name(),
                declared: widen(declared),
                actual: widen(self.filled),
            });
        }
        self.buffer.truncate(self.filled);
        Ok(self.buffer)
    }
}
