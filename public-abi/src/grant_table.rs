//! Grant tables: memory that one domain lets another use (hypercall 20, public/grant_table.h).
//!
//! First the entries in shared memory, then the operations. An operation takes an array of its structure; each element
//! has its own `status`.

use crate::handle::GuestPtr;

operations! {
    /// What to do with an array of structures.
    pub enum GrantTableOp("GNTTABOP_") {
        /// [`MapGrantRef`].
        MapGrantRef = 0 "map_grant_ref";
        /// [`UnmapGrantRef`].
        UnmapGrantRef = 1 "unmap_grant_ref";
        /// [`SetupTable`].
        SetupTable = 2 "setup_table";
        /// [`DumpTable`].
        DumpTable = 3 "dump_table";
        /// [`Transfer`].
        Transfer = 4 "transfer";
        /// [`GrantCopy`].
        Copy = 5 "copy";
        /// [`QuerySize`].
        QuerySize = 6 "query_size";
        /// [`UnmapAndReplace`].
        UnmapAndReplace = 7 "unmap_and_replace";
        /// [`SetVersion`].
        SetVersion = 8 "set_version";
        /// [`GetStatusFrames`].
        GetStatusFrames = 9 "get_status_frames";
        /// [`GetVersion`].
        GetVersion = 10 "get_version";
        /// [`SwapGrantRef`].
        SwapGrantRef = 11 "swap_grant_ref";
        /// [`CacheFlush`].
        CacheFlush = 12 "cache_flush";
    }
}

constants! { i16 {
    GNTST_OKAY = 0, "Done.";
    GNTST_GENERAL_ERROR = -1, "Undefined error.";
    GNTST_BAD_DOMAIN = -2, "No such domain.";
    GNTST_BAD_GNTREF = -3, "Unrecognised or inappropriate grant reference.";
    GNTST_BAD_HANDLE = -4, "Unrecognised or inappropriate mapping handle.";
    GNTST_BAD_VIRT_ADDR = -5, "Inappropriate address to map at.";
    GNTST_BAD_DEV_ADDR = -6, "Inappropriate device address to unmap.";
    GNTST_NO_DEVICE_SPACE = -7, "No room in the IOMMU.";
    GNTST_PERMISSION_DENIED = -8, "Not allowed.";
    GNTST_BAD_PAGE = -9, "The page does not qualify.";
    GNTST_BAD_COPY_ARG = -10, "The copy crosses a page boundary.";
    GNTST_ADDRESS_TOO_BIG = -11, "The address does not fit.";
    GNTST_EAGAIN = -12, "Not done; try again.";
    GNTST_NO_SPACE = -13, "No room, in the hypervisor's tables.";
}}

constants! { u16 {
    GTF_INVALID = 0, "Entry type: unused.";
    GTF_PERMIT_ACCESS = 1, "Entry type: `domid` may map or copy.";
    GTF_ACCEPT_TRANSFER = 2, "Entry type: `domid` may transfer a page.";
    GTF_TRANSITIVE = 3, "Entry type: passes on another domain's grant (version 2, copy only).";
    GTF_TYPE_MASK = 3, "The bits of the entry type.";
    GTF_READONLY = 1 << 2, "Access grants: no writing.";
    GTF_READING = 1 << 3, "Set by the hypervisor while it is mapped for reading.";
    GTF_WRITING = 1 << 4, "Set by the hypervisor while it is mapped for writing.";
    GTF_PWT = 1 << 5, "Cache attribute, x86.";
    GTF_PCD = 1 << 6, "Cache attribute, x86.";
    GTF_PAT = 1 << 7, "Cache attribute, x86.";
    GTF_SUB_PAGE = 1 << 8, "Part of a page only (version 2, copy only).";
    GTF_TRANSFER_COMMITTED = 1 << 2, "Transfer grants: the transfer cannot be revoked.";
    GTF_TRANSFER_COMPLETED = 1 << 3, "Transfer grants: the frame field is valid.";
    GNTCOPY_SOURCE_GREF = 1 << 0, "[`GrantCopy::flags`]: the source is a grant reference.";
    GNTCOPY_DEST_GREF = 1 << 1, "[`GrantCopy::flags`]: the destination is a grant reference.";
}}

