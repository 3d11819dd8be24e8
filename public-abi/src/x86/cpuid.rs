//! Hypervisor CPUID leaves and MSR (arch-x86/cpuid.h).
//!
//! Guests search 0x40000000, 0x40000100, … for the signature; leaf n is then the base plus n.

/// First place where a guest searches.
pub const FIRST_LEAF: u32 = 0x4000_0000;
/// Distance of the places.
pub const LEAF_STEP: u32 = 0x100;
/// Last leaf, relative to the base.
pub const MAX_LEAF: u32 = 5;

/// Leaf 0: EAX = last leaf, then the signature in EBX, ECX and EDX.
pub const LEAF_SIGNATURE: u32 = 0;
/// Leaf 1: EAX = version, major in the upper half.
pub const LEAF_VERSION: u32 = 1;
/// Leaf 2: EAX = number of hypercall pages, EBX = base of the MSRs, ECX and EDX = features.
pub const LEAF_HYPERCALL: u32 = 2;
/// Leaf 3: time, sub-leaves 0 to 2.
pub const LEAF_TIME: u32 = 3;
/// Leaf 4: what an HVM guest can expect; EAX = [`HvmFeatures`], EBX = vCPU, ECX = domain.
pub const LEAF_HVM: u32 = 4;
/// Leaf 5: PV; EBX = bits of machine address.
pub const LEAF_PV: u32 = 5;

/// EBX of leaf 0: "XenV".
pub const SIGNATURE_EBX: u32 = 0x566e_6558;
/// ECX of leaf 0: "MMXe".
pub const SIGNATURE_ECX: u32 = 0x6558_4d4d;
/// EDX of leaf 0: "nVMM".
pub const SIGNATURE_EDX: u32 = 0x4d4d_566e;
/// The signature as text.
pub const SIGNATURE: [u8; 12] = *b"XenVMMXenVMM";

/// ECX of leaf 2: PV may keep accessed and dirty bits.
pub const FEAT1_MMU_PT_UPDATE_PRESERVE_AD: u32 = 1 << 0;

/// Leaf 3.0 EAX: the TSC is emulated.
pub const TIME_EMULATED_TSC: u32 = 1 << 0;
/// Leaf 3.0 EAX: the host's TSC is reliable.
pub const TIME_HOST_TSC_RELIABLE: u32 = 1 << 1;
/// Leaf 3.0 EAX: RDTSCP is available.
pub const TIME_RDTSCP: u32 = 1 << 2;

/// EBX of leaf 5: bits of machine address.
pub const MACHINE_ADDRESS_WIDTH_MASK: u32 = 0xff;

/// Default base of the hypervisor's MSRs: writing a guest physical page address plus the page's index to it fills that
/// page with hypercall stubs.
pub const MSR_HYPERCALL_PAGE: u32 = 0x4000_0000;
/// The same when the guest sees Viridian leaves at 0x40000000.
pub const MSR_HYPERCALL_PAGE_VIRIDIAN: u32 = 0x4000_0200;

bitflags::bitflags! {
    /// EAX of leaf 4.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HvmFeatures: u32 {
        /// APIC registers are virtualised by hardware.
        const APIC_ACCESS_VIRT = 1 << 0;
        /// x2APIC MSRs are virtualised by hardware.
        const X2APIC_VIRT = 1 << 1;
        /// Foreign and granted pages are usable for DMA.
        const IOMMU_MAPPINGS = 1 << 2;
        /// EBX has the vCPU's number.
        const VCPU_ID_PRESENT = 1 << 3;
        /// ECX has the domain's identifier.
        const DOMID_PRESENT = 1 << 4;
        /// Interrupt messages carry 15 bits of destination: bits 55-49 of an IO-APIC entry, 11-5 of an MSI address.
        const EXT_DEST_ID = 1 << 5;
        /// Each vCPU can have its own upcall vector.
        const UPCALL_VECTOR = 1 << 6;
    }
}
