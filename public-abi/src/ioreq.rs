//! Pages through which the hypervisor asks a device model to emulate an access (public/hvm/ioreq.h).
//!
//! The synchronous page is an array of [`Ioreq`], one per vCPU; the buffered page is a ring of [`BufIoreq`]. Both are
//! shared with an untrusted reader: access them field by field, atomically. Ports of the ACPI registers are here too.

operations! {
    /// State in [`Ioreq::state_and_flags`], bits 0-3.
    pub enum IoreqState("STATE_") {
        /// Not in use.
        None = 0 "IOREQ_NONE";
        /// The hypervisor asks.
        Ready = 1 "IOREQ_READY";
        /// The device model works on it.
        InProcess = 2 "IOREQ_INPROCESS";
        /// The device model has answered.
        ResponseReady = 3 "IORESP_READY";
    }

    /// [`Ioreq::kind`].
    pub enum IoreqType("IOREQ_TYPE_") {
        /// Port access.
        Pio = 0 "PIO";
        /// Memory access.
        Copy = 1 "COPY";
        /// PCI configuration; the upper half of `addr` has the device.
        PciConfig = 2 "PCI_CONFIG";
        /// The guest set its clock.
        TimeOffset = 7 "TIMEOFFSET";
        /// Drop all cached mappings of the guest.
        Invalidate = 8 "INVALIDATE";
    }
}

constants! { u8 {
    IOREQ_STATE_MASK = 0xf, "[`Ioreq::state_and_flags`]: the [`IoreqState`].";
    IOREQ_DATA_IS_PTR = 1 << 4, "[`Ioreq::state_and_flags`]: `data` is a guest physical address.";
    IOREQ_DIR_READ = 1 << 5, "[`Ioreq::state_and_flags`]: read rather than write.";
    IOREQ_DF = 1 << 6, "[`Ioreq::state_and_flags`]: addresses decrease.";
}}

/// Entries of the buffered ring.
pub const IOREQ_BUFFER_SLOT_NUM: usize = 511;

constants! { u32 {
    BUF_IOREQ_TYPE_MASK = 0xff, "[`BufIoreq::header`]: an [`IoreqType`].";
    BUF_IOREQ_DIR_READ = 1 << 9, "[`BufIoreq::header`]: read rather than write.";
    BUF_IOREQ_SIZE_SHIFT = 10, "[`BufIoreq::header`]: position of the size: 0 to 3 for 1, 2, 4, 8 bytes.";
    BUF_IOREQ_SIZE_MASK = 3 << 10, "[`BufIoreq::header`]: the size; 8 bytes take two slots.";
    BUF_IOREQ_ADDR_SHIFT = 12, "[`BufIoreq::header`]: position of the 20-bit address.";
}}

abi! {
    /// `struct ioreq`.
    pub struct Ioreq = 32 {
        0  addr: u64 = "Address or port.";
        8  data: u64 = "Value, or where it is.";
        16 count: u32 = "Repetitions.";
        20 size: u32 = "Bytes of one.";
        24 vp_eport: u32 = "Port to notify the hypervisor through.";
        28 pad0: u16;
        30 state_and_flags: u8 = "State in bits 0-3, then `IOREQ_DATA_IS_PTR`, `IOREQ_DIR_READ`, `IOREQ_DF`.";
        31 kind: u8 = "An [`IoreqType`] (the member `type`).";
    }

    /// `struct buf_ioreq`.
    pub struct BufIoreq = 8 {
        0 header: u32 = "`BUF_IOREQ_*`.";
        4 data: u32 = "Value.";
    }

    /// `struct buffered_iopage`.
    pub struct BufferedIopage = 4096 {
        0 read_pointer: u32 = "Counts up; slot = pointer modulo 511.";
        4 write_pointer: u32 = "Counts up.";
        8 buf_ioreq: [BufIoreq; 511] = "The ring.";
    }
}

constants! { u16 {
    ACPI_PM1A_EVT_BLK_V0 = 0x1f40, "Old location.";
    ACPI_PM1A_CNT_BLK_V0 = 0x1f44, "Old location.";
    ACPI_PM_TMR_BLK_V0 = 0x1f48, "Old location.";
    ACPI_GPE0_BLK_V0 = 0x1f68, "Old location; 8 bytes.";
    ACPI_PM1A_EVT_BLK_V1 = 0xb000, "Location in use (parameter ACPI_IOPORTS_LOCATION = 1).";
    ACPI_PM1A_CNT_BLK_V1 = 0xb004, "Location in use.";
    ACPI_PM_TMR_BLK_V1 = 0xb008, "Location in use.";
    ACPI_GPE0_BLK_V1 = 0xafe0, "Location in use; 4 bytes.";
}}
