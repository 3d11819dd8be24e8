//! The rows of the tables, as data.
//!
//! The key is the name in the console's text: `BENCH key minimum median` or `FIGURE key value` (see [`super::parse`]).

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Retired instructions, the guest's own few included.
    Instructions,
    /// Pages of 4 KiB.
    Pages,
    /// Bytes.
    Bytes,
}

/// What the issue asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// No more than this.
    AtMost(u64),
    /// As above, with one number where the processor gives the next instruction's address, and one where it does not.
    ByNextRip {
        /// With NRIPS.
        with: u64,
        /// Without.
        without: u64,
    },
    /// No more than this part of Xen's.
    PartOfXen(f64),
}

/// The row that says what measuring costs: two RDTSC. It is next to nothing, but for a hypervisor that intercepts RDTSC. All
/// other costs are without it.
pub(crate) const OVERHEAD: &str = "nothing";

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its name in the console's text.
    pub(crate) key: &'static str,
    /// Its name for people.
    pub(crate) title: &'static str,
    /// What is counted.
    pub(crate) unit: Unit,
    /// What is wanted.
    pub(crate) goal: Option<Goal>,
}

const fn cost(key: &'static str, title: &'static str, goal: Option<Goal>) -> Row {
    Row { key, title, unit: Unit::Instructions, goal }
}

const fn pages(key: &'static str, title: &'static str, goal: Option<Goal>) -> Row {
    Row { key, title, unit: Unit::Pages, goal }
}

const fn bytes(key: &'static str, title: &'static str, goal: Option<Goal>) -> Row {
    Row { key, title, unit: Unit::Bytes, goal }
}

/// Operations, measured by the bench guest.
pub(crate) const OPERATIONS: &[Row] = &[
    cost(OVERHEAD, "nothing: what measuring costs itself, taken off below", None),
    cost("null-hypercall", "null hypercall (xen_version)", Some(Goal::ByNextRip { with: 250, without: 350 })),
    cost("unknown-hypercall", "unknown hypercall", None),
    cost("cpuid", "CPUID exit", Some(Goal::ByNextRip { with: 250, without: 500 })),
    cost("rdmsr", "RDMSR exit", None),
    cost("wrmsr", "WRMSR exit", None),
    cost("in-unowned-port", "IN from a port nobody owns", None),
    cost("lapic-mmio-read", "LAPIC MMIO read", Some(Goal::AtMost(1_000))),
    cost("lapic-mmio-write", "LAPIC MMIO write", None),
    cost("sched-yield", "sched_op yield", None),
    cost("evtchn-send-self", "event channel send to self", Some(Goal::AtMost(1_000))),
    cost("evtchn-alloc-close", "evtchn alloc + close", None),
    cost("self-ipi", "interrupt to self, delivered", None),
    cost("gnttab-query-size", "gnttab query_size", None),
    cost("decrease-populate", "decrease_reservation + populate_physmap 4 KiB", Some(Goal::AtMost(4_000))),
    cost("foreign-decrease-populate", "the same for another domain, by the control domain", None),
    cost("createdomain", "PVH createdomain", None),
    cost("max-vcpus", "PVH max_vcpus (1 vCPU)", None),
    cost("destroydomain", "PVH destroydomain (1 vCPU)", None),
    cost("pvh-create-vcpu-destroy", "PVH create + vCPU + destroy", Some(Goal::PartOfXen(0.2))),
];

/// Memory, measured by the bench guest as control domain, and in a Linux control domain.
pub(crate) const MEMORY: &[Row] = &[
    pages("pages-domain-empty", "domain with 1 vCPU and no memory", None),
    pages("pages-domain-populated", "the same with 128 MiB in extents of 2 MiB, guest RAM not counted", None),
    pages("pages-created", "PVH guest of 128 MiB after create -p, guest RAM not counted", Some(Goal::AtMost(24))),
    pages("pages-booted", "the same after Linux has booted", Some(Goal::AtMost(32))),
    bytes("hypervisor-bytes", "hypervisor's own, dom0 idle, without the frame table", Some(Goal::AtMost(8 << 20))),
    bytes("taken-bytes", "RAM neither free nor dom0's (± 1 MiB), with the frame table", None),
    bytes("frame-table-entry", "frame table, bytes for a page of RAM", Some(Goal::AtMost(16))),
    bytes("image-bytes", "image: text + data + bss", None),
];

/// The row of a key.
pub(crate) fn find(rows: &'static [Row], key: &str) -> Option<&'static Row> {
    rows.iter().find(|row| row.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_unique_words() {
        let mut seen = BTreeSet::new();
        for row in OPERATIONS.iter().chain(MEMORY) {
            assert!(seen.insert(row.key), "{} twice", row.key);
            assert!(!row.key.contains(char::is_whitespace), "{}", row.key);
        }
    }

    #[test]
    fn a_row_is_found_by_its_key() {
        assert_eq!(find(OPERATIONS, "cpuid").unwrap().title, "CPUID exit");
        assert!(find(MEMORY, "cpuid").is_none());
    }
}
