//! The one error type of the crate: what is wrong, in which field, at which offset or address.
//!
//! Every module returns it; the hypervisor prints it on its console, the toolstack shows it to the user.

use core::fmt;

use crate::{Compression, GpaRange};

/// Why an image cannot be used. `offset` is always in bytes from the start of the input of the function that failed
/// (the file, or the compressed payload), addresses are guest physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The input ends before something it must contain.
    Truncated {
        /// The field or area.
        what: &'static str,
        /// Where it should begin.
        offset: u64,
        /// Its size in bytes.
        needed: u64,
        /// How many bytes there are from `offset` on.
        available: u64,
    },
    /// The file has it, but it is not among the parts that are in memory.
    NotInMemory {
        /// The field or area.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Its size in bytes.
        needed: u64,
    },
    /// A field has a value that cannot be.
    Field {
        /// The field's name in its specification.
        what: &'static str,
        /// Where the field is.
        offset: u64,
        /// What it contains.
        value: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An argument of the caller (not the image) cannot be.
    Argument {
        /// Which one.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Neither an ELF file nor a bzImage nor a known compression.
    NotAKernel {
        /// The first four bytes (zero where the file is shorter).
        first: [u8; 4],
    },
    /// The ELF file has no note of this name, and the operation needs it.
    NoNote {
        /// The note's name without `XEN_ELFNOTE_`.
        what: &'static str,
    },
    /// The compression is known but no decoder is built in.
    CompressionUnsupported(Compression),
    /// The decoder refuses the data.
    Corrupt {
        /// Which decoder.
        compression: Compression,
        /// How far the decoder had read, roughly.
        offset: u64,
        /// The decoder's own words.
        reason: Reason,
    },
    /// Data has another size than it declares.
    SizeMismatch {
        /// Which data.
        what: &'static str,
        /// Bytes declared.
        declared: u64,
        /// Bytes found; when the output would be longer than declared, the declared size plus one.
        actual: u64,
    },
    /// A size or count is over the caller's limit or a limit of this crate.
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How large.
        size: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// The allocator has no memory for this.
    OutOfMemory {
        /// For what.
        what: &'static str,
        /// How many bytes were asked for; the most that may be needed where a decoder does not say.
        bytes: u64,
    },
    /// Two things want the same guest physical addresses.
    Overlap {
        /// The one.
        first: &'static str,
        /// Where it lies.
        first_range: GpaRange,
        /// The other.
        second: &'static str,
        /// Where it lies.
        second_range: GpaRange,
    },
    /// Something that has a fixed place is not wholly in one piece of RAM.
    NotInRam {
        /// What.
        what: &'static str,
        /// Where it lies.
        range: GpaRange,
    },
    /// No place for something.
    NoRoom {
        /// What.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The addresses that were searched.
        within: GpaRange,
        /// The longest free piece there, in bytes, after alignment.
        largest: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { what, offset, needed, available } => {
                write!(f, "{what} at offset {offset:#x} needs {needed} bytes, but only {available} are there")
            }
            Self::NotInMemory { what, offset, needed } => {
                write!(f, "{what} at offset {offset:#x} has {needed} bytes, too many to look at")
            }
            Self::Field { what, offset, value, problem } => {
                write!(f, "{what} at offset {offset:#x} is {value:#x}: {problem}")
            }
            Self::Argument { what, value, problem } => write!(f, "{what} is {value:#x}: {problem}"),
            Self::NotAKernel { first } => write!(
                f,
                "neither ELF nor bzImage nor a known compression (begins with {:02x} {:02x} {:02x} {:02x})",
                first[0], first[1], first[2], first[3]
            ),
            Self::NoNote { what } => write!(f, "the kernel has no Xen ELF note {what}"),
            Self::CompressionUnsupported(compression) => {
                write!(f, "compression {compression} is not supported")
            }
            Self::Corrupt { compression, offset, reason } => {
                write!(f, "{compression} data is corrupt near offset {offset:#x}: {reason}")
            }
            Self::SizeMismatch { what, declared, actual } => {
                write!(f, "{what} declares {declared} bytes but has {actual}")
            }
            Self::TooLarge { what, size, limit } => {
                write!(f, "{what} is {size}, the limit is {limit}")
            }
            Self::OutOfMemory { what, bytes } => write!(f, "no memory for {what} ({bytes} bytes)"),
            Self::Overlap { first, first_range, second, second_range } => {
                write!(f, "{first} {first_range} overlaps {second} {second_range}")
            }
            Self::NotInRam { what, range } => {
                write!(f, "{what} {range} is not in one piece of the guest's RAM")
            }
            Self::NoRoom { what, size, within, largest } => write!(
                f,
                "no room for {what}: {size} bytes wanted in {within}, the largest free piece there has {largest} bytes"
            ),
        }
    }
}

impl core::error::Error for ImageError {}

/// The words of a decoder, kept in place (no allocation when things go wrong already) and cut when too long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    text: [u8; Self::CAPACITY],
    len: u8,
}

impl Reason {
    const CAPACITY: usize = 72;

    /// Keeps the text of anything that can be printed.
    pub fn new(message: fmt::Arguments<'_>) -> Self {
        let mut reason = Self { text: [0; Self::CAPACITY], len: 0 };
        // The only error is "cut", and a cut text is what is wanted then.
        fmt::Write::write_fmt(&mut reason, message).ok();
        reason
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let kept = self.text.get(..usize::from(self.len)).unwrap_or_default();
        core::str::from_utf8(kept).unwrap_or_default()
    }
}

impl fmt::Write for Reason {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let start = usize::from(self.len);
            let end = start.saturating_add(character.len_utf8());
            // Whole characters only, so that the text stays UTF-8.
            let Some(place) = self.text.get_mut(start..end) else {
                return Err(fmt::Error);
            };
            character.encode_utf8(place);
            self.len = u8::try_from(end).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let long = "é".repeat(100);
        let reason = Reason::new(format_args!("{long}"));
        assert_eq!(reason.as_str(), "é".repeat(Reason::CAPACITY / 2));
        assert_eq!(format!("{}", Reason::new(format_args!("short {}", 7))), "short 7");
    }

    #[test]
    fn errors_are_small_enough_to_be_returned() {
        assert!(size_of::<ImageError>() <= 104, "{}", size_of::<ImageError>());
    }
}
