//! What the formats of table entries have in common: an [`Entry`] goes in, 64 bits come out, and back.
//!
//! The truth is kept in the host view's own format, so that a domain needs one set of tables, not two: the kind and the
//! narrowed access of an entry stand in bits that hardware ignores. Levels count from 0 (pages) to 3 (root).

use super::entry::Entry;

/// Levels of a table tree.
pub const LEVELS: u32 = 4;
/// Bits of a guest frame number that four levels translate.
pub const GFN_BITS: u32 = 9 * LEVELS;

/// A format of table entries.
pub trait Format {
    /// What safety needs to know of the format.
    const HARDWARE: machine::table::Format;
    /// Bits of an entry that points to a table, but for the address: all rights, as the leaves decide.
    const TABLE: u64;
    /// Bits that hardware sets in a leaf and that must survive a split.
    const TRACKED: u64;

    /// The bits of an entry. Its order tells the level.
    fn encode(entry: &Entry) -> u64;

    /// What the bits of an entry of `1 << order` frames mean; they do not point to a table.
    fn decode(bits: u64, order: u32) -> Entry;
}
