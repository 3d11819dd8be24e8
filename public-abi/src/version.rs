//! Facts about the hypervisor (xen_version, hypercall 17, public/version.h and public/features.h).
//!
//! The strings have fixed sizes and are padded with zeros to the end (XSA-122: no stale bytes may follow).

operations! {
    /// What to ask.
    pub enum VersionOp("XENVER_") {
        /// The result is `major << 16 | minor`; no argument.
        Version = 0 "version";
        /// Into a buffer of [`EXTRAVERSION_LEN`] bytes.
        ExtraVersion = 1 "extraversion";
        /// Into a [`CompileInfo`].
        CompileInfo = 2 "compile_info";
        /// Into a buffer of [`CAPABILITIES_INFO_LEN`] bytes, such as `xen-3.0-x86_64 hvm-3.0-x86_64 `.
        Capabilities = 3 "capabilities";
        /// Into a buffer of [`CHANGESET_INFO_LEN`] bytes.
        Changeset = 4 "changeset";
        /// Into a [`PlatformParameters`].
        PlatformParameters = 5 "platform_parameters";
        /// From and into a [`FeatureInfo`].
        GetFeatures = 6 "get_features";
        /// The result is the page size in bytes; no argument.
        Pagesize = 7 "pagesize";
        /// Into 16 bytes: the calling domain's UUID.
        GuestHandle = 8 "guest_handle";
        /// Into a buffer of [`COMMANDLINE_LEN`] bytes.
        Commandline = 9 "commandline";
        /// The result is the length; into a [`BuildIdHeader`] and the bytes after it, if the argument is not NULL.
        BuildId = 10 "build_id";
    }

    /// A bit of `XENVER_get_features`, submap 0.
    pub enum Feature("XENFEAT_") {
        /// Page tables need not be read-only.
        WritablePageTables = 0 "writable_page_tables";
        /// Descriptor tables need not be read-only.
        WritableDescriptorTables = 1 "writable_descriptor_tables";
        /// The hypervisor translates guest frame numbers: all HVM and PVH guests.
        AutoTranslatedPhysmap = 2 "auto_translated_physmap";
        /// The kernel runs in ring 0.
        SupervisorModeKernel = 3 "supervisor_mode_kernel";
        /// PAE root tables may lie above 4 GiB.
        PaePgdirAbove4gb = 4 "pae_pgdir_above_4gb";
        /// mmu_update can keep accessed and dirty bits.
        MmuPtUpdatePreserveAd = 5 "mmu_pt_update_preserve_ad";
        /// Obsolete.
        HighmemAssist = 6 "highmem_assist";
        /// Grant maps may set the available bits of the entry.
        GnttabMapAvailBits = 7 "gnttab_map_avail_bits";
        /// Event upcalls can be delivered as an interrupt vector.
        HvmCallbackVector = 8 "hvm_callback_vector";
        /// The PV clock may be used by HVM guests.
        HvmSafePvclock = 9 "hvm_safe_pvclock";
        /// HVM guests can route physical interrupts to event channels.
        HvmPirqs = 10 "hvm_pirqs";
        /// The caller is the hardware domain.
        Dom0 = 11 "dom0";
        /// Memory operations take virtual nodes.
        MemoryOpVnodeSupported = 13 "memory_op_vnode_supported";
        /// Arm: hypercalls through SMCCC.
        ArmSmcccSupported = 14 "ARM_SMCCC_supported";
        /// The RSDP may lie anywhere.
        LinuxRsdpUnrestricted = 15 "linux_rsdp_unrestricted";
        /// Guest frame numbers differ from machine frame numbers.
        NotDirectMapped = 16 "not_direct_mapped";
        /// Guest frame numbers equal machine frame numbers.
        DirectMapped = 17 "direct_mapped";
    }
}

impl Feature {
    /// The bit in [`FeatureInfo::submap`] of submap 0.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self.number()
    }
}

constants! { usize {
    EXTRAVERSION_LEN = 16, "Bytes of the extra version string.";
    CAPABILITIES_INFO_LEN = 1024, "Bytes of the capabilities string.";
    CHANGESET_INFO_LEN = 64, "Bytes of the changeset string.";
    COMMANDLINE_LEN = 1024, "Bytes of the command line string.";
}}

/// How many submaps of features exist.
pub const XENFEAT_NR_SUBMAPS: u32 = 1;

abi! {
    /// `struct xen_compile_info`: zero-padded strings.
    pub struct CompileInfo = 144 {
        0   compiler: [u8; 64] = "Name and version of the compiler.";
        64  compile_by: [u8; 16] = "User.";
        80  compile_domain: [u8; 32] = "Network domain.";
        112 compile_date: [u8; 32] = "Date.";
    }

    /// `struct xen_platform_parameters`.
    pub struct PlatformParameters = 8 {
        0 virt_start: u64 = "First virtual address reserved for the hypervisor; 0 for HVM and PVH.";
    }

    /// `struct xen_feature_info`.
    pub struct FeatureInfo = 8 {
        0 submap_idx: u32 = "IN: which submap of 32 bits.";
        4 submap: u32 = "OUT: bits, see [`Feature`].";
    }

    /// `struct xen_build_id` without the bytes that follow.
    pub struct BuildIdHeader = 4 {
        0 len: u32 = "IN: size of the buffer after this field, in bytes; the result of the call is the true length.";
    }
}
