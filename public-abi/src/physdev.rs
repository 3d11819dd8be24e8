//! Physical devices: PCI reporting and interrupts (hypercall 33, public/physdev.h).
//!
//! A PVH hardware domain uses `pci_mmcfg_reserved`, `pci_device_add` and `pci_device_remove`; most others are PV's.

operations! {
    /// What to do.
    pub enum PhysdevOp("PHYSDEVOP_") {
        /// [`IrqStatusQuery`].
        IrqStatusQuery = 5 "irq_status_query";
        /// PV.
        SetIopl = 6 "set_iopl";
        /// PV.
        SetIobitmap = 7 "set_iobitmap";
        /// PV.
        ApicRead = 8 "apic_read";
        /// PV.
        ApicWrite = 9 "apic_write";
        /// PV.
        AllocIrqVector = 10 "alloc_irq_vector";
        /// PV.
        FreeIrqVector = 11 "free_irq_vector";
        /// [`Eoi`].
        Eoi = 12 "eoi";
        /// [`MapPirq`].
        MapPirq = 13 "map_pirq";
        /// [`UnmapPirq`].
        UnmapPirq = 14 "unmap_pirq";
        /// [`ManagePci`].
        ManagePciAdd = 15 "manage_pci_add";
        /// [`ManagePci`].
        ManagePciRemove = 16 "manage_pci_remove";
        /// [`PirqEoiGmfn`].
        PirqEoiGmfnV1 = 17 "pirq_eoi_gmfn_v1";
        /// [`ManagePci`].
        RestoreMsi = 19 "restore_msi";
        /// [`ManagePciExt`].
        ManagePciAddExt = 20 "manage_pci_add_ext";
        /// [`SetupGsi`].
        SetupGsi = 21 "setup_gsi";
        /// [`GetFreePirq`].
        GetFreePirq = 23 "get_free_pirq";
        /// [`PciMmcfgReserved`].
        PciMmcfgReserved = 24 "pci_mmcfg_reserved";
        /// [`PciDeviceAdd`].
        PciDeviceAdd = 25 "pci_device_add";
        /// [`PciDevice`].
        PciDeviceRemove = 26 "pci_device_remove";
        /// [`PciDevice`].
        RestoreMsiExt = 27 "restore_msi_ext";
        /// [`PirqEoiGmfn`].
        PirqEoiGmfnV2 = 28 "pirq_eoi_gmfn_v2";
        /// [`DbgpOp`].
        DbgpOp = 29 "dbgp_op";
        /// [`PciDevice`].
        PrepareMsix = 30 "prepare_msix";
        /// [`PciDevice`].
        ReleaseMsix = 31 "release_msix";
    }

    /// [`MapPirq::kind`].
    pub enum MapPirqType("MAP_PIRQ_TYPE_") {
        /// One MSI.
        Msi = 0 "MSI";
        /// A global system interrupt.
        Gsi = 1 "GSI";
        /// Not known.
        Unknown = 2 "UNKNOWN";
        /// One MSI of a device in a segment: `bus` has the segment in its upper half.
        MsiSeg = 3 "MSI_SEG";
        /// Several MSIs.
        MultiMsi = 4 "MULTI_MSI";
    }
}

constants! { u32 {
    IRQSTAT_NEEDS_EOI = 1 << 0, "[`IrqStatusQuery::flags`]: the guest must signal the end of interrupt.";
    IRQSTAT_SHARED = 1 << 1, "[`IrqStatusQuery::flags`]: shared with other domains.";
    PCI_MMCFG_RESERVED = 1, "[`PciMmcfgReserved::flags`]: the region is reserved in firmware's tables.";
    PCI_DEV_EXTFN = 1, "[`PciDeviceAdd::flags`]: an extended function.";
    PCI_DEV_VIRTFN = 2, "[`PciDeviceAdd::flags`]: a virtual function; `physfn_*` is valid.";
    PCI_DEV_PXM = 4, "[`PciDeviceAdd::flags`]: the proximity domain follows the structure (u32).";
}}

