//! Memory operations: reservations, physmap and maps (hypercall 12, public/memory.h).
//!
//! This file has what guests and domain builders use; the tools-only rest (paging, access, sharing) is in
//! `memory_tools.rs`. Frame numbers are guest frame numbers of 4 KiB unless a field says otherwise.

use crate::handle::GuestPtr;

operations! {
    /// What to do. The command register also carries a cursor, see [`split_command`].
    pub enum MemoryOp("XENMEM_") {
        /// [`MemoryReservation`]: more machine frames (PV).
        IncreaseReservation = 0 "increase_reservation";
        /// [`MemoryReservation`]: give frames back.
        DecreaseReservation = 1 "decrease_reservation";
        /// The result is the largest machine frame number; no argument.
        MaximumRamPage = 2 "maximum_ram_page";
        /// [`MemoryDomain`]: the result is the number of pages it has.
        CurrentReservation = 3 "current_reservation";
        /// [`MemoryDomain`]: the result is the number of pages it may have.
        MaximumReservation = 4 "maximum_reservation";
        /// PV.
        MachphysMfnList = 5 "machphys_mfn_list";
        /// [`MemoryReservation`]: memory at given guest frames.
        PopulatePhysmap = 6 "populate_physmap";
        /// [`AddToPhysmap`].
        AddToPhysmap = 7 "add_to_physmap";
        /// Into a [`MemoryMap`] of [`E820Entry`].
        MemoryMap = 9 "memory_map";
        /// Into a [`MemoryMap`]: the host's.
        MachineMemoryMap = 10 "machine_memory_map";
        /// [`MemoryExchange`].
        Exchange = 11 "exchange";
        /// PV.
        MachphysMapping = 12 "machphys_mapping";
        /// [`ForeignMemoryMap`].
        SetMemoryMap = 13 "set_memory_map";
        /// [`MemoryDomain`]: the result is the largest guest frame in use.
        MaximumGpfn = 14 "maximum_gpfn";
        /// [`RemoveFromPhysmap`].
        RemoveFromPhysmap = 15 "remove_from_physmap";
        /// [`PodTarget`].
        SetPodTarget = 16 "set_pod_target";
        /// [`PodTarget`].
        GetPodTarget = 17 "get_pod_target";
        /// The result is the number of pages saved by sharing; no argument.
        GetSharingFreedPages = 18 "get_sharing_freed_pages";
        /// The result is the number of pages shared; no argument.
        GetSharingSharedPages = 19 "get_sharing_shared_pages";
        /// [`crate::memory_tools::MemPagingOp`].
        PagingOp = 20 "paging_op";
        /// [`crate::memory_tools::MemAccessOp`].
        AccessOp = 21 "access_op";
        /// [`crate::memory_tools::MemSharingOp`].
        SharingOp = 22 "sharing_op";
        /// [`AddToPhysmapBatch`].
        AddToPhysmapBatch = 23 "add_to_physmap_batch";
        /// [`MemoryReservation`] of order 0 without list: set pages aside for a domain.
        ClaimPages = 24 "claim_pages";
        /// PV32.
        MachphysCompatMfnList = 25 "machphys_compat_mfn_list";
        /// [`VnumaTopologyInfo`].
        GetVnumaInfo = 26 "get_vnumainfo";
        /// [`ReservedDeviceMemoryMap`].
        ReservedDeviceMemoryMap = 27 "reserved_device_memory_map";
        /// [`MemAcquireResource`].
        AcquireResource = 28 "acquire_resource";
    }

    /// What [`AddToPhysmap`] maps.
    pub enum MapSpace("XENMAPSPACE_") {
        /// The domain's shared_info page; index 0.
        SharedInfo = 0 "shared_info";
        /// Frame of the grant table; see [`MAPIDX_GRANT_TABLE_STATUS`].
        GrantTable = 1 "grant_table";
        /// Another guest frame of the same domain; moves it.
        Gmfn = 2 "gmfn";
        /// `size` such frames.
        GmfnRange = 3 "gmfn_range";
        /// A guest frame of another domain; batch only.
        GmfnForeign = 4 "gmfn_foreign";
        /// Device memory; hardware domain, Arm.
        DevMmio = 5 "dev_mmio";
    }

    /// What [`MemAcquireResource`] maps.
    pub enum Resource("XENMEM_resource_") {
        /// Pages of an ioreq server; id = server, frame 0 = buffered, 1 + n = synchronous.
        IoreqServer = 0 "ioreq_server";
        /// Frames of the grant table; id 0 = shared, 1 = status.
        GrantTable = 1 "grant_table";
        /// Processor trace buffer; id = vCPU.
        VmtraceBuf = 2 "vmtrace_buf";
    }

    /// Type of an [`E820Entry`] (ACPI specification, "Address Range Types").
    pub enum E820Type("E820_") {
        /// Usable memory.
        Ram = 1 "RAM";
        /// Never usable.
        Reserved = 2 "RESERVED";
        /// ACPI tables, usable once they are read.
        Acpi = 3 "ACPI";
        /// Must survive sleep.
        Nvs = 4 "NVS";
        /// Broken memory.
        Unusable = 5 "UNUSABLE";
    }
}

