//! Requests of the hardware domain about the platform (hypercall 7, public/platform.h, version 0x03000001).
//!
//! A request is a [`PlatformRequest`]: command, version and 128 bytes of parameters. `XENPF_get_dom0_console` (64) came
//! after 4.17; Linux copes with an error. Parameters for firmware and power management are in `platform_more.rs`.

use crate::handle::GuestPtr;
use crate::platform_more::{EfiRuntimeCall, FirmwareInfo, SetProcessorPminfo};

/// `XENPF_INTERFACE_VERSION`; another one in a request is answered with -EACCES.
pub const PLATFORM_INTERFACE_VERSION: u32 = 0x0300_0001;

operations! {
    /// What to do.
    pub enum PlatformOp("XENPF_") {
        /// [`Settime32`].
        Settime32 = 17 "settime32";
        /// [`AddMemtype`].
        AddMemtype = 31 "add_memtype";
        /// [`DelMemtype`].
        DelMemtype = 32 "del_memtype";
        /// [`ReadMemtype`].
        ReadMemtype = 33 "read_memtype";
        /// [`MicrocodeUpdate`].
        MicrocodeUpdate = 35 "microcode_update";
        /// [`PlatformQuirk`].
        PlatformQuirk = 39 "platform_quirk";
        /// [`PcpuVersion`].
        GetCpuVersion = 48 "get_cpu_version";
        /// [`EfiRuntimeCall`].
        EfiRuntimeCall = 49 "efi_runtime_call";
        /// [`FirmwareInfo`].
        FirmwareInfo = 50 "firmware_info";
        /// [`EnterAcpiSleep`].
        EnterAcpiSleep = 51 "enter_acpi_sleep";
        /// [`ChangeFreq`].
        ChangeFreq = 52 "change_freq";
        /// [`GetIdleTime`].
        GetIdleTime = 53 "getidletime";
        /// [`SetProcessorPminfo`].
        SetProcessorPminfo = 54 "set_processor_pminfo";
        /// [`PcpuInfo`].
        GetCpuInfo = 55 "get_cpuinfo";
        /// [`CpuOl`].
        CpuOnline = 56 "cpu_online";
        /// [`CpuOl`].
        CpuOffline = 57 "cpu_offline";
        /// [`CpuHotadd`].
        CpuHotadd = 58 "cpu_hotadd";
        /// [`MemHotadd`].
        MemHotadd = 59 "mem_hotadd";
        /// [`CoreParking`].
        CoreParking = 60 "core_parking";
        /// [`ResourceOp`].
        ResourceOp = 61 "resource_op";
        /// [`Settime64`].
        Settime64 = 62 "settime64";
        /// [`Symdata`].
        GetSymbol = 63 "get_symbol";
    }
}

constants! { u32 {
    PCPU_FLAGS_ONLINE = 1, "[`PcpuInfo::flags`]: it runs.";
    PCPU_FLAGS_INVALID = 2, "[`PcpuInfo::flags`]: there is no such CPU.";
    ACPI_SLEEP_EXTENDED = 1, "[`EnterAcpiSleep::flags`]: hardware-reduced ACPI.";
    RESOURCE_OP_MSR_READ = 0, "[`ResourceEntry::cmd`].";
    RESOURCE_OP_MSR_WRITE = 1, "[`ResourceEntry::cmd`].";
}}