abi! {
    /// `struct physdev_eoi`.
    pub struct Eoi = 4 {
        0 irq: u32 = "Physical interrupt.";
    }

    /// `struct physdev_pirq_eoi_gmfn`.
    pub struct PirqEoiGmfn = 8 {
        0 gmfn: u64 = "Page for the bitmap of interrupts that need an end of interrupt.";
    }

    /// `struct physdev_irq_status_query`.
    pub struct IrqStatusQuery = 8 {
        0 irq: u32 = "IN.";
        4 flags: u32 = "OUT: `IRQSTAT_*`.";
    }

    /// `struct physdev_map_pirq`.
    pub struct MapPirq = 40 {
        0  domid: u16 = "Whose interrupt.";
        2  pad0: [u8; 2];
        4  kind: i32 = "A [`MapPirqType`] (the member `type`).";
        8  index: i32 = "Interrupt number.";
        12 pirq: i32 = "IN: wanted number, negative for any; OUT: the number.";
        16 bus: i32 = "PCI bus; segment in the upper half for `MSI_SEG` and `MULTI_MSI`.";
        20 devfn: i32 = "PCI device and function.";
        24 entry_nr: i32 = "MSI-X entry; IN/OUT number of MSIs for `MULTI_MSI`.";
        28 pad1: [u8; 4];
        32 table_base: u64 = "Machine address of the MSI-X table, 0 for MSI.";
    }

    /// `struct physdev_unmap_pirq`.
    pub struct UnmapPirq = 8 {
        0 domid: u16 = "Whose interrupt.";
        2 pad: [u8; 2];
        4 pirq: i32 = "Which.";
    }

    /// `struct physdev_manage_pci` and `struct physdev_restore_msi`.
    pub struct ManagePci = 2 {
        0 bus: u8 = "PCI bus of segment 0.";
        1 devfn: u8 = "PCI device and function.";
    }

    /// `struct physdev_manage_pci_ext`.
    pub struct ManagePciExt = 16 {
        0  bus: u8 = "PCI bus of segment 0.";
        1  devfn: u8 = "PCI device and function.";
        2  pad0: [u8; 2];
        4  is_extfn: u32 = "Not 0: an extended function.";
        8  is_virtfn: u32 = "Not 0: a virtual function.";
        12 physfn_bus: u8 = "Bus of its physical function.";
        13 physfn_devfn: u8 = "Device and function of its physical function.";
        14 pad1: [u8; 2];
    }

    /// `struct physdev_setup_gsi`.
    pub struct SetupGsi = 8 {
        0 gsi: i32 = "Global system interrupt.";
        4 triggering: u8 = "0 edge, 1 level.";
        5 polarity: u8 = "0 active high, 1 active low.";
        6 pad: [u8; 2];
    }

    /// `struct physdev_get_free_pirq`.
    pub struct GetFreePirq = 8 {
        0 kind: i32 = "IN: a [`MapPirqType`] (the member `type`).";
        4 pirq: u32 = "OUT.";
    }

    /// `struct physdev_pci_mmcfg_reserved`.
    pub struct PciMmcfgReserved = 16 {
        0  address: u64 = "Machine address of bus 0's configuration space.";
        8  segment: u16 = "PCI segment.";
        10 start_bus: u8 = "First bus.";
        11 end_bus: u8 = "Last bus, included.";
        12 flags: u32 = "[`PCI_MMCFG_RESERVED`] or 0.";
    }

    /// `struct physdev_pci_device_add`, up to its optional array.
    pub struct PciDeviceAdd = 12 {
        0  seg: u16 = "PCI segment.";
        2  bus: u8 = "PCI bus.";
        3  devfn: u8 = "PCI device and function.";
        4  flags: u32 = "`PCI_DEV_*`.";
        8  physfn_bus: u8 = "Bus of the physical function.";
        9  physfn_devfn: u8 = "Device and function of the physical function.";
        10 pad: [u8; 2];
    }

    /// `struct physdev_pci_device`.
    pub struct PciDevice = 4 {
        0 seg: u16 = "PCI segment.";
        2 bus: u8 = "PCI bus.";
        3 devfn: u8 = "Device in bits 3-7, function in bits 0-2.";
    }

    /// `struct physdev_dbgp_op`.
    pub struct DbgpOp = 6 {
        0 op: u8 = "1 before, 2 after a reset of the debug port's controller.";
        1 bus: u8 = "0 unknown, 1 PCI.";
        2 pci: PciDevice = "The controller (in the member `u`).";
    }
}
