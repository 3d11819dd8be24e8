//! ELF notes of kernels and of crash dumps (public/elfnote.h).
//!
//! A note's name is "Xen"; its type is one of these. A PVH kernel has [`ElfNote::Phys32Entry`] with its 32-bit entry
//! point. The image loader of `image/` reads them.

operations! {
    /// The type of a note.
    pub enum ElfNote("XEN_ELFNOTE_") {
        /// Text.
        Info = 0 "INFO";
        /// PV entry point.
        Entry = 1 "ENTRY";
        /// PV hypercall page.
        HypercallPage = 2 "HYPERCALL_PAGE";
        /// PV virtual base.
        VirtBase = 3 "VIRT_BASE";
        /// PV offset of physical addresses.
        PaddrOffset = 4 "PADDR_OFFSET";
        /// Text, `xen-3.0`.
        XenVersion = 5 "XEN_VERSION";
        /// Text.
        GuestOs = 6 "GUEST_OS";
        /// Text.
        GuestVersion = 7 "GUEST_VERSION";
        /// Text, `generic`.
        Loader = 8 "LOADER";
        /// PV32.
        PaeMode = 9 "PAE_MODE";
        /// Text: names of features.
        Features = 10 "FEATURES";
        /// Text: `yes` to load symbols.
        BsdSymtab = 11 "BSD_SYMTAB";
        /// PV32.
        HvStartLow = 12 "HV_START_LOW";
        /// PV.
        L1MfnValid = 13 "L1_MFN_VALID";
        /// 1: suspend can be cancelled.
        SuspendCancel = 14 "SUSPEND_CANCEL";
        /// PV.
        InitP2m = 15 "INIT_P2M";
        /// PV.
        ModStartPfn = 16 "MOD_START_PFN";
        /// Bitmap of features.
        SupportedFeatures = 17 "SUPPORTED_FEATURES";
        /// Physical address of the PVH entry point.
        Phys32Entry = 18 "PHYS32_ENTRY";
        /// In a crash note.
        CrashInfo = 0x0100_0001 "CRASH_INFO";
        /// In a crash note.
        CrashRegs = 0x0100_0002 "CRASH_REGS";
        /// In a dump of a domain.
        DumpcoreNone = 0x0200_0000 "DUMPCORE_NONE";
        /// In a dump of a domain.
        DumpcoreHeader = 0x0200_0001 "DUMPCORE_HEADER";
        /// In a dump of a domain.
        DumpcoreXenVersion = 0x0200_0002 "DUMPCORE_XEN_VERSION";
        /// In a dump of a domain.
        DumpcoreFormatVersion = 0x0200_0003 "DUMPCORE_FORMAT_VERSION";
    }
}

/// The name of Xen's notes, with its terminating zero.
pub const NOTE_NAME: [u8; 4] = *b"Xen\0";
