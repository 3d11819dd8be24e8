//! S7 (memory-engine.md, 6.7): random operations on real domains, on a machine whose TLB keeps stale entries, against a
//! naive model: a map from guest frames to pages. After each step the p2m, the accounts, what guests read and write, what a
//! device of the first domain does through an IOMMU that forgets nothing by itself, and the invariants must agree; at the end no page may be missing.

extern crate std;

use super::testing::{GuestCpu, domain, host, iommu, settings};
use super::{decrease, foreign_page, map_foreign, map_grant, move_frame, populate, remove_from_physmap, unmap_grant};
use crate::domain::Domain;
use crate::fault::Handled;
use crate::host::Host;
use crate::p2m::entry::MemoryAccess;
use crate::p2m::{Access, Kind};
use machine::fake::FakeMachine;
use machine::iommu::Iommu;
use machine::iommu::Maker;
use machine::{Gfn, frame};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::vec;
use std::vec::Vec;

const MAX_PAGES: u64 = 1300;
const DOMAINS: usize = 2;
/// Bus 0, device 3, function 0.
const DEVICE: u16 = 0x18;

/// Guest frames around the edges of tables and blocks.
const PLACES: [u64; 12] =
    [0, 1, 511, 512, 513, 1023, 1024, 2048, (1 << 18) - 1, 1 << 18, (1 << 27) + 512, (1 << 36) - 1];

#[derive(Clone, Copy, Debug)]
enum Op {
    Populate { who: usize, at: u64, order: u32 },
    Decrease { who: usize, at: u64, order: u32 },
    Move { who: usize, from: u64, to: u64 },
    Foreign { who: usize, from: u64, to: u64 },
    Grant { who: usize, from: u64, to: u64, write: bool },
    Ungrant { who: usize, at: u64 },
    Unmap { who: usize, at: u64 },
    Watch { who: usize, at: u64 },
    MakeReadOnly { who: usize, at: u64 },
    Restrict { who: usize, at: u64 },
    Read { who: usize, at: u64 },
    Write { who: usize, at: u64, value: u64 },
    HypervisorWrite { who: usize, at: u64, value: u64 },
}

fn ops() -> impl Strategy<Value = Op> {
    let who = 0..DOMAINS;
    let at = prop::sample::select(PLACES.to_vec());
    let order = prop::sample::select([0, 0, 0, 9].to_vec());
    let two = (who.clone(), at.clone(), at.clone());
    let one = (who.clone(), at.clone());
    prop_oneof![
        4 => (who.clone(), at.clone(), order.clone()).prop_map(|(who, at, order)| Op::Populate { who, at, order }),
        3 => (who.clone(), at.clone(), order).prop_map(|(who, at, order)| Op::Decrease { who, at, order }),
        1 => two.clone().prop_map(|(who, from, to)| Op::Move { who, from, to }),
        2 => two.clone().prop_map(|(who, from, to)| Op::Foreign { who, from, to }),
        1 => (two, any::<bool>()).prop_map(|((who, from, to), write)| Op::Grant { who, from, to, write }),
        1 => one.clone().prop_map(|(who, at)| Op::Ungrant { who, at }),
        2 => one.clone().prop_map(|(who, at)| Op::Unmap { who, at }),
        1 => one.clone().prop_map(|(who, at)| Op::Watch { who, at }),
        1 => one.clone().prop_map(|(who, at)| Op::MakeReadOnly { who, at }),
        1 => one.clone().prop_map(|(who, at)| Op::Restrict { who, at }),
        4 => one.clone().prop_map(|(who, at)| Op::Read { who, at }),
        4 => (one.clone(), any::<u64>()).prop_map(|((who, at), value)| Op::Write { who, at, value }),
        1 => (one, any::<u64>()).prop_map(|((who, at), value)| Op::HypervisorWrite { who, at, value }),
    ]
}

impl Op {
    /// The frame that the operation is about, and whose.
    fn subject(self) -> (usize, u64) {
        match self {
            Self::Move { who, from: at, .. }
            | Self::Foreign { who, to: at, .. }
            | Self::Grant { who, to: at, .. }
            | Self::Populate { who, at, .. }
            | Self::Decrease { who, at, .. }
            | Self::Ungrant { who, at }
            | Self::Unmap { who, at }
            | Self::Watch { who, at }
            | Self::MakeReadOnly { who, at }
            | Self::Restrict { who, at }
            | Self::Read { who, at }
            | Self::Write { who, at, .. }
            | Self::HypervisorWrite { who, at, .. } => (who, at),
        }
    }
}

