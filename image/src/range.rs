//! A range of guest physical addresses. Used by `elf`, `load`, `placement` and in errors.

use core::fmt;

/// Guest physical addresses from `start` up to, not including, `end`, in bytes. `start <= end` always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GpaRange {
    start: u64,
    end: u64,
}

impl GpaRange {
    /// No bytes, at address zero.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// `len` bytes from `start`; `None` when the end would be over 2^64 - 1.
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// From `start` up to `end`; `None` when `end` is below `start`.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// The first address.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The first address behind the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Size in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        // Cannot wrap: start <= end.
        self.end.saturating_sub(self.start)
    }

    /// Has no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Have the two at least one byte in common?
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start < other.end && other.start < self.end
    }

    /// Does all of `other` lie in this range?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What the two have in common; `None` when that is nothing.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(self.start.max(other.start), self.end.min(other.end)).filter(|common| !common.is_empty())
    }
}

impl fmt::Display for GpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start, self.end)
    }
}
