//! The columns of `xl top`: what stands in them, and how they sort.

use std::cmp::{Ordering, Reverse};

use super::sample::{Domain, Requests, Sample, State};
use crate::output::shown;

/// A column, in xentop's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    State,
    Cpu,
    CpuPercent,
    Memory,
    MemoryPercent,
    MaxMemory,
    MaxPercent,
    Vcpus,
    Networks,
    NetSent,
    NetReceived,
    Disks,
    Delayed,
    Reads,
    Writes,
    SectorsRead,
    SectorsWritten,
    Label,
}

/// All of them, each with its header and its width.
pub(super) const COLUMNS: [(Column, &str, usize); 19] = [
    (Column::Name, "NAME", 10),
    (Column::State, "STATE", 6),
    (Column::Cpu, "CPU(sec)", 10),
    (Column::CpuPercent, "CPU(%)", 6),
    (Column::Memory, "MEM(k)", 10),
    (Column::MemoryPercent, "MEM(%)", 6),
    (Column::MaxMemory, "MAXMEM(k)", 10),
    (Column::MaxPercent, "MAXMEM(%)", 9),
    (Column::Vcpus, "VCPUS", 5),
    (Column::Networks, "NETS", 4),
    (Column::NetSent, "NETTX(k)", 8),
    (Column::NetReceived, "NETRX(k)", 8),
    (Column::Disks, "VBDS", 4),
    (Column::Delayed, "VBD_OO", 8),
    (Column::Reads, "VBD_RD", 8),
    (Column::Writes, "VBD_WR", 8),
    (Column::SectorsRead, "VBD_RSECT", 10),
    (Column::SectorsWritten, "VBD_WSECT", 10),
    (Column::Label, "SSID", 4),
];

/// Two looks at the host, from which a percentage of CPU time comes.
pub(super) struct Looks<'a> {
    pub(super) now: &'a Sample,
    pub(super) before: Option<&'a Sample>,
}

impl Looks<'_> {
    /// A domain's share of one CPU since the last look, in percent; 0 without one.
    pub(super) fn cpu_percent(&self, domain: &Domain) -> f64 {
        let Some(before) = self.before else { return 0.0 };
        let Some(old) = before.domains.iter().find(|old| old.domid == domain.domid) else { return 0.0 };
        let elapsed = self.now.when.saturating_sub(before.when).as_nanos();
        let used = domain.cpu_ns.saturating_sub(old.cpu_ns);
        if elapsed == 0 { 0.0 } else { used as f64 * 100.0 / elapsed as f64 }
    }

    fn memory_percent(&self, kib: u64) -> f64 {
        if self.now.total_kib == 0 { 0.0 } else { kib as f64 * 100.0 / self.now.total_kib as f64 }
    }
}

/// The letters of a state, each in its place.
fn letters(state: State) -> [(bool, char); 6] {
    let State { dying, shutdown, blocked, crashed, paused, running } = state;
    [(dying, 'd'), (shutdown, 's'), (blocked, 'b'), (crashed, 'c'), (paused, 'p'), (running, 'r')]
}

/// A number of all disks together; `None` if there are disks and none of them counts.
fn sum(domain: &Domain, number: fn(&Requests) -> u64) -> Option<u64> {
    let counts: Vec<u64> = domain.disks.iter().filter_map(|disk| disk.requests.as_ref()).map(number).collect();
    (domain.disks.is_empty() || !counts.is_empty()).then(|| counts.iter().sum())
}

impl Column {
    /// What is counted of the disks here.
    fn requests(self) -> Option<fn(&Requests) -> u64> {
        match self {
            Column::Delayed => Some(|requests| requests.delayed),
            Column::Reads => Some(|requests| requests.reads),
            Column::Writes => Some(|requests| requests.writes),
            Column::SectorsRead => Some(|requests| requests.sectors_read),
            Column::SectorsWritten => Some(|requests| requests.sectors_written),
            _ => None,
        }
    }

    /// Bytes of all interfaces together.
    fn bytes(self, domain: &Domain) -> u64 {
        let of = |network: &super::sample::Network| match self {
            Column::NetSent => network.sent.bytes,
            _ => network.received.bytes,
        };
        domain.networks.iter().map(of).sum()
    }

    /// What stands here for a domain.
    pub(super) fn text(self, domain: &Domain, looks: &Looks<'_>) -> String {
        let percent = |kib| format!("{:.1}", looks.memory_percent(kib));
        match self {
            Column::Name => shown(&domain.name).into(),
            Column::State => letters(domain.state).map(|(on, letter)| if on { letter } else { '-' }).iter().collect(),
            Column::Cpu => (domain.cpu_ns / 1_000_000_000).to_string(),
            Column::CpuPercent => format!("{:.1}", looks.cpu_percent(domain)),
            Column::Memory => domain.memory_kib.to_string(),
            Column::MemoryPercent => percent(domain.memory_kib),
            Column::MaxMemory => domain.max_memory_kib.map_or_else(|| "no limit".into(), |kib| kib.to_string()),
            Column::MaxPercent => domain.max_memory_kib.map_or_else(|| "n/a".into(), percent),
            Column::Vcpus => domain.vcpus.to_string(),
            Column::Networks => domain.networks.len().to_string(),
            Column::NetSent | Column::NetReceived => (self.bytes(domain) / 1024).to_string(),
            Column::Disks => domain.disks.len().to_string(),
            // There are no security labels.
            Column::Label => "0".into(),
            Column::Delayed | Column::Reads | Column::Writes | Column::SectorsRead | Column::SectorsWritten => {
                let count = self.requests().and_then(|number| sum(domain, number));
                count.map_or_else(|| "-".into(), |count| count.to_string())
            }
        }
    }

    /// The order of two domains: names from A on, numbers from the largest on.
    pub(super) fn compare(self, one: &Domain, other: &Domain, looks: &Looks<'_>) -> Ordering {
        let largest = |number: &dyn Fn(&Domain) -> u64| number(other).cmp(&number(one));
        match self {
            Column::Name => one.name.to_lowercase().cmp(&other.name.to_lowercase()),
            Column::State => {
                let states = |domain: &Domain| letters(domain.state).map(|(on, _)| Reverse(on));
                states(one).cmp(&states(other))
            }
            Column::Cpu => largest(&|domain| domain.cpu_ns),
            Column::CpuPercent => looks.cpu_percent(other).total_cmp(&looks.cpu_percent(one)),
            Column::Memory | Column::MemoryPercent => largest(&|domain| domain.memory_kib),
            Column::MaxMemory | Column::MaxPercent => largest(&|domain| domain.max_memory_kib.unwrap_or(u64::MAX)),
            Column::Vcpus => largest(&|domain| domain.vcpus.into()),
            Column::Networks => largest(&|domain| domain.networks.len() as u64),
            Column::NetSent | Column::NetReceived => largest(&|domain| self.bytes(domain)),
            Column::Disks => largest(&|domain| domain.disks.len() as u64),
            Column::Label => Ordering::Equal,
            Column::Delayed | Column::Reads | Column::Writes | Column::SectorsRead | Column::SectorsWritten => {
                let number = self.requests();
                largest(&|domain| number.and_then(|number| sum(domain, number)).unwrap_or(0))
            }
        }
    }
}
