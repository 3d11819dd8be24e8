//! A domain's ring page: bytes out of it and into it, whatever the domain writes there meanwhile.
//!
//! The daemon's own two indices are kept here and only ever written to the page; the domain's are read, once each, and
//! believed only if they are no further than a ring away (public/io/xs_wire.h). What was read is marked as taken by
//! [`Ring::publish`] alone, which comes after the state is safe.

use std::sync::atomic::{Ordering, fence};

use libxc::trap::Foreign;
use public_abi::io::xs_wire::{
    CONNECTED, ERROR_NONE, RECONNECT, RING_SIZE, SERVER_FEATURE_ERROR, SERVER_FEATURE_RECONNECTION,
    XenstoreDomainInterface,
};
use service::index::{BadIndex, advance, distance, wrapped};

use std::mem::offset_of;

const REQUESTS: usize = offset_of!(XenstoreDomainInterface, req);
const ANSWERS: usize = offset_of!(XenstoreDomainInterface, rsp);
const REQUEST_TAKEN: usize = offset_of!(XenstoreDomainInterface, req_cons);
const REQUEST_GIVEN: usize = offset_of!(XenstoreDomainInterface, req_prod);
const ANSWER_TAKEN: usize = offset_of!(XenstoreDomainInterface, rsp_cons);
const ANSWER_GIVEN: usize = offset_of!(XenstoreDomainInterface, rsp_prod);
const FEATURES: usize = offset_of!(XenstoreDomainInterface, server_features);
const CONNECTION: usize = offset_of!(XenstoreDomainInterface, connection);
const ERROR: usize = offset_of!(XenstoreDomainInterface, error);

/// How far the daemon has come: both indices are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Requests are taken up to here.
    pub(crate) taken: u32,
    /// Answers are given up to here.
    pub(crate) given: u32,
}

/// A ring.
pub(crate) struct Ring<P> {
    page: P,
    place: Place,
    /// The domain was told that it is not listened to.
    has_failed: bool,
}

impl<P: Foreign> Ring<P> {
    /// A ring that goes on where its page says. A page that makes no sense begins anew.
    pub(crate) fn adopt(page: P) -> Ring<P> {
        let place = Place { taken: page.load(REQUEST_TAKEN), given: page.load(ANSWER_GIVEN) };
        let mut ring = Ring { page, place, has_failed: false };
        if ring.pending().is_err() || ring.room().is_err() {
            return Ring::fresh(ring.page);
        }
        ring.welcome();
        ring
    }

    /// A ring that begins anew.
    pub(crate) fn fresh(page: P) -> Ring<P> {
        let mut ring = Ring { page, place: Place { taken: 0, given: 0 }, has_failed: false };
        ring.clear();
        ring
    }

    /// The ring of an earlier daemon, which had taken requests up to `taken` and was about to give `waiting` bytes from
    /// `given` on. Also, how many of those the page holds already.
    ///
    /// # Errors
    /// The page, if it says that more were given.
    pub(crate) fn resume(page: P, place: Place, waiting: usize) -> Result<(Ring<P>, usize), P> {
        let given = page.load(ANSWER_GIVEN);
        let done = usize::try_from(given.wrapping_sub(place.given)).unwrap_or(usize::MAX);
        if done > waiting {
            return Err(page);
        }
        let mut ring = Ring { page, place: Place { taken: place.taken, given }, has_failed: false };
        ring.publish();
        ring.welcome();
        Ok((ring, done))
    }

    /// Where the daemon is.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Sets the page to its beginning.
    pub(crate) fn clear(&mut self) {
        self.place = Place { taken: 0, given: 0 };
        for index in [REQUEST_TAKEN, REQUEST_GIVEN, ANSWER_TAKEN, ANSWER_GIVEN] {
            self.page.store(index, 0);
        }
        self.welcome();
    }

    fn welcome(&mut self) {
        self.has_failed = false;
        self.page.store(FEATURES, SERVER_FEATURE_ERROR | SERVER_FEATURE_RECONNECTION);
        self.page.store(ERROR, ERROR_NONE);
        fence(Ordering::SeqCst);
        self.page.store(CONNECTION, CONNECTED);
    }

