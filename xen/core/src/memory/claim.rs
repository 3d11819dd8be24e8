//! Claims: memory that is set aside for a domain while it is being built, so that two builders do not both count on it.
//!
//! The host's sum of claims is in the domain table. What is free and not claimed by others is what an allocation may take.

use crate::domain::Domain;
use crate::domain::lifecycle::Stage;
use crate::host::Host;
use core::sync::atomic::Ordering;
use machine::frame;
use public_abi::Errno;

/// Sets aside so much that the domain can come to `total` pages; 0 ends the claim (XENMEM_claim_pages).
///
/// # Errors
/// `EINVAL`, if the domain has a claim, has as much already, may not have as much, or is dying; `ENOMEM`, if there is not
/// enough.
pub fn claim(host: &Host, domain: &Domain, total: u64) -> Result<(), Errno> {
    // One claim at a time in the whole host: the sum is compared with what is free.
    let _numbers = host.domains.change.lock();
    if total == 0 {
        release_claim(host, domain);
        return Ok(());
    }
    if domain.lifecycle.stage() != Stage::Alive {
        return Err(Errno::EINVAL);
    }
    let account = &domain.accounting;
    if account.claimed.load(Ordering::Acquire) != 0 || total > account.max_pages.load(Ordering::Relaxed) {
        return Err(Errno::EINVAL);
    }
    let wanted = total.checked_sub(account.pages()).filter(|wanted| *wanted > 0);
    let wanted = wanted.ok_or(Errno::EINVAL)?;
    let available = frame::free_pages().saturating_sub(host.domains.claimed_pages.load(Ordering::Acquire));
    if wanted > available {
        return Err(Errno::ENOMEM);
    }
    account.claimed.store(wanted, Ordering::Release);
    host.domains.claimed_pages.fetch_add(wanted, Ordering::AcqRel);
    Ok(())
}

/// Ends a domain's claim, if it has one. A dying domain's claim ends with its memory, and once more when nobody can find the
/// domain any more: one that was made at the same time may have come after the first.
pub fn release_claim(host: &Host, domain: &Domain) {
    let rest = domain.accounting.claimed.swap(0, Ordering::AcqRel);
    if rest != 0 {
        host.domains.claimed_pages.fetch_sub(rest, Ordering::AcqRel);
    }
}

/// Whether `count` pages may be taken for a domain without touching what is set aside for others.
#[inline]
pub(super) fn may_take(host: &Host, domain: &Domain, count: u64) -> bool {
    let claimed = host.domains.claimed_pages.load(Ordering::Acquire);
    claimed == 0 || {
        let own = domain.accounting.claimed.load(Ordering::Acquire);
        own >= count || frame::free_pages().saturating_sub(claimed) >= count.saturating_sub(own)
    }
}

/// Counts pages that a domain has taken against its claim.
#[inline]
pub(super) fn count_taken(host: &Host, domain: &Domain, count: u64) {
    let claimed = &domain.accounting.claimed;
    if claimed.load(Ordering::Relaxed) == 0 {
        return;
    }
    let take = |rest: u64| Some(rest.saturating_sub(count));
    if let Ok(before) = claimed.try_update(Ordering::AcqRel, Ordering::Acquire, take) {
        host.domains.claimed_pages.fetch_sub(before.min(count), Ordering::AcqRel);
    }
}