constants! { u32 {
    MEMF_POPULATE_ON_DEMAND = 1 << 16, "[`MemoryReservation::mem_flags`]: give memory at first access.";
    MEMF_EXACT_NODE_REQUEST = 1 << 17, "[`MemoryReservation::mem_flags`]: fail rather than use another node.";
    MEMF_VNODE = 1 << 18, "[`MemoryReservation::mem_flags`]: the node is a virtual one.";
    MEMOP_EXTENT_SHIFT = 6, "Bits of the command register that hold the operation; the cursor is above them.";
    MAX_MEMORY_MAP_ENTRIES = 128, "Most entries that Linux accepts from `XENMEM_memory_map`.";
    RDM_ALL = 1, "[`ReservedDeviceMemoryMap::flags`]: regions of all devices.";
    RESOURCE_GRANT_TABLE_ID_SHARED = 0, "[`MemAcquireResource::id`] for the shared frames of the grant table.";
    RESOURCE_GRANT_TABLE_ID_STATUS = 1, "[`MemAcquireResource::id`] for the status frames of the grant table.";
    RESOURCE_IOREQ_SERVER_FRAME_BUFIOREQ = 0, "First frame for the page of buffered requests.";
    RESOURCE_IOREQ_SERVER_FRAME_IOREQ = 1, "First frame for the first page of synchronous requests.";
}}

/// [`AddToPhysmap::idx`]: the status frames of a version 2 grant table rather than its entries.
pub const MAPIDX_GRANT_TABLE_STATUS: u64 = 0x8000_0000;

/// Bits of address that memory must fit into, from [`MemoryReservation::mem_flags`]; 0 means any.
#[must_use]
pub const fn memf_address_bits(mem_flags: u32) -> u32 {
    mem_flags & 0xff
}

/// The NUMA node in [`MemoryReservation::mem_flags`], if one is given.
#[must_use]
pub const fn memf_node(mem_flags: u32) -> Option<u32> {
    match (mem_flags >> 8) & 0xff {
        0 => None,
        node => Some(node - 1),
    }
}

/// The flags that ask for NUMA node `node` (below 255).
#[must_use]
pub const fn memf_from_node(node: u32) -> u32 {
    ((node + 1) & 0xff) << 8
}

/// Splits the command register into the operation's number and the first extent to work on.
///
/// Xen continues a long operation by calling again with a cursor in the upper bits. Callers pass 0 there.
#[must_use]
pub const fn split_command(command: u64) -> (u64, u64) {
    (command & ((1 << MEMOP_EXTENT_SHIFT) - 1), command >> MEMOP_EXTENT_SHIFT)
}

