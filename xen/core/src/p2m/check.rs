//! The checker of the p2m's invariants, for tests and debug builds: walks everything and says what is wrong.

use super::entry::{Entry, Kind, Rights};
use super::format::{Format, LEVELS};
use super::tree::{Tree, Visited};
use super::view::{IoTree, each_format, for_devices};
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
        result.and_then(|()| {
            locked.view.as_ref().map_or(Ok(()), |view| each_format!(&view.tree, tree => check_view(&locked.tree, tree)))
        })
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

/// Checks that devices have exactly what the truth gives them, entry by entry and the other way round (INV-1).
fn check_view<F: Format>(truth: &Tree<HostFormat>, view: &Tree<F>) -> Result<(), Violation> {
    let (mut result, mut tables) = (Ok(()), 0);
    let mut note = |gfn: Gfn, entry: Entry, rule: Option<&'static str>| {
        if let Some(rule) = rule
            && result.is_ok()
        {
            result = Err(Violation { gfn, entry, rule });
        }
    };
    truth.for_each(|gfn, level, visited| {
        if let Visited::Leaf(bits) = visited {
            let entry = HostFormat::decode(bits, level * 9);
            let seen = view.find(gfn).part_covering(gfn, entry.order);
            let is_same = F::encode(&seen) == F::encode(&for_devices(&entry));
            note(gfn, entry, (!is_same).then_some("devices do not see what the entry gives them"));
        }
    });
    view.for_each(|gfn, level, visited| match visited {
        Visited::Table(table) => {
            tables += 1;
            note(gfn, Entry::hole(level * 9), broken_rule_of_table(table, level));
        }
        Visited::Leaf(bits) => {
            let entry = F::decode(bits, level * 9);
            let real = truth.find(gfn).part_covering(gfn, entry.order);
            let is_same = real.order == entry.order && F::encode(&for_devices(&real)) == bits & !F::TRACKED;
            note(gfn, entry, (!is_same).then_some("INV-1: devices see what no entry gives them"));
        }
    });
    note(Gfn::new(0), Entry::hole(0), (tables != view.tables).then_some("the number of tables for devices is wrong"));
    result
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
