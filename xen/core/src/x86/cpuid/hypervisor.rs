//! Xen's own CPUID leaves, 0x40000000 to 0x40000005 (public/arch-x86/cpuid.h).

use super::policy::{Answer, CpuPolicy};
use crate::domain::Domain;
use crate::time::Scale;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use public_abi::x86::cpuid::{self as abi, HvmFeatures};

/// The version that guests and tools see: 4.17.
const VERSION: u32 = 4 << 16 | 17;

/// What the time leaf says about a domain's time stamp counter. The domain's TSC is never emulated here.
#[derive(Debug)]
pub struct TimeLeaves {
    /// How the toolstack wanted it (`TSC_MODE_*`).
    pub mode: AtomicU32,
    /// Its rate in kHz.
    pub khz: AtomicU32,
    /// Counts restores.
    pub incarnation: AtomicU32,
    /// Nanoseconds that guest time is ahead of the counter's own.
    pub offset: AtomicU64,
    /// Whether the host's counter is steady and equal on all CPUs.
    pub is_reliable: bool,
    /// Whether the processor has RDTSCP.
    pub has_rdtscp: bool,
}

impl TimeLeaves {
    /// A counter that runs as the host's does.
    pub const fn new(khz: u32, is_reliable: bool, has_rdtscp: bool) -> Self {
        Self {
            mode: AtomicU32::new(0),
            khz: AtomicU32::new(khz),
            incarnation: AtomicU32::new(0),
            offset: AtomicU64::new(0),
            is_reliable,
            has_rdtscp,
        }
    }

    fn answer(&self, subleaf: u32) -> Answer {
        let khz = self.khz.load(Ordering::Relaxed);
        match subleaf {
            0 => {
                let reliable = if self.is_reliable { abi::TIME_HOST_TSC_RELIABLE } else { 0 };
                let rdtscp = if self.has_rdtscp { abi::TIME_RDTSCP } else { 0 };
                let incarnation = self.incarnation.load(Ordering::Relaxed);
                [reliable | rdtscp, self.mode.load(Ordering::Relaxed), khz, incarnation]
            }
            1 => {
                let offset = self.offset.load(Ordering::Relaxed);
                let scale = Scale::for_khz(u64::from(khz));
                let shift = i32::from(scale.shift).cast_unsigned();
                [(offset & 0xffff_ffff) as u32, (offset >> 32) as u32, scale.mul, shift]
            }
            2 => [khz, 0, 0, 0],
            _ => [0; 4],
        }
    }
}

/// Answers a leaf of the hypervisor's range.
#[cold]
pub(super) fn answer(domain: &Domain, policy: &CpuPolicy, vcpu: u32, leaf: u32, subleaf: u32) -> Answer {
    let number = leaf.wrapping_sub(abi::FIRST_LEAF);
    let limit = match policy.hypervisor_limit & 0xff {
        0 => abi::MAX_LEAF,
        limit => limit.clamp(2, abi::MAX_LEAF),
    };
    if number > limit {
        return [0; 4];
    }
    match number {
        abi::LEAF_SIGNATURE => [abi::FIRST_LEAF + limit, abi::SIGNATURE_EBX, abi::SIGNATURE_ECX, abi::SIGNATURE_EDX],
        abi::LEAF_VERSION => [VERSION, 0, 0, 0],
        abi::LEAF_HYPERCALL => [1, abi::MSR_HYPERCALL_PAGE, 0, 0],
        abi::LEAF_TIME => domain.x86.time.answer(subleaf),
        abi::LEAF_HVM if subleaf == 0 => {
            let features = HvmFeatures::IOMMU_MAPPINGS
                | HvmFeatures::VCPU_ID_PRESENT
                | HvmFeatures::DOMID_PRESENT
                | HvmFeatures::UPCALL_VECTOR;
            [features.bits(), vcpu, u32::from(domain.id.0), 0]
        }
        _ => [0; 4],
    }
}
