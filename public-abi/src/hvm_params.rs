//! Parameters of an HVM or PVH domain, by number (public/hvm/params.h). `hvm_op.rs` reads and sets them.

operations! {
    /// A parameter.
    pub enum HvmParam("HVM_PARAM_") {
        /// How events reach the guest: [`CallbackVia`].
        CallbackIrq = 0 "CALLBACK_IRQ";
        /// Guest frame of the xenstore ring.
        StorePfn = 1 "STORE_PFN";
        /// Port of the xenstore ring.
        StoreEvtchn = 2 "STORE_EVTCHN";
        /// Obsolete.
        PaeEnabled = 4 "PAE_ENABLED";
        /// Guest frame of the default ioreq page.
        IoreqPfn = 5 "IOREQ_PFN";
        /// Guest frame of the buffered ioreq page.
        BufioreqPfn = 6 "BUFIOREQ_PFN";
        /// Viridian features, `HVMPV_*`.
        Viridian = 9 "VIRIDIAN";
        /// How missed timer ticks are delivered: [`TimerMode`].
        TimerMode = 10 "TIMER_MODE";
        /// 1: there is an HPET.
        HpetEnabled = 11 "HPET_ENABLED";
        /// Guest frame of an identity page table (Intel, unpaged mode).
        IdentPt = 12 "IDENT_PT";
        /// Obsolete.
        DmDomain = 13 "DM_DOMAIN";
        /// ACPI sleep state, 0 or 3.
        AcpiSState = 14 "ACPI_S_STATE";
        /// Guest physical address of a TSS (Intel, real mode).
        Vm86Tss = 15 "VM86_TSS";
        /// 1: align periodic timers.
        VptAlign = 16 "VPT_ALIGN";
        /// Guest frame of the console ring.
        ConsolePfn = 17 "CONSOLE_PFN";
        /// Port of the console ring.
        ConsoleEvtchn = 18 "CONSOLE_EVTCHN";
        /// 0 or 1: which ACPI ports.
        AcpiIoportsLocation = 19 "ACPI_IOPORTS_LOCATION";
        /// Obsolete.
        MemoryEventCr0 = 20 "MEMORY_EVENT_CR0";
        /// Obsolete.
        MemoryEventCr3 = 21 "MEMORY_EVENT_CR3";
        /// Obsolete.
        MemoryEventCr4 = 22 "MEMORY_EVENT_CR4";
        /// Obsolete.
        MemoryEventInt3 = 23 "MEMORY_EVENT_INT3";
        /// Obsolete; see `XEN_DOMCTL_CDF_nested_virt`.
        NestedHvm = 24 "NESTEDHVM";
        /// Obsolete.
        MemoryEventSingleStep = 25 "MEMORY_EVENT_SINGLE_STEP";
        /// Port of the buffered ioreq page.
        BufioreqEvtchn = 26 "BUFIOREQ_EVTCHN";
        /// Guest frame of the paging ring.
        PagingRingPfn = 27 "PAGING_RING_PFN";
        /// Guest frame of the monitor ring.
        MonitorRingPfn = 28 "MONITOR_RING_PFN";
        /// Guest frame of the sharing ring.
        SharingRingPfn = 29 "SHARING_RING_PFN";
        /// Obsolete.
        MemoryEventMsr = 30 "MEMORY_EVENT_MSR";
        /// Shutdown reason of a triple fault.
        TripleFaultReason = 31 "TRIPLE_FAULT_REASON";
        /// First guest frame for pages of ioreq servers.
        IoreqServerPfn = 32 "IOREQ_SERVER_PFN";
        /// How many of them.
        NrIoreqServerPages = 33 "NR_IOREQ_SERVER_PAGES";
        /// Guest physical address of the generation identifier.
        VmGenerationIdAddr = 34 "VM_GENERATION_ID_ADDR";
        /// Alternative views: 0 off, 1 mixed, 2 external, 3 limited.
        Altp2m = 35 "ALTP2M";
        /// Width of the x87 instruction pointer in bytes: 0, 4 or 8.
        X87FipWidth = 36 "X87_FIP_WIDTH";
        /// As 15, with the size in the upper half.
        Vm86TssSized = 37 "VM86_TSS_SIZED";
        /// Machine-check capabilities.
        McaCap = 38 "MCA_CAP";
    }

    /// [`HvmParam::TimerMode`].
    pub enum TimerMode("HVMPTM_") {
        /// Guest time stands still while the vCPU does not run.
        DelayForMissedTicks = 0 "delay_for_missed_ticks";
        /// Missed ticks are delivered at once.
        NoDelayForMissedTicks = 1 "no_delay_for_missed_ticks";
        /// Missed ticks are dropped.
        NoMissedTicksPending = 2 "no_missed_ticks_pending";
        /// One tick stands for all missed ones.
        OneMissedTickPending = 3 "one_missed_tick_pending";
    }
}

