//! The block device protocol (public/io/blkif.h): requests and responses in a ring of `ring.rs`.
//!
//! 64-bit layout (`x86_64-abi`). Sectors are 512 bytes.

operations! {
    /// [`BlkifRequest::operation`].
    pub enum BlkifOp("BLKIF_OP_") {
        /// Read.
        Read = 0 "READ";
        /// Write.
        Write = 1 "WRITE";
        /// Write after all earlier and before all later ones.
        WriteBarrier = 2 "WRITE_BARRIER";
        /// Flush the cache.
        FlushDiskcache = 3 "FLUSH_DISKCACHE";
        /// Reserved.
        Reserved1 = 4 "RESERVED_1";
        /// [`BlkifRequestDiscard`].
        Discard = 5 "DISCARD";
        /// [`BlkifRequestIndirect`].
        Indirect = 6 "INDIRECT";
    }
}

constants! { i16 {
    BLKIF_RSP_OKAY = 0, "Done.";
    BLKIF_RSP_ERROR = -1, "Failed.";
    BLKIF_RSP_EOPNOTSUPP = -2, "Not supported.";
}}

constants! { u16 {
    VDISK_CDROM = 1, "Node `info`: a CD-ROM.";
    VDISK_REMOVABLE = 2, "Node `info`: removable.";
    VDISK_READONLY = 4, "Node `info`: read-only.";
}}

/// Segments of a direct request.
pub const MAX_SEGMENTS_PER_REQUEST: usize = 11;
/// Pages of segments of an indirect request.
pub const MAX_INDIRECT_PAGES_PER_REQUEST: usize = 8;
/// [`BlkifRequestDiscard::flag`]: erase.
pub const DISCARD_SECURE: u8 = 1 << 0;

abi! {
    /// `struct blkif_request_segment`: sectors of a granted page.
    pub struct BlkifSegment = 8 {
        0 gref: u32 = "Grant reference.";
        4 first_sect: u8 = "First sector, 0 to 7.";
        5 last_sect: u8 = "Last sector, included.";
        6 pad: [u8; 2];
    }

    /// `struct blkif_request`.
    pub struct BlkifRequest = 112 {
        0  operation: u8 = "A [`BlkifOp`].";
        1  nr_segments: u8 = "Segments in use.";
        2  handle: u16 = "Device.";
        4  pad: [u8; 4];
        8  id: u64 = "Copied into the response.";
        16 sector_number: u64 = "First sector.";
        24 seg: [BlkifSegment; 11] = "Segments.";
    }

    /// `struct blkif_request_discard`.
    pub struct BlkifRequestDiscard = 32 {
        0  operation: u8 = "[`BlkifOp::Discard`].";
        1  flag: u8 = "[`DISCARD_SECURE`] or 0.";
        2  handle: u16 = "Device.";
        4  pad: [u8; 4];
        8  id: u64 = "Copied into the response.";
        16 sector_number: u64 = "First sector.";
        24 nr_sectors: u64 = "Sectors.";
    }

    /// `struct blkif_request_indirect`.
    pub struct BlkifRequestIndirect = 64 {
        0  operation: u8 = "[`BlkifOp::Indirect`].";
        1  indirect_op: u8 = "Read or write.";
        2  nr_segments: u16 = "Segments in the pages.";
        4  pad0: [u8; 4];
        8  id: u64 = "Copied into the response.";
        16 sector_number: u64 = "First sector.";
        24 handle: u16 = "Device.";
        26 pad1: [u8; 2];
        28 indirect_grefs: [u32; 8] = "Pages of [`BlkifSegment`].";
        60 pad2: [u8; 4];
    }

    /// `struct blkif_response`.
    pub struct BlkifResponse = 16 {
        0  id: u64 = "From the request.";
        8  operation: u8 = "From the request.";
        9  pad0: u8;
        10 status: i16 = "`BLKIF_RSP_*`.";
        12 pad1: [u8; 4];
    }
}
