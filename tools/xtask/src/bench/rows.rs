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
    /// How many.
    Count,
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
    /// No less than this.
    AtLeast(u64),
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

const fn count(key: &'static str, title: &'static str, goal: Option<Goal>) -> Row {
    Row { key, title, unit: Unit::Count, goal }
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
    cost("evtchn-ping-pong", "two guests on one CPU: event there and back, with two switches", None),
    cost("grant-copy", "grant copy of 4 KiB from another guest", None),
    cost("grant-map-unmap", "map and unmap another guest's grant", None),
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
    pages("pages-100-paused", "100 paused domains of 8 MiB, guest RAM not counted", Some(Goal::AtMost(2_400))),
    pages("pages-100-alive", "the same when all have run", None),
    count("domains-alive", "domains alive at once in 4 GiB", Some(Goal::AtLeast(100))),
    bytes("hypervisor-bytes", "hypervisor's own, dom0 idle, without the frame table", Some(Goal::AtMost(8 << 20))),
    bytes("taken-bytes", "RAM neither free nor dom0's (± 1 MiB), with the frame table", None),
    bytes("frame-table-entry", "frame table, bytes for a page of RAM", Some(Goal::AtMost(16))),
    bytes("image-bytes", "image: text + data + bss", None),
];

/// A toolstack's work, from a command's begin to what the row says, everything that ran meanwhile included: the commands, daemons, kernel
/// and hypervisor. Each hypervisor has its own toolstack; rows of devices are by our xl on both.
pub(crate) const TOOLSTACK: &[Row] = &[
    cost("toolstack-nothing", "two programs that only mark; in all rows below", None),
    cost(
        "create-destroy",
        "xl create -p and xl destroy: PVH, 128 MiB, uncompressed kernel",
        Some(Goal::PartOfXen(0.2)),
    ),
    cost("create-destroy-packed", "the same with Debian's compressed kernel", None),
    cost("create-first-instruction", "xl create to the guest's first instruction: a tiny program, 128 MiB", None),
    cost("create-init", "xl create to Linux's init, uncompressed kernel", None),
    cost("destroy", "xl destroy of that guest", None),
    cost("disk-read", "PV disk (loop device on a file in memory), reading, for each MiB", None),
    cost("disk-write", "the same, writing with a flush at the end", None),
    cost("net-to-control", "PV network, guest to control domain, TCP, for each MiB", None),
    cost("net-from-control", "the same, control domain to guest", None),
    count("hypercalls", "hypercalls of create -p and destroy (first row), all domains'", None),
    count("hypercalls-12", "… memory_op", None),
    count("hypercalls-13", "… multicall", None),
    count("hypercalls-17", "… xen_version", None),
    count("hypercalls-20", "… grant_table_op", None),
    count("hypercalls-24", "… vcpu_op", None),
    count("hypercalls-27", "… xsm_op", None),
    count("hypercalls-29", "… sched_op", None),
    count("hypercalls-32", "… event_channel_op", None),
    count("hypercalls-34", "… hvm_op", None),
    count("hypercalls-35", "… sysctl", None),
    count("hypercalls-36", "… domctl", None),
    count("hypercalls-1", "… mmu_update (PV only)", None),
    count("hypercalls-26", "… mmuext_op (PV only)", None),
    count("hypercalls-3", "… stack_switch (PV only)", None),
    count("hypercalls-5", "… fpu_taskswitch (PV only)", None),
    count("hypercalls-10", "… update_descriptor (PV only)", None),
    count("hypercalls-14", "… update_va_mapping (PV only)", None),
    count("hypercalls-23", "… iret (PV only)", None),
    count("hypercalls-25", "… set_segment_base (PV only)", None),
];

/// All lists.
pub(crate) const LISTS: [&[Row]; 3] = [OPERATIONS, MEMORY, TOOLSTACK];

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
        for row in LISTS.into_iter().flatten() {
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