/// A page of the model: an index into the list of contents, because several frames may show one page.
type PageId = usize;

/// A frame of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    kind: Kind,
    page: PageId,
    restricted: bool,
}

#[derive(Default)]
struct Model {
    frames: [HashMap<u64, Cell>; DOMAINS],
    contents: Vec<u64>,
    /// Whose each page is.
    owners: Vec<usize>,
}

impl Model {
    fn at(&self, who: usize, at: u64) -> Option<Cell> {
        self.frames[who].get(&at).copied()
    }

    fn own_ram(&self, who: usize, at: u64) -> Option<Cell> {
        self.at(who, at).filter(|cell| cell.kind.is_own_ram())
    }

    /// A domain pays for its pages for as long as anybody sees them.
    fn charged(&self, who: usize) -> u64 {
        let seen = self.frames.iter().flat_map(HashMap::values).map(|cell| cell.page);
        seen.filter(|page| self.owners[*page] == who).collect::<HashSet<_>>().len() as u64
    }

    fn replaceable(&self, who: usize, at: u64) -> bool {
        self.at(who, at).is_none_or(|cell| cell.kind.is_own_ram())
    }

    /// What the call answers, and the change if it succeeds. A populate that fails may not have changed anything.
    fn populate(&mut self, who: usize, at: u64, order: u32) -> bool {
        let range = at..at + (1 << order);
        let fits = range.end <= 1 << 36 && self.charged(who) + (1 << order) <= MAX_PAGES;
        if !fits || !range.clone().all(|at| self.replaceable(who, at)) {
            return false;
        }
        for at in range {
            self.contents.push(0);
            self.owners.push(who);
            let page = self.contents.len() - 1;
            self.frames[who].insert(at, Cell { kind: Kind::RamRw, page, restricted: false });
        }
        true
    }

    fn decrease(&mut self, who: usize, at: u64, order: u32) -> bool {
        (at..at + (1 << order)).all(|at| {
            let is_ram = self.own_ram(who, at).is_some();
            if is_ram {
                self.frames[who].remove(&at);
            }
            is_ram
        })
    }

    fn move_frame(&mut self, who: usize, from: u64, to: u64) -> bool {
        let Some(cell) = self.own_ram(who, from).filter(|_| self.replaceable(who, to)) else { return false };
        if from != to {
            self.frames[who].remove(&from);
            self.frames[who].insert(to, cell);
        }
        true
    }

    /// A foreign or granted page of the other domain.
    fn lend(&mut self, who: usize, from: u64, to: u64, kinds: (Kind, Option<Kind>), over: &[Kind]) -> bool {
        let Some(cell) = self.own_ram(1 - who, from) else { return false };
        let kind = if cell.kind.is_writable_ram() { Some(kinds.0) } else { kinds.1 };
        let free = self.replaceable(who, to) || self.at(who, to).is_some_and(|cell| over.contains(&cell.kind));
        let Some(kind) = kind.filter(|_| free) else { return false };
        self.frames[who].insert(to, Cell { kind, page: cell.page, restricted: false });
        true
    }

    /// What a guest's access gives; `None` if it does not get through. Curable faults are cured.
    fn access(&mut self, who: usize, at: u64, write: Option<u64>) -> Option<u64> {
        let cell = self.frames[who].get_mut(&at)?;
        let needs_write = write.is_some();
        if cell.kind == Kind::RamLogDirty && needs_write {
            cell.kind = Kind::RamRw;
        }
        let may_write = matches!(cell.kind, Kind::RamRw | Kind::Foreign | Kind::GrantRw);
        if needs_write && !may_write {
            return None;
        }
        // Any access that reads faults on a restricted frame, and the restriction goes.
        cell.restricted = false;
        let content = &mut self.contents[cell.page];
        if let Some(value) = write {
            *content = value;
        }
        Some(*content)
    }
}

struct World {
    machine: FakeMachine,
    host: Host,
    domains: [Domain; DOMAINS],
    cpus: [GuestCpu; DOMAINS],
    model: Model,
}

