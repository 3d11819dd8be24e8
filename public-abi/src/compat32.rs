//! Layouts of 32-bit x86 callers, for the calls that GRUB's PVH image and 32-bit test guests make.
//!
//! A frame number, an `unsigned long` and a pointer are 4 bytes, and 64-bit integers are aligned to 4 only. What is
//! not here has the same layout as for 64-bit callers: event_channel_op, hvm_op, the other grant_table_op structures
//! (but `transfer`, `copy` and `get_status_frames`), the console and xenstore rings, `VcpuTimeInfo`. `From` widens a
//! request to the native structure; results go back into the fields of the 32-bit one.

use crate::grant_table::SetupTable;
use crate::handle::{GuestPtr, GuestPtr32};
use crate::memory::{
    AddToPhysmap, AddToPhysmapBatch, E820Entry, ForeignMemoryMap, MemoryMap, MemoryReservation, RemoveFromPhysmap,
    ReservedDeviceMemory, ReservedDeviceMemoryMap,
};
use crate::multicall::MulticallEntry;
use crate::physdev::PciDevice;
use crate::sched::SchedPoll;
use crate::x86::VcpuTimeInfo;

abi! {
    /// `struct xen_memory_reservation`.
    pub struct MemoryReservation32 = 20 {
        0  extent_start: GuestPtr32<u32> = "List of frame numbers.";
        4  nr_extents: u32 = "Number of extents.";
        8  extent_order: u32 = "Each extent has 2 to this power pages.";
        12 mem_flags: u32 = "`MEMF_*`, address bits and node.";
        16 domid: u16 = "Whose memory.";
        18 pad: [u8; 2];
    }

    /// `struct xen_add_to_physmap`.
    pub struct AddToPhysmap32 = 16 {
        0  domid: u16 = "Whose physmap.";
        2  size: u16 = "Number of frames for `XENMAPSPACE_gmfn_range`.";
        4  space: u32 = "A [`crate::memory::MapSpace`].";
        8  idx: u32 = "Index in the space.";
        12 gpfn: u32 = "Guest frame to map it at.";
    }

    /// `struct xen_add_to_physmap_batch`.
    pub struct AddToPhysmapBatch32 = 20 {
        0  domid: u16 = "Whose physmap.";
        2  space: u16 = "A [`crate::memory::MapSpace`].";
        4  size: u16 = "Number of frames.";
        6  foreign_domid: u16 = "Whose frames (the member `u`).";
        8  idxs: GuestPtr32<u32> = "Indices in the space.";
        12 gpfns: GuestPtr32<u32> = "Guest frames to map them at.";
        16 errs: GuestPtr32<i32> = "OUT: result of each.";
    }

    /// `struct xen_remove_from_physmap`.
    pub struct RemoveFromPhysmap32 = 8 {
        0 domid: u16 = "Whose physmap.";
        2 pad: [u8; 2];
        4 gpfn: u32 = "Guest frame to unmap.";
    }

    /// `struct xen_memory_map`; the entries have the same layout as for 64-bit callers.
    pub struct MemoryMap32 = 8 {
        0 nr_entries: u32 = "IN: entries that fit; OUT: entries written.";
        4 buffer: GuestPtr32<E820Entry> = "Where they go.";
    }

    /// `struct xen_foreign_memory_map`.
    pub struct ForeignMemoryMap32 = 12 {
        0 domid: u16 = "Whose map.";
        2 pad: [u8; 2];
        4 map: MemoryMap32 = "The map.";
    }

    /// `struct xen_reserved_device_memory`.
    pub struct ReservedDeviceMemory32 = 8 {
        0 start_pfn: u32 = "First frame.";
        4 nr_pages: u32 = "Number of frames.";
    }

    /// `struct xen_reserved_device_memory_map`.
    pub struct ReservedDeviceMemoryMap32 = 16 {
        0  flags: u32 = "[`crate::memory::RDM_ALL`] or 0.";
        4  nr_entries: u32 = "IN: entries that fit; OUT: entries that exist.";
        8  buffer: GuestPtr32<ReservedDeviceMemory32> = "Where they go.";
        12 dev: PciDevice = "The device, unless `RDM_ALL`.";
    }

    /// `struct gnttab_setup_table`.
    pub struct SetupTable32 = 16 {
        0  dom: u16 = "IN: whose table.";
        2  pad0: [u8; 2];
        4  nr_frames: u32 = "IN: how many frames it shall have at least.";
        8  status: i16 = "OUT: `GNTST_*`.";
        10 pad1: [u8; 2];
        12 frame_list: GuestPtr32<u32> = "OUT: the frames, 4 bytes each.";
    }

    /// `struct gnttab_copy_ptr`.
    pub struct CopyPtr32 = 8 {
        0 u: u32 = "Grant reference or guest frame.";
        4 domid: u16 = "Whose.";
        6 offset: u16 = "First byte in the page.";
    }

    /// `struct gnttab_copy`.
    pub struct GrantCopy32 = 24 {
        0  source: CopyPtr32 = "From.";
        8  dest: CopyPtr32 = "To.";
        16 len: u16 = "Bytes.";
        18 flags: u16 = "`GNTCOPY_*`.";
        20 status: i16 = "OUT: `GNTST_*`.";
        22 pad: [u8; 2];
    }

    /// `struct sched_poll`.
    pub struct SchedPoll32 = 16 {
        0 ports: GuestPtr32<u32> = "Event-channel ports to wait for.";
        4 nr_ports: u32 = "Their number, at most 128.";
        8 timeout: [u32; 2] = "Absolute system time in nanoseconds, low word first; 0 waits for ever.";
    }

    /// `struct multicall_entry`.
    pub struct MulticallEntry32 = 32 {
        0 op: u32 = "Hypercall number.";
        4 result: u32 = "What the call would have left in the result register.";
        8 args: [u32; 6] = "Argument registers.";
    }

    /// `struct arch_vcpu_info`.
    pub struct ArchVcpuInfo32 = 24 {
        0 cr2: u32 = "Fault address (PV).";
        4 pad: [u32; 5];
    }

    /// `struct vcpu_info`.
    pub struct VcpuInfo32 = 64 {
        0  evtchn_upcall_pending: u8 = "Not 0: an event is pending.";
        1  evtchn_upcall_mask: u8 = "PV.";
        2  pad: [u8; 2];
        4  evtchn_pending_sel: u32 = "Bit n: word n of `evtchn_pending` has a pending event.";
        8  arch: ArchVcpuInfo32 = "What belongs to the architecture.";
        32 time: VcpuTimeInfo = "The clock.";
    }

    /// `struct arch_shared_info`.
    pub struct ArchSharedInfo32 = 28 {
        0  max_pfn: u32 = "PV.";
        4  pfn_to_mfn_frame_list_list: u32 = "PV.";
        8  nmi_reason: u32 = "Why an NMI came.";
        12 p2m_cr3: u32 = "PV.";
        16 p2m_vaddr: u32 = "PV.";
        20 p2m_generation: u32 = "PV.";
        24 wc_sec_hi: u32 = "Upper half of the wall clock's seconds.";
    }

    /// `struct shared_info`.
    pub struct SharedInfo32 = 2344 {
        0    vcpu_info: [VcpuInfo32; 32] = "Of the first vCPUs.";
        2048 evtchn_pending: [u32; 32] = "Bit per port, 1024 ports.";
        2176 evtchn_mask: [u32; 32] = "Bit per port.";
        2304 wc_version: u32 = "Odd while the wall clock is written.";
        2308 wc_sec: u32 = "Seconds of the wall clock (UTC) at system time 0; lower half.";
        2312 wc_nsec: u32 = "Nanoseconds of it.";
        2316 arch: ArchSharedInfo32 = "What belongs to the architecture.";
    }

    /// `struct vcpu_runstate_info`.
    pub struct RunstateInfo32 = 44 {
        0  state: u32 = "A [`crate::vcpu::Runstate`].";
        4  state_entry_time: [u32; 2] = "Nanoseconds, low word first.";
        12 time: [[u32; 2]; 4] = "Nanoseconds spent in each state, low word first.";
    }

    /// `struct vcpu_set_singleshot_timer`.
    pub struct SetSingleshotTimer32 = 12 {
        0 timeout_abs_ns: [u32; 2] = "Absolute system time in nanoseconds, low word first.";
        8 flags: u32 = "[`crate::vcpu::VCPU_SSHOTTMR_FUTURE`] or 0.";
    }
}

