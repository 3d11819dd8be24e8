//! Memory operations of introspection tools: paging, access and sharing (tools-only part of public/memory.h).
//!
//! They come after `memory.rs`; the events that they cause are in `vm_event.rs`.

use crate::handle::GuestPtr;

operations! {
    /// [`MemPagingOp::op`].
    pub enum PagingOp("XENMEM_paging_op_") {
        /// Choose a page to page out.
        Nominate = 0 "nominate";
        /// Free it; its contents have been saved.
        Evict = 1 "evict";
        /// Bring it back, with `buffer` as contents.
        Prep = 2 "prep";
    }

    /// [`MemAccessOp::op`].
    pub enum AccessOp("XENMEM_access_op_") {
        /// For `nr` frames from `pfn`.
        SetAccess = 0 "set_access";
        /// Of the frame `pfn`.
        GetAccess = 1 "get_access";
        /// For the frames of a list.
        SetAccessMulti = 4 "set_access_multi";
    }

    /// Permissions of a guest frame.
    pub enum MemAccess("XENMEM_access_") {
        /// None.
        N = 0 "n";
        /// Read.
        R = 1 "r";
        /// Write.
        W = 2 "w";
        /// Read and write.
        Rw = 3 "rw";
        /// Execute.
        X = 4 "x";
        /// Read and execute.
        Rx = 5 "rx";
        /// Write and execute.
        Wx = 6 "wx";
        /// Everything.
        Rwx = 7 "rwx";
        /// Read and execute; becomes read and write at the first write.
        Rx2rw = 8 "rx2rw";
        /// None; becomes everything after the first event.
        N2rwx = 9 "n2rwx";
        /// The domain's default.
        Default = 10 "default";
    }

    /// [`MemSharingOp::op`].
    pub enum SharingOp("XENMEM_sharing_op_") {
        /// [`SharingNominate`] by frame.
        NominateGfn = 0 "nominate_gfn";
        /// [`SharingNominate`] by grant.
        NominateGref = 1 "nominate_gref";
        /// [`SharingShare`].
        Share = 2 "share";
        /// A `u64` frame.
        DebugGfn = 3 "debug_gfn";
        /// A `u64` machine frame.
        DebugMfn = 4 "debug_mfn";
        /// A `u32` grant.
        DebugGref = 5 "debug_gref";
        /// [`SharingShare`].
        AddPhysmap = 6 "add_physmap";
        /// No parameter.
        Audit = 7 "audit";
        /// [`SharingRange`].
        RangeShare = 8 "range_share";
        /// [`SharingFork`].
        Fork = 9 "fork";
        /// [`SharingFork`].
        ForkReset = 10 "fork_reset";
    }
}

constants! { i32 {
    SHARING_S_HANDLE_INVALID = -10, "Result: the source's handle is stale.";
    SHARING_C_HANDLE_INVALID = -9, "Result: the client's handle is stale.";
}}

/// In the frame fields of [`SharingShare`]: the rest is a grant reference.
pub const SHARING_FIELD_IS_GREF: u64 = 1 << 62;

constants! { u16 {
    FORK_WITH_IOMMU_ALLOWED = 1 << 0, "[`SharingFork::flags`]: the parent may have an IOMMU.";
    FORK_BLOCK_INTERRUPTS = 1 << 1, "[`SharingFork::flags`]: inject no interrupts into the fork.";
    FORK_RESET_STATE = 1 << 2, "[`SharingFork::flags`]: reset registers.";
    FORK_RESET_MEMORY = 1 << 3, "[`SharingFork::flags`]: reset memory.";
}}

abi! {
    /// `struct xen_mem_paging_op`.
    pub struct MemPagingOp = 24 {
        0  op: u8 = "A [`PagingOp`].";
        1  pad0: u8;
        2  domain: u16 = "Whose page.";
        4  pad1: [u8; 4];
        8  buffer: GuestPtr<u8> = "One page of contents for `prep`.";
        16 gfn: u64 = "Which page.";
    }

    /// `struct xen_mem_access_op`.
    pub struct MemAccessOp = 32 {
        0  op: u8 = "An [`AccessOp`].";
        1  access: u8 = "A [`MemAccess`]; OUT for `get_access`.";
        2  domid: u16 = "Whose frames.";
        4  nr: u32 = "Number of frames.";
        8  pfn: u64 = "First frame; all ones sets or gets the default.";
        16 pfn_list: GuestPtr<u64> = "Frames for `set_access_multi`.";
        24 access_list: GuestPtr<u8> = "Their permissions.";
    }

    /// `struct xen_mem_sharing_op`.
    pub struct MemSharingOp = 48 {
        0 op: u8 = "A [`SharingOp`].";
        1 pad0: u8;
        2 domain: u16 = "Whose frames.";
        4 pad1: [u8; 4];
        8 u: [u64; 5] = "Chosen by `op`.";
    }

    /// `struct mem_sharing_op_nominate`.
    pub struct SharingNominate = 16 {
        0 gfn: u64 = "IN: frame, or grant reference in the lower 32 bits (the member `u`).";
        8 handle: u64 = "OUT.";
    }

    /// `struct mem_sharing_op_share`.
    pub struct SharingShare = 40 {
        0  source_gfn: u64 = "Frame that stays; see [`SHARING_FIELD_IS_GREF`].";
        8  source_handle: u64 = "Its handle.";
        16 client_gfn: u64 = "Frame that is replaced.";
        24 client_handle: u64 = "Its handle.";
        32 client_domain: u16 = "Whose frame is replaced.";
        34 pad: [u8; 6];
    }

    /// `struct mem_sharing_op_range`.
    pub struct SharingRange = 32 {
        0  first_gfn: u64 = "First frame.";
        8  last_gfn: u64 = "Last frame, included.";
        16 opaque: u64 = "Cursor of the hypervisor; 0 at first.";
        24 client_domain: u16 = "Whose frames are replaced.";
        26 pad: [u16; 3];
    }

    /// `struct mem_sharing_op_fork`.
    pub struct SharingFork = 8 {
        0 parent_domain: u16 = "Domain to fork.";
        2 flags: u16 = "`FORK_*`.";
        4 pad: u32 = "Must be 0.";
    }
}

plain_union! { MemSharingOp.u: 40; SharingNominate, SharingShare, SharingRange, SharingFork, u64, u32 }
