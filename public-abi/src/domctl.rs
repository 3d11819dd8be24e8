//! Control of domains by the toolstack (hypercall 36, public/domctl.h, interface version 0x15).
//!
//! A request is a [`Domctl`]: command, version, domain and 128 bytes of parameters. The parameter structures are in
//! `domctl_domain.rs` (life, information), `domctl_vcpu.rs` (vCPUs, CPU policy), `domctl_device.rs` (interrupts, I/O, assignment) and
//! `domctl_debug.rs` (introspection, resource control); the list at the end of this file ties each to its commands.
//! Read [`Domctl::command`] first, check [`DomctlOp::caller`], then `get` the parameters.

use crate::domctl_debug::{
    DebugOp, GdbsxDomstatus, GdbsxMemio, GdbsxVcpu, MemSharingControl, MonitorOp, PsrAlloc, PsrCmtOp, VmEventOp,
    VmtraceOp, VuartOp,
};
use crate::domctl_device::{
    AssignDevice, BindPtIrq, CacheFlush, GetDeviceGroup, IomemPermission, IoportMapping, IoportPermission,
    IrqPermission, MemoryMapping,
};
use crate::domctl_domain::{
    AddressSize, AuditP2m, CreateDomain, GetDomainInfo, GetPageFrameInfo3, HvmContext, HvmContextPartial,
    HypercallInit, MaxMem, MaxVcpus, NodeAffinity, PagingMempool, SchedulerOp, SetAccessRequired, SetBrokenPageP2m,
    SetDebugging, SetDomainHandle, SetTarget, SetTimeOffset, SetVirqHandler, ShadowOp, Subscribe, TscInfo, Vnuma,
};
use crate::domctl_vcpu::{
    CpuPolicy, ExtVcpuContext, GetVcpuInfo, SendTrigger, VcpuAffinity, VcpuContext, VcpuExtState, VcpuMsrs,
};
use crate::hypercall::Caller;

/// The version of the layouts in this crate; another one in a request is answered with -EACCES.
pub const DOMCTL_INTERFACE_VERSION: u32 = 0x15;

