//! Reading numbers out of hostile bytes: the only way the parsers of this crate look at their input.
//!
//! Every read is checked and an error names the field and its offset. Comes before every parser; nothing before it.

use crate::ImageError;

/// A slice that is part of a larger input; offsets given to the methods count from the start of this part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a> {
    data: &'a [u8],
    /// Where `data` begins in the whole input: added to offsets in errors.
    base: u64,
}

impl<'a> Bytes<'a> {
    /// The whole input.
    pub(crate) const fn new(data: &'a [u8]) -> Self {
        Self { data, base: 0 }
    }

    /// A part of a file that begins at `base`.
    pub(crate) const fn at(data: &'a [u8], base: u64) -> Self {
        Self { data, base }
    }

    /// The bytes at an offset of the whole input, if all of them are here.
    pub(crate) fn inside(self, offset: u64, len: u64) -> Option<Self> {
        let start = usize::try_from(offset.checked_sub(self.base)?).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.data.get(start..end).map(|data| Self { data, base: offset })
    }

    /// Bytes in this part.
    pub(crate) fn len(self) -> u64 {
        widen(self.data.len())
    }

    /// The offset of `offset` in the whole input, for errors.
    pub(crate) fn position(self, offset: u64) -> u64 {
        self.base.saturating_add(offset)
    }

    /// All bytes of this part.
    pub(crate) const fn as_slice(self) -> &'a [u8] {
        self.data
    }

    /// A part of this part.
    pub(crate) fn part(self, offset: u64, len: u64, what: &'static str) -> Result<Self, ImageError> {
        let taken = offset
            .checked_add(len)
            .and_then(|end| Some((usize::try_from(offset).ok()?, usize::try_from(end).ok()?)))
            .and_then(|(start, end)| self.data.get(start..end));
        match taken {
            Some(data) => Ok(Self { data, base: self.position(offset) }),
            None => Err(ImageError::Truncated {
                what,
                offset: self.position(offset),
                needed: len,
                available: self.len().saturating_sub(offset),
            }),
        }
    }

    fn array<const N: usize>(self, offset: u64, what: &'static str) -> Result<[u8; N], ImageError> {
        let part = self.part(offset, widen(N), what)?;
        let mut array = [0; N];
        // Equal lengths by construction of `part`.
        array.copy_from_slice(part.data);
        Ok(array)
    }

    /// One byte.
    pub(crate) fn u8(self, offset: u64, what: &'static str) -> Result<u8, ImageError> {
        self.array::<1>(offset, what).map(|[byte]| byte)
    }

    /// Two bytes, little endian.
    pub(crate) fn u16(self, offset: u64, what: &'static str) -> Result<u16, ImageError> {
        self.array(offset, what).map(u16::from_le_bytes)
    }

    /// Four bytes, little endian.
    pub(crate) fn u32(self, offset: u64, what: &'static str) -> Result<u32, ImageError> {
        self.array(offset, what).map(u32::from_le_bytes)
    }

    /// Eight bytes, little endian.
    pub(crate) fn u64(self, offset: u64, what: &'static str) -> Result<u64, ImageError> {
        self.array(offset, what).map(u64::from_le_bytes)
    }

    /// Two bytes, big endian.
    pub(crate) fn u16_be(self, offset: u64, what: &'static str) -> Result<u16, ImageError> {
        self.array(offset, what).map(u16::from_be_bytes)
    }

    /// Four bytes, big endian.
    pub(crate) fn u32_be(self, offset: u64, what: &'static str) -> Result<u32, ImageError> {
        self.array(offset, what).map(u32::from_be_bytes)
    }
}

/// A length as `u64`; cannot lose anything on the targets of this project.
#[expect(clippy::as_conversions, reason = "the one place that widens usize to u64, which has no From")]
pub(crate) const fn widen(length: usize) -> u64 {
    const { assert!(usize::BITS <= u64::BITS) };
    length as u64
}

/// A number of the image as a length in memory.
pub(crate) fn narrow(length: u64, what: &'static str) -> Result<usize, ImageError> {
    usize::try_from(length).map_err(|_| ImageError::TooLarge { what, size: length, limit: widen(usize::MAX) })
}

/// For messages: the first four bytes, zeros where there are fewer.
pub(crate) fn first_four(data: &[u8]) -> [u8; 4] {
    let mut first = [0; 4];
    for (to, from) in first.iter_mut().zip(data) {
        *to = *from;
    }
    first
}
