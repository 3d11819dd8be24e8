//! Control of the host by the toolstack (hypercall 35, public/sysctl.h, interface version 0x15).
//!
//! A request is a [`Sysctl`]: command, version and 128 bytes of parameters. What `xl` needs is in this file; power
//! management, profiling, resource control and live patching are in `sysctl_more.rs`.

use crate::bitmap::Bitmap;
use crate::cpu_policy::{CpuidLeaf, MsrEntry};
use crate::domctl_domain::GetDomainInfo;
use crate::handle::GuestPtr;
use crate::physdev::PciDevice;
use crate::sched_params::{SysctlSchedArinc653, SysctlSchedCredit, SysctlSchedCredit2};
use crate::sysctl_more::{
    CoverageOp, CpuHotplug, CpuLevellingCaps, GetPmStat, LivepatchOp, LockprofOp, PageOfflineOp, PerfcOp, PmOp,
    SysctlPsrAlloc, SysctlPsrCmtOp, TbufOp,
};

/// The version of the layouts in this crate; another one in a request is answered with -EACCES.
pub const SYSCTL_INTERFACE_VERSION: u32 = 0x15;

operations! {
    /// What to do with the host.
    pub enum SysctlOp("XEN_SYSCTL_") {
        /// [`ReadConsole`].
        ReadConsole = 1 "readconsole";
        /// [`TbufOp`].
        TbufOp = 2 "tbuf_op";
        /// [`PhysInfo`].
        PhysInfo = 3 "physinfo";
        /// [`SchedId`].
        SchedId = 4 "sched_id";
        /// [`PerfcOp`].
        PerfcOp = 5 "perfc_op";
        /// [`GetDomainInfoList`].
        GetDomainInfoList = 6 "getdomaininfolist";
        /// [`DebugKeys`].
        DebugKeys = 7 "debug_keys";
        /// [`GetCpuInfo`].
        GetCpuInfo = 8 "getcpuinfo";
        /// [`AvailHeap`].
        AvailHeap = 9 "availheap";
        /// [`GetPmStat`].
        GetPmStat = 10 "get_pmstat";
        /// [`CpuHotplug`].
        CpuHotplug = 11 "cpu_hotplug";
        /// [`PmOp`].
        PmOp = 12 "pm_op";
        /// [`PageOfflineOp`].
        PageOfflineOp = 14 "page_offline_op";
        /// [`LockprofOp`].
        LockprofOp = 15 "lockprof_op";
        /// [`CpuTopoInfo`].
        CpuTopoInfo = 16 "cputopoinfo";
        /// [`NumaInfo`].
        NumaInfo = 17 "numainfo";
        /// [`CpupoolOp`].
        CpupoolOp = 18 "cpupool_op";
        /// [`SysctlScheduler`].
        SchedulerOp = 19 "scheduler_op";
        /// [`CoverageOp`].
        CoverageOp = 20 "coverage_op";
        /// [`SysctlPsrCmtOp`].
        PsrCmtOp = 21 "psr_cmt_op";
        /// [`PciTopoInfo`].
        PciTopoInfo = 22 "pcitopoinfo";
        /// [`SysctlPsrAlloc`].
        PsrAlloc = 23 "psr_alloc";
        /// [`CpuLevellingCaps`].
        GetCpuLevellingCaps = 25 "get_cpu_levelling_caps";
        /// [`CpuFeatureset`].
        GetCpuFeatureset = 26 "get_cpu_featureset";
        /// [`LivepatchOp`].
        LivepatchOp = 27 "livepatch_op";
        /// [`SysctlCpuPolicy`].
        GetCpuPolicy = 29 "get_cpu_policy";
    }

    /// [`CpupoolOp::op`].
    pub enum CpupoolOperation("XEN_SYSCTL_CPUPOOL_OP_") {
        /// Make a pool.
        Create = 1 "CREATE";
        /// Remove an empty pool.
        Destroy = 2 "DESTROY";
        /// About the pool of this or the next larger identifier; -ENOENT after the last.
        Info = 3 "INFO";
        /// Move a free CPU into the pool.
        AddCpu = 4 "ADDCPU";
        /// Make a CPU free.
        RmCpu = 5 "RMCPU";
        /// Move a domain into the pool.
        MoveDomain = 6 "MOVEDOMAIN";
        /// OUT: the free CPUs.
        FreeInfo = 7 "FREEINFO";
    }

    /// [`CpuFeatureset::index`].
    pub enum FeaturesetIndex("XEN_SYSCTL_cpu_featureset_") {
        /// As in hardware.
        Raw = 0 "raw";
        /// What the hypervisor uses.
        Host = 1 "host";
        /// Default for PV.
        Pv = 2 "pv";
        /// Default for HVM.
        Hvm = 3 "hvm";
        /// Largest for PV.
        PvMax = 4 "pv_max";
        /// Largest for HVM.
        HvmMax = 5 "hvm_max";
    }

    /// [`SysctlCpuPolicy::index`].
    pub enum CpuPolicyIndex("XEN_SYSCTL_cpu_policy_") {
        /// As in hardware.
        Raw = 0 "raw";
        /// What the hypervisor uses.
        Host = 1 "host";
        /// Largest for PV.
        PvMax = 2 "pv_max";
        /// Largest for HVM.
        HvmMax = 3 "hvm_max";
        /// Default for PV.
        PvDefault = 4 "pv_default";
        /// Default for HVM.
        HvmDefault = 5 "hvm_default";
    }
}

