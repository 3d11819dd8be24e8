//! Xen's own CPUID leaves, 0x40000000 to 0x40000005 (public/arch-x86/cpuid.h).

use super::policy::{Answer, CpuPolicy};
use crate::domain::Domain;
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
                let (multiplier, shift) = to_nanoseconds(khz);
                [offset as u32, (offset >> 32) as u32, multiplier, shift as u32]
            }
            2 => [khz, 0, 0, 0],
            _ => [0; 4],
        }
    }
}

/// How ticks become nanoseconds: shift them (left if positive), then multiply by a 32-bit fraction.
/// (public/xen.h, `vcpu_time_info`.)
pub fn to_nanoseconds(khz: u32) -> (u32, i32) {
    // Ticks a second, moved into the range where 10^9 divided by it is a fraction of at least one half.
    const SECOND: u64 = 1_000_000_000;
    let mut rate = u64::from(khz.max(1)).saturating_mul(1000);
    let mut shift = 0i32;
    while rate > SECOND.saturating_mul(2) {
        rate >>= 1;
        shift = shift.saturating_sub(1);
    }
    while rate <= SECOND {
        rate <<= 1;
        shift = shift.saturating_add(1);
    }
    let multiplier = (SECOND << 32).checked_div(rate).unwrap_or(0);
    (u32::try_from(multiplier).unwrap_or(u32::MAX), shift)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_turns_ticks_into_nanoseconds() {
        for khz in [1_000u32, 100_000, 999_999, 1_000_000, 1_000_001, 2_000_000, 2_399_987, 4_200_000] {
            let (multiplier, shift) = to_nanoseconds(khz);
            let ticks = u64::from(khz) * 1000 * 100; // 100 seconds
            let shifted = if shift >= 0 { ticks << shift } else { ticks >> -shift };
            let nanoseconds = (u128::from(shifted) * u128::from(multiplier)) >> 32;
            let error = nanoseconds.abs_diff(100_000_000_000);
            assert!(error < 200, "{khz} kHz: off by {error} ns in 100 s");
            assert!(multiplier >= 1 << 31, "{khz}: full precision");
        }
    }
}
