//! Contents of HVM save records: interrupt controllers, timers and other devices (arch-x86/hvm/save.h).
//!
//! Re-exported by `arch_hvm_save.rs`. Packed bits of the C structures are plain bytes here; the position of each bit is
//! in the documentation.

/// Pins of the IO-APIC in a save record.
pub const VIOAPIC_NUM_PINS: usize = 48;
/// Bytes of CMOS in a save record.
pub const RTC_CMOS_SIZE: usize = 14;
/// Timers of the HPET.
pub const HPET_TIMER_NUM: usize = 3;
/// Variable MTRRs in a save record.
pub const MTRR_VCNT: usize = 8;

abi! {
    /// `struct hvm_hw_vpic`: one of the two 8259s.
    pub struct HvmHwVpic = 8 {
        0 irr: u8 = "Interrupt request register.";
        1 imr: u8 = "Interrupt mask register.";
        2 isr: u8 = "In-service register.";
        3 irq_base: u8 = "First vector.";
        4 state: u8 = "Bits 0-3 initialisation step, bits 4-7 number added to priorities.";
        5 modes: u8 = "Bit 0 reads ISR, 1 poll, 2 automatic EOI, 3 rotate on it, 4 special fully nested, 5 special mask, 6 master.";
        6 elcr: u8 = "Level-triggered inputs.";
        7 int_output: u8 = "Output line.";
    }

    /// `struct hvm_hw_vioapic`.
    pub struct HvmHwVioapic = 400 {
        0  base_address: u64 = "Guest physical address.";
        8  ioregsel: u32 = "Index register.";
        12 id: u32 = "Identifier.";
        16 redirtbl: [u64; 48] = "Redirection entries, as in hardware.";
    }

    /// `struct hvm_hw_lapic`.
    pub struct HvmHwLapic = 24 {
        0  apic_base_msr: u64 = "IA32_APIC_BASE.";
        8  disabled: u32 = "Bit 0 by software, bit 1 by hardware.";
        12 timer_divisor: u32 = "Divisor of the timer.";
        16 tdt_msr: u64 = "IA32_TSC_DEADLINE.";
    }

    /// `struct hvm_hw_lapic_regs`.
    pub struct HvmHwLapicRegs = 1024 {
        0 data: [u8; 1024] = "Register page; each register is 16 bytes apart.";
    }

    /// `struct hvm_hw_pci_irqs`.
    pub struct HvmHwPciIrqs = 16 {
        0 lines: [u64; 2] = "Bit per device (32) and pin (4).";
    }

    /// `struct hvm_hw_isa_irqs`.
    pub struct HvmHwIsaIrqs = 8 {
        0 lines: u64 = "Bit per interrupt (16).";
    }

    /// `struct hvm_hw_pci_link`.
    pub struct HvmHwPciLink = 8 {
        0 route: [u8; 4] = "ISA interrupt of each link, 0 for none.";
        4 pad0: [u8; 4];
    }

    /// `struct hvm_hw_pit_channel`.
    pub struct HvmHwPitChannel = 16 {
        0  count: u32 = "Reload value, 0 is 65536.";
        4  latched_count: u16 = "Latched counter.";
        6  count_latched: u8 = "Read mode while latched, else 0.";
        7  status_latched: u8 = "1 while the status is latched.";
        8  status: u8 = "Latched status.";
        9  read_state: u8 = "Next byte to read.";
        10 write_state: u8 = "Next byte to write.";
        11 write_latch: u8 = "First byte written.";
        12 rw_mode: u8 = "Read/write mode.";
        13 mode: u8 = "Counting mode.";
        14 bcd: u8 = "1 if it counts in BCD (not supported).";
        15 gate: u8 = "Gate input.";
    }

    /// `struct hvm_hw_pit`.
    pub struct HvmHwPit = 56 {
        0  channels: [HvmHwPitChannel; 3] = "The counters.";
        48 speaker_data_on: u32 = "Bit 1 of port 0x61.";
        52 pad0: u32;
    }

    /// `struct hvm_hw_rtc`.
    pub struct HvmHwRtc = 24 {
        0  cmos_data: [u8; 14] = "Clock registers.";
        14 cmos_index: u8 = "Index register.";
        15 pad0: u8;
        16 rtc_offset: i64 = "Seconds that the guest's clock is ahead.";
    }

    /// One timer of [`HvmHwHpet`].
    pub struct HvmHwHpetTimer = 32 {
        0  config: u64 = "Configuration and capabilities.";
        8  cmp: u64 = "Comparator.";
        16 fsb: u64 = "Interrupt route.";
        24 reserved: u64;
    }

    /// `struct hvm_hw_hpet`: the register page, then the periods.
    pub struct HvmHwHpet = 1048 {
        0    capability: u64 = "General capabilities.";
        8    reserved0: u64;
        16   config: u64 = "General configuration.";
        24   reserved1: u64;
        32   isr: u64 = "Interrupt status.";
        40   reserved2: [u64; 25];
        240  mc64: u64 = "Main counter.";
        248  reserved3: u64;
        256  timers: [HvmHwHpetTimer; 3] = "The timers.";
        352  reserved4: [u64; 84];
        1024 period: [u64; 3] = "Period of each timer, in ticks.";
    }

    /// `struct hvm_hw_pmtimer`.
    pub struct HvmHwPmtimer = 8 {
        0 tmr_val: u32 = "Counter.";
        4 pm1a_sts: u16 = "PM1a status.";
        6 pm1a_en: u16 = "PM1a enable.";
    }

    /// `struct hvm_hw_mtrr`.
    pub struct HvmHwMtrr = 240 {
        0   msr_pat_cr: u64 = "IA32_PAT.";
        8   msr_mtrr_var: [u64; 16] = "Base and mask of each variable range.";
        136 msr_mtrr_fixed: [u64; 11] = "Fixed ranges.";
        224 msr_mtrr_cap: u64 = "IA32_MTRRCAP.";
        232 msr_mtrr_def_type: u64 = "IA32_MTRR_DEF_TYPE.";
    }
}
