//! Random grants, mappings, copies and revocations against a model that counts uses.
//!
//! The granter is honest and revokes only what its entries say is unused. Then, at every step: an entry shows READING and
//! WRITING exactly while it is in use, a page has exactly the references that its uses explain, and users see exactly the
//! pages that were granted to them.

use super::relinquish;
use super::tests::call;
use crate::event::fixture::{add_page, domain, with_host};
use crate::host::Host;
use crate::p2m::Kind;
use core::sync::atomic::Ordering::SeqCst;
use machine::{Gfn, Mfn, frame, memory};
use proptest::prelude::*;
use public_abi::grant_table::*;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;
use zerocopy::IntoBytes;

/// The granting domain.
const GRANTER: u16 = 0;
const USERS: [u16; 2] = [1, 2];
/// Entries and granted guest frames.
const ENTRIES: u32 = 6;
const PAGES: u64 = 4;
const FIRST_PAGE: u64 = 10;
/// Where users map.
const FIRST_PLACE: u64 = 100;
const PLACES: u64 = 5;

#[derive(Clone, Debug)]
enum Op {
    Grant { entry: u32, user: u16, page: u64, read_only: bool },
    Revoke { entry: u32 },
    Map { user: u16, entry: u32, place: u64, read_only: bool },
    Unmap { user: u16, choice: usize, wrong_place: bool },
    Copy { user: u16, entry: u32, into: bool },
    Swap { entries: (u32, u32) },
    Kill { user: u16 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (e, u, b) = (0..ENTRIES, 1u16..3, any::<bool>());
    let op = prop_oneof![
        5 => (e.clone(), u.clone(), 0..PAGES, b).prop_map(|(entry, user, page, read_only)| Op::Grant { entry, user, page, read_only }),
        3 => e.clone().prop_map(|entry| Op::Revoke { entry }),
        8 => (u.clone(), e.clone(), 0..PLACES, b)
            .prop_map(|(user, entry, place, read_only)| Op::Map { user, entry, place, read_only }),
        6 => (u.clone(), 0usize..16, prop::bool::weighted(0.1))
            .prop_map(|(user, choice, wrong_place)| Op::Unmap { user, choice, wrong_place }),
        4 => (u.clone(), e.clone(), b).prop_map(|(user, entry, into)| Op::Copy { user, entry, into }),
        1 => (e.clone(), e).prop_map(|entries| Op::Swap { entries }),
        1 => u.prop_map(|user| Op::Kill { user }),
    ];
    prop::collection::vec(op, 1..80)
}

/// What the granter has written.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Entry {
    user: u16,
    page: u64,
    read_only: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mapped {
    entry: u32,
    place: u64,
    read_only: bool,
}

struct World<'a> {
    host: &'a Host,
    pages: Vec<Mfn>,
    entries: BTreeMap<u32, Entry>,
    /// By user and handle.
    mapped: BTreeMap<(u16, u32), Mapped>,
    dead: Vec<u16>,
}

