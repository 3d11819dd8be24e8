//! Pages shared by hypervisor and guest: shared_info with vcpu_info and the clock (public/xen.h, arch-x86/xen.h).
//!
//! All of it is written by both sides at any time: access it with atomic or volatile operations, field by field. The
//! time structures use a version: odd while the hypervisor writes.

/// vCPUs that have their `vcpu_info` in `shared_info`; later ones must register a place.
pub const LEGACY_MAX_VCPUS: usize = 32;

constants! { u8 {
    PVCLOCK_TSC_STABLE = 1 << 0, "[`VcpuTimeInfo::flags`]: the clocks of all vCPUs agree.";
    PVCLOCK_GUEST_STOPPED = 1 << 1, "[`VcpuTimeInfo::flags`]: the guest was stopped for a while.";
}}

abi! {
    /// `struct vcpu_time_info`: system time = `system_time` + ((tsc - `tsc_timestamp`) << `tsc_shift`) * `tsc_to_system_mul` / 2^32.
    pub struct VcpuTimeInfo = 32 {
        0  version: u32 = "Odd while it is written.";
        4  pad0: u32;
        8  tsc_timestamp: u64 = "TSC at `system_time`.";
        16 system_time: u64 = "Nanoseconds since boot of the host.";
        24 tsc_to_system_mul: u32 = "Nanoseconds per (shifted) TSC tick, as a fraction of 2^32.";
        28 tsc_shift: i8 = "Left shift of the TSC difference; negative is a right shift.";
        29 flags: u8 = "`PVCLOCK_*`.";
        30 pad1: [u8; 2];
    }

    /// `struct arch_vcpu_info`.
    pub struct ArchVcpuInfo = 16 {
        0 cr2: u64 = "Fault address (PV).";
        8 pad: u64;
    }

    /// `struct vcpu_info`: must not cross a page.
    pub struct VcpuInfo = 64 {
        0  evtchn_upcall_pending: u8 = "Not 0: an event is pending.";
        1  evtchn_upcall_mask: u8 = "Not 0: do not call (PV; HVM uses the interrupt flag).";
        2  pad: [u8; 6];
        8  evtchn_pending_sel: u64 = "Bit n: word n of `evtchn_pending` has a pending event.";
        16 arch: ArchVcpuInfo = "What belongs to the architecture.";
        32 time: VcpuTimeInfo = "The clock.";
    }

    /// `struct arch_shared_info`.
    pub struct ArchSharedInfo = 48 {
        0  max_pfn: u64 = "PV: entries of the guest's frame list.";
        8  pfn_to_mfn_frame_list_list: u64 = "PV: frame of its root.";
        16 nmi_reason: u64 = "Why an NMI came, `NMIREASON_*`.";
        24 p2m_cr3: u64 = "PV.";
        32 p2m_vaddr: u64 = "PV.";
        40 p2m_generation: u64 = "PV.";
    }

    /// `struct shared_info`: one page per domain; the rest of the page is unused.
    pub struct SharedInfo = 3136 {
        0    vcpu_info: [VcpuInfo; 32] = "Of the first vCPUs.";
        2048 evtchn_pending: [u64; 64] = "Two-level ABI: bit per port.";
        2560 evtchn_mask: [u64; 64] = "Two-level ABI: bit per port.";
        3072 wc_version: u32 = "Odd while the wall clock is written.";
        3076 wc_sec: u32 = "Seconds of the wall clock (UTC) at system time 0; lower half.";
        3080 wc_nsec: u32 = "Nanoseconds of it.";
        3084 wc_sec_hi: u32 = "Upper half of the seconds.";
        3088 arch: ArchSharedInfo = "What belongs to the architecture.";
    }
}

constants! { u64 {
    NMIREASON_IO_ERROR = 1 << 0, "[`ArchSharedInfo::nmi_reason`]: I/O check.";
    NMIREASON_PCI_SERR = 1 << 1, "[`ArchSharedInfo::nmi_reason`]: PCI system error.";
    NMIREASON_UNKNOWN = 1 << 2, "[`ArchSharedInfo::nmi_reason`]: not known.";
}}