abi! {
    /// `struct xen_memory_reservation`.
    pub struct MemoryReservation = 32 {
        0  extent_start: GuestPtr<u64> = "List of guest frame numbers (or OUT machine frame numbers); may be NULL for a claim.";
        8  nr_extents: u64 = "Number of extents.";
        16 extent_order: u32 = "Each extent has 2 to this power pages.";
        20 mem_flags: u32 = "`MEMF_*`, address bits and node.";
        24 domid: u16 = "Whose memory.";
        26 pad: [u8; 6];
    }

    /// `struct xen_memory_exchange`.
    pub struct MemoryExchange = 72 {
        0  input: MemoryReservation = "Frames to give.";
        32 output: MemoryReservation = "Frames to get; the same amount of memory.";
        64 nr_exchanged: u64 = "OUT: how many input extents were exchanged; IN: 0.";
    }

    /// `struct xen_memory_domain`; a bare `domid_t` before 4.17.
    pub struct MemoryDomain = 2 {
        0 domid: u16 = "Whose reservation.";
    }

    /// `struct xen_add_to_physmap`.
    pub struct AddToPhysmap = 24 {
        0  domid: u16 = "Whose physmap.";
        2  size: u16 = "Number of frames for `XENMAPSPACE_gmfn_range`.";
        4  space: u32 = "A [`MapSpace`].";
        8  idx: u64 = "Index in the space.";
        16 gpfn: u64 = "Guest frame to map it at.";
    }

    /// `struct xen_add_to_physmap_batch`.
    pub struct AddToPhysmapBatch = 32 {
        0  domid: u16 = "Whose physmap.";
        2  space: u16 = "A [`MapSpace`].";
        4  size: u16 = "Number of frames.";
        6  foreign_domid: u16 = "Whose frames for `XENMAPSPACE_gmfn_foreign` (the member `u`); 0 for `dev_mmio`.";
        8  idxs: GuestPtr<u64> = "Indices in the space.";
        16 gpfns: GuestPtr<u64> = "Guest frames to map them at.";
        24 errs: GuestPtr<i32> = "OUT: result of each.";
    }

    /// `struct xen_remove_from_physmap`.
    pub struct RemoveFromPhysmap = 16 {
        0 domid: u16 = "Whose physmap.";
        2 pad: [u8; 6];
        8 gpfn: u64 = "Guest frame to unmap.";
    }

    /// `struct xen_memory_map`.
    pub struct MemoryMap = 16 {
        0 nr_entries: u32 = "IN: entries that fit; OUT: entries written.";
        4 pad: [u8; 4];
        8 buffer: GuestPtr<E820Entry> = "Where they go.";
    }

    /// One entry of an e820 map: 20 bytes without alignment; split so that it has no padding.
    pub struct E820Entry = 20 {
        0  addr: [u32; 2] = "First byte; low word first. See [`E820Entry::start`].";
        8  size: [u32; 2] = "Bytes; low word first. See [`E820Entry::length`].";
        16 kind: u32 = "An [`E820Type`].";
    }

    /// `struct xen_foreign_memory_map`.
    pub struct ForeignMemoryMap = 24 {
        0 domid: u16 = "Whose map.";
        2 pad: [u8; 6];
        8 map: MemoryMap = "The map.";
    }

    /// `struct xen_pod_target`.
    pub struct PodTarget = 40 {
        0  target_pages: u64 = "IN: pages the domain should have.";
        8  tot_pages: u64 = "OUT: pages it has.";
        16 pod_cache_pages: u64 = "OUT: pages in the cache.";
        24 pod_entries: u64 = "OUT: frames without memory yet.";
        32 domid: u16 = "IN.";
        34 pad: [u8; 6];
    }

    /// `struct xen_reserved_device_memory`.
    pub struct ReservedDeviceMemory = 16 {
        0 start_pfn: u64 = "First frame.";
        8 nr_pages: u64 = "Number of frames.";
    }

    /// `struct xen_reserved_device_memory_map`.
    pub struct ReservedDeviceMemoryMap = 24 {
        0  flags: u32 = "[`RDM_ALL`] or 0.";
        4  nr_entries: u32 = "IN: entries that fit; OUT: entries that exist. Too few: -ENOBUFS.";
        8  buffer: GuestPtr<ReservedDeviceMemory> = "Where they go; may be NULL when `nr_entries` is 0.";
        16 dev: crate::physdev::PciDevice = "The device, unless `RDM_ALL`.";
        20 pad: [u8; 4];
    }

    /// `struct xen_mem_acquire_resource`.
    pub struct MemAcquireResource = 32 {
        0  domid: u16 = "Whose resource.";
        2  kind: u16 = "A [`Resource`] (the member `type`).";
        4  id: u32 = "Which one.";
        8  nr_frames: u32 = "IN: frames wanted; OUT: frames that exist, when `frame_list` is NULL.";
        12 pad: u32 = "Must be 0.";
        16 frame: u64 = "First frame of the resource.";
        24 frame_list: GuestPtr<u64> = "IN: guest frames to map at (translated callers); OUT: machine frames (PV).";
    }

    /// `struct xen_vmemrange`.
    pub struct VmemRange = 24 {
        0  start: u64 = "First byte.";
        8  end: u64 = "Byte after the last.";
        16 flags: u32 = "Must be 0.";
        20 nid: u32 = "Virtual node.";
    }

    /// `struct xen_vnuma_topology_info`.
    pub struct VnumaTopologyInfo = 40 {
        0  domid: u16 = "IN.";
        2  pad: u16 = "Must be 0.";
        4  nr_vnodes: u32 = "IN: room; OUT: number.";
        8  nr_vcpus: u32 = "IN: room; OUT: number.";
        12 nr_vmemranges: u32 = "IN: room; OUT: number.";
        16 vdistance: GuestPtr<u32> = "Distances, row by row.";
        24 vcpu_to_vnode: GuestPtr<u32> = "Virtual node of each vCPU.";
        32 vmemrange: GuestPtr<VmemRange> = "Memory ranges.";
    }
}

impl E820Entry {
    /// An entry of `size` bytes from `start`.
    #[must_use]
    pub const fn new(start: u64, size: u64, kind: E820Type) -> Self {
        Self { addr: split(start), size: split(size), kind: kind.number() }
    }

    /// First byte.
    #[must_use]
    pub const fn start(&self) -> u64 {
        join(self.addr)
    }

    /// Number of bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        join(self.size)
    }
}

const fn split(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

const fn join([low, high]: [u32; 2]) -> u64 {
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, g, h] = high.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
