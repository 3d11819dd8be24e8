//! What a PVH guest finds at entry (arch-x86/hvm/start_info.h), and the table of an HVM guest's firmware.
//!
//! EBX holds the guest physical address of [`HvmStartInfo`]; all addresses in it are guest physical. The domain builder
//! and `core`'s dom0 builder write it; kernels, hvmloader and the test guests read it.

constants! { u32 {
    HVM_START_MAGIC = 0x336e_c578, "[`HvmStartInfo::magic`].";
    SIF_PRIVILEGED = 1 << 0, "[`HvmStartInfo::flags`]: the control domain.";
    SIF_INITDOMAIN = 1 << 1, "[`HvmStartInfo::flags`]: the initial domain.";
    SIF_MULTIBOOT_MOD = 1 << 2, "PV only.";
    SIF_MOD_START_PFN = 1 << 3, "PV only.";
    SIF_VIRT_P2M_4TOOLS = 1 << 4, "PV only.";
    SIF_PM_MASK = 0xff << 8, "[`HvmStartInfo::flags`]: power-management options of the hypervisor.";
}}

operations! {
    /// [`HvmMemmapEntry::kind`].
    pub enum MemmapType("XEN_HVM_MEMMAP_TYPE_") {
        /// Usable memory.
        Ram = 1 "RAM";
        /// Never usable.
        Reserved = 2 "RESERVED";
        /// ACPI tables.
        Acpi = 3 "ACPI";
        /// ACPI non-volatile storage.
        Nvs = 4 "NVS";
        /// Broken.
        Unusable = 5 "UNUSABLE";
        /// Disabled.
        Disabled = 6 "DISABLED";
        /// Persistent memory.
        Pmem = 7 "PMEM";
    }
}

abi! {
    /// `struct hvm_start_info`, version 1. Version 0 ends before `memmap_paddr`.
    pub struct HvmStartInfo = 56 {
        0  magic: u32 = "[`HVM_START_MAGIC`].";
        4  version: u32 = "0 or 1.";
        8  flags: u32 = "`SIF_*`.";
        12 nr_modules: u32 = "Number of modules.";
        16 modlist_paddr: u64 = "Array of [`HvmModlistEntry`].";
        24 cmdline_paddr: u64 = "Zero-terminated command line, or 0.";
        32 rsdp_paddr: u64 = "ACPI root pointer, or 0.";
        40 memmap_paddr: u64 = "Version 1: array of [`HvmMemmapEntry`].";
        48 memmap_entries: u32 = "Version 1: their number.";
        52 reserved: u32 = "Must be 0.";
    }

    /// `struct hvm_modlist_entry`.
    pub struct HvmModlistEntry = 32 {
        0  paddr: u64 = "First byte.";
        8  size: u64 = "Bytes.";
        16 cmdline_paddr: u64 = "Zero-terminated string, or 0.";
        24 reserved: u64 = "Must be 0.";
    }

    /// `struct hvm_memmap_table_entry`.
    pub struct HvmMemmapEntry = 24 {
        0  addr: u64 = "First byte.";
        8  size: u64 = "Bytes.";
        16 kind: u32 = "A [`MemmapType`] (the member `type`).";
        20 reserved: u32 = "Must be 0.";
    }

    /// `struct hvm_info_table`: at [`HVM_INFO_PADDR`]; the domain builder writes it for hvmloader.
    pub struct HvmInfoTable = 48 {
        0  signature: [u8; 8] = "`HVM INFO`.";
        8  length: u32 = "Bytes of the table.";
        12 checksum: u8 = "Makes the sum of all bytes 0.";
        13 apic_mode: u8 = "1: report APICs in the tables.";
        14 pad: [u8; 2];
        16 nr_vcpus: u32 = "vCPUs.";
        20 low_mem_pgend: u32 = "First frame after memory below 4 GiB.";
        24 reserved_mem_pgstart: u32 = "First frame of the special pages.";
        28 high_mem_pgend: u32 = "First frame after memory above 4 GiB, 0 if there is none.";
        32 vcpu_online: [u8; 16] = "Bit per vCPU.";
    }
}

constants! { u64 {
    HVM_INFO_PADDR = 0x9_f800, "Guest physical address of [`HvmInfoTable`].";
    HVM_BELOW_4G_RAM_END = 0xf000_0000, "Default end of memory below 4 GiB.";
    HVM_E820_PAGE = 0x9_0000, "Page in which hvmloader leaves the e820 map.";
    HVM_E820_NR_OFFSET = 0x1e8, "Byte in that page: number of entries (u8).";
    HVM_E820_OFFSET = 0x2d0, "Byte in that page: first entry.";
}}

/// Most vCPUs of an HVM guest.
pub const HVM_MAX_VCPUS: u32 = 128;

/// I/O port on which guests write characters for the hypervisor's log.
pub const HVM_DEBUGCONS_IOPORT: u16 = 0xe9;
