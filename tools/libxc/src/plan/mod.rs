//! The build plan: everything that building a PVH domain does, decided before any of it is done.
//!
//! [`pvh::plan`] is pure: guest, kernel and host in, an ordered list of [`Step`]s out, so that a plan can be printed
//! (`xl create --plan`), compared in tests, and carried out by [`crate::build`] against a real hypervisor or a fake one.
//! The order and the values are those of libxl 4.17 (xen-abi.md §2.2), so that its tools find what they expect.

pub mod acpi;
pub mod cpuid;
pub mod cpuid_mask;
pub mod layout;
pub mod nodes;
mod print;
pub mod pvh;
pub mod spec;

use image::{GpaRange, ImageError};
use layout::MapEntry;
use nodes::Node;
use public_abi::hvm_params::HvmParam;

/// An event channel that the plan opens between the guest and a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// To xenstored.
    Xenstore,
    /// To xenconsoled.
    Console,
}

/// Arguments of `XEN_DOMCTL_createdomain` that are not always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create {
    /// UUID.
    pub uuid: [u8; 16],
    /// vCPUs it can have.
    pub max_vcpus: u32,
    /// Highest event channel.
    pub max_event_channels: u32,
    /// Grant frames; `None`: the hypervisor's default.
    pub max_grant_frames: Option<u32>,
    /// Maptrack frames; `None`: the hypervisor's default.
    pub max_maptrack_frames: Option<u32>,
    /// Highest grant table version.
    pub max_grant_version: u32,
    /// CPU pool.
    pub cpu_pool: u32,
    /// Whether out-of-sync shadow pages may be used.
    pub out_of_sync: bool,
}

/// Where the bytes of a [`Step::Load`] come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel image, with the lowest byte of its span at the start of the range.
    Kernel,
    /// The initial RAM disk.
    Ramdisk,
    /// Bytes that the plan made: ACPI tables, start info.
    Made {
        /// What they are.
        what: &'static str,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The page directory that maps all of 4 GiB to itself in 4 MiB pages.
    IdentityPageTable,
}

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamValue {
    /// Known now.
    Number(u64),
    /// The guest's end of a channel, known when it is open.
    Port(Channel),
}

/// One step of building a domain. Each is a handful of hypercalls or xenstore requests at most, or a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the domain; everything after works on it.
    CreateDomain(Create),
    /// Make its vCPUs.
    MaxVcpus(u32),
    /// Write xenstore nodes in one transaction, after removing what is left at their roots.
    Store {
        /// What they are.
        what: &'static str,
        /// Paths to remove first.
        clear: Vec<nodes::Path>,
        /// The nodes, in order.
        nodes: Vec<Node>,
    },
    /// Choose CPUs for a vCPU; an empty list is no restriction.
    Affinity {
        /// The vCPU.
        vcpu: u32,
        /// CPUs it may run on.
        hard: Vec<u32>,
        /// CPUs it prefers.
        soft: Vec<u32>,
    },
    /// Limit its memory, in KiB.
    MaxMemory(u64),
    /// Open a channel for the guest towards a domain.
    OpenChannel {
        /// Which.
        channel: Channel,
        /// The domain of the daemon.
        remote: u16,
    },
    /// Set a parameter.
    SetParam {
        /// Which.
        param: HvmParam,
        /// To what.
        value: ParamValue,
    },
    /// Choose how the time-stamp counter works.
    TscMode(u32),
    /// Give it memory for second-level page tables, in bytes.
    PagingPool(u64),
    /// Derive its CPUID policy from the hypervisor's default.
    CpuPolicy {
        /// Whether it may see an invariant TSC.
        invariant_tsc: bool,
        /// What its configuration changes.
        masks: Vec<cpuid_mask::LeafMask>,
    },
    /// Have so many pages set aside for it, those included that it has; 0 gives the rest back.
    Claim(u64),
    /// Put memory under a range of its address space.
    Populate {
        /// What it is for.
        what: &'static str,
        /// Where.
        range: GpaRange,
        /// Whether large pages are worth trying.
        large: bool,
    },
    /// Tell the hypervisor the memory map.
    MemoryMap(Vec<MapEntry>),
    /// Fill a range with zeroes.
    Clear {
        /// What it is.
        what: &'static str,
        /// Where.
        range: GpaRange,
    },
    /// Copy bytes into it; what the range has beyond them becomes zero.
    Load {
        /// Where.
        range: GpaRange,
        /// What.
        source: Source,
    },
    /// Set every vCPU's MTRRs to write-back, and vCPU 0's registers to the PVH entry state.
    Context {
        /// vCPUs.
        vcpus: u32,
        /// Where vCPU 0 starts.
        entry: u32,
        /// What it finds in RBX: the start info's address.
        start_info: u64,
    },
    /// Grant pages to daemons' domains before the guest runs: grant reference, domain, page.
    SeedGrants(Vec<(u32, u16, u64)>),
    /// Set scheduling parameters.
    Scheduling {
        /// Weight, if not the default.
        weight: Option<u32>,
        /// Cap, if not the default.
        cap: Option<u32>,
    },
    /// Make the domain known to xenstored.
    Introduce {
        /// Page of its ring.
        gfn: u64,
    },
}

/// An ordered list of steps that builds one domain, left paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildPlan {
    /// The domain's name, for messages.
    pub name: String,
    /// The domain's UUID.
    pub uuid: [u8; 16],
    /// The steps.
    pub steps: Vec<Step>,
}

/// Why there is no plan: guest and kernel do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Kernel, RAM disk or start info have no place, or the kernel has no PVH entry.
    Placement {
        /// What is wrong.
        error: ImageError,
        /// MiB of RAM below 4 GiB that the guest has.
        low_mib: u64,
    },
    /// More vCPUs than a PVH guest can have, or none, or more online than there are.
    Vcpus {
        /// Online at start.
        online: u32,
        /// At most.
        most: u32,
    },
    /// Memory that is no whole number of pages, or less at most than at start.
    Memory {
        /// KiB it shall have.
        start_kib: u64,
        /// KiB at most.
        most_kib: u64,
    },
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PlanError::Placement { error, low_mib } => {
                write!(f, "{error}")?;
                match error {
                    ImageError::NotInRam { .. } | ImageError::NoRoom { .. } => {
                        write!(f, " (the guest has {low_mib} MiB below 4 GiB; raise memory=)")
                    }
                    _ => Ok(()),
                }
            }
            PlanError::Vcpus { online, most } => {
                write!(f, "{online} of {most} vCPUs: a guest has 1 to 128, and no more online than it has")
            }
            PlanError::Memory { start_kib, most_kib } => write!(
                f,
                "{start_kib} KiB of memory and {most_kib} KiB at most: both must be whole pages, the second no less"
            ),
        }
    }
}

impl std::error::Error for PlanError {}