impl From<MemoryReservation32> for MemoryReservation {
    /// The list still has 4-byte frame numbers.
    fn from(narrow: MemoryReservation32) -> Self {
        Self {
            extent_start: GuestPtr::from(narrow.extent_start).cast(),
            nr_extents: narrow.nr_extents.into(),
            extent_order: narrow.extent_order,
            mem_flags: narrow.mem_flags,
            domid: narrow.domid,
            ..Self::default()
        }
    }
}

impl From<AddToPhysmap32> for AddToPhysmap {
    fn from(narrow: AddToPhysmap32) -> Self {
        Self {
            domid: narrow.domid,
            size: narrow.size,
            space: narrow.space,
            idx: narrow.idx.into(),
            gpfn: narrow.gpfn.into(),
        }
    }
}

impl From<AddToPhysmapBatch32> for AddToPhysmapBatch {
    /// The lists still have 4-byte elements.
    fn from(narrow: AddToPhysmapBatch32) -> Self {
        Self {
            domid: narrow.domid,
            space: narrow.space,
            size: narrow.size,
            foreign_domid: narrow.foreign_domid,
            idxs: GuestPtr::from(narrow.idxs).cast(),
            gpfns: GuestPtr::from(narrow.gpfns).cast(),
            errs: narrow.errs.into(),
        }
    }
}

