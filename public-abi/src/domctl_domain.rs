//! Parameters of domctl about a domain as a whole: life, information, memory, state, time.
//!
//! `domctl.rs` ties them to commands. Scheduling parameters are in `sched_params.rs`.

use crate::bitmap::Bitmap;
use crate::domid::DomainHandle;
use crate::handle::GuestPtr;
use crate::memory::VmemRange;
use crate::sched_params::{DomctlSchedCredit, DomctlSchedCredit2, DomctlSchedRtds, DomctlSchedVcpus};

bitflags::bitflags! {
    /// `XEN_DOMCTL_CDF_*`: [`CreateDomain::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CreateDomainFlags: u32 {
        /// HVM or PVH rather than PV.
        const HVM = 1 << 0;
        /// Nested paging rather than shadow.
        const HAP = 1 << 1;
        /// tboot integrity across sleep.
        const S3_INTEGRITY = 1 << 2;
        /// No out-of-sync shadows.
        const OOS_OFF = 1 << 3;
        /// The xenstore domain.
        const XS_DOMAIN = 1 << 4;
        /// Devices may be assigned.
        const IOMMU = 1 << 5;
        /// Nested virtualisation.
        const NESTED_VIRT = 1 << 6;
        /// Virtual PMU.
        const VPMU = 1 << 7;
    }

    /// `XEN_X86_EMU_*`: [`ArchDomainConfig::emulation_flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EmulationFlags: u32 {
        /// Local APIC.
        const LAPIC = 1 << 0;
        /// HPET.
        const HPET = 1 << 1;
        /// ACPI power management.
        const PM = 1 << 2;
        /// Real-time clock.
        const RTC = 1 << 3;
        /// I/O APIC.
        const IOAPIC = 1 << 4;
        /// 8259 pair.
        const PIC = 1 << 5;
        /// Standard VGA cache.
        const VGA = 1 << 6;
        /// IOMMU.
        const IOMMU = 1 << 7;
        /// 8254.
        const PIT = 1 << 8;
        /// Interrupts as event channels.
        const USE_PIRQ = 1 << 9;
        /// PCI configuration space.
        const VPCI = 1 << 10;
    }

    /// `XEN_DOMINF_*`: [`GetDomainInfo::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DomainInfoFlags: u32 {
        /// Being destroyed.
        const DYING = 1 << 0;
        /// HVM or PVH.
        const HVM_GUEST = 1 << 1;
        /// Stopped itself; the reason is in the shutdown field.
        const SHUTDOWN = 1 << 2;
        /// Paused by the control domain.
        const PAUSED = 1 << 3;
        /// All vCPUs wait for events.
        const BLOCKED = 1 << 4;
        /// A vCPU runs.
        const RUNNING = 1 << 5;
        /// A debugger stopped it.
        const DEBUGGED = 1 << 6;
        /// The xenstore domain.
        const XS_DOMAIN = 1 << 7;
        /// Nested paging.
        const HAP = 1 << 8;
        /// The shutdown reason, see [`crate::sched::ShutdownReason`].
        const SHUTDOWN_MASK = 0xff << 16;
    }
}

impl DomainInfoFlags {
    /// Position of the shutdown reason.
    pub const SHUTDOWN_SHIFT: u32 = 16;
}

impl EmulationFlags {
    /// What a PVH guest gets.
    pub const PVH: Self = Self::LAPIC;
    /// What an HVM guest gets: everything but virtual PCI.
    pub const HVM: Self = Self::all().difference(Self::VPCI);
}

operations! {
    /// [`ShadowOp::op`].
    pub enum ShadowOperation("XEN_DOMCTL_SHADOW_OP_") {
        /// Disable.
        Off = 0 "OFF";
        /// Enable for tests.
        EnableTest = 1 "ENABLE_TEST";
        /// Enable log-dirty.
        EnableLogdirty = 2 "ENABLE_LOGDIRTY";
        /// Read the bitmap and clear it.
        Clean = 11 "CLEAN";
        /// Read the bitmap.
        Peek = 12 "PEEK";
        /// Memory of the pool, in MiB.
        GetAllocation = 30 "GET_ALLOCATION";
        /// Memory of the pool, in MiB.
        SetAllocation = 31 "SET_ALLOCATION";
        /// Enable in a mode.
        Enable = 32 "ENABLE";
    }

    /// [`TscInfo::tsc_mode`] (xen/arch/x86/include/asm/time.h).
    pub enum TscMode("TSC_MODE_") {
        /// Emulate if the host's rate differs.
        Default = 0 "DEFAULT";
        /// Always emulate.
        AlwaysEmulate = 1 "ALWAYS_EMULATE";
        /// Never emulate.
        NeverEmulate = 2 "NEVER_EMULATE";
    }
}

