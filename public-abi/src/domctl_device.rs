//! Parameters of domctl about hardware: permissions, mappings, device assignment.
//!
//! `domctl.rs` ties them to commands. Machine frame numbers are frames of 4 KiB.

use crate::handle::GuestPtr;

operations! {
    /// [`AssignDevice::dev`].
    pub enum DeviceKind("XEN_DOMCTL_DEV_") {
        /// [`AssignPci`].
        Pci = 0 "PCI";
        /// [`AssignDt`].
        Dt = 1 "DT";
    }

    /// [`BindPtIrq::irq_type`].
    pub enum PtIrqType("PT_IRQ_TYPE_") {
        /// [`BindPci`].
        Pci = 0 "PCI";
        /// [`BindIsa`].
        Isa = 1 "ISA";
        /// [`BindMsi`].
        Msi = 2 "MSI";
        /// [`BindPci`], host MSI shown as INTx.
        MsiTranslate = 3 "MSI_TRANSLATE";
        /// [`BindSpi`].
        Spi = 4 "SPI";
    }
}

constants! { u32 {
    DEV_RDM_RELAXED = 1, "[`AssignDevice::flags`] of assign: warn only if reserved memory cannot be mapped.";
    VMSI_DEST_ID_MASK = 0x0000_00ff, "[`BindMsi::gflags`]: destination.";
    VMSI_RH_MASK = 0x0000_0100, "[`BindMsi::gflags`]: redirection hint.";
    VMSI_DM_MASK = 0x0000_0200, "[`BindMsi::gflags`]: logical destination.";
    VMSI_DELIV_MASK = 0x0000_7000, "[`BindMsi::gflags`]: delivery mode.";
    VMSI_TRIG_MASK = 0x0000_8000, "[`BindMsi::gflags`]: level.";
    VMSI_UNMASKED = 0x0001_0000, "[`BindMsi::gflags`]: not masked.";
    DPCI_ADD_MAPPING = 1, "`add_mapping`: map.";
    DPCI_REMOVE_MAPPING = 0, "`add_mapping`: unmap.";
}}

abi! {
    /// `struct xen_domctl_irq_permission`.
    pub struct IrqPermission = 8 {
        0 pirq: u32 = "Physical interrupt of the caller.";
        4 allow_access: u8 = "0 or 1.";
        5 pad: [u8; 3];
    }

    /// `struct xen_domctl_iomem_permission`.
    pub struct IomemPermission = 24 {
        0  first_mfn: u64 = "First machine frame.";
        8  nr_mfns: u64 = "Number of frames.";
        16 allow_access: u8 = "0 or 1.";
        17 pad: [u8; 7];
    }

    /// `struct xen_domctl_ioport_permission`.
    pub struct IoportPermission = 12 {
        0 first_port: u32 = "First port.";
        4 nr_ports: u32 = "Number of ports.";
        8 allow_access: u8 = "0 or 1.";
        9 pad: [u8; 3];
    }

    /// `struct xen_domctl_assign_device`.
    pub struct AssignDevice = 24 {
        0 dev: u32 = "A [`DeviceKind`].";
        4 flags: u32 = "[`DEV_RDM_RELAXED`] or 0.";
        8 u: [u64; 2] = "Chosen by `dev`.";
    }

    /// `struct xen_domctl_assign_device.u.pci`.
    pub struct AssignPci = 4 {
        0 machine_sbdf: u32 = "Segment in bits 16-31, bus in 8-15, device in 3-7, function in 0-2.";
    }

    /// `struct xen_domctl_assign_device.u.dt`.
    pub struct AssignDt = 16 {
        0 size: u32 = "Bytes of the path.";
        4 pad: [u8; 4];
        8 path: GuestPtr<u8> = "Path in the device tree.";
    }

    /// `struct xen_domctl_get_device_group`.
    pub struct GetDeviceGroup = 24 {
        0  machine_sbdf: u32 = "IN: the device, as in [`AssignPci`].";
        4  max_sdevs: u32 = "IN: room.";
        8  num_sdevs: u32 = "OUT: number.";
        12 pad: [u8; 4];
        16 sdev_array: GuestPtr<u32> = "OUT: devices that must be assigned together.";
    }

    /// `struct xen_domctl_bind_pt_irq`.
    pub struct BindPtIrq = 24 {
        0 machine_irq: u32 = "Physical interrupt of the domain.";
        4 irq_type: u32 = "A [`PtIrqType`].";
        8 u: [u64; 2] = "Chosen by `irq_type`.";
    }

    /// `struct xen_domctl_bind_pt_irq.u.isa`.
    pub struct BindIsa = 1 {
        0 isa_irq: u8 = "ISA interrupt.";
    }

    /// `struct xen_domctl_bind_pt_irq.u.pci`.
    pub struct BindPci = 3 {
        0 bus: u8 = "Virtual bus.";
        1 device: u8 = "Virtual device.";
        2 intx: u8 = "Pin, 0 is INTA.";
    }

    /// `struct xen_domctl_bind_pt_irq.u.msi`.
    pub struct BindMsi = 16 {
        0 gvec: u8 = "Vector.";
        1 pad: [u8; 3];
        4 gflags: u32 = "`VMSI_*`.";
        8 gtable: u64 = "Guest physical address of the MSI-X table, 0 for MSI.";
    }

    /// `struct xen_domctl_bind_pt_irq.u.spi`.
    pub struct BindSpi = 2 {
        0 spi: u16 = "Shared peripheral interrupt (Arm).";
    }

    /// `struct xen_domctl_memory_mapping`.
    pub struct MemoryMapping = 32 {
        0  first_gfn: u64 = "First guest frame.";
        8  first_mfn: u64 = "First machine frame.";
        16 nr_mfns: u64 = "Number of frames; large requests are answered with -E2BIG and must be split.";
        24 add_mapping: u32 = "`DPCI_*`.";
        28 padding: u32 = "Must be 0.";
    }

    /// `struct xen_domctl_ioport_mapping`.
    pub struct IoportMapping = 16 {
        0  first_gport: u32 = "First guest port.";
        4  first_mport: u32 = "First machine port.";
        8  nr_ports: u32 = "Number of ports.";
        12 add_mapping: u32 = "`DPCI_*`.";
    }

    /// `struct xen_domctl_cacheflush`.
    pub struct CacheFlush = 16 {
        0 start_pfn: u64 = "First guest frame.";
        8 nr_pfns: u64 = "Number of frames.";
    }
}

plain_union! { AssignDevice.u: 16; AssignPci, AssignDt }
plain_union! { BindPtIrq.u: 16; BindIsa, BindPci, BindMsi, BindSpi }