/// One more than the largest parameter.
pub const HVM_NR_PARAMS: u32 = 39;

bitflags::bitflags! {
    /// `HVMPV_*`: [`HvmParam::Viridian`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ViridianFeatures: u64 {
        /// The basic set and the frequency MSRs.
        const BASE_FREQ = 1 << 0;
        /// Without the frequency MSRs.
        const NO_FREQ = 1 << 1;
        /// Reference counter.
        const TIME_REF_COUNT = 1 << 2;
        /// Reference TSC page.
        const REFERENCE_TSC = 1 << 3;
        /// Remote TLB flush hypercalls.
        const HCALL_REMOTE_TLB_FLUSH = 1 << 4;
        /// APIC assist page.
        const APIC_ASSIST = 1 << 5;
        /// Crash MSRs.
        const CRASH_CTL = 1 << 6;
        /// Synthetic interrupt controller.
        const SYNIC = 1 << 7;
        /// Synthetic timers.
        const STIMER = 1 << 8;
        /// IPI hypercall.
        const HCALL_IPI = 1 << 9;
        /// Extended processor masks.
        const EX_PROCESSOR_MASKS = 1 << 10;
        /// No limit on virtual processors.
        const NO_VP_LIMIT = 1 << 11;
        /// CPU hotplug.
        const CPU_HOTPLUG = 1 << 12;
    }
}

/// How events reach the guest: the meaning of [`HvmParam::CallbackIrq`]. The type is in bits 56-63 of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackVia {
    /// Type 0, value 0: not at all.
    None,
    /// Type 0: a global system interrupt, level-triggered.
    Gsi(u32),
    /// Type 1: the interrupt line of a PCI device.
    PciIntx {
        /// Segment, bits 32-47.
        domain: u16,
        /// Bus, bits 16-23.
        bus: u8,
        /// Device, bits 11-15.
        device: u8,
        /// Pin, bits 0-1; 0 is INTA.
        intx: u8,
    },
    /// Type 2: an interrupt vector, on every vCPU.
    Vector(u8),
}

impl CallbackVia {
    /// Decodes the parameter's value; `None` for a type or vector that this ABI does not define.
    #[must_use]
    pub const fn from_value(value: u64) -> Option<Self> {
        let [b0, b1, b2, b3, b4, b5, _, kind] = value.to_le_bytes();
        match kind {
            0 => match u32::from_le_bytes([b0, b1, b2, b3]) {
                0 => Some(Self::None),
                gsi => Some(Self::Gsi(gsi)),
            },
            1 => Some(Self::PciIntx {
                domain: u16::from_le_bytes([b4, b5]),
                bus: b2,
                device: (b1 >> 3) & 0x1f,
                intx: b0 & 3,
            }),
            2 => Some(Self::Vector(b0)),
            _ => None,
        }
    }

    /// The parameter's value.
    #[must_use]
    pub const fn to_value(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Gsi(gsi) => {
                let [a, b, c, d] = gsi.to_le_bytes();
                u64::from_le_bytes([a, b, c, d, 0, 0, 0, 0])
            }
            Self::PciIntx { domain, bus, device, intx } => {
                let [low, high] = domain.to_le_bytes();
                u64::from_le_bytes([intx & 3, (device & 0x1f) << 3, bus, 0, low, high, 0, 1])
            }
            Self::Vector(vector) => u64::from_le_bytes([vector, 0, 0, 0, 0, 0, 0, 2]),
        }
    }
}