constants! { u32 {
    SHADOW_ENABLE_REFCOUNT = 1 << 1, "[`ShadowOp::mode`] of ENABLE.";
    SHADOW_ENABLE_LOG_DIRTY = 1 << 2, "[`ShadowOp::mode`] of ENABLE.";
    SHADOW_ENABLE_TRANSLATE = 1 << 3, "[`ShadowOp::mode`] of ENABLE.";
    SHADOW_ENABLE_EXTERNAL = 1 << 4, "[`ShadowOp::mode`] of ENABLE.";
    SHADOW_LOGDIRTY_FINAL = 1 << 0, "[`ShadowOp::mode`] of CLEAN and PEEK: report pages that the hypervisor may write, too.";
    IOMMU_NO_SHAREPT = 1 << 0, "[`CreateDomain::iommu_opts`]: separate page tables for devices.";
    GRANT_VERSION_MASK = 0xf, "[`CreateDomain::grant_opts`]: largest grant table version.";
    X86_MSR_RELAXED = 1 << 0, "[`ArchDomainConfig::misc_flags`]: unknown MSRs read as 0 rather than fault.";
    INVALID_MAX_VCPU_ID = u32::MAX, "[`GetDomainInfo::max_vcpu_id`] of a domain without vCPUs.";
    PFINFO_XTAB = 0xf << 28, "[`GetPageFrameInfo3`]: no page.";
    PFINFO_XALLOC = 0xe << 28, "[`GetPageFrameInfo3`]: to be allocated at restore without contents.";
    PFINFO_BROKEN = 0xd << 28, "[`GetPageFrameInfo3`]: broken.";
    PFINFO_LTAB_MASK = 0xf << 28, "[`GetPageFrameInfo3`]: the bits of the type; 0 is an ordinary page.";
}}