operations! {
    /// What to do with a domain. Commands without a named structure have no parameters.
    pub enum DomctlOp("XEN_DOMCTL_") {
        /// [`CreateDomain`]; OUT: the domain's identifier in the request.
        CreateDomain = 1 "createdomain";
        /// Destroy it; call again on -ERESTART.
        DestroyDomain = 2 "destroydomain";
        /// Pause it.
        PauseDomain = 3 "pausedomain";
        /// Undo one pause.
        UnpauseDomain = 4 "unpausedomain";
        /// [`GetDomainInfo`].
        GetDomainInfo = 5 "getdomaininfo";
        /// [`VcpuAffinity`].
        SetVcpuAffinity = 9 "setvcpuaffinity";
        /// [`ShadowOp`].
        ShadowOp = 10 "shadow_op";
        /// [`MaxMem`].
        MaxMem = 11 "max_mem";
        /// [`VcpuContext`].
        SetVcpuContext = 12 "setvcpucontext";
        /// [`VcpuContext`].
        GetVcpuContext = 13 "getvcpucontext";
        /// [`GetVcpuInfo`].
        GetVcpuInfo = 14 "getvcpuinfo";
        /// [`MaxVcpus`].
        MaxVcpus = 15 "max_vcpus";
        /// [`SchedulerOp`].
        SchedulerOp = 16 "scheduler_op";
        /// [`SetDomainHandle`].
        SetDomainHandle = 17 "setdomainhandle";
        /// [`SetDebugging`].
        SetDebugging = 18 "setdebugging";
        /// [`IrqPermission`].
        IrqPermission = 19 "irq_permission";
        /// [`IomemPermission`].
        IomemPermission = 20 "iomem_permission";
        /// [`IoportPermission`].
        IoportPermission = 21 "ioport_permission";
        /// [`HypercallInit`].
        HypercallInit = 22 "hypercall_init";
        /// [`SetTimeOffset`].
        SetTimeOffset = 24 "settimeoffset";
        /// [`VcpuAffinity`].
        GetVcpuAffinity = 25 "getvcpuaffinity";
        /// PowerPC.
        RealModeArea = 26 "real_mode_area";
        /// Continue a domain that had suspended.
        ResumeDomain = 27 "resumedomain";
        /// [`SendTrigger`].
        SendTrigger = 28 "sendtrigger";
        /// [`Subscribe`].
        Subscribe = 29 "subscribe";
        /// [`HvmContext`].
        GetHvmContext = 33 "gethvmcontext";
        /// [`HvmContext`].
        SetHvmContext = 34 "sethvmcontext";
        /// [`AddressSize`].
        SetAddressSize = 35 "set_address_size";
        /// [`AddressSize`].
        GetAddressSize = 36 "get_address_size";
        /// [`AssignDevice`].
        AssignDevice = 37 "assign_device";
        /// [`BindPtIrq`].
        BindPtIrq = 38 "bind_pt_irq";
        /// [`MemoryMapping`].
        MemoryMapping = 39 "memory_mapping";
        /// [`IoportMapping`].
        IoportMapping = 40 "ioport_mapping";
        /// [`ExtVcpuContext`].
        SetExtVcpuContext = 42 "set_ext_vcpucontext";
        /// [`ExtVcpuContext`].
        GetExtVcpuContext = 43 "get_ext_vcpucontext";
        /// Obsolete.
        SetOptFeature = 44 "set_opt_feature";
        /// [`AssignDevice`].
        TestAssignDevice = 45 "test_assign_device";
        /// [`SetTarget`].
        SetTarget = 46 "set_target";
        /// [`AssignDevice`].
        DeassignDevice = 47 "deassign_device";
        /// [`BindPtIrq`].
        UnbindPtIrq = 48 "unbind_pt_irq";
        /// [`GetDeviceGroup`].
        GetDeviceGroup = 50 "get_device_group";
        /// [`DebugOp`].
        DebugOp = 54 "debug_op";
        /// [`HvmContextPartial`].
        GetHvmContextPartial = 55 "gethvmcontext_partial";
        /// [`VmEventOp`].
        VmEventOp = 56 "vm_event_op";
        /// [`MemSharingControl`].
        MemSharingOp = 57 "mem_sharing_op";
        /// [`TscInfo`].
        GetTscInfo = 59 "gettscinfo";
        /// [`TscInfo`].
        SetTscInfo = 60 "settscinfo";
        /// [`GetPageFrameInfo3`].
        GetPageFrameInfo3 = 61 "getpageframeinfo3";
        /// [`VcpuExtState`].
        SetVcpuExtState = 62 "setvcpuextstate";
        /// [`VcpuExtState`].
        GetVcpuExtState = 63 "getvcpuextstate";
        /// [`SetAccessRequired`].
        SetAccessRequired = 64 "set_access_required";
        /// [`AuditP2m`].
        AuditP2m = 65 "audit_p2m";
        /// [`SetVirqHandler`].
        SetVirqHandler = 66 "set_virq_handler";
        /// [`SetBrokenPageP2m`].
        SetBrokenPageP2m = 67 "set_broken_page_p2m";
        /// [`NodeAffinity`].
        SetNodeAffinity = 68 "setnodeaffinity";
        /// [`NodeAffinity`].
        GetNodeAffinity = 69 "getnodeaffinity";
        /// [`CacheFlush`].
        CacheFlush = 71 "cacheflush";
        /// [`VcpuMsrs`].
        GetVcpuMsrs = 72 "get_vcpu_msrs";
        /// [`VcpuMsrs`].
        SetVcpuMsrs = 73 "set_vcpu_msrs";
        /// [`Vnuma`].
        SetVnumaInfo = 74 "setvnumainfo";
        /// [`PsrCmtOp`].
        PsrCmtOp = 75 "psr_cmt_op";
        /// [`MonitorOp`].
        MonitorOp = 77 "monitor_op";
        /// [`PsrAlloc`].
        PsrAlloc = 78 "psr_alloc";
        /// Reset all state but memory.
        SoftReset = 79 "soft_reset";
        /// [`VuartOp`].
        VuartOp = 81 "vuart_op";
        /// [`CpuPolicy`].
        GetCpuPolicy = 82 "get_cpu_policy";
        /// [`CpuPolicy`].
        SetCpuPolicy = 83 "set_cpu_policy";
        /// [`VmtraceOp`].
        VmtraceOp = 84 "vmtrace_op";
        /// [`PagingMempool`].
        GetPagingMempoolSize = 85 "get_paging_mempool_size";
        /// [`PagingMempool`].
        SetPagingMempoolSize = 86 "set_paging_mempool_size";
        /// [`GdbsxMemio`].
        GdbsxGuestMemio = 1000 "gdbsx_guestmemio";
        /// [`GdbsxVcpu`].
        GdbsxPauseVcpu = 1001 "gdbsx_pausevcpu";
        /// [`GdbsxVcpu`].
        GdbsxUnpauseVcpu = 1002 "gdbsx_unpausevcpu";
        /// [`GdbsxDomstatus`].
        GdbsxDomstatus = 1003 "gdbsx_domstatus";
    }
}

