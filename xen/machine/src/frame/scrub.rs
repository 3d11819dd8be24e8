//! Which free pages are to be zeroed by whoever has nothing else to do, before somebody has to wait for it.
//!
//! A few ranges that the pool ([`super::pool`]) adds freed blocks to and [`super::FrameTable::scrub_free`] takes pages from. They are
//! hints: a page that was allocated since is skipped, and one that no range has room for is zeroed when it is allocated, as is what
//! has never been used since boot.

use crate::units::Mfn;

/// A domain's end frees a few long ranges; what comes between fills the rest.
const MOST: usize = 8;

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

    /// Adds a block. Pages are most often freed in the order of their numbers, so it mostly lengthens the newest range.
    pub fn add(&mut self, mfn: Mfn, order: u32) {
        let end = mfn.saturating_add(1 << order);
        for range in self.ranges.iter_mut().rev() {
            if mfn <= range.1 && end >= range.0 {
                *range = (range.0.min(mfn), range.1.max(end));
                return;
            }
        }
        // Without room it is left to whoever allocates the block.
        let _is_full = self.ranges.push((mfn, end));
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
        for (mfn, order) in [(4, 0), (5, 0), (6, 1), (2, 1), (100, 2), (8, 0)] {
            unscrubbed.add(Mfn::new(mfn), order);
        }
        unscrubbed.add(Mfn::new(5), 0);
        assert_eq!(all(unscrubbed), [2, 3, 4, 5, 6, 7, 8, 100, 101, 102, 103]);
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let mut unscrubbed = Unscrubbed::new();
        for number in 0..20 {
            unscrubbed.add(Mfn::new(number * 10), 0);
        }
        assert_eq!(all(unscrubbed).len(), MOST);
    }
}
