//! Per-domain assists (hypercall 21, public/xen.h).
//!
//! HVM and PVH guests can use [`VmAssistType::RunstateUpdateFlag`] only; the others are about PV page tables.

operations! {
    /// Switches an assist.
    pub enum VmAssistOp("VMASST_CMD_") {
        /// On.
        Enable = 0 "enable";
        /// Off.
        Disable = 1 "disable";
    }

    /// The assists.
    pub enum VmAssistType("VMASST_TYPE_") {
        /// PV32.
        FourGbSegments = 0 "4gb_segments";
        /// PV32.
        FourGbSegmentsNotify = 1 "4gb_segments_notify";
        /// PV.
        WritablePagetables = 2 "writable_pagetables";
        /// PV32.
        PaeExtendedCr3 = 3 "pae_extended_cr3";
        /// PV.
        ArchitecturalIopl = 4 "architectural_iopl";
        /// Run-state areas carry `RUNSTATE_UPDATE` while they are being written.
        RunstateUpdateFlag = 5 "runstate_update_flag";
        /// PV64.
        M2pStrict = 32 "m2p_strict";
    }
}