    /// Tells the domain, once until it begins anew, why it is not listened to any more (`ERROR_*`). Whether that is news.
    pub(crate) fn fail(&mut self, error: u32) -> bool {
        let is_news = !self.has_failed;
        if is_news {
            self.has_failed = true;
            self.page.store(ERROR, error);
        }
        is_news
    }

    /// Whether the domain asks to begin anew.
    pub(crate) fn wants_reconnection(&self) -> bool {
        self.page.load(CONNECTION) == RECONNECT
    }

    fn pending(&self) -> Result<usize, BadIndex> {
        distance(self.place.taken, self.page.load(REQUEST_GIVEN), RING_SIZE)
    }

    fn room(&self) -> Result<usize, BadIndex> {
        distance(self.page.load(ANSWER_TAKEN), self.place.given, RING_SIZE).map(|used| RING_SIZE - used)
    }

    /// Takes the bytes that are there. The domain sees that only at [`Ring::publish`].
    ///
    /// # Errors
    /// The domain's index makes no sense.
    pub(crate) fn take(&mut self) -> Result<Vec<u8>, BadIndex> {
        let count = self.pending()?;
        // The bytes were written before the index was.
        fence(Ordering::SeqCst);
        let mut bytes = vec![0; count];
        let start = wrapped(self.place.taken, RING_SIZE);
        let (first, second) = bytes.split_at_mut(count.min(RING_SIZE - start));
        self.page.read_at(REQUESTS + start, first);
        self.page.read_at(REQUESTS, second);
        self.place.taken = advance(self.place.taken, count);
        Ok(bytes)
    }

    /// Shows the domain how much was taken.
    pub(crate) fn publish(&mut self) {
        fence(Ordering::SeqCst);
        self.page.store(REQUEST_TAKEN, self.place.taken);
    }

