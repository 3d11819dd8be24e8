//! Events that a monitor, pager or sharer receives through a ring (public/vm_event.h, version 7).
//!
//! Requests and responses have the same structure, [`VmEvent`]; the ring page begins with
//! [`crate::io::ring::RingHeader`]. domctl `vm_event_op` and `monitor_op` (`domctl_debug.rs`) switch events on.

/// [`VmEvent::version`].
pub const VM_EVENT_INTERFACE_VERSION: u32 = 7;

bitflags::bitflags! {
    /// `VM_EVENT_FLAG_*`: [`VmEvent::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct VmEventFlags: u32 {
        /// The vCPU is paused; in a response: resume it.
        const VCPU_PAUSED = 1 << 0;
        /// Caused by another domain.
        const FOREIGN = 1 << 1;
        /// Response: emulate the instruction.
        const EMULATE = 1 << 2;
        /// Response: emulate it without writing memory.
        const EMULATE_NOWRITE = 1 << 3;
        /// Response: switch single-stepping.
        const TOGGLE_SINGLESTEP = 1 << 4;
        /// Response: emulated reads get this data.
        const SET_EMUL_READ_DATA = 1 << 5;
        /// Response: the guest shall not do it.
        const DENY = 1 << 6;
        /// `altp2m_idx` is valid.
        const ALTERNATE_P2M = 1 << 7;
        /// Response: write the registers.
        const SET_REGISTERS = 1 << 8;
        /// Response: emulate these instruction bytes.
        const SET_EMUL_INSN_DATA = 1 << 9;
        /// Response: report the next interrupt.
        const GET_NEXT_INTERRUPT = 1 << 10;
        /// Response: step once in another view.
        const FAST_SINGLESTEP = 1 << 11;
        /// The guest runs a nested guest.
        const NESTED_P2M = 1 << 12;
        /// Response: empty the trace buffer.
        const RESET_VMTRACE = 1 << 13;
        /// Response: reset the fork's registers.
        const RESET_FORK_STATE = 1 << 14;
        /// Response: reset the fork's memory.
        const RESET_FORK_MEMORY = 1 << 15;
    }

    /// `MEM_ACCESS_*`: [`MemAccessEvent::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MemAccessFlags: u32 {
        /// Read.
        const R = 1 << 0;
        /// Write.
        const W = 1 << 1;
        /// Execute.
        const X = 1 << 2;
        /// `gla` is valid.
        const GLA_VALID = 1 << 3;
        /// Access to the address that was translated.
        const FAULT_WITH_GLA = 1 << 4;
        /// Access by the page-table walk.
        const FAULT_IN_GPT = 1 << 5;
    }
}

operations! {
    /// [`VmEvent::reason`].
    pub enum VmEventReason("VM_EVENT_REASON_") {
        /// Default.
        Unknown = 0 "UNKNOWN";
        /// [`MemAccessEvent`].
        MemAccess = 1 "MEM_ACCESS";
        /// [`MemSharingEvent`].
        MemSharing = 2 "MEM_SHARING";
        /// [`MemPagingEvent`].
        MemPaging = 3 "MEM_PAGING";
        /// [`WriteCtrlregEvent`].
        WriteCtrlreg = 4 "WRITE_CTRLREG";
        /// [`MovToMsrEvent`].
        MovToMsr = 5 "MOV_TO_MSR";
        /// [`DebugEvent`].
        SoftwareBreakpoint = 6 "SOFTWARE_BREAKPOINT";
        /// A `u64`: the frame.
        Singlestep = 7 "SINGLESTEP";
        /// No data.
        GuestRequest = 8 "GUEST_REQUEST";
        /// [`DebugEvent`].
        DebugException = 9 "DEBUG_EXCEPTION";
        /// [`CpuidEvent`].
        Cpuid = 10 "CPUID";
        /// No data.
        PrivilegedCall = 11 "PRIVILEGED_CALL";
        /// [`InterruptEvent`].
        Interrupt = 12 "INTERRUPT";
        /// [`DescAccessEvent`].
        DescriptorAccess = 13 "DESCRIPTOR_ACCESS";
        /// No data.
        EmulUnimplemented = 14 "EMUL_UNIMPLEMENTED";
        /// [`VmexitEvent`].
        Vmexit = 15 "VMEXIT";
    }
}