bitflags::bitflags! {
    /// `XEN_SYSCTL_PHYSCAP_*`: [`PhysInfo::capabilities`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PhysCap: u32 {
        /// HVM guests.
        const HVM = 1 << 0;
        /// PV guests.
        const PV = 1 << 1;
        /// Device assignment.
        const DIRECTIO = 1 << 2;
        /// Nested paging.
        const HAP = 1 << 3;
        /// Shadow paging.
        const SHADOW = 1 << 4;
        /// Devices and CPUs can share page tables.
        const IOMMU_HAP_PT_SHARE = 1 << 5;
        /// Processor trace.
        const VMTRACE = 1 << 6;
        /// Virtual PMU.
        const VPMU = 1 << 7;
        /// Version 1 grant tables.
        const GNTTAB_V1 = 1 << 8;
        /// Version 2 grant tables.
        const GNTTAB_V2 = 1 << 9;
    }
}

constants! { u32 {
    CPUPOOL_PAR_ANY = u32::MAX, "[`CpupoolOp`]: any pool, any CPU.";
    INVALID_CORE_ID = u32::MAX, "[`CpuTopo::core`]: not known.";
    INVALID_SOCKET_ID = u32::MAX, "[`CpuTopo::socket`]: not known.";
    INVALID_NODE_ID = u32::MAX, "A node that is not known.";
    INVALID_DEV = u32::MAX - 1, "[`PciTopoInfo::nodes`]: no such device.";
    INVALID_NODE_DIST = u32::MAX, "[`NumaInfo::distance`]: not known.";
}}

/// [`MemInfo::memsize`] of an absent node, as 4.17 writes it (the 32-bit all-ones value in a 64-bit field).
pub const INVALID_MEM_SZ: u64 = 0xffff_ffff;

