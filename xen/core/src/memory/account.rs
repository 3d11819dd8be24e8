//! How much memory a domain has, may have, and has been promised.

use core::sync::atomic::{AtomicU64, Ordering};

/// How much memory a domain has and may have.
#[derive(Debug)]
pub struct Accounting {
    /// Pages it has: own RAM in its p2m, and what is on its way there.
    pub pages: AtomicU64,
    /// Pages it may have.
    pub max_pages: AtomicU64,
    /// Pages that a claim has set aside for it and that it has not taken yet.
    pub claimed: AtomicU64,
}

impl Accounting {
    /// None, and none allowed.
    pub const fn new() -> Self {
        Self { pages: AtomicU64::new(0), max_pages: AtomicU64::new(0), claimed: AtomicU64::new(0) }
    }

    /// Charges pages that are about to be allocated; false, and nothing charged, if the domain may not have so many.
    #[must_use]
    #[inline]
    pub fn charge(&self, count: u64) -> bool {
        let maximum = self.max_pages.load(Ordering::Relaxed);
        let change = |pages: u64| pages.checked_add(count).filter(|pages| *pages <= maximum);
        self.pages.try_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// Charges pages whatever the maximum is: those that a 1:1 domain is built of.
    pub fn charge_always(&self, count: u64) {
        self.pages.fetch_add(count, Ordering::AcqRel);
    }

    /// Takes pages off the account.
    #[inline]
    pub fn discharge(&self, count: u64) {
        let before = self.pages.fetch_sub(count, Ordering::AcqRel);
        debug_assert!(before >= count, "{count} pages taken off an account of {before}");
    }
}

impl Default for Accounting {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_the_maximum() {
        let account = Accounting::new();
        assert!(!account.charge(1));
        account.max_pages.store(3, Ordering::Relaxed);
        assert!(account.charge(2));
        assert!(!account.charge(2));
        assert!(account.charge(1));
        assert!(!account.charge(u64::MAX));
        account.discharge(3);
        assert_eq!(account.pages.load(Ordering::Relaxed), 0);
    }
}