constants! { u32 {
    MEM_PAGING_DROP_PAGE = 1 << 0, "[`MemPagingEvent::flags`]: forget the page.";
    MEM_PAGING_EVICT_FAIL = 1 << 1, "[`MemPagingEvent::flags`]: the page could not be evicted.";
    VM_EVENT_X86_CR0 = 0, "[`WriteCtrlregEvent::index`].";
    VM_EVENT_X86_CR3 = 1, "[`WriteCtrlregEvent::index`].";
    VM_EVENT_X86_CR4 = 2, "[`WriteCtrlregEvent::index`].";
    VM_EVENT_X86_XCR0 = 3, "[`WriteCtrlregEvent::index`].";
}}

abi! {
    /// `struct vm_event_st`.
    pub struct VmEvent = 400 {
        0  version: u32 = "[`VM_EVENT_INTERFACE_VERSION`].";
        4  flags: u32 = "[`VmEventFlags`].";
        8  reason: u32 = "A [`VmEventReason`].";
        12 vcpu_id: u32 = "vCPU.";
        16 altp2m_idx: u16 = "View.";
        18 pad: [u16; 3];
        24 u: [u64; 4] = "Chosen by `reason`.";
        56 data: [u64; 43] = "[`RegsX86`], or data for emulation: see [`VmEvent::regs`].";
    }

    /// `struct vm_event_mem_access`.
    pub struct MemAccessEvent = 32 {
        0  gfn: u64 = "Guest frame.";
        8  offset: u64 = "Byte in the frame.";
        16 gla: u64 = "Linear address.";
        24 flags: u32 = "[`MemAccessFlags`].";
        28 pad: u32;
    }

    /// `struct vm_event_write_ctrlreg`.
    pub struct WriteCtrlregEvent = 24 {
        0  index: u32 = "`VM_EVENT_X86_*`.";
        4  pad: u32;
        8  new_value: u64 = "After.";
        16 old_value: u64 = "Before.";
    }

    /// `struct vm_event_debug`.
    pub struct DebugEvent = 24 {
        0  gfn: u64 = "Guest frame of the instruction.";
        8  pending_dbg: u64 = "DR6 bits.";
        16 insn_length: u32 = "Bytes.";
        20 kind: u8 = "Event type (the member `type`).";
        21 pad: [u8; 3];
    }

    /// `struct vm_event_mov_to_msr`.
    pub struct MovToMsrEvent = 24 {
        0  msr: u64 = "MSR.";
        8  new_value: u64 = "After.";
        16 old_value: u64 = "Before.";
    }

    /// `struct vm_event_desc_access`.
    pub struct DescAccessEvent = 24 {
        0  instr_info: u32 = "VMX (in the member `arch`).";
        4  pad1: u32;
        8  exit_qualification: u64 = "VMX.";
        16 descriptor: u8 = "1 IDTR, 2 GDTR, 3 LDTR, 4 TR.";
        17 is_write: u8 = "0 or 1.";
        18 pad: [u8; 6];
    }

    /// `struct vm_event_cpuid`.
    pub struct CpuidEvent = 16 {
        0  insn_length: u32 = "Bytes.";
        4  leaf: u32 = "EAX.";
        8  subleaf: u32 = "ECX.";
        12 pad: u32;
    }

    /// `struct vm_event_interrupt_x86`.
    pub struct InterruptEvent = 24 {
        0  vector: u32 = "Vector.";
        4  kind: u32 = "Event type (the member `type`).";
        8  error_code: u32 = "Error code.";
        12 pad: u32;
        16 cr2: u64 = "Address of a page fault.";
    }

    /// `struct vm_event_paging`.
    pub struct MemPagingEvent = 16 {
        0  gfn: u64 = "Guest frame.";
        8  p2mt: u32 = "Its type.";
        12 flags: u32 = "`MEM_PAGING_*`.";
    }

    /// `struct vm_event_sharing`.
    pub struct MemSharingEvent = 16 {
        0  gfn: u64 = "Guest frame.";
        8  p2mt: u32 = "Its type.";
        12 pad: u32;
    }

    /// `struct vm_event_vmexit`.
    pub struct VmexitEvent = 16 {
        0 reason: u64 = "VMX exit reason.";
        8 qualification: u64 = "VMX exit qualification.";
    }

    /// `struct vm_event_emul_read_data`.
    pub struct EmulReadData = 344 {
        0 size: u32 = "Valid bytes.";
        4 data: [u8; 340] = "Data.";
    }

    /// `struct vm_event_regs_x86`; a selector register is limit (20 bits) and attributes (12 bits).
    pub struct RegsX86 = 344 {
        0   rax: u64;
        8   rcx: u64;
        16  rdx: u64;
        24  rbx: u64;
        32  rsp: u64;
        40  rbp: u64;
        48  rsi: u64;
        56  rdi: u64;
        64  r8: u64;
        72  r9: u64;
        80  r10: u64;
        88  r11: u64;
        96  r12: u64;
        104 r13: u64;
        112 r14: u64;
        120 r15: u64;
        128 rflags: u64;
        136 dr6: u64;
        144 dr7: u64;
        152 rip: u64;
        160 cr0: u64;
        168 cr2: u64;
        176 cr3: u64;
        184 cr4: u64;
        192 sysenter_cs: u64;
        200 sysenter_esp: u64;
        208 sysenter_eip: u64;
        216 msr_efer: u64;
        224 msr_star: u64;
        232 msr_lstar: u64;
        240 gdtr_base: u64;
        248 npt_base: u64;
        256 vmtrace_pos: u64;
        264 cs_base: u32;
        268 ss_base: u32;
        272 ds_base: u32;
        276 es_base: u32;
        280 fs_base: u64;
        288 gs_base: u64;
        296 cs: u32;
        300 ss: u32;
        304 ds: u32;
        308 es: u32;
        312 fs: u32;
        316 gs: u32;
        320 shadow_gs: u64;
        328 gdtr_limit: u16;
        330 cs_sel: u16;
        332 ss_sel: u16;
        334 ds_sel: u16;
        336 es_sel: u16;
        338 fs_sel: u16;
        340 gs_sel: u16;
        342 pad: u16;
    }
}

plain_union! { VmEvent.u: 32;
    MemAccessEvent, WriteCtrlregEvent, DebugEvent, MovToMsrEvent, DescAccessEvent, CpuidEvent, InterruptEvent,
    MemPagingEvent, MemSharingEvent, VmexitEvent, u64, u16
}

impl VmEvent {
    /// The vCPU's registers, in a request.
    #[must_use]
    pub fn regs(&self) -> RegsX86 {
        crate::payload::read(zerocopy::IntoBytes::as_bytes(&self.data))
    }

    /// Puts the vCPU's registers into `data`.
    pub fn set_regs(&mut self, regs: &RegsX86) {
        crate::payload::write(zerocopy::IntoBytes::as_mut_bytes(&mut self.data), regs);
    }

    /// The data for emulated reads, in a response with `SET_EMUL_READ_DATA`.
    #[must_use]
    pub fn emul_read_data(&self) -> EmulReadData {
        crate::payload::read(zerocopy::IntoBytes::as_bytes(&self.data))
    }
}

const _: () = assert!(size_of::<RegsX86>() == 344 && size_of::<EmulReadData>() == 344);