abi! {
    /// `struct xen_arch_domainconfig` (x86).
    pub struct ArchDomainConfig = 8 {
        0 emulation_flags: u32 = "[`EmulationFlags`].";
        4 misc_flags: u32 = "[`X86_MSR_RELAXED`] or 0.";
    }

    /// `struct xen_domctl_createdomain`.
    pub struct CreateDomain = 64 {
        0  ssidref: u32 = "Security label; 0 without a security module.";
        4  handle: DomainHandle = "UUID.";
        20 flags: u32 = "[`CreateDomainFlags`].";
        24 iommu_opts: u32 = "[`IOMMU_NO_SHAREPT`] or 0.";
        28 max_vcpus: u32 = "At least 1.";
        32 max_evtchn_port: u32 = "Largest port it may have.";
        36 max_grant_frames: i32 = "Frames of its grant table; negative for the default.";
        40 max_maptrack_frames: i32 = "Frames for mappings of others' grants; negative for the default.";
        44 grant_opts: u32 = "Largest version, see [`GRANT_VERSION_MASK`].";
        48 vmtrace_size: u32 = "Bytes of trace buffer per vCPU, a power of two, or 0.";
        52 cpupool_id: u32 = "CPU pool.";
        56 arch: ArchDomainConfig = "What belongs to the architecture.";
    }

    /// `struct xen_domctl_getdomaininfo`.
    pub struct GetDomainInfo = 112 {
        0   domain: u16 = "The domain found.";
        2   pad1: u16;
        4   flags: u32 = "[`DomainInfoFlags`].";
        8   tot_pages: u64 = "Pages it has.";
        16  max_pages: u64 = "Pages it may have.";
        24  outstanding_pages: u64 = "Pages claimed and not yet had.";
        32  shr_pages: u64 = "Pages shared.";
        40  paged_pages: u64 = "Pages paged out.";
        48  shared_info_frame: u64 = "Guest frame of shared_info.";
        56  cpu_time: u64 = "Nanoseconds of all vCPUs.";
        64  nr_online_vcpus: u32 = "vCPUs that are up.";
        68  max_vcpu_id: u32 = "Largest vCPU number.";
        72  ssidref: u32 = "Security label.";
        76  handle: DomainHandle = "UUID.";
        92  cpupool: u32 = "CPU pool.";
        96  gpaddr_bits: u8 = "Bits of guest physical address.";
        97  pad2: [u8; 7];
        104 arch_config: ArchDomainConfig = "As at creation.";
    }

    /// `struct xen_domctl_getpageframeinfo3`.
    pub struct GetPageFrameInfo3 = 16 {
        0 num: u64 = "Number of frames.";
        8 array: GuestPtr<u64> = "IN: guest frames; OUT: `PFINFO_*` in the lower 32 bits of each.";
    }

    /// `struct xen_domctl_shadow_op_stats`.
    pub struct ShadowOpStats = 8 {
        0 fault_count: u32 = "Faults taken since the last clean.";
        4 dirty_count: u32 = "Dirty pages since the last clean.";
    }

    /// `struct xen_domctl_shadow_op`.
    pub struct ShadowOp = 40 {
        0  op: u32 = "A [`ShadowOperation`].";
        4  mode: u32 = "`SHADOW_*`.";
        8  mb: u32 = "Size of the pool in MiB.";
        12 pad: [u8; 4];
        16 dirty_bitmap: GuestPtr<u8> = "OUT: bit n is guest frame n; NULL for statistics only.";
        24 pages: u64 = "IN: bits in the bitmap; OUT: bits written.";
        32 stats: ShadowOpStats = "OUT.";
    }

    /// `struct xen_domctl_max_mem`.
    pub struct MaxMem = 8 {
        0 max_memkb: u64 = "KiB.";
    }

    /// `struct xen_domctl_nodeaffinity`.
    pub struct NodeAffinity = 16 {
        0 nodemap: Bitmap = "NUMA nodes.";
    }

    /// `struct xen_domctl_max_vcpus`.
    pub struct MaxVcpus = 4 {
        0 max: u32 = "Number of vCPUs to allocate.";
    }

    /// `struct xen_domctl_scheduler_op`.
    pub struct SchedulerOp = 24 {
        0 sched_id: u32 = "A [`crate::sched_params::SchedulerId`].";
        4 cmd: u32 = "A [`crate::sched_params::DomctlSchedulerOp`].";
        8 u: [u64; 2] = "Chosen by both.";
    }

    /// `struct xen_domctl_setdomainhandle`.
    pub struct SetDomainHandle = 16 {
        0 handle: DomainHandle = "UUID.";
    }

    /// `struct xen_domctl_setdebugging`.
    pub struct SetDebugging = 1 {
        0 enable: u8 = "0 or 1: stop at breakpoints rather than inject them.";
    }

    /// `struct xen_domctl_hypercall_init`.
    pub struct HypercallInit = 8 {
        0 gmfn: u64 = "Guest frame to write the hypercall page to.";
    }

    /// `struct xen_domctl_settimeoffset`.
    pub struct SetTimeOffset = 8 {
        0 time_offset_seconds: i64 = "Wall clock of the domain minus UTC.";
    }

    /// `struct xen_domctl_hvmcontext`: records of `hvm_save.rs`.
    pub struct HvmContext = 16 {
        0 size: u32 = "IN: bytes in the buffer; OUT: bytes written, or needed when `buffer` is NULL.";
        4 pad: [u8; 4];
        8 buffer: GuestPtr<u8> = "The records.";
    }

    /// `struct xen_domctl_hvmcontext_partial`.
    pub struct HvmContextPartial = 24 {
        0  kind: u32 = "Type code of the record (the member `type`).";
        4  instance: u32 = "Instance of the record.";
        8  bufsz: u64 = "IN: bytes in the buffer; OUT: bytes written.";
        16 buffer: GuestPtr<u8> = "The record without its descriptor.";
    }

    /// `struct xen_domctl_address_size`.
    pub struct AddressSize = 4 {
        0 size: u32 = "32 or 64 (PV).";
    }

    /// `struct xen_domctl_set_target`.
    pub struct SetTarget = 2 {
        0 target: u16 = "Domain that the domain of the request may control as its device model.";
    }

    /// `struct xen_domctl_subscribe`.
    pub struct Subscribe = 4 {
        0 port: u32 = "Port of the caller to raise when the domain suspends; 0 for none.";
    }

    /// `struct xen_domctl_tsc_info`.
    pub struct TscInfo = 24 {
        0  tsc_mode: u32 = "A [`TscMode`].";
        4  gtsc_khz: u32 = "Rate for the guest, in kHz.";
        8  incarnation: u32 = "Number of restores.";
        12 pad: u32;
        16 elapsed_nsec: u64 = "Time that the domain has existed.";
    }

    /// `struct xen_domctl_audit_p2m`.
    pub struct AuditP2m = 24 {
        0  orphans: u64 = "OUT.";
        8  m2p_bad: u64 = "OUT.";
        16 p2m_bad: u64 = "OUT.";
    }

    /// `struct xen_domctl_set_virq_handler`.
    pub struct SetVirqHandler = 4 {
        0 virq: u32 = "Global [`crate::virq::Virq`] that the domain shall receive.";
    }

    /// `struct xen_domctl_set_access_required`.
    pub struct SetAccessRequired = 1 {
        0 access_required: u8 = "0 or 1: pause on an access violation without listener rather than allow it.";
    }

    /// `struct xen_domctl_set_broken_page_p2m`.
    pub struct SetBrokenPageP2m = 8 {
        0 pfn: u64 = "Guest frame.";
    }

    /// `struct xen_domctl_paging_mempool`.
    pub struct PagingMempool = 8 {
        0 size: u64 = "Bytes for page tables, a multiple of 4096.";
    }

    /// `struct xen_domctl_vnuma`.
    pub struct Vnuma = 48 {
        0  nr_vnodes: u32 = "Virtual nodes.";
        4  nr_vmemranges: u32 = "Memory ranges.";
        8  nr_vcpus: u32 = "vCPUs.";
        12 pad: u32;
        16 vdistance: GuestPtr<u32> = "Distances, row by row.";
        24 vcpu_to_vnode: GuestPtr<u32> = "Virtual node of each vCPU.";
        32 vnode_to_pnode: GuestPtr<u32> = "Physical node of each virtual node; all ones for any.";
        40 vmemrange: GuestPtr<VmemRange> = "Memory ranges.";
    }
}

plain_union! { SchedulerOp.u: 16; DomctlSchedCredit, DomctlSchedCredit2, DomctlSchedRtds, DomctlSchedVcpus }