abi! {
    /// `struct xen_platform_op`.
    pub struct PlatformRequest = 136 {
        0 cmd: u32 = "A [`PlatformOp`].";
        4 interface_version: u32 = "[`PLATFORM_INTERFACE_VERSION`].";
        8 u: [u64; 16] = "Parameters, chosen by `cmd`.";
    }

    /// `struct xenpf_settime32`.
    pub struct Settime32 = 16 {
        0 secs: u32 = "Seconds since 1970 (UTC) at `system_time`.";
        4 nsecs: u32 = "Nanoseconds.";
        8 system_time: u64 = "System time in nanoseconds.";
    }

    /// `struct xenpf_settime64`.
    pub struct Settime64 = 24 {
        0  secs: u64 = "Seconds since 1970 (UTC) at `system_time`.";
        8  nsecs: u32 = "Nanoseconds.";
        12 mbz: u32 = "Must be 0.";
        16 system_time: u64 = "System time in nanoseconds.";
    }

    /// `struct xenpf_add_memtype`.
    pub struct AddMemtype = 32 {
        0  mfn: u64 = "First machine frame.";
        8  nr_mfns: u64 = "Number of frames.";
        16 kind: u32 = "MTRR type (the member `type`).";
        20 handle: u32 = "OUT.";
        24 reg: u32 = "OUT: MTRR.";
        28 pad: [u8; 4];
    }

    /// `struct xenpf_del_memtype`.
    pub struct DelMemtype = 8 {
        0 handle: u32 = "From adding.";
        4 reg: u32 = "MTRR.";
    }

    /// `struct xenpf_read_memtype`.
    pub struct ReadMemtype = 32 {
        0  reg: u32 = "IN: MTRR.";
        4  pad0: [u8; 4];
        8  mfn: u64 = "OUT.";
        16 nr_mfns: u64 = "OUT.";
        24 kind: u32 = "OUT (the member `type`).";
        28 pad1: [u8; 4];
    }

    /// `struct xenpf_microcode_update`.
    pub struct MicrocodeUpdate = 16 {
        0  data: GuestPtr<u8> = "Microcode.";
        8  length: u32 = "Bytes.";
        12 pad: [u8; 4];
    }

    /// `struct xenpf_platform_quirk`.
    pub struct PlatformQuirk = 4 {
        0 quirk_id: u32 = "1 no IRQ balancing, 2 bad IO-APIC select register, 3 good one.";
    }

    /// `struct xenpf_pcpu_version`.
    pub struct PcpuVersion = 32 {
        0  xen_cpuid: u32 = "IN: CPU.";
        4  max_present: u32 = "OUT: largest CPU.";
        8  vendor_id: [u8; 12] = "OUT.";
        20 family: u32 = "OUT.";
        24 model: u32 = "OUT.";
        28 stepping: u32 = "OUT.";
    }

    /// `struct xenpf_enter_acpi_sleep`.
    pub struct EnterAcpiSleep = 12 {
        0 val_a: u16 = "PM1a control value, or sleep control.";
        2 val_b: u16 = "PM1b control value, or sleep status.";
        4 sleep_state: u32 = "1 to 5.";
        8 flags: u32 = "[`ACPI_SLEEP_EXTENDED`] or 0.";
    }

    /// `struct xenpf_change_freq`.
    pub struct ChangeFreq = 16 {
        0 flags: u32 = "Must be 0.";
        4 cpu: u32 = "CPU.";
        8 freq: u64 = "Hz.";
    }

    /// `struct xenpf_getidletime`.
    pub struct GetIdleTime = 32 {
        0  cpumap_bitmap: GuestPtr<u8> = "IN: CPUs asked for; OUT: CPUs answered.";
        8  cpumap_nr_cpus: u32 = "IN: bits.";
        12 pad: [u8; 4];
        16 idletime: GuestPtr<u64> = "OUT: nanoseconds, by number of the CPU.";
        24 now: u64 = "OUT: system time.";
    }

    /// `struct xenpf_pcpuinfo`.
    pub struct PcpuInfo = 20 {
        0  xen_cpuid: u32 = "IN: CPU.";
        4  max_present: u32 = "OUT: largest CPU.";
        8  flags: u32 = "OUT: `PCPU_FLAGS_*`.";
        12 apic_id: u32 = "OUT.";
        16 acpi_id: u32 = "OUT.";
    }

    /// `struct xenpf_cpu_ol`.
    pub struct CpuOl = 4 {
        0 cpuid: u32 = "CPU.";
    }

    /// `struct xenpf_cpu_hotadd`.
    pub struct CpuHotadd = 12 {
        0 apic_id: u32;
        4 acpi_id: u32;
        8 pxm: u32 = "Proximity domain.";
    }

    /// `struct xenpf_mem_hotadd`.
    pub struct MemHotadd = 24 {
        0  spfn: u64 = "First frame.";
        8  epfn: u64 = "Frame after the last.";
        16 pxm: u32 = "Proximity domain.";
        20 flags: u32;
    }

    /// `struct xenpf_core_parking`.
    pub struct CoreParking = 8 {
        0 kind: u32 = "1 set, 2 get (the member `type`).";
        4 idle_nums: u32 = "CPUs to park.";
    }

    /// `struct xenpf_resource_entry`.
    pub struct ResourceEntry = 24 {
        0  cmd: u32 = "IN: `RESOURCE_OP_*`; OUT: 0 or a negative error (the member `u`).";
        4  rsvd: u32 = "Must be 0.";
        8  idx: u64 = "MSR.";
        16 val: u64 = "Value.";
    }

    /// `struct xenpf_resource_op`.
    pub struct ResourceOp = 16 {
        0 nr_entries: u32 = "Entries, at most 3.";
        4 cpu: u32 = "CPU.";
        8 entries: GuestPtr<ResourceEntry> = "The entries.";
    }

    /// `struct xenpf_symdata`.
    pub struct Symdata = 32 {
        0  namelen: u32 = "IN: room; OUT: bytes needed.";
        4  symnum: u32 = "IN: symbol; OUT: next one.";
        8  name: GuestPtr<u8> = "OUT: zero-terminated.";
        16 address: u64 = "OUT.";
        24 kind: u8 = "OUT: letter as of nm (the member `type`).";
        25 pad: [u8; 7];
    }
}

impl PlatformRequest {
    /// Bytes of the union.
    pub const UNION_SIZE: usize = 128;

    /// A request whose parameters are all zero.
    #[must_use]
    pub fn new(operation: PlatformOp) -> Self {
        Self { cmd: operation.number(), interface_version: PLATFORM_INTERFACE_VERSION, ..Self::default() }
    }
}

command_union! { PlatformRequest, cmd: PlatformOp;
    Settime32 => [Settime32],
    Settime64 => [Settime64],
    AddMemtype => [AddMemtype],
    DelMemtype => [DelMemtype],
    ReadMemtype => [ReadMemtype],
    MicrocodeUpdate => [MicrocodeUpdate],
    PlatformQuirk => [PlatformQuirk],
    PcpuVersion => [GetCpuVersion],
    EfiRuntimeCall => [EfiRuntimeCall],
    FirmwareInfo => [FirmwareInfo],
    EnterAcpiSleep => [EnterAcpiSleep],
    ChangeFreq => [ChangeFreq],
    GetIdleTime => [GetIdleTime],
    SetProcessorPminfo => [SetProcessorPminfo],
    PcpuInfo => [GetCpuInfo],
    CpuOl => [CpuOnline, CpuOffline],
    CpuHotadd => [CpuHotadd],
    MemHotadd => [MemHotadd],
    CoreParking => [CoreParking],
    ResourceOp => [ResourceOp],
    Symdata => [GetSymbol],
}
