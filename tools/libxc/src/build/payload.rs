//! Bytes that go into a domain's memory: what the toolstack has in its own memory, or a file's, which need not be there.
//!
//! A file is read piece by piece, straight into the memory that the hypervisor copies from. One that is shortened meanwhile is an
//! error, and one that is changed is loaded as it is when it is read.

use std::fs::File;

/// Bytes to be loaded, or a part of them.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In a file.
    File {
        /// The file; it is read at offsets.
        file: &'a File,
        /// Where they begin in it.
        offset: u64,
        /// How many there are.
        length: u64,
    },
}

impl Payload<'_> {
    /// How many bytes.
    pub fn len(&self) -> u64 {
        match self {
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::File { length, .. } => *length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `length` bytes from an offset on; `None` if there are not so many.
    pub fn part(&self, offset: u64, length: u64) -> Option<Self> {
        let end = offset.checked_add(length).filter(|end| *end <= self.len())?;
        Some(match *self {
            Payload::Bytes(bytes) => {
                Payload::Bytes(bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)?)
            }
            Payload::File { file, offset: start, .. } => {
                Payload::File { file, offset: start.checked_add(offset)?, length }
            }
        })
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Payload::Bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_inside() {
        let bytes = Payload::from(&b"abcdef"[..]);
        assert!(matches!(bytes.part(2, 3), Some(Payload::Bytes(b"cde"))));
        let file = File::open("/dev/null").expect("is there");
        let whole = Payload::File { file: &file, offset: 100, length: 6 };
        let part = whole.part(2, 3).and_then(|part| part.part(1, 2));
        assert!(matches!(part, Some(Payload::File { offset: 103, length: 2, .. })));
        for payload in [bytes, whole] {
            assert!(payload.part(6, 0).is_some_and(|part| part.is_empty()));
            assert!(
                payload.part(6, 1).is_none() && payload.part(0, 7).is_none() && payload.part(u64::MAX, 1).is_none()
            );
        }
    }
}
