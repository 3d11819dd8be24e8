//! A file that is parsed: all of it in memory, or only the parts that parsing has asked for.
//!
//! A kernel has tens of megabytes, of which the parser looks at a few kilobytes: whoever loads it from a file need not have it in
//! memory. Comes before `elf`, which finds its headers and notes here; `bytes` reads the numbers in them.

use alloc::vec::Vec;

use crate::ImageError;
use crate::bytes::{Bytes, widen};

/// Parts of a file, each with its place. The parser says which one it lacks by [`ImageError::NotInMemory`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    length: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Parts {
    /// None yet, of a file of `length` bytes.
    #[must_use]
    pub const fn new(length: u64) -> Self {
        Self { length, parts: Vec::new() }
    }

    /// Adds the bytes at an offset. The file must be what it was when the others were added.
    ///
    /// # Errors
    /// Memory is short.
    pub fn add(&mut self, offset: u64, bytes: Vec<u8>) -> Result<(), ImageError> {
        let size = widen(size_of::<(u64, Vec<u8>)>());
        self.parts
            .try_reserve(1)
            .map_err(|_| ImageError::OutOfMemory { what: "list of a file's parts", bytes: size })?;
        self.parts.push((offset, bytes));
        Ok(())
    }
}

/// A file to be parsed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum File<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// Parts of it.
    Parts(&'a Parts),
}

impl<'a> File<'a> {
    /// Its length in bytes.
    pub(crate) fn len(self) -> u64 {
        match self {
            Self::Whole(bytes) => widen(bytes.len()),
            Self::Parts(parts) => parts.length,
        }
    }

    /// Whether so many bytes are in the file at an offset, in memory or not.
    pub(crate) fn check(self, offset: u64, len: u64, what: &'static str) -> Result<(), ImageError> {
        let available = self.len().saturating_sub(offset);
        let ends = offset.checked_add(len).is_some_and(|end| end <= self.len());
        if ends { Ok(()) } else { Err(ImageError::Truncated { what, offset, needed: len, available }) }
    }

    /// Bytes at an offset.
    pub(crate) fn part(self, offset: u64, len: u64, what: &'static str) -> Result<Bytes<'a>, ImageError> {
        self.check(offset, len, what)?;
        match self {
            Self::Whole(bytes) => Bytes::new(bytes).part(offset, len, what),
            Self::Parts(parts) => parts
                .parts
                .iter()
                .find_map(|(start, bytes)| Bytes::at(bytes, *start).inside(offset, len))
                .ok_or(ImageError::NotInMemory { what, offset, needed: len }),
        }
    }
}
