//! Parameters of domctl for introspection, debugging and resource control.
//!
//! `domctl.rs` ties them to commands; the events that monitors receive are in `vm_event.rs`.

operations! {
    /// [`VmEventOp::op`].
    pub enum VmEventOperation("XEN_VM_EVENT_") {
        /// Set up the ring; OUT: its port.
        Enable = 0 "ENABLE";
        /// Remove it.
        Disable = 1 "DISABLE";
        /// Look at the responses.
        Resume = 2 "RESUME";
        /// OUT: the version of the events.
        GetVersion = 3 "GET_VERSION";
    }

    /// [`VmEventOp::mode`].
    pub enum VmEventMode("XEN_DOMCTL_VM_EVENT_OP_") {
        /// Paging.
        Paging = 1 "PAGING";
        /// Monitor.
        Monitor = 2 "MONITOR";
        /// Sharing.
        Sharing = 3 "SHARING";
    }

    /// [`MonitorOp::op`].
    pub enum MonitorOperation("XEN_DOMCTL_MONITOR_OP_") {
        /// Report an event from now on.
        Enable = 0 "ENABLE";
        /// Stop reporting it.
        Disable = 1 "DISABLE";
        /// OUT: events that can be reported, as a bitmap in `event`.
        GetCapabilities = 2 "GET_CAPABILITIES";
        /// Emulate each repetition of string instructions.
        EmulateEachRep = 3 "EMULATE_EACH_REP";
        /// Let responses write control registers.
        ControlRegisters = 4 "CONTROL_REGISTERS";
    }

    /// [`MonitorOp::event`].
    pub enum MonitorEvent("XEN_DOMCTL_MONITOR_EVENT_") {
        /// [`MonitorMovToCr`].
        WriteCtrlreg = 0 "WRITE_CTRLREG";
        /// [`MonitorMovToMsr`].
        MovToMsr = 1 "MOV_TO_MSR";
        /// No parameter.
        Singlestep = 2 "SINGLESTEP";
        /// No parameter.
        SoftwareBreakpoint = 3 "SOFTWARE_BREAKPOINT";
        /// [`MonitorGuestRequest`].
        GuestRequest = 4 "GUEST_REQUEST";
        /// [`MonitorSync`].
        DebugException = 5 "DEBUG_EXCEPTION";
        /// No parameter.
        Cpuid = 6 "CPUID";
        /// No parameter.
        PrivilegedCall = 7 "PRIVILEGED_CALL";
        /// No parameter.
        Interrupt = 8 "INTERRUPT";
        /// No parameter.
        DescAccess = 9 "DESC_ACCESS";
        /// No parameter.
        EmulUnimplemented = 10 "EMUL_UNIMPLEMENTED";
        /// No parameter.
        InguestPagefault = 11 "INGUEST_PAGEFAULT";
        /// [`MonitorSync`].
        Vmexit = 12 "VMEXIT";
    }

    /// [`VmtraceOp::cmd`].
    pub enum VmtraceOperation("XEN_DOMCTL_vmtrace_") {
        /// Start.
        Enable = 1 "enable";
        /// Stop.
        Disable = 2 "disable";
        /// Empty the buffer and start.
        ResetAndEnable = 3 "reset_and_enable";
        /// OUT: position in `value`.
        OutputPosition = 4 "output_position";
        /// Read option `key` into `value`.
        GetOption = 5 "get_option";
        /// Write `value` to option `key`.
        SetOption = 6 "set_option";
    }
}

