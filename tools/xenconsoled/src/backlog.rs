//! Output that no terminal has read yet, with a limit: the guest's toolstack says how much is kept (`console/limit` in xenstore),
//! and this daemon how much at the most.

use std::collections::VecDeque;

use crate::options::Overflow;

/// Bytes kept for one guest at the most, whatever its limit says: what libxl asks for.
const MOST: usize = 1 << 20;

/// Output in the order in which it came.
#[derive(Debug)]
pub(crate) struct Backlog {
    bytes: VecDeque<u8>,
    limit: usize,
    overflow: Overflow,
}

impl Backlog {
    /// An empty one.
    pub(crate) fn new(overflow: Overflow) -> Backlog {
        Backlog { bytes: VecDeque::new(), limit: MOST, overflow }
    }

    /// Sets the limit; without one, or with 0, it is what there can be at the most.
    pub(crate) fn set_limit(&mut self, limit: Option<u64>) {
        let limit = limit.filter(|limit| *limit != 0).and_then(|limit| usize::try_from(limit).ok());
        self.limit = limit.unwrap_or(MOST).min(MOST);
    }

    /// Whether output must wait in the ring.
    pub(crate) fn is_full(&self) -> bool {
        self.overflow == Overflow::Keep && self.bytes.len() >= self.limit
    }

    /// Adds output. Above the limit the oldest goes, unless it is to be kept: then it is the caller's to ask [`Backlog::is_full`]
    /// before, and a ring's worth may be above the limit.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        if self.overflow == Overflow::Discard && self.bytes.len() > self.limit {
            self.bytes.drain(..self.bytes.len() - self.limit);
        }
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The oldest bytes, as many as lie together.
    pub(crate) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Forgets so many of the oldest bytes.
    pub(crate) fn take(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
        if self.bytes.is_empty() {
            // What a flood needed is not held for ever.
            self.bytes.shrink_to(4096);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(backlog: &mut Backlog) -> Vec<u8> {
        let mut all = Vec::new();
        while !backlog.is_empty() {
            all.extend_from_slice(backlog.front());
            backlog.take(backlog.front().len());
        }
        all
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut backlog = Backlog::new(Overflow::Discard);
        backlog.set_limit(Some(10));
        backlog.add(b"abcdefgh");
        backlog.add(b"ijkl");
        assert!(!backlog.is_full());
        assert_eq!(contents(&mut backlog), b"cdefghijkl");
        backlog.set_limit(Some(u64::MAX));
        for _ in 0..1000 {
            backlog.add(&[7; 2048]);
        }
        assert_eq!(contents(&mut backlog).len(), MOST);
        backlog.set_limit(Some(0));
        assert_eq!(backlog.limit, MOST);
    }

    #[test]
    fn or_the_guest_waits() {
        let mut backlog = Backlog::new(Overflow::Keep);
        backlog.set_limit(Some(10));
        backlog.add(b"abcdefgh");
        assert!(!backlog.is_full());
        backlog.add(b"ijkl");
        assert!(backlog.is_full());
        backlog.take(3);
        assert!(!backlog.is_full());
        assert_eq!(contents(&mut backlog), b"defghijkl");
    }
}
