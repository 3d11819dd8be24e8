//! What a plan is made from: the guest that is wanted, its kernel, and the host.
//!
//! A [`GuestSpec`] comes from xl's checked configuration, [`HostFacts`] from the hypervisor and xenstore; the kernel is
//! parsed by the crate `image`. None of them can be wrong in form any more; whether they go together is the plan's business.

use super::cpuid_mask::LeafMask;

/// A PVH guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestSpec {
    /// Its name.
    pub name: String,
    /// Its UUID, which is also its handle in the hypervisor.
    pub uuid: [u8; 16],
    /// vCPUs it can ever have, 1 to 128.
    pub max_vcpus: u32,
    /// vCPUs online at start, 1 to `max_vcpus`.
    pub online_vcpus: u32,
    /// Memory it shall have in KiB, a multiple of 4: the first target of its balloon driver.
    pub memory_kib: u64,
    /// Memory it can ever have in KiB; at least `memory_kib`. All of it is there at start: Linux takes what is missing of
    /// it for memory that it has given back already, and would give back as much again.
    pub max_memory_kib: u64,
    /// Memory for its second-level page tables in KiB; `None`: libxl's rule, 1 MiB per vCPU and 4 KiB per MiB.
    pub paging_pool_kib: Option<u64>,
    /// The kernel's command line.
    pub command_line: Option<String>,
    /// Highest event channel it may use.
    pub max_event_channels: u32,
    /// Frames of grants it may give; `None`: the hypervisor's default.
    pub max_grant_frames: Option<u32>,
    /// Frames of grants it may map; `None`: the hypervisor's default.
    pub max_maptrack_frames: Option<u32>,
    /// Highest grant table version; `None`: the highest the hypervisor has.
    pub max_grant_version: Option<u32>,
    /// The CPU pool's number.
    pub cpu_pool: u32,
    /// For each vCPU, the CPUs it may run on; an empty list, or a missing one, means all.
    pub hard_affinity: Vec<Vec<u32>>,
    /// For each vCPU, the CPUs it prefers; an empty list, or a missing one, means no preference.
    pub soft_affinity: Vec<Vec<u32>>,
    /// Scheduling weight; `None`: the scheduler's default.
    pub weight: Option<u32>,
    /// Scheduling cap in percent of a CPU; `None`: none.
    pub cap: Option<u32>,
    /// `XEN_DOMCTL` TSC mode: 0 default, 1 always emulated, 2 native.
    pub tsc_mode: u32,
    /// Changes to its CPUID policy.
    pub cpuid_masks: Vec<LeafMask>,
    /// Value of `HVM_PARAM_TIMER_MODE`.
    pub timer_mode: u64,
    /// Whether it gets ACPI tables.
    pub acpi: bool,
    /// Whether out-of-sync shadow pages may be used (no meaning with nested paging).
    pub out_of_sync: bool,
    /// Whether it will not move to another host, so that it may see an invariant TSC.
    pub never_migrates: bool,
    /// Whether it serves devices to other domains.
    pub driver_domain: bool,
    /// Whether its memory is set aside before it is populated, so that a lack shows at once.
    pub claim: bool,
}

impl GuestSpec {
    /// A guest of that name with one vCPU and that much memory, everything else at libxl's defaults.
    pub fn new(name: &str, uuid: [u8; 16], memory_kib: u64) -> GuestSpec {
        GuestSpec {
            name: name.into(),
            uuid,
            max_vcpus: 1,
            online_vcpus: 1,
            memory_kib,
            max_memory_kib: memory_kib,
            paging_pool_kib: None,
            command_line: None,
            max_event_channels: 1023,
            max_grant_frames: None,
            max_maptrack_frames: None,
            max_grant_version: None,
            cpu_pool: 0,
            hard_affinity: Vec::new(),
            soft_affinity: Vec::new(),
            weight: None,
            cap: None,
            tsc_mode: 0,
            cpuid_masks: Vec::new(),
            timer_mode: 1,
            acpi: true,
            out_of_sync: true,
            never_migrates: false,
            driver_domain: false,
            claim: false,
        }
    }

    /// Memory for its second-level page tables in KiB.
    pub fn paging_pool(&self) -> u64 {
        let rule = 4 * (256 * u64::from(self.max_vcpus) + self.max_memory_kib / 1024);
        self.paging_pool_kib.unwrap_or(rule)
    }
}

/// What the plan needs to know of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The highest grant table version: 2, 1, or 0 for none.
    pub grant_version: u32,
    /// The domain that runs xenstored.
    pub xenstore_domid: u16,
    /// The domain that runs xenconsoled.
    pub console_domid: u16,
}
