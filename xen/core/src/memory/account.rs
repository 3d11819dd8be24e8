//! How much memory a domain has, may have, and has been promised.
//!
//! A page is charged for from before it is allocated until it is free again. While it is in the domain's map, or on its way
//! there, it is in `mapped`; when its entry goes, others may still use it (a grant's user, a foreign mapping, a hypercall
//! under way), and until the last reference goes the frame table counts it as leaving. So a domain cannot lend its pages,
//! give them up, and have others instead.

use core::sync::atomic::{AtomicU64, Ordering};
use machine::{DomId, frame};

/// How much memory a domain has and may have.
#[derive(Debug)]
pub struct Accounting {
    owner: DomId,
    /// Pages of own RAM in its p2m, and on their way there.
    mapped: AtomicU64,
    /// Pages it may have.
    pub max_pages: AtomicU64,
    /// Pages that a claim has set aside for it and that it has not taken yet.
    pub claimed: AtomicU64,
}

impl Accounting {
    /// None, and none allowed.
    pub const fn new(owner: DomId) -> Self {
        Self { owner, mapped: AtomicU64::new(0), max_pages: AtomicU64::new(0), claimed: AtomicU64::new(0) }
    }

    /// Pages that it has.
    #[inline]
    pub fn pages(&self) -> u64 {
        // In this order a page that leaves meanwhile is counted twice rather than not at all.
        let mapped = self.mapped.load(Ordering::Acquire);
        mapped.saturating_add(frame::leaving_pages(self.owner))
    }

    /// Charges pages that are about to be allocated; false, and nothing charged, if the domain may not have so many.
    #[must_use]
    #[inline]
    pub fn charge(&self, count: u64) -> bool {
        let maximum = self.max_pages.load(Ordering::Relaxed);
        let change = |mapped: u64| {
            let after = mapped.checked_add(count)?;
            let total = after.checked_add(frame::leaving_pages(self.owner))?;
            (total <= maximum).then_some(after)
        };
        self.mapped.try_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    /// Charges pages whatever the maximum is: those that a 1:1 domain is built of.
    pub fn charge_always(&self, count: u64) {
        self.mapped.fetch_add(count, Ordering::AcqRel);
    }

    /// Takes pages off the account that are not in the domain's map any more. What is not free yet the frame table counts
    /// already.
    #[inline]
    pub fn discharge(&self, count: u64) {
        let before = self.mapped.fetch_sub(count, Ordering::AcqRel);
        debug_assert!(before >= count, "{count} pages taken off an account of {before}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::fake::FakeMachine;
    use machine::frame::{Fill, Kind, Pin};

    #[test]
    fn nobody_gets_more_than_the_maximum() {
        FakeMachine::builder().pages(16).build().on_cpu(0, || {
            let account = Accounting::new(DomId(1));
            assert!(!account.charge(1));
            account.max_pages.store(3, Ordering::Relaxed);
            assert!(account.charge(2));
            assert!(!account.charge(2));
            assert!(account.charge(1));
            assert!(!account.charge(u64::MAX));
            account.discharge(3);
            assert_eq!(account.pages(), 0);
        });
    }

    #[test]
    fn a_page_is_charged_for_until_it_is_free() {
        FakeMachine::builder().pages(16).build().on_cpu(0, || {
            let account = Accounting::new(DomId(1));
            account.max_pages.store(2, Ordering::Relaxed);
            assert!(account.charge(2));
            let mfn = frame::allocate(0, Kind::Guest, DomId(1), Fill::Any).unwrap();
            frame::leave(mfn, 0);
            account.discharge(1);
            assert_eq!(account.pages(), 2);
            assert!(!account.charge(1), "it is not free yet");
            drop(Pin::from_entry(mfn));
            assert_eq!(account.pages(), 1);
            assert!(account.charge(1));
            account.discharge(2);
        });
    }
}
