//! Parameters of platform_op about firmware and processor power management (public/platform.h).
//!
//! `platform.rs` ties them to commands. Most unions are left as words with the members described, because the
//! hypervisor answers these requests with errors on legacy firmware.

use crate::handle::GuestPtr;

operations! {
    /// [`FirmwareInfo::kind`].
    pub enum FirmwareInfoType("XEN_FW_") {
        /// BIOS disk.
        DiskInfo = 1 "DISK_INFO";
        /// MBR signature.
        DiskMbrSignature = 2 "DISK_MBR_SIGNATURE";
        /// Display identification.
        VbeddcInfo = 3 "VBEDDC_INFO";
        /// EFI; `index` chooses.
        EfiInfo = 4 "EFI_INFO";
        /// Keyboard shift flags.
        KbdShiftFlags = 5 "KBD_SHIFT_FLAGS";
    }

    /// [`EfiRuntimeCall::function`].
    pub enum EfiFunction("XEN_EFI_") {
        /// UEFI GetTime.
        GetTime = 1 "get_time";
        /// UEFI SetTime.
        SetTime = 2 "set_time";
        /// UEFI GetWakeupTime.
        GetWakeupTime = 3 "get_wakeup_time";
        /// UEFI SetWakeupTime.
        SetWakeupTime = 4 "set_wakeup_time";
        /// UEFI GetNextHighMonotonicCount.
        GetNextHighMonotonicCount = 5 "get_next_high_monotonic_count";
        /// UEFI GetVariable.
        GetVariable = 6 "get_variable";
        /// UEFI SetVariable.
        SetVariable = 7 "set_variable";
        /// UEFI GetNextVariableName.
        GetNextVariableName = 8 "get_next_variable_name";
        /// UEFI QueryVariableInfo.
        QueryVariableInfo = 9 "query_variable_info";
        /// UEFI QueryCapsuleCapabilities.
        QueryCapsuleCapabilities = 10 "query_capsule_capabilities";
        /// UEFI UpdateCapsule.
        UpdateCapsule = 11 "update_capsule";
    }
}