constants! { u32 {
    NR_RESERVED_ENTRIES = 8, "Entries that the toolstack may fill.";
    RESERVED_CONSOLE = 0, "The console ring's entry.";
    RESERVED_XENSTORE = 1, "The xenstore ring's entry.";
    CACHE_CLEAN = 1 << 0, "[`CacheFlush::op`]: write back.";
    CACHE_INVAL = 1 << 1, "[`CacheFlush::op`]: discard.";
    CACHE_SOURCE_GREF = 1 << 31, "[`CacheFlush::op`]: the address is a grant reference.";
}}

bitflags::bitflags! {
    /// `GNTMAP_*`: flags of [`MapGrantRef`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u32 {
        /// Map for devices.
        const DEVICE_MAP = 1 << 0;
        /// Map for the CPU.
        const HOST_MAP = 1 << 1;
        /// Without write permission.
        const READONLY = 1 << 2;
        /// For user mode too (PV).
        const APPLICATION_MAP = 1 << 3;
        /// The address is a machine address of a page-table entry (PV).
        const CONTAINS_PTE = 1 << 4;
        /// Bits for the guest's own use.
        const GUEST_AVAIL_MASK = 0xffff_0000;
    }
}

abi! {
    /// `struct grant_entry_v1`: shared memory; 512 in a page.
    pub struct GrantEntryV1 = 8 {
        0 flags: u16 = "`GTF_*`.";
        2 domid: u16 = "Who is granted.";
        4 frame: u32 = "Guest frame that is granted; OUT machine frame for transfers.";
    }

    /// `union grant_entry_v2`: shared memory; 256 in a page.
    pub struct GrantEntryV2 = 16 {
        0 flags: u16 = "`GTF_*`.";
        2 domid: u16 = "Who is granted.";
        4 pad0: u32 = "`full_page.pad0`; byte offset and length (u16 each) of a sub-page grant; domain of a transitive one.";
        8 frame: u64 = "Guest frame; grant reference in the lower half of a transitive grant.";
    }

    /// `union grant_entry_v2.sub_page`.
    pub struct GrantEntryV2SubPage = 16 {
        0 flags: u16 = "`GTF_*`.";
        2 domid: u16 = "Who is granted.";
        4 page_off: u16 = "First byte.";
        6 length: u16 = "Bytes.";
        8 frame: u64 = "Guest frame.";
    }

    /// `union grant_entry_v2.transitive`.
    pub struct GrantEntryV2Transitive = 12 {
        0  flags: u16 = "`GTF_*`.";
        2  domid: u16 = "Who is granted.";
        4  trans_domid: u16 = "Whose grant is passed on.";
        6  pad0: u16;
        8  gref: u32 = "Which one.";
    }

    /// `struct gnttab_map_grant_ref`.
    pub struct MapGrantRef = 32 {
        0  host_addr: u64 = "IN: guest physical address to map at.";
        8  flags: u32 = "IN: [`MapFlags`].";
        12 gref: u32 = "IN: grant reference (the member `ref`).";
        16 dom: u16 = "IN: who granted it.";
        18 status: i16 = "OUT: `GNTST_*`.";
        20 handle: u32 = "OUT: names the mapping.";
        24 dev_bus_addr: u64 = "OUT: address for devices.";
    }

    /// `struct gnttab_unmap_grant_ref`.
    pub struct UnmapGrantRef = 24 {
        0  host_addr: u64 = "IN: where it is mapped; 0 to ignore.";
        8  dev_bus_addr: u64 = "IN: its address for devices; 0 to ignore.";
        16 handle: u32 = "IN: the mapping.";
        20 status: i16 = "OUT: `GNTST_*`.";
        22 pad: [u8; 2];
    }

    /// `struct gnttab_setup_table`.
    pub struct SetupTable = 24 {
        0  dom: u16 = "IN: whose table.";
        2  pad0: [u8; 2];
        4  nr_frames: u32 = "IN: how many frames it shall have at least.";
        8  status: i16 = "OUT: `GNTST_*`.";
        10 pad1: [u8; 6];
        16 frame_list: GuestPtr<u64> = "OUT: the frames.";
    }

    /// `struct gnttab_dump_table`.
    pub struct DumpTable = 4 {
        0 dom: u16 = "IN.";
        2 status: i16 = "OUT: `GNTST_*`.";
    }

    /// `struct gnttab_transfer`.
    pub struct Transfer = 24 {
        0  mfn: u64 = "IN: frame to give away.";
        8  domid: u16 = "IN: who gets it.";
        10 pad0: [u8; 2];
        12 gref: u32 = "IN: its transfer grant (the member `ref`).";
        16 status: i16 = "OUT: `GNTST_*`.";
        18 pad1: [u8; 6];
    }

    /// `struct gnttab_copy_ptr`: one end of a copy.
    pub struct CopyPtr = 16 {
        0  u: u64 = "Grant reference (lower 32 bits) or guest frame.";
        8  domid: u16 = "Whose.";
        10 offset: u16 = "First byte in the page.";
        12 pad: [u8; 4];
    }

    /// `struct gnttab_copy`.
    pub struct GrantCopy = 40 {
        0  source: CopyPtr = "From.";
        16 dest: CopyPtr = "To.";
        32 len: u16 = "Bytes.";
        34 flags: u16 = "`GNTCOPY_*`.";
        36 status: i16 = "OUT: `GNTST_*`.";
        38 pad: [u8; 2];
    }

    /// `struct gnttab_query_size`.
    pub struct QuerySize = 16 {
        0  dom: u16 = "IN.";
        2  pad0: [u8; 2];
        4  nr_frames: u32 = "OUT: frames it has.";
        8  max_nr_frames: u32 = "OUT: frames it may have.";
        12 status: i16 = "OUT: `GNTST_*`.";
        14 pad1: [u8; 2];
    }

    /// `struct gnttab_unmap_and_replace`.
    pub struct UnmapAndReplace = 24 {
        0  host_addr: u64 = "IN: where it is mapped.";
        8  new_addr: u64 = "IN: mapping to move there.";
        16 handle: u32 = "IN.";
        20 status: i16 = "OUT: `GNTST_*`.";
        22 pad: [u8; 2];
    }

    /// `struct gnttab_set_version`.
    pub struct SetVersion = 4 {
        0 version: u32 = "IN: 1 or 2; OUT: the version in force.";
    }

    /// `struct gnttab_get_status_frames`.
    pub struct GetStatusFrames = 16 {
        0 nr_frames: u32 = "IN: how many fit.";
        4 dom: u16 = "IN.";
        6 status: i16 = "OUT: `GNTST_*`.";
        8 frame_list: GuestPtr<u64> = "OUT: the frames.";
    }

    /// `struct gnttab_get_version`.
    pub struct GetVersion = 8 {
        0 dom: u16 = "IN.";
        2 pad: u16;
        4 version: u32 = "OUT: 1 or 2.";
    }

    /// `struct gnttab_swap_grant_ref`.
    pub struct SwapGrantRef = 12 {
        0  ref_a: u32 = "IN.";
        4  ref_b: u32 = "IN.";
        8  status: i16 = "OUT: `GNTST_*`.";
        10 pad: [u8; 2];
    }

    /// `struct gnttab_cache_flush`.
    pub struct CacheFlush = 16 {
        0  a: u64 = "Device address, or grant reference (lower 32 bits).";
        8  offset: u16 = "First byte in the page.";
        10 length: u16 = "Bytes.";
        12 op: u32 = "`CACHE_*`.";
    }
}