impl DomctlOp {
    /// Who may use the command (xsm/dummy.h of 4.17).
    #[must_use]
    pub const fn caller(self) -> Caller {
        match self {
            Self::GetDomainInfo => Caller::Xenstore,
            Self::BindPtIrq | Self::UnbindPtIrq | Self::MemoryMapping | Self::IoportMapping => Caller::DeviceModel,
            _ => Caller::Control,
        }
    }
}

abi! {
    /// `struct xen_domctl`.
    pub struct Domctl = 144 {
        0  cmd: u32 = "A [`DomctlOp`].";
        4  interface_version: u32 = "[`DOMCTL_INTERFACE_VERSION`].";
        8  domain: u16 = "The domain; OUT for createdomain and getdomaininfo.";
        10 pad: [u16; 3];
        16 u: [u64; 16] = "Parameters, chosen by `cmd`.";
    }
}

impl Domctl {
    /// Bytes of the union.
    pub const UNION_SIZE: usize = 128;

    /// A request without parameters.
    #[must_use]
    pub fn new(operation: DomctlOp, domain: u16) -> Self {
        Self { cmd: operation.number(), interface_version: DOMCTL_INTERFACE_VERSION, domain, ..Self::default() }
    }

    /// A request with parameters.
    ///
    /// # Errors
    /// When `payload` is not the parameter structure of `operation`.
    pub fn with<T: crate::payload::Payload<Self>>(
        operation: DomctlOp,
        domain: u16,
        payload: &T,
    ) -> Result<Self, crate::payload::WrongPayload> {
        let mut request = Self::new(operation, domain);
        request.set(payload)?;
        Ok(request)
    }
}

command_union! { Domctl, cmd: DomctlOp;
    CreateDomain => [CreateDomain],
    GetDomainInfo => [GetDomainInfo],
    VcpuAffinity => [SetVcpuAffinity, GetVcpuAffinity],
    ShadowOp => [ShadowOp],
    MaxMem => [MaxMem],
    VcpuContext => [SetVcpuContext, GetVcpuContext],
    GetVcpuInfo => [GetVcpuInfo],
    MaxVcpus => [MaxVcpus],
    SchedulerOp => [SchedulerOp],
    SetDomainHandle => [SetDomainHandle],
    SetDebugging => [SetDebugging],
    IrqPermission => [IrqPermission],
    IomemPermission => [IomemPermission],
    IoportPermission => [IoportPermission],
    HypercallInit => [HypercallInit],
    SetTimeOffset => [SetTimeOffset],
    SendTrigger => [SendTrigger],
    Subscribe => [Subscribe],
    HvmContext => [GetHvmContext, SetHvmContext],
    AddressSize => [SetAddressSize, GetAddressSize],
    AssignDevice => [AssignDevice, TestAssignDevice, DeassignDevice],
    BindPtIrq => [BindPtIrq, UnbindPtIrq],
    MemoryMapping => [MemoryMapping],
    IoportMapping => [IoportMapping],
    ExtVcpuContext => [SetExtVcpuContext, GetExtVcpuContext],
    SetTarget => [SetTarget],
    GetDeviceGroup => [GetDeviceGroup],
    DebugOp => [DebugOp],
    HvmContextPartial => [GetHvmContextPartial],
    VmEventOp => [VmEventOp],
    MemSharingControl => [MemSharingOp],
    TscInfo => [GetTscInfo, SetTscInfo],
    GetPageFrameInfo3 => [GetPageFrameInfo3],
    VcpuExtState => [SetVcpuExtState, GetVcpuExtState],
    SetAccessRequired => [SetAccessRequired],
    AuditP2m => [AuditP2m],
    SetVirqHandler => [SetVirqHandler],
    SetBrokenPageP2m => [SetBrokenPageP2m],
    NodeAffinity => [SetNodeAffinity, GetNodeAffinity],
    CacheFlush => [CacheFlush],
    VcpuMsrs => [GetVcpuMsrs, SetVcpuMsrs],
    Vnuma => [SetVnumaInfo],
    PsrCmtOp => [PsrCmtOp],
    MonitorOp => [MonitorOp],
    PsrAlloc => [PsrAlloc],
    VuartOp => [VuartOp],
    CpuPolicy => [GetCpuPolicy, SetCpuPolicy],
    VmtraceOp => [VmtraceOp],
    PagingMempool => [GetPagingMempoolSize, SetPagingMempoolSize],
    GdbsxMemio => [GdbsxGuestMemio],
    GdbsxVcpu => [GdbsxPauseVcpu, GdbsxUnpauseVcpu],
    GdbsxDomstatus => [GdbsxDomstatus],
    crate::arm::CreateDomain => [CreateDomain],
    crate::arm::GetDomainInfo => [GetDomainInfo],
}