abi! {
    /// `struct xenpf_firmware_info`.
    pub struct FirmwareInfo = 40 {
        0 kind: u32 = "A [`FirmwareInfoType`] (the member `type`).";
        4 index: u32 = "Disk, or which EFI information.";
        8 u: [u64; 4] = "Chosen by `kind`.";
    }

    /// `struct xenpf_firmware_info.u.disk_info`.
    pub struct FirmwareDiskInfo = 16 {
        0 device: u8 = "BIOS drive.";
        1 version: u8 = "Version of the extensions.";
        2 interface_support: u16 = "Supported interfaces.";
        4 legacy_max_cylinder: u16 = "Largest cylinder.";
        6 legacy_max_head: u8 = "Largest head.";
        7 legacy_sectors_per_track: u8 = "Sectors.";
        8 edd_params: GuestPtr<u8> = "OUT: drive parameters; first field IN is the length.";
    }

    /// `struct xenpf_firmware_info.u.disk_mbr_signature`.
    pub struct FirmwareMbrSignature = 8 {
        0 device: u8 = "BIOS drive.";
        1 pad: [u8; 3];
        4 mbr_signature: u32 = "Signature.";
    }

    /// `struct xenpf_firmware_info.u.vbeddc_info`.
    pub struct FirmwareVbeddcInfo = 16 {
        0 capabilities: u8;
        1 edid_transfer_time: u8;
        2 pad: [u8; 6];
        8 edid: GuestPtr<u8> = "OUT: 128 bytes.";
    }

    /// `struct xenpf_efi_runtime_call`.
    pub struct EfiRuntimeCall = 56 {
        0  function: u32 = "An [`EfiFunction`].";
        4  misc: u32 = "Flags of the function.";
        8  status: u64 = "OUT: EFI status.";
        16 u: [u64; 5] = "Chosen by `function`.";
    }

    /// `struct xenpf_efi_time`.
    pub struct EfiTime = 16 {
        0  year: u16;
        2  month: u8;
        3  day: u8;
        4  hour: u8;
        5  min: u8;
        6  sec: u8;
        7  pad0: u8;
        8  ns: u32;
        12 tz: i16 = "Minutes from UTC.";
        14 daylight: u8;
        15 pad1: u8;
    }

    /// `struct xenpf_efi_guid`.
    pub struct EfiGuid = 16 {
        0 data1: u32;
        4 data2: u16;
        6 data3: u16;
        8 data4: [u8; 8];
    }

    /// `struct xenpf_set_processor_pminfo`.
    pub struct SetProcessorPminfo = 112 {
        0 id: u32 = "ACPI identifier of the CPU.";
        4 kind: u32 = "0 C-states, 1 P-states, 2 T-states, 3 capabilities (the member `type`).";
        8 u: [u64; 13] = "Chosen by `kind`.";
    }

    /// `struct xen_processor_power`.
    pub struct ProcessorPower = 16 {
        0 count: u32 = "States.";
        4 flags: u32 = "Bits 0-4: bm_control, bm_check, has_cst, power_setup_done, bm_rld_set.";
        8 states: GuestPtr<ProcessorCx> = "The states.";
    }

    /// `struct xen_power_register`.
    pub struct PowerRegister = 24 {
        0  space_id: u32;
        4  bit_width: u32;
        8  bit_offset: u32;
        12 access_size: u32;
        16 address: u64;
    }

    /// `struct xen_processor_csd`.
    pub struct ProcessorCsd = 12 {
        0 domain: u32;
        4 coord_type: u32;
        8 num: u32;
    }

    /// `struct xen_processor_cx`.
    pub struct ProcessorCx = 48 {
        0  reg: PowerRegister = "How to enter it.";
        24 kind: u8 = "C-state (the member `type`).";
        25 pad: [u8; 3];
        28 latency: u32 = "Microseconds.";
        32 power: u32 = "Milliwatts.";
        36 dpcnt: u32 = "Dependencies.";
        40 dp: GuestPtr<ProcessorCsd> = "Their list.";
    }

    /// `struct xen_pct_register`.
    pub struct PctRegister = 16 {
        0 descriptor: u8;
        1 pad: u8;
        2 length: u16;
        4 space_id: u8;
        5 bit_width: u8;
        6 bit_offset: u8;
        7 reserved: u8;
        8 address: u64;
    }

    /// `struct xen_processor_px`.
    pub struct ProcessorPx = 48 {
        0  core_frequency: u64 = "MHz.";
        8  power: u64 = "Milliwatts.";
        16 transition_latency: u64 = "Microseconds.";
        24 bus_master_latency: u64 = "Microseconds.";
        32 control: u64;
        40 status: u64;
    }

    /// `struct xen_psd_package`.
    pub struct PsdPackage = 40 {
        0  num_entries: u64;
        8  revision: u64;
        16 domain: u64;
        24 coord_type: u64;
        32 num_processors: u64;
    }

    /// `struct xen_processor_performance`.
    pub struct ProcessorPerformance = 104 {
        0   flags: u32 = "1 PCT, 2 PSS, 4 PPC, 8 PSD are valid.";
        4   platform_limit: u32 = "Fastest state allowed.";
        8   control_register: PctRegister;
        24  status_register: PctRegister;
        40  state_count: u32 = "States.";
        44  pad0: [u8; 4];
        48  states: GuestPtr<ProcessorPx> = "The states.";
        56  domain_info: PsdPackage;
        96  shared_type: u32 = "1 by hardware, 2 all, 3 any.";
        100 pad1: [u8; 4];
    }
}

plain_union! { FirmwareInfo.u: 32; FirmwareDiskInfo, FirmwareMbrSignature, FirmwareVbeddcInfo, [u64; 4], u8 }
plain_union! { EfiRuntimeCall.u: 40; EfiTime, [u64; 5] }
plain_union! { SetProcessorPminfo.u: 104; ProcessorPower, ProcessorPerformance, GuestPtr<u32> }
