//! The end of a domain's memory: every entry is removed, in pieces, so that others run in between.

use super::claim::release_claim;
use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::{Reply, Stop};
use machine::cpu;

/// Pages after which others get a turn.
const CHUNK: u64 = 4096;
/// Entries looked at after which others get a turn: as much work as with that many pages, or less.
const MOST_LOOKS: u64 = 1 << 16;

/// Removes all memory of a dying domain: own RAM is given up, pages of others are unmapped, tables are freed, and the claim
/// ends. The progress is in the p2m itself. Granted pages are still there when this begins: their uses have ended
/// (`grant::relinquish` comes first), their references end now.
///
/// # Errors
/// `Stop::Restart(None)`, when there is more to do but others must run first.
pub fn relinquish(host: &Host, domain: &Domain) -> Reply {
    release_claim(host, domain);
    let (mut pages, mut looks) = (0u64, 0u64);
    loop {
        let step = domain.p2m.end_step(|entry| {
            if entry.kind.is_own_ram() {
                domain.accounting.discharge(1 << entry.order);
            }
        });
        if step.is_done {
            return Ok(0);
        }
        (pages, looks) = (pages.saturating_add(step.pages), looks.saturating_add(step.looks));
        if pages >= CHUNK || looks >= MOST_LOOKS || cpu::must_yield() {
            return Err(Stop::Restart(None));
        }
    }
}
