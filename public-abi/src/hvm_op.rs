//! Requests about HVM and PVH guests (hypercall 34, public/hvm/hvm_op.h). Parameters by number are in `hvm_params.rs`.
//!
//! Numbers 2-4, 6-8 and 16-22 were moved to dm_op; they are answered with -ENOSYS.

operations! {
    /// What to do.
    pub enum HvmOp("HVMOP_") {
        /// [`HvmParamRequest`].
        SetParam = 0 "set_param";
        /// [`HvmParamRequest`].
        GetParam = 1 "get_param";
        /// Flush the TLBs of the domain; the argument must be NULL.
        FlushTlbs = 5 "flush_tlbs";
        /// [`PagetableDying`].
        PagetableDying = 9 "pagetable_dying";
        /// [`GetTime`].
        GetTime = 10 "get_time";
        /// [`Xentrace`].
        Xentrace = 11 "xentrace";
        /// Obsolete.
        SetMemAccess = 12 "set_mem_access";
        /// Obsolete.
        GetMemAccess = 13 "get_mem_access";
        /// [`GetMemType`].
        GetMemType = 15 "get_mem_type";
        /// [`EvtchnUpcallVector`].
        SetEvtchnUpcallVector = 23 "set_evtchn_upcall_vector";
        /// Tell the monitor; the argument must be NULL.
        GuestRequestVmEvent = 24 "guest_request_vm_event";
        /// [`Altp2mRequest`].
        Altp2m = 25 "altp2m";
    }

    /// [`GetMemType::mem_type`].
    pub enum MemType("HVMMEM_") {
        /// Memory.
        RamRw = 0 "ram_rw";
        /// Read-only memory; writes are discarded.
        RamRo = 1 "ram_ro";
        /// Emulated by the device model.
        MmioDm = 2 "mmio_dm";
        /// Not used.
        Unused = 3 "unused";
        /// Accesses go to an ioreq server.
        IoreqServer = 4 "ioreq_server";
    }

    /// [`Altp2mRequest::cmd`].
    pub enum Altp2mOp("HVMOP_altp2m_") {
        /// [`Altp2mDomainState`].
        GetDomainState = 1 "get_domain_state";
        /// [`Altp2mDomainState`].
        SetDomainState = 2 "set_domain_state";
        /// [`Altp2mVcpuEnableNotify`].
        VcpuEnableNotify = 3 "vcpu_enable_notify";
        /// [`Altp2mView`].
        CreateP2m = 4 "create_p2m";
        /// [`Altp2mView`].
        DestroyP2m = 5 "destroy_p2m";
        /// [`Altp2mView`].
        SwitchP2m = 6 "switch_p2m";
        /// [`Altp2mMemAccess`].
        SetMemAccess = 7 "set_mem_access";
        /// [`Altp2mChangeGfn`].
        ChangeGfn = 8 "change_gfn";
        /// [`Altp2mSetMemAccessMulti`].
        SetMemAccessMulti = 9 "set_mem_access_multi";
        /// [`Altp2mSuppressVe`].
        SetSuppressVe = 10 "set_suppress_ve";
        /// [`Altp2mSuppressVe`].
        GetSuppressVe = 11 "get_suppress_ve";
        /// [`Altp2mMemAccess`].
        GetMemAccess = 12 "get_mem_access";
        /// [`Altp2mVcpuDisableNotify`].
        VcpuDisableNotify = 13 "vcpu_disable_notify";
        /// [`Altp2mGetVcpuP2mIdx`].
        GetP2mIdx = 14 "get_p2m_idx";
        /// [`Altp2mSuppressVeMulti`].
        SetSuppressVeMulti = 15 "set_suppress_ve_multi";
        /// [`Altp2mSetVisibility`].
        SetVisibility = 16 "set_visibility";
    }
}

/// [`Altp2mRequest::version`].
pub const ALTP2M_INTERFACE_VERSION: u32 = 1;

