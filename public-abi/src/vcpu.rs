//! Per-vCPU requests of a guest (vcpu_op, hypercall 24, public/vcpu.h) and their structures.
//!
//! `VCPUOP_initialise` takes a [`VcpuHvmContext`] from HVM and PVH callers (public/hvm/hvm_vcpu.h).

operations! {
    /// What to do with a vCPU of the own domain.
    pub enum VcpuOp("VCPUOP_") {
        /// Set the initial registers of an offline vCPU: [`VcpuHvmContext`].
        Initialise = 0 "initialise";
        /// Start it.
        Up = 1 "up";
        /// Stop it.
        Down = 2 "down";
        /// The result is 1 if it runs.
        IsUp = 3 "is_up";
        /// Into a [`RunstateInfo`].
        GetRunstateInfo = 4 "get_runstate_info";
        /// Keep a copy of the run state at a guest virtual address: [`RegisterMemoryArea`].
        RegisterRunstateMemoryArea = 5 "register_runstate_memory_area";
        /// [`SetPeriodicTimer`].
        SetPeriodicTimer = 6 "set_periodic_timer";
        /// No argument.
        StopPeriodicTimer = 7 "stop_periodic_timer";
        /// [`SetSingleshotTimer`].
        SetSingleshotTimer = 8 "set_singleshot_timer";
        /// No argument.
        StopSingleshotTimer = 9 "stop_singleshot_timer";
        /// Move `vcpu_info` out of `shared_info`: [`RegisterVcpuInfo`].
        RegisterVcpuInfo = 10 "register_vcpu_info";
        /// Send it an NMI; no argument.
        SendNmi = 11 "send_nmi";
        /// Into a [`GetPhysid`]; hardware domain with pinned vCPUs.
        GetPhysid = 12 "get_physid";
        /// Keep a copy of the time at a guest virtual address: [`RegisterMemoryArea`].
        RegisterVcpuTimeMemoryArea = 13 "register_vcpu_time_memory_area";
    }

    /// What a vCPU is doing.
    pub enum Runstate("RUNSTATE_") {
        /// On a physical CPU.
        Running = 0 "running";
        /// Waiting for a physical CPU.
        Runnable = 1 "runnable";
        /// Waiting for an event.
        Blocked = 2 "blocked";
        /// Stopped by the guest or the toolstack.
        Offline = 3 "offline";
    }
}

/// Set in [`RunstateInfo::state_entry_time`] while the area is being written.
pub const RUNSTATE_UPDATE: u64 = 1 << 63;

/// In [`SetSingleshotTimer::flags`]: fail with -ETIME if the timeout has passed already.
pub const VCPU_SSHOTTMR_FUTURE: u32 = 1 << 0;

/// [`VcpuHvmContext::mode`]: 32-bit registers, [`VcpuHvmX86_32`].
pub const VCPU_HVM_MODE_32B: u32 = 0;
/// [`VcpuHvmContext::mode`]: 64-bit registers, [`VcpuHvmX86_64`].
pub const VCPU_HVM_MODE_64B: u32 = 1;

abi! {
    /// `struct vcpu_runstate_info`.
    pub struct RunstateInfo = 48 {
        0  state: u32 = "A [`Runstate`].";
        4  pad: [u8; 4];
        8  state_entry_time: u64 = "System time in nanoseconds at which the state was entered; see [`RUNSTATE_UPDATE`].";
        16 time: [u64; 4] = "Nanoseconds spent in each state, indexed by [`Runstate`].";
    }

    /// `struct vcpu_register_runstate_memory_area` and `struct vcpu_register_time_memory_area`.
    pub struct RegisterMemoryArea = 8 {
        0 addr: u64 = "Guest virtual address of the area, 0 to remove it.";
    }

    /// `struct vcpu_set_periodic_timer`.
    pub struct SetPeriodicTimer = 8 {
        0 period_ns: u64 = "Nanoseconds, at least 1 000 000.";
    }

    /// `struct vcpu_set_singleshot_timer`.
    pub struct SetSingleshotTimer = 16 {
        0  timeout_abs_ns: u64 = "Absolute system time in nanoseconds.";
        8  flags: u32 = "[`VCPU_SSHOTTMR_FUTURE`] or 0.";
        12 pad: [u8; 4];
    }

    /// `struct vcpu_register_vcpu_info`.
    pub struct RegisterVcpuInfo = 16 {
        0  mfn: u64 = "Guest frame number of the page.";
        8  offset: u32 = "Byte offset in the page; the structure must not cross its end.";
        12 rsvd: u32 = "Unused.";
    }

    /// `struct vcpu_get_physid`.
    pub struct GetPhysid = 8 {
        0 phys_id: u64 = "APIC identifier in the lower, ACPI identifier in the upper 32 bits.";
    }

    /// `struct vcpu_hvm_x86_32`: protected mode without paging or with 32-bit paging.
    pub struct VcpuHvmX86_32 = 120 {
        0   eax: u32;
        4   ecx: u32;
        8   edx: u32;
        12  ebx: u32;
        16  esp: u32;
        20  ebp: u32;
        24  esi: u32;
        28  edi: u32;
        32  eip: u32;
        36  eflags: u32;
        40  cr0: u32;
        44  cr3: u32;
        48  cr4: u32;
        52  pad1: u32;
        56  efer: u64;
        64  cs_base: u32;
        68  ds_base: u32;
        72  ss_base: u32;
        76  es_base: u32;
        80  tr_base: u32;
        84  cs_limit: u32;
        88  ds_limit: u32;
        92  ss_limit: u32;
        96  es_limit: u32;
        100 tr_limit: u32;
        104 cs_ar: u16 = "Attributes as in the SVM segment format: bits 0-7 are descriptor bits 40-47, 8-11 are 52-55.";
        106 ds_ar: u16;
        108 ss_ar: u16;
        110 es_ar: u16;
        112 tr_ar: u16;
        114 pad2: [u16; 3];
    }

    /// `struct vcpu_hvm_x86_64`: long mode with flat segments.
    pub struct VcpuHvmX86_64 = 112 {
        0   rax: u64;
        8   rcx: u64;
        16  rdx: u64;
        24  rbx: u64;
        32  rsp: u64;
        40  rbp: u64;
        48  rsi: u64;
        56  rdi: u64;
        64  rip: u64;
        72  rflags: u64;
        80  cr0: u64;
        88  cr3: u64;
        96  cr4: u64;
        104 efer: u64;
    }

    /// `struct vcpu_hvm_context`: initial registers of a vCPU.
    pub struct VcpuHvmContext = 128 {
        0 mode: u32 = "[`VCPU_HVM_MODE_32B`] or [`VCPU_HVM_MODE_64B`].";
        4 pad: u32;
        8 cpu_regs: [u64; 15] = "[`VcpuHvmX86_32`] or [`VcpuHvmX86_64`], by `mode`.";
    }
}

plain_union! { VcpuHvmContext.cpu_regs: 120; VcpuHvmX86_32, VcpuHvmX86_64 }
