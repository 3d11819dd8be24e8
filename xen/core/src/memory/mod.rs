//! Memory verbs: check both sides, then apply both.

use core::sync::atomic::AtomicU64;

/// How much memory a domain has and may have.
#[derive(Debug)]
pub struct Accounting {
    /// Pages it has.
    pub pages: AtomicU64,
    /// Pages it may have.
    pub max_pages: AtomicU64,
}

impl Accounting {
    /// None, and none allowed.
    pub const fn new() -> Self {
        Self { pages: AtomicU64::new(0), max_pages: AtomicU64::new(0) }
    }
}

impl Default for Accounting {
    fn default() -> Self {
        Self::new()
    }
}