abi! {
    /// `struct xen_hvm_param`.
    pub struct HvmParamRequest = 16 {
        0 domid: u16 = "Whose parameter.";
        2 pad: u16;
        4 index: u32 = "A [`crate::hvm_params::HvmParam`].";
        8 value: u64 = "IN or OUT.";
    }

    /// `struct xen_hvm_pagetable_dying`.
    pub struct PagetableDying = 16 {
        0 domid: u16 = "Must be the caller.";
        2 pad: [u16; 3];
        8 gpa: u64 = "Root of the page table.";
    }

    /// `struct xen_hvm_get_time`.
    pub struct GetTime = 8 {
        0 now: u64 = "OUT: system time in nanoseconds.";
    }

    /// `struct xen_hvm_xentrace`.
    pub struct Xentrace = 32 {
        0 event: u16 = "Event, 12 bits.";
        2 extra_bytes: u16 = "Valid bytes.";
        4 extra: [u8; 28] = "Data.";
    }

    /// `struct xen_hvm_get_mem_type`.
    pub struct GetMemType = 16 {
        0 domid: u16 = "IN.";
        2 mem_type: u16 = "OUT: a [`MemType`].";
        4 pad: [u16; 2];
        8 pfn: u64 = "IN: guest frame.";
    }

    /// `struct xen_hvm_evtchn_upcall_vector`.
    pub struct EvtchnUpcallVector = 8 {
        0 vcpu: u32 = "vCPU.";
        4 vector: u8 = "Interrupt vector, at least 16.";
        5 pad: [u8; 3];
    }

    /// `struct xen_hvm_altp2m_op`.
    pub struct Altp2mRequest = 80 {
        0  version: u32 = "[`ALTP2M_INTERFACE_VERSION`].";
        4  cmd: u32 = "An [`Altp2mOp`].";
        8  domain: u16 = "The domain.";
        10 pad1: u16 = "Must be 0.";
        12 pad2: u32 = "Must be 0.";
        16 u: [u64; 8] = "Parameters, chosen by `cmd`.";
    }

    /// `struct xen_hvm_altp2m_domain_state`.
    pub struct Altp2mDomainState = 1 {
        0 state: u8 = "0 or 1.";
    }

    /// `struct xen_hvm_altp2m_vcpu_enable_notify`.
    pub struct Altp2mVcpuEnableNotify = 16 {
        0 vcpu_id: u32 = "vCPU.";
        4 pad: u32;
        8 gfn: u64 = "Page for the information.";
    }

    /// `struct xen_hvm_altp2m_vcpu_disable_notify`.
    pub struct Altp2mVcpuDisableNotify = 4 {
        0 vcpu_id: u32 = "vCPU.";
    }

    /// `struct xen_hvm_altp2m_view`.
    pub struct Altp2mView = 4 {
        0 view: u16 = "IN, or OUT of creation.";
        2 hvmmem_default_access: u16 = "Access of pages at creation.";
    }

    /// `struct xen_hvm_altp2m_mem_access`.
    pub struct Altp2mMemAccess = 16 {
        0 view: u16 = "View.";
        2 access: u16 = "A [`crate::memory_tools::MemAccess`].";
        4 pad: u32;
        8 gfn: u64 = "Guest frame.";
    }

    /// `struct xen_hvm_altp2m_set_mem_access_multi`.
    pub struct Altp2mSetMemAccessMulti = 32 {
        0  view: u16 = "View.";
        2  pad: u16;
        4  nr: u32 = "Frames.";
        8  opaque: u64 = "Cursor of the hypervisor; 0 at first.";
        16 pfn_list: crate::GuestPtr<u64> = "Frames.";
        24 access_list: crate::GuestPtr<u8> = "Their access.";
    }

    /// `struct xen_hvm_altp2m_change_gfn`.
    pub struct Altp2mChangeGfn = 24 {
        0  view: u16 = "View.";
        2  pad1: u16;
        4  pad2: u32;
        8  old_gfn: u64 = "Frame that changes.";
        16 new_gfn: u64 = "Frame whose memory it shows; all ones to undo.";
    }

    /// `struct xen_hvm_altp2m_suppress_ve`.
    pub struct Altp2mSuppressVe = 16 {
        0 view: u16 = "View.";
        2 suppress_ve: u8 = "0 or 1.";
        3 pad1: u8;
        4 pad2: u32;
        8 gfn: u64 = "Guest frame.";
    }

    /// `struct xen_hvm_altp2m_suppress_ve_multi`.
    pub struct Altp2mSuppressVeMulti = 32 {
        0  view: u16 = "View.";
        2  suppress_ve: u8 = "0 or 1.";
        3  pad1: u8;
        4  first_error: i32 = "OUT: first error.";
        8  first_gfn: u64 = "First frame; advances.";
        16 last_gfn: u64 = "Last frame, included.";
        24 first_error_gfn: u64 = "OUT: its frame.";
    }

    /// `struct xen_hvm_altp2m_get_vcpu_p2m_idx`.
    pub struct Altp2mGetVcpuP2mIdx = 8 {
        0 vcpu_id: u32 = "IN.";
        4 altp2m_idx: u16 = "OUT.";
        6 pad: [u8; 2];
    }

    /// `struct xen_hvm_altp2m_set_visibility`.
    pub struct Altp2mSetVisibility = 4 {
        0 altp2m_idx: u16 = "View.";
        2 visible: u8 = "0 or 1.";
        3 pad: u8;
    }
}

impl Altp2mRequest {
    /// Bytes of the union.
    pub const UNION_SIZE: usize = 64;

    /// A request whose parameters are all zero.
    #[must_use]
    pub fn new(operation: Altp2mOp, domain: u16) -> Self {
        Self { version: ALTP2M_INTERFACE_VERSION, cmd: operation.number(), domain, ..Self::default() }
    }
}

command_union! { Altp2mRequest, cmd: Altp2mOp;
    Altp2mDomainState => [GetDomainState, SetDomainState],
    Altp2mVcpuEnableNotify => [VcpuEnableNotify],
    Altp2mVcpuDisableNotify => [VcpuDisableNotify],
    Altp2mView => [CreateP2m, DestroyP2m, SwitchP2m],
    Altp2mMemAccess => [SetMemAccess, GetMemAccess],
    Altp2mSetMemAccessMulti => [SetMemAccessMulti],
    Altp2mChangeGfn => [ChangeGfn],
    Altp2mSuppressVe => [SetSuppressVe, GetSuppressVe],
    Altp2mSuppressVeMulti => [SetSuppressVeMulti],
    Altp2mGetVcpuP2mIdx => [GetP2mIdx],
    Altp2mSetVisibility => [SetVisibility],
}
