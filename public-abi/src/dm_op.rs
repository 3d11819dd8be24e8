//! Requests of a device model for its domain (hypercall 41, public/hvm/dm_op.h).
//!
//! The call takes an array of [`DmOpBuffer`]; buffer 0 holds a [`DmOpRequest`], further ones hold what the operation
//! names. A short buffer 0 is read as if zeros followed. The pages of requests are in `ioreq.rs`.

use crate::handle::GuestPtr;

operations! {
    /// What to do.
    pub enum DmOp("XEN_DMOP_") {
        /// [`CreateIoreqServer`].
        CreateIoreqServer = 1 "create_ioreq_server";
        /// [`GetIoreqServerInfo`].
        GetIoreqServerInfo = 2 "get_ioreq_server_info";
        /// [`IoreqServerRange`].
        MapIoRangeToIoreqServer = 3 "map_io_range_to_ioreq_server";
        /// [`IoreqServerRange`].
        UnmapIoRangeFromIoreqServer = 4 "unmap_io_range_from_ioreq_server";
        /// [`SetIoreqServerState`].
        SetIoreqServerState = 5 "set_ioreq_server_state";
        /// [`DestroyIoreqServer`].
        DestroyIoreqServer = 6 "destroy_ioreq_server";
        /// [`TrackDirtyVram`]; buffer 1: bitmap.
        TrackDirtyVram = 7 "track_dirty_vram";
        /// [`SetPciIntxLevel`].
        SetPciIntxLevel = 8 "set_pci_intx_level";
        /// [`SetIsaIrqLevel`].
        SetIsaIrqLevel = 9 "set_isa_irq_level";
        /// [`SetPciLinkRoute`].
        SetPciLinkRoute = 10 "set_pci_link_route";
        /// [`ModifiedMemory`]; buffer 1: array of [`ModifiedMemoryExtent`].
        ModifiedMemory = 11 "modified_memory";
        /// [`SetMemType`].
        SetMemType = 12 "set_mem_type";
        /// [`InjectEvent`].
        InjectEvent = 13 "inject_event";
        /// [`InjectMsi`].
        InjectMsi = 14 "inject_msi";
        /// [`MapMemTypeToIoreqServer`].
        MapMemTypeToIoreqServer = 15 "map_mem_type_to_ioreq_server";
        /// [`RemoteShutdown`].
        RemoteShutdown = 16 "remote_shutdown";
        /// [`RelocateMemory`].
        RelocateMemory = 17 "relocate_memory";
        /// [`PinMemoryCacheattr`].
        PinMemoryCacheattr = 18 "pin_memory_cacheattr";
        /// [`SetIrqLevel`] (Arm).
        SetIrqLevel = 19 "set_irq_level";
        /// [`NrVcpus`].
        NrVcpus = 20 "nr_vcpus";
    }

    /// [`IoreqServerRange::kind`].
    pub enum IoRange("XEN_DMOP_IO_RANGE_") {
        /// Ports.
        Port = 0 "PORT";
        /// Guest physical addresses.
        Memory = 1 "MEMORY";
        /// PCI devices, see [`pci_sbdf`].
        Pci = 2 "PCI";
    }

    /// [`CreateIoreqServer::handle_bufioreq`].
    pub enum BufioreqMode("HVM_IOREQSRV_BUFIOREQ_") {
        /// No buffered requests.
        Off = 0 "OFF";
        /// The reader need not be atomic.
        Legacy = 1 "LEGACY";
        /// The reader updates the pointers atomically.
        Atomic = 2 "ATOMIC";
    }

    /// [`InjectEvent::kind`].
    pub enum InjectType("XEN_DMOP_EVENT_") {
        /// External interrupt.
        ExtInt = 0 "ext_int";
        /// NMI.
        Nmi = 2 "nmi";
        /// Hardware exception.
        HwExc = 3 "hw_exc";
        /// INT n.
        SwInt = 4 "sw_int";
        /// ICEBP.
        PriSwExc = 5 "pri_sw_exc";
        /// INT3, INTO.
        SwExc = 6 "sw_exc";
    }

    /// [`PinMemoryCacheattr::kind`].
    pub enum CacheAttribute("XEN_DMOP_MEM_CACHEATTR_") {
        /// Uncacheable.
        Uc = 0 "UC";
        /// Write-combining.
        Wc = 1 "WC";
        /// Write-through.
        Wt = 4 "WT";
        /// Write-protected.
        Wp = 5 "WP";
        /// Write-back.
        Wb = 6 "WB";
        /// Uncacheable unless the MTRR says otherwise.
        Ucm = 7 "UCM";
    }
}

