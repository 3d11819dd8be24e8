//! What differs on Arm: shared pages, domain configuration, registers (public/arch-arm.h).
//!
//! Data only, so it compiles everywhere. The structures of other modules hold on Arm too unless one here replaces them:
//! [`CreateDomain`] and [`GetDomainInfo`] are longer than on x86 because the architecture's part is.

use crate::domid::DomainHandle;
use crate::x86::VcpuTimeInfo;

constants! { u8 {
    GIC_NATIVE = 0, "[`ArchDomainConfig::gic_version`]: as the host's; OUT: which.";
    GIC_V2 = 1, "[`ArchDomainConfig::gic_version`].";
    GIC_V3 = 2, "[`ArchDomainConfig::gic_version`].";
}}

constants! { u64 {
    GUEST_GICD_BASE = 0x0300_1000, "Guest physical address of the distributor, GICv2.";
    GUEST_GICV3_GICD_BASE = 0x0300_1000, "Guest physical address of the distributor, GICv3.";
    GUEST_GICV3_GICR0_BASE = 0x0302_0000, "Guest physical address of the redistributors.";
    GUEST_GNTTAB_BASE = 0x3800_0000, "Room for the grant table.";
    GUEST_GNTTAB_SIZE = 0x0100_0000, "Bytes of it.";
    GUEST_MAGIC_BASE = 0x3900_0000, "Special pages of the toolstack.";
    GUEST_RAM0_BASE = 0x4000_0000, "First bank of memory.";
    GUEST_RAM0_SIZE = 0xc000_0000, "Bytes of it.";
    GUEST_RAM1_BASE = 0x02_0000_0000, "Second bank of memory.";
    GUEST_RAM1_SIZE = 0xfe_0000_0000, "Bytes of it.";
}}

constants! { u32 {
    GUEST_TIMER_VIRT_PPI = 27, "Interrupt of the virtual timer.";
    GUEST_TIMER_PHYS_S_PPI = 29, "Interrupt of the secure physical timer.";
    GUEST_TIMER_PHYS_NS_PPI = 30, "Interrupt of the physical timer.";
    GUEST_EVTCHN_PPI = 31, "Interrupt of event channels.";
    VGCF_ONLINE = 1 << 0, "[`VcpuGuestContext::flags`]: the vCPU is up.";
}}

/// The immediate of HVC that means a hypercall (number in x16, arguments in x0 to x4).
pub const HYPERCALL_TAG: u16 = 0xea1;

abi! {
    /// `struct vcpu_info`.
    pub struct VcpuInfo = 48 {
        0  evtchn_upcall_pending: u8 = "Not 0: an event is pending.";
        1  pad: [u8; 7];
        8  evtchn_pending_sel: u64 = "Bit n: word n of `evtchn_pending` has a pending event.";
        16 time: VcpuTimeInfo = "Unused; guests read the generic timer.";
    }

    /// `struct shared_info`: one vCPU only, others register a place.
    pub struct SharedInfo = 1088 {
        0    vcpu_info: [VcpuInfo; 1] = "Of vCPU 0.";
        48   evtchn_pending: [u64; 64] = "Two-level ABI: bit per port.";
        560  evtchn_mask: [u64; 64] = "Two-level ABI: bit per port.";
        1072 wc_version: u32 = "Odd while the wall clock is written.";
        1076 wc_sec: u32 = "Seconds of the wall clock (UTC) at system time 0; lower half.";
        1080 wc_nsec: u32 = "Nanoseconds of it.";
        1084 wc_sec_hi: u32 = "Upper half of the seconds.";
    }

    /// `struct xen_arch_domainconfig`.
    pub struct ArchDomainConfig = 12 {
        0 gic_version: u8 = "`GIC_*`.";
        1 pad: u8;
        2 tee_type: u16 = "0 none, 1 OP-TEE.";
        4 nr_spis: u32 = "Shared peripheral interrupts.";
        8 clock_frequency: u32 = "OUT: Hz if the host's device tree says it, else 0.";
    }

    /// `struct xen_domctl_createdomain`.
    pub struct CreateDomain = 68 {
        0  ssidref: u32 = "Security label; 0 without a security module.";
        4  handle: DomainHandle = "UUID.";
        20 flags: u32 = "[`crate::domctl_domain::CreateDomainFlags`].";
        24 iommu_opts: u32;
        28 max_vcpus: u32 = "At least 1.";
        32 max_evtchn_port: u32 = "Largest port it may have.";
        36 max_grant_frames: i32 = "Frames of its grant table; negative for the default.";
        40 max_maptrack_frames: i32 = "Frames for mappings of others' grants; negative for the default.";
        44 grant_opts: u32 = "Largest version.";
        48 vmtrace_size: u32 = "0.";
        52 cpupool_id: u32 = "CPU pool.";
        56 arch: ArchDomainConfig = "What belongs to the architecture.";
    }

    /// `struct xen_domctl_getdomaininfo`.
    pub struct GetDomainInfo = 120 {
        0   domain: u16 = "The domain found.";
        2   pad1: u16;
        4   flags: u32 = "[`crate::domctl_domain::DomainInfoFlags`].";
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
        116 pad3: [u8; 4];
    }

    /// `struct vcpu_guest_core_regs`: AArch64 names; the AArch32 banked registers share the places of x16 to x30.
    pub struct VcpuGuestCoreRegs = 312 {
        0   x: [u64; 31] = "x0 to x30.";
        248 pc: u64 = "Program counter.";
        256 cpsr: u64 = "SPSR_EL2: the state to enter.";
        264 spsr_el1: u64;
        272 spsr_fiq: u32 = "AArch32.";
        276 spsr_irq: u32 = "AArch32.";
        280 spsr_und: u32 = "AArch32.";
        284 spsr_abt: u32 = "AArch32.";
        288 sp_el0: u64;
        296 sp_el1: u64;
        304 elr_el1: u64;
    }

    /// `struct vcpu_guest_context`.
    pub struct VcpuGuestContext = 352 {
        0   flags: u32 = "[`VGCF_ONLINE`] or 0.";
        4   pad: [u8; 4];
        8   user_regs: VcpuGuestCoreRegs = "General registers.";
        320 sctlr: u64 = "SCTLR_EL1.";
        328 ttbcr: u64 = "TCR_EL1.";
        336 ttbr0: u64 = "TTBR0_EL1.";
        344 ttbr1: u64 = "TTBR1_EL1.";
    }
}