    /// Gives as much as there is room for; how much that was.
    ///
    /// # Errors
    /// The domain's index makes no sense.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> Result<usize, BadIndex> {
        let count = self.room()?.min(bytes.len());
        // The domain has read what was there before it moved its index.
        fence(Ordering::SeqCst);
        let start = wrapped(self.place.given, RING_SIZE);
        let (first, second) = bytes[..count].split_at(count.min(RING_SIZE - start));
        self.page.write_at(ANSWERS + start, first);
        self.page.write_at(ANSWERS, second);
        self.place.given = advance(self.place.given, count);
        fence(Ordering::SeqCst);
        self.page.store(ANSWER_GIVEN, self.place.given);
        Ok(count)
    }

    /// The page, for tests that play the domain.
    #[cfg(test)]
    pub(crate) fn page(&mut self) -> &mut P {
        &mut self.page
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A page in ordinary memory, and what a domain does with it.
    #[derive(Clone)]
    pub(crate) struct Page(pub(crate) Vec<u8>);

    impl Page {
        pub(crate) fn new() -> Page {
            Page(vec![0; 4096])
        }

        /// Writes a request as far as there is room; how much that was.
        pub(crate) fn request(&mut self, bytes: &[u8]) -> usize {
            let (taken, given) = (self.load(REQUEST_TAKEN), self.load(REQUEST_GIVEN));
            let count = (RING_SIZE - distance(taken, given, RING_SIZE).expect("own index")).min(bytes.len());
            for (step, byte) in bytes.iter().take(count).enumerate() {
                self.0[REQUESTS + wrapped(advance(given, step), RING_SIZE)] = *byte;
            }
            self.store(REQUEST_GIVEN, advance(given, count));
            count
        }

        /// Reads what has been answered.
        pub(crate) fn answer(&mut self) -> Vec<u8> {
            let (taken, given) = (self.load(ANSWER_TAKEN), self.load(ANSWER_GIVEN));
            let count = distance(taken, given, RING_SIZE).expect("the daemon's index is right");
            let bytes = (0..count).map(|step| self.0[ANSWERS + wrapped(advance(taken, step), RING_SIZE)]).collect();
            self.store(ANSWER_TAKEN, given);
            bytes
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
    fn bytes_go_round_the_ring() {
        let mut ring = Ring::fresh(Page::new());
        let (mut sent, mut got, mut back) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0_u8..20 {
            let bytes = vec![round; 333];
            let count = ring.page.request(&bytes);
            sent.extend_from_slice(&bytes[..count]);
            let taken = ring.take().expect("is in order");
            ring.publish();
            let given = ring.give(&taken).expect("is in order");
            assert_eq!(given, taken.len(), "there is room");
            got.extend(taken);
            back.extend(ring.page.answer());
        }
        assert_eq!((sent.len(), &sent), (20 * 333, &got));
        assert_eq!(sent, back);
    }

    #[test]
    fn a_full_ring_takes_no_more() {
        let mut ring = Ring::fresh(Page::new());
        assert_eq!(ring.give(&[1; 3000]), Ok(1024));
        assert_eq!(ring.give(&[2; 10]), Ok(0));
        assert_eq!(ring.page.answer(), [1; 1024]);
        assert_eq!(ring.give(&[2; 10]), Ok(10));
    }

    #[test]
    fn what_was_not_published_is_read_again() {
        let mut ring = Ring::fresh(Page::new());
        ring.page.request(b"hello");
        assert_eq!(ring.take().expect("is in order"), b"hello");
        let place = Place { taken: 0, given: 0 };
        let (mut ring, done) = Ring::resume(ring.page, place, 0).ok().expect("is in order");
        assert_eq!((ring.take().expect("is in order").as_slice(), done), (&b"hello"[..], 0));
    }

    #[test]
    fn answers_that_were_given_are_not_given_again() {
        let mut ring = Ring::fresh(Page::new());
        ring.give(b"abc").expect("is in order");
        let page = ring.page;
        let (_, done) = Ring::resume(page.clone(), Place { taken: 0, given: 0 }, 5).ok().expect("is in order");
        assert_eq!(done, 3);
        assert!(Ring::resume(page, Place { taken: 0, given: 0 }, 2).is_err(), "more than there was to give");
    }

    #[test]
    fn a_new_beginning() {
        let mut page = Page::new();
        page.store(REQUEST_GIVEN, 5000);
        page.store(ERROR, 3);
        let mut ring = Ring::adopt(page);
        assert_eq!((ring.place(), ring.page.load(REQUEST_GIVEN)), (Place { taken: 0, given: 0 }, 0));
        assert_eq!((ring.page.load(FEATURES), ring.page.load(ERROR)), (3, 0));
        ring.page.store(CONNECTION, RECONNECT);
        assert!(ring.wants_reconnection());
        // Each beginning may fail once, whatever was before it.
        for error in [3, 2] {
            assert!(ring.fail(error) && !ring.fail(7), "the first reason is the one that is told");
            assert_eq!(ring.page.load(ERROR), error);
            ring.clear();
            assert_eq!((ring.page.load(ERROR), ring.page.load(CONNECTION)), (0, CONNECTED));
        }
        let mut page = Page::new();
        page.store(REQUEST_TAKEN, 7000);
        page.store(REQUEST_GIVEN, 7003);
        assert_eq!(Ring::adopt(page).take().map(|bytes| bytes.len()), Ok(3), "a ring in use goes on");
    }

    proptest! {
        /// Whatever a domain writes into its page, nothing panics, and no more than a ring is taken or given.
        #[test]
        fn a_hostile_page(steps in proptest::collection::vec((0_usize..8, any::<u32>(), 0_u32..3000), 1..60)) {
            let mut ring = Ring::fresh(Page::new());
            for (what, wild, near) in steps {
                let place = ring.place;
                match what {
                    0 => ring.page.store(REQUEST_GIVEN, wild),
                    1 => ring.page.store(ANSWER_TAKEN, wild),
                    2 => ring.page.store(REQUEST_GIVEN, place.taken.wrapping_add(near)),
                    3 => ring.page.store(REQUEST_GIVEN, place.taken.wrapping_sub(near)),
                    4 => ring.page.store(REQUEST_TAKEN, wild),
                    5 => ring.page.store(ANSWER_TAKEN, place.given.wrapping_sub(near)),
                    6 => match ring.take() {
                        Ok(bytes) => prop_assert!(bytes.len() <= RING_SIZE),
                        Err(BadIndex) => prop_assert_eq!(ring.place, place),
                    },
                    _ => match ring.give(&[9; 2000]) {
                        Ok(count) => prop_assert!(count <= RING_SIZE),
                        Err(BadIndex) => prop_assert_eq!(ring.place, place),
                    },
                }
            }
        }
    }
}