constants! { u32 {
    DELETE_MEM_CACHEATTR = u32::MAX, "[`PinMemoryCacheattr::kind`]: undo.";
    IOREQ_MEM_ACCESS_READ = 1 << 0, "[`MapMemTypeToIoreqServer::flags`]: not supported.";
    IOREQ_MEM_ACCESS_WRITE = 1 << 1, "[`MapMemTypeToIoreqServer::flags`]: writes go to the server.";
}}

/// [`GetIoreqServerInfo::flags`]: do not map the pages into the guest.
pub const NO_GFNS: u16 = 1 << 0;

/// Names a PCI device in [`IoreqServerRange`]: segment, bus, device and function.
#[must_use]
pub const fn pci_sbdf(segment: u16, bus: u8, devfn: u8) -> u64 {
    let [low, high] = segment.to_le_bytes();
    u64::from_le_bytes([devfn, bus, low, high, 0, 0, 0, 0])
}

abi! {
    /// `struct xen_dm_op_buf`.
    pub struct DmOpBuffer = 16 {
        0 h: GuestPtr<u8> = "First byte.";
        8 size: u64 = "Bytes.";
    }

    /// `struct xen_dm_op`.
    pub struct DmOpRequest = 32 {
        0 op: u32 = "A [`DmOp`].";
        4 pad: u32 = "Must be 0.";
        8 u: [u64; 3] = "Parameters, chosen by `op`.";
    }

    /// `struct xen_dm_op_create_ioreq_server`.
    pub struct CreateIoreqServer = 6 {
        0 handle_bufioreq: u8 = "IN: a [`BufioreqMode`].";
        1 pad: [u8; 3];
        4 id: u16 = "OUT: the server.";
    }

    /// `struct xen_dm_op_get_ioreq_server_info`.
    pub struct GetIoreqServerInfo = 24 {
        0  id: u16 = "IN: the server.";
        2  flags: u16 = "IN: [`NO_GFNS`] or 0.";
        4  bufioreq_port: u32 = "OUT: port of the buffered page.";
        8  ioreq_gfn: u64 = "OUT: guest frame.";
        16 bufioreq_gfn: u64 = "OUT: guest frame.";
    }

    /// `struct xen_dm_op_ioreq_server_range`.
    pub struct IoreqServerRange = 24 {
        0  id: u16 = "The server.";
        2  pad: u16;
        4  kind: u32 = "An [`IoRange`] (the member `type`).";
        8  start: u64 = "First.";
        16 end: u64 = "Last, included.";
    }

    /// `struct xen_dm_op_set_ioreq_server_state`.
    pub struct SetIoreqServerState = 4 {
        0 id: u16 = "The server.";
        2 enabled: u8 = "0 or 1.";
        3 pad: u8;
    }

    /// `struct xen_dm_op_destroy_ioreq_server`.
    pub struct DestroyIoreqServer = 4 {
        0 id: u16 = "The server.";
        2 pad: u16;
    }

    /// `struct xen_dm_op_track_dirty_vram`.
    pub struct TrackDirtyVram = 16 {
        0 nr: u32 = "Frames; 0 to stop.";
        4 pad: u32 = "Must be 0.";
        8 first_pfn: u64 = "First frame.";
    }

    /// `struct xen_dm_op_set_pci_intx_level`.
    pub struct SetPciIntxLevel = 6 {
        0 domain: u16 = "PCI segment.";
        2 bus: u8 = "PCI bus.";
        3 device: u8 = "PCI device.";
        4 intx: u8 = "Pin, 0 is INTA.";
        5 level: u8 = "0 or 1.";
    }

    /// `struct xen_dm_op_set_isa_irq_level`.
    pub struct SetIsaIrqLevel = 2 {
        0 isa_irq: u8 = "Interrupt, 0 to 15.";
        1 level: u8 = "0 or 1.";
    }

    /// `struct xen_dm_op_set_irq_level`.
    pub struct SetIrqLevel = 8 {
        0 irq: u32 = "Interrupt.";
        4 level: u8 = "0 or 1.";
        5 pad: [u8; 3] = "Must be 0.";
    }

    /// `struct xen_dm_op_set_pci_link_route`.
    pub struct SetPciLinkRoute = 2 {
        0 link: u8 = "Link, 0 to 3.";
        1 isa_irq: u8 = "Interrupt, 0 for none.";
    }

    /// `struct xen_dm_op_modified_memory`.
    pub struct ModifiedMemory = 8 {
        0 nr_extents: u32 = "Extents in buffer 1.";
        4 opaque: u32 = "Cursor of the hypervisor; 0 at first.";
    }

    /// `struct xen_dm_op_modified_memory_extent`.
    pub struct ModifiedMemoryExtent = 16 {
        0 nr: u32 = "Frames.";
        4 pad: u32 = "Must be 0.";
        8 first_pfn: u64 = "First frame.";
    }

    /// `struct xen_dm_op_set_mem_type`.
    pub struct SetMemType = 16 {
        0 nr: u32 = "Frames.";
        4 mem_type: u16 = "A [`crate::hvm_op::MemType`].";
        6 pad: u16;
        8 first_pfn: u64 = "First frame.";
    }

    /// `struct xen_dm_op_inject_event`.
    pub struct InjectEvent = 24 {
        0  vcpuid: u32 = "vCPU.";
        4  vector: u8 = "Vector.";
        5  kind: u8 = "An [`InjectType`] (the member `type`).";
        6  insn_len: u8 = "Bytes of the instruction, for software events.";
        7  pad0: u8;
        8  error_code: u32 = "Error code, or all ones for none.";
        12 pad1: u32;
        16 cr2: u64 = "Address of a page fault.";
    }

    /// `struct xen_dm_op_inject_msi`.
    pub struct InjectMsi = 16 {
        0 data: u32 = "Message data.";
        4 pad: u32 = "Must be 0.";
        8 addr: u64 = "Message address, 0xfeexxxxx.";
    }

    /// `struct xen_dm_op_map_mem_type_to_ioreq_server`.
    pub struct MapMemTypeToIoreqServer = 16 {
        0 id: u16 = "The server.";
        2 kind: u16 = "A [`crate::hvm_op::MemType`]: `ioreq_server` (the member `type`).";
        4 flags: u32 = "`IOREQ_MEM_ACCESS_*`; 0 to unmap.";
        8 opaque: u64 = "Cursor of the hypervisor; 0 at first.";
    }

    /// `struct xen_dm_op_remote_shutdown`.
    pub struct RemoteShutdown = 4 {
        0 reason: u32 = "A [`crate::sched::ShutdownReason`].";
    }

    /// `struct xen_dm_op_relocate_memory`.
    pub struct RelocateMemory = 24 {
        0  size: u32 = "Frames; counts down.";
        4  pad: u32 = "Must be 0.";
        8  src_gfn: u64 = "From; advances.";
        16 dst_gfn: u64 = "To; advances.";
    }

    /// `struct xen_dm_op_pin_memory_cacheattr`.
    pub struct PinMemoryCacheattr = 24 {
        0  start: u64 = "First guest frame.";
        8  end: u64 = "Last guest frame, included.";
        16 kind: u32 = "A [`CacheAttribute`] or [`DELETE_MEM_CACHEATTR`] (the member `type`).";
        20 pad: u32;
    }

    /// `struct xen_dm_op_nr_vcpus`.
    pub struct NrVcpus = 4 {
        0 vcpus: u32 = "OUT.";
    }
}