impl World<'_> {
    fn header(&self, entry: u32) -> u16 {
        let frame = domain(self.host, GRANTER).grants.shared_frame(0).unwrap();
        memory::atomic::<u16>(&frame, usize::try_from(entry).unwrap() * 8).unwrap().load(SeqCst)
    }

    fn write_entry(&self, entry: u32, value: Option<Entry>) {
        let written = value.map_or(GrantEntryV1::default(), |value| GrantEntryV1 {
            flags: GTF_PERMIT_ACCESS | if value.read_only { GTF_READONLY } else { 0 },
            domid: value.user,
            frame: u32::try_from(FIRST_PAGE + value.page).unwrap(),
        });
        let frame = domain(self.host, GRANTER).grants.shared_frame(0).unwrap();
        assert!(memory::write(&frame, usize::try_from(entry).unwrap() * 8, written.as_bytes()));
    }

    fn uses(&self, entry: u32) -> (usize, usize) {
        let of_entry = self.mapped.values().filter(|mapped| mapped.entry == entry);
        let writers = of_entry.clone().filter(|mapped| !mapped.read_only).count();
        (of_entry.count(), writers)
    }

    fn is_allowed(&self, user: u16, entry: u32, read_only: bool) -> bool {
        self.entries.get(&entry).is_some_and(|granted| granted.user == user && (read_only || !granted.read_only))
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Grant { entry, user, page, read_only } => {
                if self.uses(entry).0 == 0 {
                    self.entries.insert(entry, Entry { user, page, read_only });
                    self.write_entry(entry, self.entries.get(&entry).copied());
                }
            }
            Op::Revoke { entry } => {
                if self.header(entry) & (GTF_READING | GTF_WRITING) == 0 {
                    assert_eq!(self.uses(entry).0, 0, "the entry says that it is unused");
                    self.entries.remove(&entry);
                    self.write_entry(entry, None);
                }
            }
            Op::Map { user, entry, place, read_only } => self.map(user, entry, place, read_only),
            Op::Unmap { user, choice, wrong_place } => self.unmap(user, choice, wrong_place),
            Op::Copy { user, entry, into } => {
                let grant = CopyPtr { u: u64::from(entry), domid: GRANTER, ..CopyPtr::default() };
                let own = CopyPtr { u: 2, domid: 0x7ff0, offset: 64, ..CopyPtr::default() };
                let (source, dest, flags) =
                    if into { (own, grant, GNTCOPY_DEST_GREF) } else { (grant, own, GNTCOPY_SOURCE_GREF) };
                let request = GrantCopy { source, dest, flags, len: 16, ..GrantCopy::default() };
                let (reply, [done]) = call(self.host, user, GrantTableOp::Copy.number(), [request]);
                assert_eq!(reply, Ok(0));
                assert_eq!(done.status == GNTST_OKAY, self.is_allowed(user, entry, !into));
            }
            Op::Swap { entries: (ref_a, ref_b) } => {
                let request = SwapGrantRef { ref_a, ref_b, ..SwapGrantRef::default() };
                let (_, [done]) = call(self.host, GRANTER, GrantTableOp::SwapGrantRef.number(), [request]);
                let is_free = self.uses(ref_a).0 == 0 && self.uses(ref_b).0 == 0;
                assert_eq!(done.status == GNTST_OKAY, is_free || ref_a == ref_b);
                if is_free {
                    let (one, two) = (self.entries.remove(&ref_a), self.entries.remove(&ref_b));
                    self.entries.extend(two.map(|entry| (ref_a, entry)));
                    self.entries.extend(one.map(|entry| (ref_b, entry)));
                }
            }
            Op::Kill { user } => {
                assert_eq!(relinquish(self.host, &domain(self.host, user)), Ok(()));
                self.mapped.retain(|(owner, _), _| *owner != user);
                self.dead.push(user);
            }
        }
    }

    fn map(&mut self, user: u16, entry: u32, place: u64, read_only: bool) {
        let flags = MapFlags::HOST_MAP.bits() | if read_only { MapFlags::READONLY.bits() } else { 0 };
        let host_addr = (FIRST_PLACE + place) << 12;
        let request = MapGrantRef { host_addr, flags, gref: entry, dom: GRANTER, ..MapGrantRef::default() };
        let (reply, [done]) = call(self.host, user, GrantTableOp::MapGrantRef.number(), [request]);
        assert_eq!(reply, Ok(0));
        let is_taken = self.mapped.iter().any(|((owner, _), mapped)| *owner == user && mapped.place == place);
        let is_good = self.is_allowed(user, entry, read_only) && !is_taken && !self.dead.contains(&user);
        assert_eq!(done.status == GNTST_OKAY, is_good);
        if is_good {
            let page = usize::try_from(self.entries[&entry].page).unwrap();
            assert_eq!(done.dev_bus_addr, self.pages[page].address().number());
            let before = self.mapped.insert((user, done.handle), Mapped { entry, place, read_only });
            assert!(before.is_none(), "a handle names one mapping");
        }
    }

    fn unmap(&mut self, user: u16, choice: usize, wrong_place: bool) {
        let own: Vec<u32> = self.mapped.keys().filter(|(owner, _)| *owner == user).map(|(_, handle)| *handle).collect();
        let handle = own.get(choice % (own.len() + 1)).copied().unwrap_or(400);
        let mapped = self.mapped.get(&(user, handle)).copied();
        let place = mapped.map_or(0, |mapped| mapped.place);
        let gfn = if wrong_place { FIRST_PLACE + PLACES } else { FIRST_PLACE + place };
        let request = UnmapGrantRef { host_addr: gfn << 12, handle, ..UnmapGrantRef::default() };
        let (reply, [done]) = call(self.host, user, GrantTableOp::UnmapGrantRef.number(), [request]);
        assert_eq!(reply, Ok(0));
        let wanted = match mapped {
            None => GNTST_BAD_HANDLE,
            Some(_) if wrong_place => GNTST_GENERAL_ERROR,
            Some(_) => GNTST_OKAY,
        };
        assert_eq!(done.status, wanted);
        if wanted == GNTST_OKAY {
            self.mapped.remove(&(user, handle));
        }
    }

    fn check(&self) {
        for entry in 0..ENTRIES {
            let (uses, writers) = self.uses(entry);
            let shown = self.header(entry) & (GTF_READING | GTF_WRITING);
            let wanted = if uses > 0 { GTF_READING } else { 0 } | if writers > 0 { GTF_WRITING } else { 0 };
            assert_eq!(shown, wanted, "entry {entry}");
        }
        for (page, mfn) in (0..).zip(&self.pages) {
            let entries =
                (0..ENTRIES).filter(|entry| self.entries.get(entry).is_some_and(|granted| granted.page == page));
            let in_use = entries.clone().filter(|entry| self.uses(*entry).0 > 0).count();
            let mappings: usize = entries.map(|entry| self.uses(entry).0).sum();
            // The p2m of a dead user keeps its pages until it is taken apart.
            if self.dead.is_empty() {
                let count = usize::try_from(frame::state(*mfn).unwrap().count).unwrap();
                assert_eq!(count, 1 + in_use + mappings, "page {page}");
            }
        }
        for user in USERS.iter().filter(|user| !self.dead.contains(user)) {
            for place in 0..PLACES {
                let found = domain(self.host, *user).p2m.lookup(Gfn::new(FIRST_PLACE + place));
                let here = |(owner, _): &(u16, u32), mapped: &Mapped| owner == user && mapped.place == place;
                match self.mapped.iter().find(|(key, mapped)| here(key, mapped)).map(|(_, mapped)| mapped) {
                    None => assert_eq!(found.kind, Kind::Hole),
                    Some(mapped) => {
                        let page = usize::try_from(self.entries[&mapped.entry].page).unwrap();
                        assert_eq!(found.kind, if mapped.read_only { Kind::GrantRo } else { Kind::GrantRw });
                        assert_eq!(found.frame_at(Gfn::new(FIRST_PLACE + place)), self.pages[page]);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn uses_are_counted_exactly(ops in ops()) {
        with_host(3, 1, |_, host| {
            let pages = (0..PAGES).map(|page| add_page(&domain(host, GRANTER), FIRST_PAGE + page)).collect();
            for id in [GRANTER].into_iter().chain(USERS) {
                add_page(&domain(host, id), 1);
                add_page(&domain(host, id), 2);
            }
            let mut world = World { host, pages, entries: BTreeMap::new(), mapped: BTreeMap::new(), dead: vec![] };
            for op in &ops {
                world.apply(op);
                world.check();
            }
        });
    }
}
