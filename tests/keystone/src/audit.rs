//! What must hold at every moment, whatever guests do: the p2m's own rules, accounts that agree with it, references that
//! explain every page.

use crate::snapshot::entries;
use core::sync::atomic::Ordering;
use machine::frame::{self, Kind as FrameKind};
use machine::{DomId, Mfn};
use std::collections::HashMap;
use xen_core::host::Host;

/// Checks a host.
///
/// # Panics
/// Says what does not hold.
pub fn audit(host: &Host) {
    let mut references: HashMap<u64, u32> = HashMap::new();
    let mut next = DomId(0);
    while let Some(domain) = host.domains.next_from(next) {
        next = DomId(domain.id.0 + 1);
        domain.p2m.check().unwrap_or_else(|violation| panic!("{}: {violation:x?}", domain.id));
        assert_eq!(domain.p2m.lost_flushes(), 0, "{} dropped a flush", domain.id);
        let mut own = 0;
        for (_, order, kind, mfn) in entries(&domain) {
            if kind.is_own_ram() {
                own += 1u64 << order;
            }
            if kind.holds_reference() {
                for page in 0..1u64 << order {
                    *references.entry(mfn.number() + page).or_insert(0) += 1;
                }
            }
        }
        let charged = domain.accounting.pages.load(Ordering::Relaxed);
        assert_eq!(own, charged, "{}: pages in its p2m, and pages on its account", domain.id);
    }
    for number in 0..=frame::last_page().number() {
        let Some(state) = frame::state(Mfn::new(number)) else { continue };
        let shown = references.get(&number).copied().unwrap_or(0);
        match state.kind {
            // Besides entries, hypercalls under way and registered areas may hold references; nobody may hold less.
            FrameKind::Guest | FrameKind::Shared => {
                assert!(state.count >= shown.max(1), "frame {number:#x}: {state:?}, but {shown} entries show it");
            }
            _ => assert_eq!(shown, 0, "frame {number:#x}: {state:?}, but {shown} entries show it"),
        }
    }
}