impl DmOpRequest {
    /// Bytes of the union.
    pub const UNION_SIZE: usize = 24;

    /// A request whose parameters are all zero.
    #[must_use]
    pub fn new(operation: DmOp) -> Self {
        Self { op: operation.number(), ..Self::default() }
    }
}

command_union! { DmOpRequest, op: DmOp;
    CreateIoreqServer => [CreateIoreqServer],
    GetIoreqServerInfo => [GetIoreqServerInfo],
    IoreqServerRange => [MapIoRangeToIoreqServer, UnmapIoRangeFromIoreqServer],
    SetIoreqServerState => [SetIoreqServerState],
    DestroyIoreqServer => [DestroyIoreqServer],
    TrackDirtyVram => [TrackDirtyVram],
    SetPciIntxLevel => [SetPciIntxLevel],
    SetIsaIrqLevel => [SetIsaIrqLevel],
    SetIrqLevel => [SetIrqLevel],
    SetPciLinkRoute => [SetPciLinkRoute],
    ModifiedMemory => [ModifiedMemory],
    SetMemType => [SetMemType],
    InjectEvent => [InjectEvent],
    InjectMsi => [InjectMsi],
    MapMemTypeToIoreqServer => [MapMemTypeToIoreqServer],
    RemoteShutdown => [RemoteShutdown],
    RelocateMemory => [RelocateMemory],
    PinMemoryCacheattr => [PinMemoryCacheattr],
    NrVcpus => [NrVcpus],
}