impl From<RemoveFromPhysmap32> for RemoveFromPhysmap {
    fn from(narrow: RemoveFromPhysmap32) -> Self {
        Self { domid: narrow.domid, gpfn: narrow.gpfn.into(), ..Self::default() }
    }
}

impl From<MemoryMap32> for MemoryMap {
    fn from(narrow: MemoryMap32) -> Self {
        Self { nr_entries: narrow.nr_entries, buffer: narrow.buffer.into(), ..Self::default() }
    }
}

impl From<ForeignMemoryMap32> for ForeignMemoryMap {
    fn from(narrow: ForeignMemoryMap32) -> Self {
        Self { domid: narrow.domid, map: narrow.map.into(), ..Self::default() }
    }
}

impl From<ReservedDeviceMemoryMap32> for ReservedDeviceMemoryMap {
    /// The buffer still has entries of [`ReservedDeviceMemory32`].
    fn from(narrow: ReservedDeviceMemoryMap32) -> Self {
        Self {
            flags: narrow.flags,
            nr_entries: narrow.nr_entries,
            buffer: GuestPtr::from(narrow.buffer).cast(),
            dev: narrow.dev,
            ..Self::default()
        }
    }
}

impl TryFrom<ReservedDeviceMemory> for ReservedDeviceMemory32 {
    type Error = crate::Errno;

    /// `ERANGE` when a number does not fit into 32 bits.
    fn try_from(wide: ReservedDeviceMemory) -> Result<Self, crate::Errno> {
        let narrow = |value: u64| u32::try_from(value).map_err(|_| crate::Errno::ERANGE);
        Ok(Self { start_pfn: narrow(wide.start_pfn)?, nr_pages: narrow(wide.nr_pages)? })
    }
}

impl From<SetupTable32> for SetupTable {
    /// The list still has 4-byte frame numbers.
    fn from(narrow: SetupTable32) -> Self {
        Self {
            dom: narrow.dom,
            nr_frames: narrow.nr_frames,
            status: narrow.status,
            frame_list: GuestPtr::from(narrow.frame_list).cast(),
            ..Self::default()
        }
    }
}

impl From<SchedPoll32> for SchedPoll {
    fn from(narrow: SchedPoll32) -> Self {
        let [low, high] = narrow.timeout;
        Self {
            ports: narrow.ports.into(),
            nr_ports: narrow.nr_ports,
            timeout: u64::from(high) << 32 | u64::from(low),
            ..Self::default()
        }
    }
}

impl From<MulticallEntry32> for MulticallEntry {
    fn from(narrow: MulticallEntry32) -> Self {
        Self { op: narrow.op.into(), result: narrow.result.into(), args: narrow.args.map(u64::from) }
    }
}
