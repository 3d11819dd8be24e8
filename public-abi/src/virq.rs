//! Virtual interrupts: what the hypervisor itself raises through event channels (public/xen.h).
//!
//! A guest binds one with `EventChannelOp::BindVirq`. "Global" ones must be bound on vCPU 0; the others exist once
//! per vCPU.

operations! {
    /// A virtual interrupt.
    pub enum Virq("VIRQ_") {
        /// A timer set by the vCPU has expired. Per vCPU.
        Timer = 0 "TIMER";
        /// Asks the guest to dump its state. Per vCPU.
        Debug = 1 "DEBUG";
        /// Input is waiting on the emergency console. Global, hardware domain.
        Console = 2 "CONSOLE";
        /// A domain died, shut down or changed otherwise. Global; xenstored listens.
        DomExc = 3 "DOM_EXC";
        /// Trace buffers are filling. Global.
        Tbuf = 4 "TBUF";
        /// A domain stopped for a debugger. Global.
        Debugger = 6 "DEBUGGER";
        /// Profiler sample. Per vCPU.
        Xenoprof = 7 "XENOPROF";
        /// New text in the hypervisor's console ring. Global; xenconsoled listens.
        ConRing = 8 "CON_RING";
        /// A physical CPU went on- or offline. Global.
        PcpuState = 9 "PCPU_STATE";
        /// Unused in 4.17.
        MemEvent = 10 "MEM_EVENT";
        /// Argo message. Global.
        Argo = 11 "ARGO";
        /// The hypervisor runs out of memory. Global.
        Enomem = 12 "ENOMEM";
        /// Virtual PMU overflow. Per vCPU.
        Xenpmu = 13 "XENPMU";
        /// Machine-check on x86 (`VIRQ_MCA`). Global.
        Arch0 = 16 "ARCH_0";
        /// Architecture's own.
        Arch1 = 17 "ARCH_1";
        /// Architecture's own.
        Arch2 = 18 "ARCH_2";
        /// Architecture's own.
        Arch3 = 19 "ARCH_3";
        /// Architecture's own.
        Arch4 = 20 "ARCH_4";
        /// Architecture's own.
        Arch5 = 21 "ARCH_5";
        /// Architecture's own.
        Arch6 = 22 "ARCH_6";
        /// Architecture's own.
        Arch7 = 23 "ARCH_7";
    }
}

/// One more than the largest virtual interrupt.
pub const NR_VIRQS: u32 = 24;

/// How often a virtual interrupt exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirqScope {
    /// Once per vCPU.
    Vcpu,
    /// Once per domain at most, and only on vCPU 0.
    Global,
}

impl Virq {
    /// How often it exists (common/event_channel.c of 4.17 decides it).
    #[must_use]
    pub const fn scope(self) -> VirqScope {
        match self {
            Self::Timer | Self::Debug | Self::Xenoprof | Self::Xenpmu => VirqScope::Vcpu,
            _ => VirqScope::Global,
        }
    }
}
