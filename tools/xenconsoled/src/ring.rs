//! A guest's console page: bytes out of it and into it, whatever the guest writes there meanwhile.
//!
//! All four indices are read from the page each time, as Xen's daemon does: the page goes on where it is after a restart of the daemon,
//! and a guest that sets its indices anew (a kernel that another one has started) is understood. An index that is further from its
//! partner than a ring is long makes no sense; then nothing is read or written (public/io/console.h).

use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use libxc::trap::Foreign;
use public_abi::io::console::{IN_SIZE, OUT_SIZE, XenconsInterface};
use service::index::{BadIndex, advance, distance, wrapped};

const INPUT: usize = offset_of!(XenconsInterface, input);
const OUTPUT: usize = offset_of!(XenconsInterface, output);
const INPUT_TAKEN: usize = offset_of!(XenconsInterface, in_cons);
const INPUT_GIVEN: usize = offset_of!(XenconsInterface, in_prod);
const OUTPUT_TAKEN: usize = offset_of!(XenconsInterface, out_cons);
const OUTPUT_GIVEN: usize = offset_of!(XenconsInterface, out_prod);

/// Output that was read and of which the guest does not know that yet.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// The index behind them.
    end: u32,
}

/// A console page.
pub(crate) struct Ring<P> {
    page: P,
}

impl<P: Foreign> Ring<P> {
    /// The ring in a page.
    pub(crate) fn new(page: P) -> Ring<P> {
        Ring { page }
    }

    /// Reads all output there is.
    ///
    /// # Errors
    /// The guest's indices make no sense.
    pub(crate) fn output(&self) -> Result<Taken, BadIndex> {
        let (taken, given) = (self.page.load(OUTPUT_TAKEN), self.page.load(OUTPUT_GIVEN));
        let count = distance(taken, given, OUT_SIZE)?;
        // The bytes were written before the index was.
        fence(Ordering::SeqCst);
        let mut bytes = vec![0; count];
        let start = wrapped(taken, OUT_SIZE);
        let (first, second) = bytes.split_at_mut(count.min(OUT_SIZE - start));
        self.page.read_at(OUTPUT + start, first);
        self.page.read_at(OUTPUT, second);
        Ok(Taken { bytes, end: given })
    }

    /// Tells the guest that its output was read.
    pub(crate) fn publish(&mut self, taken: &Taken) {
        fence(Ordering::SeqCst);
        self.page.store(OUTPUT_TAKEN, taken.end);
    }

    /// How many bytes of input there is room for.
    pub(crate) fn room(&self) -> usize {
        let (taken, given) = (self.page.load(INPUT_TAKEN), self.page.load(INPUT_GIVEN));
        distance(taken, given, IN_SIZE).map_or(0, |used| IN_SIZE - used)
    }

    /// Gives input, as far as there is room; how much that was.
    pub(crate) fn input(&mut self, bytes: &[u8]) -> usize {
        let (taken, given) = (self.page.load(INPUT_TAKEN), self.page.load(INPUT_GIVEN));
        let Ok(used) = distance(taken, given, IN_SIZE) else {
            return 0;
        };
        let count = bytes.len().min(IN_SIZE - used);
        // The guest has read what was there before it moved its index.
        fence(Ordering::SeqCst);
        let start = wrapped(given, IN_SIZE);
        let (first, second) = bytes[..count].split_at(count.min(IN_SIZE - start));
        self.page.write_at(INPUT + start, first);
        self.page.write_at(INPUT, second);
        fence(Ordering::SeqCst);
        self.page.store(INPUT_GIVEN, advance(given, count));
        count
    }