abi! {
    /// `struct xen_sysctl`.
    pub struct Sysctl = 136 {
        0 cmd: u32 = "A [`SysctlOp`].";
        4 interface_version: u32 = "[`SYSCTL_INTERFACE_VERSION`].";
        8 u: [u64; 16] = "Parameters, chosen by `cmd`.";
    }

    /// `struct xen_sysctl_readconsole`.
    pub struct ReadConsole = 24 {
        0  clear: u8 = "IN: 1 to discard what was read.";
        1  incremental: u8 = "IN: 1 to begin at `index`.";
        2  pad0: u8;
        3  pad1: u8;
        4  index: u32 = "IN: where to begin; OUT: where to go on.";
        8  buffer: GuestPtr<u8> = "Text.";
        16 count: u32 = "IN: bytes in the buffer; OUT: bytes written.";
        20 pad2: [u8; 4];
    }

    /// `struct xen_sysctl_physinfo`.
    pub struct PhysInfo = 112 {
        0  threads_per_core: u32;
        4  cores_per_socket: u32;
        8  nr_cpus: u32 = "CPUs online.";
        12 max_cpu_id: u32 = "Largest number of a CPU.";
        16 nr_nodes: u32 = "NUMA nodes online.";
        20 max_node_id: u32 = "Largest number of a node.";
        24 cpu_khz: u32 = "Rate of the TSC.";
        28 capabilities: u32 = "[`PhysCap`].";
        32 arch_capabilities: u32 = "0 on x86 in 4.17.";
        36 pad: u32;
        40 total_pages: u64 = "Pages of memory.";
        48 free_pages: u64 = "Free pages.";
        56 scrub_pages: u64 = "Pages that wait to be cleared.";
        64 outstanding_pages: u64 = "Pages claimed by domains.";
        72 max_mfn: u64 = "Largest machine frame.";
        80 hw_cap: [u32; 8] = "CPUID words of the boot CPU: 1.EDX, 80000001.EDX, then as in the featureset.";
    }

    /// `struct xen_sysctl_sched_id`.
    pub struct SchedId = 4 {
        0 sched_id: u32 = "OUT: a [`crate::sched_params::SchedulerId`].";
    }

    /// `struct xen_sysctl_getdomaininfolist`.
    pub struct GetDomainInfoList = 24 {
        0  first_domain: u16 = "IN: smallest identifier.";
        2  pad0: [u8; 2];
        4  max_domains: u32 = "IN: room.";
        8  buffer: GuestPtr<GetDomainInfo> = "OUT: in ascending order.";
        16 num_domains: u32 = "OUT: number.";
        20 pad1: [u8; 4];
    }

    /// `struct xen_sysctl_debug_keys`.
    pub struct DebugKeys = 16 {
        0  keys: GuestPtr<u8> = "Characters.";
        8  nr_keys: u32 = "Their number.";
        12 pad: [u8; 4];
    }

    /// `struct xen_sysctl_cpuinfo`.
    pub struct CpuInfo = 8 {
        0 idletime: u64 = "Nanoseconds.";
    }

    /// `struct xen_sysctl_getcpuinfo`.
    pub struct GetCpuInfo = 24 {
        0  max_cpus: u32 = "IN: room.";
        4  pad0: [u8; 4];
        8  info: GuestPtr<CpuInfo> = "OUT: one per CPU.";
        16 nr_cpus: u32 = "OUT: number.";
        20 pad1: [u8; 4];
    }

    /// `struct xen_sysctl_availheap`.
    pub struct AvailHeap = 24 {
        0  min_bitwidth: u32 = "IN: smallest address width, 0 for any.";
        4  max_bitwidth: u32 = "IN: largest address width, 0 for any.";
        8  node: i32 = "IN: NUMA node, -1 for all.";
        12 pad: [u8; 4];
        16 avail_bytes: u64 = "OUT.";
    }

    /// `struct xen_sysctl_cputopo`.
    pub struct CpuTopo = 12 {
        0 core: u32 = "Core in its socket.";
        4 socket: u32 = "Socket.";
        8 node: u32 = "NUMA node.";
    }

    /// `struct xen_sysctl_cputopoinfo`.
    pub struct CpuTopoInfo = 16 {
        0 num_cpus: u32 = "IN: room; OUT: number.";
        4 pad: [u8; 4];
        8 cputopo: GuestPtr<CpuTopo> = "OUT: by number of the CPU; NULL to ask for the number.";
    }

    /// `struct xen_sysctl_meminfo`.
    pub struct MemInfo = 16 {
        0 memsize: u64 = "Bytes.";
        8 memfree: u64 = "Bytes.";
    }

    /// `struct xen_sysctl_numainfo`.
    pub struct NumaInfo = 24 {
        0  num_nodes: u32 = "IN: room; OUT: number.";
        4  pad: [u8; 4];
        8  meminfo: GuestPtr<MemInfo> = "OUT: by number of the node; NULL to leave out.";
        16 distance: GuestPtr<u32> = "OUT: row by row; NULL to leave out.";
    }

    /// `struct xen_sysctl_cpupool_op`.
    pub struct CpupoolOp = 40 {
        0  op: u32 = "A [`CpupoolOperation`].";
        4  cpupool_id: u32 = "IN: pool, or [`CPUPOOL_PAR_ANY`]; OUT: pool.";
        8  sched_id: u32 = "IN for CREATE, OUT for INFO: scheduler.";
        12 domid: u32 = "IN for MOVEDOMAIN.";
        16 cpu: u32 = "IN for ADDCPU and RMCPU.";
        20 n_dom: u32 = "OUT of INFO: domains in the pool.";
        24 cpumap: Bitmap = "OUT of INFO and FREEINFO.";
    }

    /// `struct xen_sysctl_scheduler_op`.
    pub struct SysctlScheduler = 32 {
        0  cpupool_id: u32 = "Pool.";
        4  sched_id: u32 = "A [`crate::sched_params::SchedulerId`].";
        8  cmd: u32 = "A [`crate::sched_params::SysctlSchedulerOp`].";
        12 pad: [u8; 4];
        16 u: [u64; 2] = "Parameters, chosen by `sched_id`.";
    }

    /// `struct xen_sysctl_pcitopoinfo`.
    pub struct PciTopoInfo = 24 {
        0  num_devs: u32 = "IN: devices; OUT: devices processed.";
        4  pad: [u8; 4];
        8  devs: GuestPtr<PciDevice> = "IN.";
        16 nodes: GuestPtr<u32> = "OUT: NUMA node of each.";
    }

    /// `struct xen_sysctl_cpu_featureset`.
    pub struct CpuFeatureset = 16 {
        0 index: u32 = "IN: a [`FeaturesetIndex`].";
        4 nr_features: u32 = "IN: room in words; OUT: words written or existing.";
        8 features: GuestPtr<u32> = "OUT: words; NULL to ask for the number.";
    }

    /// `struct xen_sysctl_cpu_policy`.
    pub struct SysctlCpuPolicy = 32 {
        0  index: u32 = "IN: a [`CpuPolicyIndex`].";
        4  nr_leaves: u32 = "IN: room; OUT: leaves written or needed.";
        8  nr_msrs: u32 = "IN: room; OUT: MSRs written or needed.";
        12 rsvd: u32 = "Must be 0.";
        16 leaves: GuestPtr<CpuidLeaf> = "OUT; NULL to ask for the number.";
        24 msrs: GuestPtr<MsrEntry> = "OUT; NULL to ask for the number.";
    }
}

