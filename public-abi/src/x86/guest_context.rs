//! Registers of a vCPU as tools see them (arch-x86/xen.h, arch-x86/xen-x86_64.h).
//!
//! Used by domctl `getvcpucontext`/`setvcpucontext` (PV, core dumps, debuggers). HVM state travels in
//! `arch_hvm_save.rs` instead.

abi! {
    /// `struct cpu_user_regs`.
    pub struct CpuUserRegs = 200 {
        0   r15: u64;
        8   r14: u64;
        16  r13: u64;
        24  r12: u64;
        32  rbp: u64;
        40  rbx: u64;
        48  r11: u64;
        56  r10: u64;
        64  r9: u64;
        72  r8: u64;
        80  rax: u64;
        88  rcx: u64;
        96  rdx: u64;
        104 rsi: u64;
        112 rdi: u64;
        120 error_code: u32;
        124 entry_vector: u32;
        128 rip: u64;
        136 cs: u16;
        138 pad0: [u8; 2];
        140 saved_upcall_mask: u8;
        141 pad1: [u8; 3];
        144 rflags: u64;
        152 rsp: u64;
        160 ss: u16;
        162 pad2: [u16; 3];
        168 es: u16;
        170 pad3: [u16; 3];
        176 ds: u16;
        178 pad4: [u16; 3];
        184 fs: u16;
        186 pad5: [u16; 3];
        192 gs: u16;
        194 pad6: [u16; 3];
    }

    /// `struct trap_info`.
    pub struct TrapInfo = 16 {
        0 vector: u8 = "Exception vector.";
        1 flags: u8 = "Bits 0-1 privilege level, bit 2 clears the interrupt flag.";
        2 cs: u16 = "Code selector.";
        4 pad: [u8; 4];
        8 address: u64 = "Handler.";
    }

    /// `struct vcpu_guest_context`.
    pub struct VcpuGuestContext = 5168 {
        0    fpu_ctxt: [u8; 512] = "FXSAVE image.";
        512  flags: u64 = "`VGCF_*`.";
        520  user_regs: CpuUserRegs = "General registers.";
        720  trap_ctxt: [TrapInfo; 256] = "PV: virtual IDT.";
        4816 ldt_base: u64 = "PV.";
        4824 ldt_ents: u64 = "PV.";
        4832 gdt_frames: [u64; 16] = "PV.";
        4960 gdt_ents: u64 = "PV.";
        4968 kernel_ss: u64 = "PV.";
        4976 kernel_sp: u64 = "PV.";
        4984 ctrlreg: [u64; 8] = "CR0 to CR7.";
        5048 debugreg: [u64; 8] = "DR0 to DR7.";
        5112 event_callback_eip: u64 = "PV.";
        5120 failsafe_callback_eip: u64 = "PV.";
        5128 syscall_callback_eip: u64 = "PV.";
        5136 vm_assist: u64 = "PV.";
        5144 fs_base: u64 = "Base.";
        5152 gs_base_kernel: u64 = "Base of the inactive GS.";
        5160 gs_base_user: u64 = "Base of the active GS.";
    }
}

constants! { u64 {
    VGCF_I387_VALID = 1 << 0, "[`VcpuGuestContext::flags`]: `fpu_ctxt` is valid.";
    VGCF_IN_KERNEL = 1 << 2, "[`VcpuGuestContext::flags`]: in kernel mode.";
    VGCF_FAILSAFE_DISABLES_EVENTS = 1 << 3, "[`VcpuGuestContext::flags`]: PV.";
    VGCF_SYSCALL_DISABLES_EVENTS = 1 << 4, "[`VcpuGuestContext::flags`]: PV.";
    VGCF_ONLINE = 1 << 5, "[`VcpuGuestContext::flags`]: the vCPU is up.";
}}
