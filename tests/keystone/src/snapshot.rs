//! Everything that a host has at one moment, as far as it can be seen from outside of its modules: for "as before".
//!
//! Which frames are used may change; how many, for what, and with how many references may not.

use crate::control::Control;
use crate::toolstack::Toolstack;
use core::sync::atomic::Ordering;
use machine::frame::{self, Kind as FrameKind};
use machine::{DomId, Gfn, Mfn};
use public_abi::Request;
use public_abi::domid::DOMID_SELF;
use public_abi::event_channel::{EventChannelOp, PortStatus, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use xen_core::domain::Domain;
use xen_core::p2m::Kind;

/// A host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    free_pages: u64,
    claimed_pages: u64,
    /// Frames by kind, owner and references.
    frames: BTreeMap<(u8, u16, u32), u64>,
    domains: Vec<DomainSnapshot>,
    /// The control domain's event channels: port, state, vCPU.
    ports: Vec<(u32, u32, u32)>,
    /// vCPUs that wait on each CPU's queue.
    queues: Vec<usize>,
    heap_bytes: i64,
    /// Nodes in xenstore. Who was introduced is not compared: the daemon finds out by itself who is gone.
    nodes: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct DomainSnapshot {
    id: u16,
    pages: u64,
    max_pages: u64,
    claimed: u64,
    table_pages: u64,
    lost_flushes: u64,
    /// Guest frames by kind.
    entries: BTreeMap<String, u64>,
}

impl Snapshot {
    /// The host now.
    pub fn take(toolstack: &Toolstack) -> Self {
        let world = toolstack.control.world();
        let ports = ports(&toolstack.control);
        world.settle();
        let host = world.host;
        let mut domains = Vec::new();
        let mut next = DomId(0);
        while let Some(domain) = host.domains.next_from(next) {
            next = DomId(domain.id.0 + 1);
            domains.push(DomainSnapshot::take(&domain));
        }
        Self {
            free_pages: frame::free_pages(),
            claimed_pages: host.domains.claimed_pages.load(Ordering::Relaxed),
            frames: frames(),
            domains,
            ports,
            queues: host.cpus.iter().map(|cpu| cpu.queue.lock().len()).collect(),
            heap_bytes: world.ledger().bytes,
            nodes: toolstack.store.tree().nodes,
        }
    }

    /// The same moment with so many bytes on the heap.
    #[must_use]
    pub fn with_heap_bytes(self, heap_bytes: i64) -> Self {
        Self { heap_bytes, ..self }
    }

    /// What there is that is not the control domain's: free pages, frames by kind and owner, domains, vCPUs that wait.
    pub fn others(&self) -> String {
        let frames: Vec<_> = self.frames.iter().filter(|((_, owner, _), _)| *owner != 0).collect();
        let domains: Vec<_> = self.domains.iter().filter(|domain| domain.id != 0).collect();
        format!("frames {frames:?}, domains {domains:?}, claimed {}, queues {:?}", self.claimed_pages, self.queues)
    }

    /// Pages that were free.
    pub fn free_pages(&self) -> u64 {
        self.free_pages
    }

    /// Bytes on the heap since the host has booted.
    pub fn heap_bytes(&self) -> i64 {
        self.heap_bytes
    }

    /// What is different in another one, a line for each finding; empty if nothing is.
    pub fn difference(&self, other: &Self) -> String {
        let mut text = String::new();
        let mut compare = |what: &str, one: &dyn std::fmt::Debug, two: &dyn std::fmt::Debug| {
            let (one, two) = (format!("{one:?}"), format!("{two:?}"));
            if one != two {
                writeln!(text, "{what}: {one} became {two}").unwrap_or(());
            }
        };
        compare("free pages", &self.free_pages, &other.free_pages);
        compare("claimed pages", &self.claimed_pages, &other.claimed_pages);
        compare("frames by (kind, owner, references)", &self.frames, &other.frames);
        compare("domains", &self.domains, &other.domains);
        compare("event channels of the control domain", &self.ports, &other.ports);
        compare("run queues", &self.queues, &other.queues);
        compare("bytes on the heap", &self.heap_bytes, &other.heap_bytes);
        let paths: BTreeSet<&String> = self.nodes.keys().chain(other.nodes.keys()).collect();
        for path in paths {
            let value = |nodes: &BTreeMap<String, Vec<u8>>| {
                nodes.get(path).map(|value| String::from_utf8_lossy(value).into_owned())
            };
            compare(&format!("xenstore {path}"), &value(&self.nodes), &value(&other.nodes));
        }
        text
    }
}

impl DomainSnapshot {
    fn take(domain: &Domain) -> Self {
        domain.p2m.check().unwrap_or_else(|violation| panic!("{}: {violation:?}", domain.id));
        Self {
            id: domain.id.0,
            pages: domain.accounting.pages(),
            max_pages: domain.accounting.max_pages.load(Ordering::Relaxed),
            claimed: domain.accounting.claimed.load(Ordering::Relaxed),
            table_pages: domain.p2m.table_pages(),
            lost_flushes: domain.p2m.lost_flushes(),
            entries: kinds(domain),
        }
    }
}

/// All entries of a domain's p2m: first frame, order, kind, machine frame.
pub fn entries(domain: &Domain) -> Vec<(Gfn, u32, Kind, Mfn)> {
    let txn = domain.p2m.begin_removal();
    let mut from = Gfn::new(0);
    let mut all = Vec::new();
    while let Some((gfn, entry)) = txn.next(from) {
        all.push((gfn, entry.order, entry.kind, entry.mfn));
        from = gfn.saturating_add(1 << entry.order);
    }
    all
}

fn kinds(domain: &Domain) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for (_, order, kind, _) in entries(domain) {
        *kinds.entry(format!("{kind:?}")).or_insert(0) += 1 << order;
    }
    kinds
}

fn frames() -> BTreeMap<(u8, u16, u32), u64> {
    let mut frames = BTreeMap::new();
    for number in 0..=frame::last_page().number() {
        let Some(state) = frame::state(Mfn::new(number)) else { continue };
        if !matches!(state.kind, FrameKind::Free | FrameKind::FreeTail) {
            *frames.entry((state.kind as u8, state.owner.0, state.count)).or_insert(0) += 1;
        }
    }
    frames
}

/// The control domain's open ports, as EVTCHNOP_status tells them.
fn ports(control: &Control) -> Vec<(u32, u32, u32)> {
    let cmd = EventChannelOp::Status.number();
    let status = |port| {
        let mut status = Status { dom: DOMID_SELF, port, ..Status::default() };
        control.exchange(&mut status, |arg| Request::EventChannelOp { cmd, arg }).ok()?;
        (status.status != PortStatus::Closed.number()).then_some((port, status.status, status.vcpu))
    };
    (1..64).filter_map(status).collect()
}
