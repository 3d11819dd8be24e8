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

/// Temporary.
pub fn adopt_identity(domain: &crate::domain::Domain, start: machine::Mfn, count: u64) -> Result<(), public_abi::Errno> {
    use crate::p2m::entry::{Entry, Kind};
    let mut page = start;
    let end = start.saturating_add(count);
    while page < end {
        let order = if page.is_aligned(9) && page.saturating_add(512) <= end { 9 } else { 0 };
        let mut txn = domain.p2m.begin().map_err(|_| public_abi::Errno::ENOMEM)?;
        txn.set(machine::Gfn::new(page.number()), Entry::with_frame(Kind::RamRw, order, page)).map_err(|_| public_abi::Errno::EINVAL)?;
        txn.commit().complete();
        page = page.saturating_add(1 << order);
    }
    Ok(())
}