abi! {
    /// `struct xen_domctl_debug_op`.
    pub struct DebugOp = 8 {
        0 op: u32 = "0 single step off, 1 on.";
        4 vcpu: u32 = "vCPU.";
    }

    /// `struct xen_domctl_gdbsx_memio`.
    pub struct GdbsxMemio = 40 {
        0  pgd3val: u64 = "Page-table override, 0 for none.";
        8  gva: u64 = "Guest virtual address.";
        16 uva: u64 = "Caller's buffer.";
        24 len: u32 = "Bytes.";
        28 gwr: u8 = "1 to write to the guest.";
        29 pad0: [u8; 3];
        32 remain: u32 = "OUT: bytes not copied.";
        36 pad1: [u8; 4];
    }

    /// `struct xen_domctl_gdbsx_pauseunp_vcpu`.
    pub struct GdbsxVcpu = 4 {
        0 vcpu: u32 = "vCPU.";
    }

    /// `struct xen_domctl_gdbsx_domstatus`.
    pub struct GdbsxDomstatus = 12 {
        0 paused: u8 = "OUT: 1 if paused.";
        1 pad: [u8; 3];
        4 vcpu_id: u32 = "OUT: vCPU with an event.";
        8 vcpu_ev: u32 = "OUT: the event.";
    }

    /// `struct xen_domctl_vm_event_op`.
    pub struct VmEventOp = 12 {
        0 op: u32 = "A [`VmEventOperation`].";
        4 mode: u32 = "A [`VmEventMode`].";
        8 value: u32 = "OUT: port for ENABLE, version for GET_VERSION (the member `u`).";
    }

    /// `struct xen_domctl_mem_sharing_op`.
    pub struct MemSharingControl = 2 {
        0 op: u8 = "0: control.";
        1 enable: u8 = "0 or 1 (in the member `u`).";
    }

    /// `struct xen_domctl_psr_cmt_op`.
    pub struct PsrCmtOp = 8 {
        0 cmd: u32 = "0 detach, 1 attach, 2 query the RMID.";
        4 data: u32 = "OUT: RMID.";
    }

    /// `struct xen_domctl_psr_alloc`.
    pub struct PsrAlloc = 16 {
        0 cmd: u32 = "0-1 L3 mask, 2-5 L3 code and data masks, 6-7 L2 mask, 8-9 throttle; see the header.";
        4 target: u32 = "Socket.";
        8 data: u64 = "IN or OUT: value.";
    }

    /// `struct xen_domctl_monitor_op`.
    pub struct MonitorOp = 24 {
        0 op: u32 = "A [`MonitorOperation`].";
        4 event: u32 = "A [`MonitorEvent`], or OUT capabilities.";
        8 u: [u64; 2] = "Chosen by `event`.";
    }

    /// `struct xen_domctl_monitor_op.u.mov_to_cr`.
    pub struct MonitorMovToCr = 16 {
        0 index: u8 = "Control register, `VM_EVENT_X86_*`.";
        1 sync: u8 = "1 to pause the vCPU.";
        2 onchangeonly: u8 = "1 to report changes only.";
        3 pad1: u8;
        4 pad2: u32;
        8 bitmask: u64 = "Bits not to report.";
    }

    /// `struct xen_domctl_monitor_op.u.mov_to_msr`.
    pub struct MonitorMovToMsr = 8 {
        0 msr: u32 = "MSR.";
        4 onchangeonly: u8 = "1 to report changes only.";
        5 pad: [u8; 3];
    }

    /// `struct xen_domctl_monitor_op.u.guest_request`.
    pub struct MonitorGuestRequest = 2 {
        0 sync: u8 = "1 to pause the vCPU.";
        1 allow_userspace: u8 = "1 to accept the call from user mode.";
    }

    /// `struct xen_domctl_monitor_op.u.debug_exception` and `struct xen_domctl_monitor_op.u.vmexit`.
    pub struct MonitorSync = 1 {
        0 sync: u8 = "1 to pause the vCPU.";
    }

    /// `struct xen_domctl_vuart_op`.
    pub struct VuartOp = 24 {
        0  cmd: u32 = "0: initialise.";
        4  kind: u32 = "0: PL011 (the member `type`).";
        8  gfn: u64 = "Frame of the ring.";
        16 console_domid: u16 = "Domain of the console daemon.";
        18 pad: [u8; 2];
        20 evtchn: u32 = "OUT: port.";
    }

    /// `struct xen_domctl_vmtrace_op`.
    pub struct VmtraceOp = 24 {
        0  cmd: u32 = "A [`VmtraceOperation`].";
        4  vcpu: u32 = "vCPU.";
        8  key: u64 = "Option.";
        16 value: u64 = "Value.";
    }
}

plain_union! { MonitorOp.u: 16; MonitorMovToCr, MonitorMovToMsr, MonitorGuestRequest, MonitorSync }