impl World {
    fn new(machine: &FakeMachine, iommu: &'static Iommu) -> Self {
        let mut domains = [domain(1, settings(), MAX_PAGES), domain(2, settings(), MAX_PAGES)];
        domains[0].p2m.attach(iommu).unwrap();
        iommu.enable().unwrap();
        let cpus = [GuestCpu::new(machine, &domains[0]), GuestCpu::new(machine, &domains[1])];
        Self { machine: machine.clone(), host: host(), domains, cpus, model: Model::default() }
    }

    /// The guest touches the frame before and after the operation, so that its processor remembers what was there.
    fn step_between_accesses(&mut self, op: Op, write: bool) {
        let (who, at) = op.subject();
        self.step(if write { Op::Write { who, at, value: at } } else { Op::Read { who, at } });
        self.step(op);
        self.step(if write { Op::Write { who, at, value: !at } } else { Op::Read { who, at } });
    }

    fn step(&mut self, op: Op) {
        let Self { host, domains, cpus, model, .. } = self;
        let gfn = Gfn::new;
        match op {
            Op::Populate { who, at, order } => {
                let done = populate(host, &domains[who], gfn(at), order).is_ok();
                assert_eq!(done, model.populate(who, at, order));
            }
            Op::Decrease { who, at, order } => {
                let done = decrease(&domains[who], gfn(at), order).is_ok();
                assert_eq!(done, model.decrease(who, at, order));
            }
            Op::Move { who, from, to } => {
                let done = move_frame(&domains[who], gfn(from), gfn(to)).is_ok();
                assert_eq!(done, model.move_frame(who, from, to));
            }
            Op::Foreign { who, from, to } => {
                let page = foreign_page(&domains[1 - who], gfn(from));
                let done = page.and_then(|page| map_foreign(&domains[who], gfn(to), page)).is_ok();
                let kinds = (Kind::Foreign, Some(Kind::ForeignRo));
                let over = [Kind::Foreign, Kind::ForeignRo];
                assert_eq!(done, model.lend(who, from, to, kinds, &over));
            }
            Op::Grant { who, from, to, write } => {
                let access = if write { Access::Write } else { Access::Read };
                let page = domains[1 - who].p2m.pin_for_others(gfn(from), access);
                let done = page.is_ok_and(|page| map_grant(&domains[who], gfn(to), page, access).is_ok());
                let kinds = if write { (Kind::GrantRw, None) } else { (Kind::GrantRo, Some(Kind::GrantRo)) };
                assert_eq!(done, model.lend(who, from, to, kinds, &[]));
            }
            Op::Ungrant { who, at } => {
                let page = domains[who].p2m.lookup(gfn(at)).mfn;
                let is_grant = model.at(who, at).is_some_and(|cell| matches!(cell.kind, Kind::GrantRw | Kind::GrantRo));
                assert_eq!(unmap_grant(&domains[who], gfn(at), page).is_ok(), is_grant);
                if is_grant {
                    model.frames[who].remove(&at);
                }
            }
            Op::Unmap { who, at } => {
                let done = remove_from_physmap(&domains[who], gfn(at)).is_ok();
                let removable =
                    model.at(who, at).is_some_and(|cell| !matches!(cell.kind, Kind::GrantRw | Kind::GrantRo));
                assert_eq!(done, removable);
                if removable {
                    model.frames[who].remove(&at);
                }
            }
            Op::Watch { who, at } => retype(&domains[who], model, who, at, Kind::RamLogDirty),
            Op::MakeReadOnly { who, at } => retype(&domains[who], model, who, at, Kind::RamRo),
            Op::Restrict { who, at } => {
                if let Some(cell) = model.frames[who].get_mut(&at) {
                    let mut txn = domains[who].p2m.begin().unwrap();
                    txn.restrict(gfn(at), 0, MemoryAccess::N).unwrap();
                    txn.finish();
                    cell.restricted = true;
                }
            }
            Op::Read { who, at } => access(&domains[who], &mut cpus[who], model, who, at, None),
            Op::Write { who, at, value } => access(&domains[who], &mut cpus[who], model, who, at, Some(value)),
            Op::HypervisorWrite { who, at, value } => {
                let pin = domains[who].p2m.pin(gfn(at), Access::Write);
                // The hypervisor uses no page that is lent for a while only.
                let cell = model.at(who, at).filter(|cell| cell.kind.is_writable_ram() && !cell.kind.is_granted());
                assert_eq!(pin.is_ok(), cell.is_some());
                if let (Ok(pin), Some(cell)) = (pin, cell) {
                    domains[who].p2m.mark_dirty(gfn(at));
                    assert!(machine::memory::write(&pin, 0, &value.to_le_bytes()));
                    model.contents[cell.page] = value;
                }
            }
        }
    }

