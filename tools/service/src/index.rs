//! Indices of the rings that domains share with daemons: they count bytes since the beginning, and wrap around with 32 bits. A
//! domain may write what it likes into its own, so each is believed only within a ring's length of its partner.

/// An index is further from its partner than the ring is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex;

/// Bytes from one index to another, at most `size`.
///
/// # Errors
/// [`BadIndex`].
pub fn distance(from: u32, to: u32, size: usize) -> Result<usize, BadIndex> {
    usize::try_from(to.wrapping_sub(from)).ok().filter(|count| *count <= size).ok_or(BadIndex)
}

/// The place in a ring of `size` bytes, a power of two.
pub fn wrapped(index: u32, size: usize) -> usize {
    usize::try_from(index).unwrap_or(0) % size
}

/// The index behind `count` more bytes, which are no more than a ring has.
pub fn advance(index: u32, count: usize) -> u32 {
    index.wrapping_add(u32::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_wrap_around_and_are_bounded() {
        assert_eq!(distance(u32::MAX - 1, 3, 1024), Ok(5));
        assert_eq!((distance(0, 1024, 1024), distance(0, 1025, 1024)), (Ok(1024), Err(BadIndex)));
        assert_eq!(distance(1, 0, 1024), Err(BadIndex), "backwards");
        assert_eq!((advance(u32::MAX, 2), wrapped(1025, 1024)), (1, 1));
    }
}
