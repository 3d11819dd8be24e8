//! Which free pages are to be zeroed by whoever has nothing else to do, before somebody has to wait for it.
//!
//! A few ranges that the pool ([`super::pool`]) adds freed blocks to and [`super::FrameTable::scrub_free`] takes pages from. They are
//! hints: a page that was allocated since is skipped, and one that no range has room for is zeroed when it is allocated, as is what
//! has never been used since boot.

use crate::units::Mfn;

/// A domain's memory lies in a few long ranges; what comes between fills the rest.
const MOST: usize = 32;
/// log2 of the pages of a block that takes the place of a shorter range: 2 MiB.
const LARGE: u32 = 9;

/// Ranges of pages, each with its end.
#[derive(Debug)]
pub struct Unscrubbed {
    ranges: heapless::Vec<(Mfn, Mfn), MOST>,
}

impl Unscrubbed {
    /// None.
    pub const fn new() -> Self {
        Self { ranges: heapless::Vec::new() }
    }

    /// Adds a block. What is freed one after the other lies side by side most often, and lengthens the newest range.
    #[inline]
    pub fn add(&mut self, mfn: Mfn, order: u32) {
        let end = mfn.saturating_add(1 << order);
        match self.ranges.last_mut() {
            Some(newest) if mfn <= newest.1 && end >= newest.0 => *newest = (newest.0.min(mfn), newest.1.max(end)),
            _ => self.begin(mfn, end, order),
        }
    }

    /// Begins another range. One that has no room is left to whoever allocates the block.
    fn begin(&mut self, mfn: Mfn, end: Mfn, order: u32) {
        if self.ranges.push((mfn, end)).is_ok() || order < LARGE {
            return;
        }
        let length = |range: &(Mfn, Mfn)| range.1.number() - range.0.number();
        let shortest = (0..MOST).min_by_key(|index| self.ranges.get(*index).map_or(u64::MAX, length));
        if let Some(index) = shortest.filter(|index| self.ranges.get(*index).map(length) < Some(1 << order)) {
            self.ranges.remove(index);
            let _cannot_be_full = self.ranges.push((mfn, end));
        }
    }

    /// Takes the next page out.
    pub fn take(&mut self) -> Option<Mfn> {
        let range = self.ranges.last_mut()?;
        let mfn = range.0;
        range.0 = mfn.saturating_add(1);
        if range.0 >= range.1 {
            self.ranges.pop();
        }
        Some(mfn)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn all(mut unscrubbed: Unscrubbed) -> Vec<u64> {
        let mut pages: Vec<u64> = core::iter::from_fn(|| unscrubbed.take()).map(|mfn| mfn.number()).collect();
        pages.sort_unstable();
        pages
    }

    #[test]
    fn every_page_of_what_was_added_comes_once() {
        let mut unscrubbed = Unscrubbed::new();
        for (mfn, order) in [(4, 0), (5, 0), (6, 1), (2, 1), (5, 0), (100, 2), (9, 0)] {
            unscrubbed.add(Mfn::new(mfn), order);
        }
        assert_eq!(all(unscrubbed), [2, 3, 4, 5, 6, 7, 9, 100, 101, 102, 103]);
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let mut unscrubbed = Unscrubbed::new();
        for number in 0..50 {
            unscrubbed.add(Mfn::new(number * 10), u32::from(number == 3));
        }
        assert_eq!(all(Unscrubbed { ranges: unscrubbed.ranges.clone() }).len(), MOST + 1);
        // A large block is worth more than the shortest.
        unscrubbed.add(Mfn::new(1 << 9), 9);
        assert_eq!(all(unscrubbed).len(), MOST + 512);
    }
}