    /// A device of the first domain reads and writes where its map says.
    fn use_device(&self) {
        for at in PLACES {
            let cell = self.model.at(0, at).filter(|cell| !cell.restricted);
            let may_write = cell.is_some_and(|cell| matches!(cell.kind, Kind::RamRw | Kind::Foreign | Kind::GrantRw));
            let mut word = [0; 8];
            let read = self.machine.dma_read(DEVICE, at << 12, &mut word);
            let read = read.ok().map(|()| u64::from_le_bytes(word));
            assert_eq!(read, cell.map(|cell| self.model.contents[cell.page]), "frame {at:#x}");
            // The content stays, so that the model need not hear of it.
            assert_eq!(self.machine.dma_write(DEVICE, at << 12, &word).is_ok(), may_write, "frame {at:#x}");
        }
    }

    fn compare(&self) {
        self.use_device();
        for who in 0..DOMAINS {
            let domain = &self.domains[who];
            domain.p2m.check().unwrap();
            assert_eq!(domain.accounting.pages(), self.model.charged(who));
            assert_eq!(domain.p2m.lost_flushes(), 0);
            for at in PLACES {
                let entry = domain.p2m.lookup(Gfn::new(at));
                let cell = self.model.at(who, at);
                assert_eq!(entry.kind, cell.map_or(Kind::Hole, |cell| cell.kind), "frame {at:#x}");
                let is_restricted = entry.access != MemoryAccess::Rwx;
                assert_eq!(is_restricted, cell.is_some_and(|cell| cell.restricted), "frame {at:#x}");
                // What a processor without memory would find is what the entry says.
                let mfn = self.machine.translate(
                    domain.p2m.root().mfn(),
                    Gfn::new(at).address(),
                    machine::exit::AccessKind::Read,
                );
                let readable = !entry.rights().is_empty();
                assert_eq!(mfn, readable.then(|| entry.frame_at(Gfn::new(at))), "frame {at:#x}");
            }
        }
    }
}

fn retype(domain: &Domain, model: &mut Model, who: usize, at: u64, kind: Kind) {
    if model.own_ram(who, at).is_none() {
        return;
    }
    let mut txn = domain.p2m.begin().unwrap();
    txn.retype(Gfn::new(at), 0, kind).unwrap();
    txn.finish();
    if let Some(cell) = model.frames[who].get_mut(&at) {
        cell.kind = kind;
    }
}

fn access(domain: &Domain, cpu: &mut GuestCpu, model: &mut Model, who: usize, at: u64, write: Option<u64>) {
    let real = cpu.access(domain, at * 4096, write);
    let expected = model.access(who, at, write);
    match (&real, expected) {
        (Ok(value), Some(expected)) => assert_eq!(*value, expected, "frame {at:#x}"),
        (Err((_, handled)), None) => {
            // A write that is refused has lifted a restriction on its way if the kind allows it.
            assert_ne!(*handled, Handled::Resume);
        }
        _ => panic!("frame {at:#x}: {real:?}, the model says {expected:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_p2m_agrees_with_a_naive_map(steps in prop::collection::vec((ops(), any::<bool>()), 1..60), maker in 0..2) {
        let machine = FakeMachine::builder().pages(8192).build();
        machine.on_cpu(0, || {
            let iommu = iommu(&machine, if maker == 0 { Maker::Amd } else { Maker::Intel });
            let before = frame::free_pages();
            let mut world = World::new(&machine, iommu);
            for (op, write) in steps {
                world.step_between_accesses(op, write);
                world.compare();
            }
            drop(world);
            assert_eq!(frame::free_pages(), before, "pages were lost");
        });
    }
}