    /// The page, for tests that play the guest.
    #[cfg(test)]
    pub(crate) fn page(&mut self) -> &mut P {
        &mut self.page
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A page in ordinary memory, and what a guest does with it.
    #[derive(Clone)]
    pub(crate) struct Page(Vec<u8>);

    impl Page {
        pub(crate) fn new() -> Page {
            Page(vec![0; 4096])
        }

        /// Says something, as far as there is room; how much that was.
        pub(crate) fn say(&mut self, bytes: &[u8]) -> usize {
            let (taken, given) = (self.load(OUTPUT_TAKEN), self.load(OUTPUT_GIVEN));
            let count = bytes.len().min(OUT_SIZE - distance(taken, given, OUT_SIZE).expect("own index"));
            for (step, byte) in bytes.iter().take(count).enumerate() {
                self.0[OUTPUT + wrapped(advance(given, step), OUT_SIZE)] = *byte;
            }
            self.store(OUTPUT_GIVEN, advance(given, count));
            count
        }

        /// Reads what was typed.
        pub(crate) fn hear(&mut self) -> Vec<u8> {
            let (taken, given) = (self.load(INPUT_TAKEN), self.load(INPUT_GIVEN));
            let count = distance(taken, given, IN_SIZE).expect("the daemon's index is right");
            let bytes = (0..count).map(|step| self.0[INPUT + wrapped(advance(taken, step), IN_SIZE)]).collect();
            self.store(INPUT_TAKEN, given);
            bytes
        }

        /// An index that makes no sense.
        pub(crate) fn break_index(&mut self) {
            let taken = self.load(OUTPUT_TAKEN);
            self.store(OUTPUT_GIVEN, taken.wrapping_add(5000));
        }

        /// The guest sets its ring anew.
        pub(crate) fn begin_anew(&mut self) {
            self.store(OUTPUT_TAKEN, 0);
            self.store(OUTPUT_GIVEN, 0);
        }
    }

    impl Foreign for Page {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn read_at(&self, offset: usize, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.0[offset..offset + bytes.len()]);
        }

        fn write_at(&mut self, offset: usize, bytes: &[u8]) {
            self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        }

        fn clear_at(&mut self, offset: usize, length: usize) {
            self.0[offset..offset + length].fill(0);
        }
    }

    #[test]
    fn bytes_go_round_the_rings() {
        let mut ring = Ring::new(Page::new());
        for index in [INPUT_TAKEN, INPUT_GIVEN, OUTPUT_TAKEN, OUTPUT_GIVEN] {
            // Not far from where indices begin anew.
            ring.page.store(index, u32::MAX - 100);
        }
        for round in 0_u8..20 {
            let said = vec![round; 777];
            assert_eq!(ring.page.say(&said), 777);
            let taken = ring.output().expect("is in order");
            assert_eq!(taken.bytes, said);
            assert_eq!(ring.output().expect("is in order").bytes, said, "it was not published");
            ring.publish(&taken);
            assert!(ring.output().expect("is in order").bytes.is_empty());
            assert_eq!(ring.input(&[round; 333]), 333);
            assert_eq!(ring.page.hear(), [round; 333]);
        }
    }

    #[test]
    fn a_full_ring_takes_no_more() {
        let mut ring = Ring::new(Page::new());
        assert_eq!((ring.room(), ring.input(&[1; 2000]), ring.input(&[2]), ring.room()), (1024, 1024, 0, 0));
        assert_eq!(ring.page.say(&[3; 5000]), 2048);
        assert_eq!(ring.output().expect("is in order").bytes, [3; 2048]);
        assert_eq!(ring.page.hear(), [1; 1024]);
        assert_eq!(ring.input(&[2]), 1);
    }

    proptest! {
        /// Whatever a guest writes into its page, nothing panics, and no more than a ring is taken or given.
        #[test]
        fn a_hostile_page(steps in proptest::collection::vec((0_usize..7, any::<u32>(), 0_u32..4000), 1..60)) {
            let mut ring = Ring::new(Page::new());
            for (what, wild, near) in steps {
                let taken = ring.page.load(OUTPUT_TAKEN);
                match what {
                    0 => ring.page.store(OUTPUT_GIVEN, wild),
                    1 => ring.page.store(OUTPUT_GIVEN, taken.wrapping_add(near)),
                    2 => ring.page.store(INPUT_TAKEN, wild),
                    3 => ring.page.store(INPUT_GIVEN, wild),
                    4 => ring.page.store(OUTPUT_TAKEN, wild),
                    5 => if let Ok(taken) = ring.output() {
                        prop_assert!(taken.bytes.len() <= OUT_SIZE);
                        ring.publish(&taken);
                    },
                    _ => prop_assert!(ring.input(&[9; 2000]) <= IN_SIZE && ring.room() <= IN_SIZE),
                }
            }
        }
    }
}