plain_union! { SysctlScheduler.u: 16; SysctlSchedCredit, SysctlSchedCredit2, SysctlSchedArinc653 }

impl Sysctl {
    /// Bytes of the union.
    pub const UNION_SIZE: usize = 128;

    /// A request whose parameters are all zero.
    #[must_use]
    pub fn new(operation: SysctlOp) -> Self {
        Self { cmd: operation.number(), interface_version: SYSCTL_INTERFACE_VERSION, ..Self::default() }
    }

    /// A request with parameters.
    ///
    /// # Errors
    /// When `payload` is not the parameter structure of `operation`.
    pub fn with<T: crate::payload::Payload<Self>>(
        operation: SysctlOp,
        payload: &T,
    ) -> Result<Self, crate::payload::WrongPayload> {
        let mut request = Self::new(operation);
        request.set(payload)?;
        Ok(request)
    }
}

command_union! { Sysctl, cmd: SysctlOp;
    ReadConsole => [ReadConsole],
    TbufOp => [TbufOp],
    PhysInfo => [PhysInfo],
    SchedId => [SchedId],
    PerfcOp => [PerfcOp],
    GetDomainInfoList => [GetDomainInfoList],
    DebugKeys => [DebugKeys],
    GetCpuInfo => [GetCpuInfo],
    AvailHeap => [AvailHeap],
    GetPmStat => [GetPmStat],
    CpuHotplug => [CpuHotplug],
    PmOp => [PmOp],
    PageOfflineOp => [PageOfflineOp],
    LockprofOp => [LockprofOp],
    CpuTopoInfo => [CpuTopoInfo],
    NumaInfo => [NumaInfo],
    CpupoolOp => [CpupoolOp],
    SysctlScheduler => [SchedulerOp],
    CoverageOp => [CoverageOp],
    SysctlPsrCmtOp => [PsrCmtOp],
    PciTopoInfo => [PciTopoInfo],
    SysctlPsrAlloc => [PsrAlloc],
    CpuLevellingCaps => [GetCpuLevellingCaps],
    CpuFeatureset => [GetCpuFeatureset],
    LivepatchOp => [LivepatchOp],
    SysctlCpuPolicy => [GetCpuPolicy],
}
