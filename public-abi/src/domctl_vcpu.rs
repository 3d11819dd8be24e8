//! Parameters of domctl about vCPUs: affinity, registers, MSRs, extended state, CPU policy.
//!
//! `domctl.rs` ties them to commands. The entries of the policy lists are in `cpu_policy.rs`.

use crate::arch_hvm_save::HvmVmceVcpu;
use crate::bitmap::Bitmap;
use crate::cpu_policy::{CpuidLeaf, MsrEntry};
use crate::handle::GuestPtr;
use crate::x86::VcpuGuestContext;

bitflags::bitflags! {
    /// `XEN_VCPUAFFINITY_*`: [`VcpuAffinity::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AffinityFlags: u32 {
        /// `cpumap_hard` is meant.
        const HARD = 1 << 0;
        /// `cpumap_soft` is meant.
        const SOFT = 1 << 1;
        /// Override a temporary pin.
        const FORCE = 1 << 2;
    }
}

operations! {
    /// [`SendTrigger::trigger`].
    pub enum Trigger("XEN_DOMCTL_SENDTRIGGER_") {
        /// NMI.
        Nmi = 0 "NMI";
        /// Reset.
        Reset = 1 "RESET";
        /// INIT.
        Init = 2 "INIT";
        /// ACPI power button.
        Power = 3 "POWER";
        /// ACPI sleep button.
        Sleep = 4 "SLEEP";
    }
}

abi! {
    /// `struct xen_domctl_vcpucontext`.
    pub struct VcpuContext = 16 {
        0 vcpu: u32 = "vCPU.";
        4 pad: [u8; 4];
        8 ctxt: GuestPtr<VcpuGuestContext> = "Registers.";
    }

    /// `struct xen_domctl_getvcpuinfo`.
    pub struct GetVcpuInfo = 24 {
        0  vcpu: u32 = "IN.";
        4  online: u8 = "OUT: 1 if it is up.";
        5  blocked: u8 = "OUT: 1 if it waits for an event.";
        6  running: u8 = "OUT: 1 if it is on a CPU.";
        7  pad0: u8;
        8  cpu_time: u64 = "OUT: nanoseconds.";
        16 cpu: u32 = "OUT: CPU it is or was on.";
        20 pad1: [u8; 4];
    }

    /// `struct xen_domctl_vcpuaffinity`.
    pub struct VcpuAffinity = 40 {
        0  vcpu: u32 = "IN.";
        4  flags: u32 = "[`AffinityFlags`].";
        8  cpumap_hard: Bitmap = "CPUs it may run on; OUT: what takes effect.";
        24 cpumap_soft: Bitmap = "CPUs it prefers; OUT: what takes effect.";
    }

    /// `struct xen_domctl_sendtrigger`.
    pub struct SendTrigger = 8 {
        0 trigger: u32 = "A [`Trigger`].";
        4 vcpu: u32 = "Target, where it matters.";
    }

    /// `struct xen_domctl_ext_vcpucontext`.
    pub struct ExtVcpuContext = 64 {
        0  vcpu: u32 = "IN.";
        4  size: u32 = "Bytes of this structure that are valid.";
        8  syscall32_callback_eip: u64 = "PV.";
        16 sysenter_callback_eip: u64 = "PV.";
        24 syscall32_callback_cs: u16 = "PV.";
        26 sysenter_callback_cs: u16 = "PV.";
        28 syscall32_disables_events: u8 = "PV.";
        29 sysenter_disables_events: u8 = "PV.";
        30 pad: [u8; 2];
        32 vmce: HvmVmceVcpu = "Machine-check state.";
    }

    /// `struct xen_domctl_cpu_policy`.
    pub struct CpuPolicy = 40 {
        0  nr_leaves: u32 = "IN: leaves in the list, or room; OUT: leaves written or needed.";
        4  nr_msrs: u32 = "IN: MSRs in the list, or room; OUT: MSRs written or needed.";
        8  leaves: GuestPtr<CpuidLeaf> = "List of leaves.";
        16 msrs: GuestPtr<MsrEntry> = "List of MSRs.";
        24 err_leaf: u32 = "OUT: leaf that was refused, or all ones.";
        28 err_subleaf: u32 = "OUT: its sub-leaf, or all ones.";
        32 err_msr: u32 = "OUT: MSR that was refused, or all ones.";
        36 pad: [u8; 4];
    }

    /// `struct xen_domctl_vcpuextstate`.
    pub struct VcpuExtState = 32 {
        0  vcpu: u32 = "IN.";
        4  pad: [u8; 4];
        8  xfeature_mask: u64 = "Components.";
        16 size: u64 = "IN: bytes in the buffer; OUT: bytes needed when it is 0.";
        24 buffer: GuestPtr<u64> = "XCR0, XCR0 ever used, then the XSAVE image.";
    }

    /// `struct xen_domctl_vcpu_msr`.
    pub struct VcpuMsr = 16 {
        0 index: u32 = "MSR.";
        4 reserved: u32 = "Must be 0.";
        8 value: u64 = "Its value.";
    }

    /// `struct xen_domctl_vcpu_msrs`.
    pub struct VcpuMsrs = 16 {
        0 vcpu: u32 = "IN.";
        4 msr_count: u32 = "IN: entries, or room; OUT: entries written or needed.";
        8 msrs: GuestPtr<VcpuMsr> = "The MSRs; NULL to ask for the number.";
    }
}
