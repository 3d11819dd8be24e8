//! The checker of the p2m's invariants, for tests and debug builds: walks everything and says what is wrong.

use super::entry::{Entry, Kind, Rights};
use super::format::{Format, LEVELS};
use super::tree::Visited;
use super::{DomainP2m, HostFormat};
use machine::Gfn;
use machine::frame;
use machine::table::{ENTRIES, TableRef};

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Where.
    pub gfn: Gfn,
    /// What is there.
    pub entry: Entry,
    /// Which rule.
    pub rule: &'static str,
}

impl DomainP2m {
    /// Checks every entry.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn check(&self) -> Result<(), Violation> {
        let locked = self.locked.lock();
        let mut result = Ok(());
        let mut tables = 0;
        locked.tree.for_each(|gfn, level, visited| {
            let (entry, broken) = match visited {
                Visited::Leaf(bits) => {
                    let entry = HostFormat::decode(bits, level * 9);
                    (entry, self.broken_rule(gfn, bits, &entry))
                }
                Visited::Table(table) => {
                    tables += 1;
                    (Entry::hole(level * 9), broken_rule_of_table(table, level))
                }
            };
            if let Some(rule) = broken
                && result.is_ok()
            {
                result = Err(Violation { gfn, entry, rule });
            }
        });
        if tables != locked.tree.tables && result.is_ok() {
            let rule = "the number of tables is wrong";
            result = Err(Violation { gfn: Gfn::new(0), entry: Entry::hole(0), rule });
        }
        result
    }

    fn broken_rule(&self, gfn: Gfn, bits: u64, entry: &Entry) -> Option<&'static str> {
        let hardware = HostFormat::decode_rights(bits);
        if !entry.rights().contains(hardware) {
            return Some("INV-1: hardware gives a right that the entry does not");
        }
        if !gfn.is_aligned(entry.order) || entry.kind.has_frame() && !entry.mfn.is_aligned(entry.order) {
            return Some("an entry is not aligned to its order");
        }
        if !entry.kind.holds_reference() {
            return None;
        }
        for page in 0..1u64 << entry.order {
            let Some(state) = frame::state(entry.mfn.saturating_add(page)) else {
                return Some("a counted kind without RAM");
            };
            let expected = if entry.kind == Kind::SharedPage { frame::Kind::Shared } else { frame::Kind::Guest };
            let is_own = entry.kind.is_own_ram() || matches!(entry.kind, Kind::SharedPage | Kind::Reserved);
            if state.count == 0 || is_own && (state.kind != expected || state.owner != self.owner) {
                return Some("INV-2: an entry's page is free or somebody else's");
            }
        }
        if self.identity
            && (entry.kind.is_own_ram() || entry.kind == Kind::Reserved)
            && gfn.number() != entry.mfn.number()
        {
            return Some("RAM of a 1:1 domain is not at its own number");
        }
        None
    }
}

fn broken_rule_of_table(table: TableRef<'_>, level: u32) -> Option<&'static str> {
    let is_empty = (0..ENTRIES).all(|place| table.get(place) == 0);
    if is_empty != table.is_empty() {
        return Some("a table's count of entries is wrong");
    }
    (is_empty && level < LEVELS - 1).then_some("an empty table is left in the tree")
}

impl HostFormat {
    /// The rights that hardware takes from a leaf's bits, by the manual, independent of the encoder (APM volume 2, 5.4.1).
    fn decode_rights(bits: u64) -> Rights {
        if bits & 1 == 0 {
            return Rights::empty();
        }
        let mut rights = Rights::READ;
        rights.set(Rights::WRITE, bits & 2 != 0);
        rights.set(Rights::EXECUTE, bits >> 63 == 0);
        rights
    }
}
