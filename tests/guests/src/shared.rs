//! The shared_info page: pending and mask bits, vcpu_info, clocks.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use public_abi::domid::DOMID_SELF;
use public_abi::memory::{AddToPhysmap, MapSpace, MemoryOp};
use public_abi::x86::{SharedInfo, VcpuInfo, VcpuTimeInfo};
use rt::memory;

use crate::call;

/// The mapped page.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// Its address.
    pub page: u64,
}

impl Shared {
    /// Maps the page in place of one of ours.
    ///
    /// # Panics
    /// When the hypervisor refuses: nothing else can be tested then.
    #[must_use]
    pub fn map() -> Self {
        let page = memory::take_pages(1);
        let result = map_space(MapSpace::SharedInfo, 0, page >> 12);
        assert!(result == 0, "shared_info cannot be mapped: {result}");
        Self { page }
    }

    /// Word `index` of the pending bits.
    #[must_use]
    pub fn pending_word(self, index: u32) -> &'static AtomicU64 {
        memory::atomic_64(self.page + core::mem::offset_of!(SharedInfo, evtchn_pending) as u64 + u64::from(index) * 8)
    }

    /// Word `index` of the mask bits.
    #[must_use]
    pub fn mask_word(self, index: u32) -> &'static AtomicU64 {
        memory::atomic_64(self.page + core::mem::offset_of!(SharedInfo, evtchn_mask) as u64 + u64::from(index) * 8)
    }

    /// Whether a port is pending.
    #[must_use]
    pub fn is_pending(self, port: u32) -> bool {
        self.pending_word(port / 64).load(Ordering::SeqCst) >> (port % 64) & 1 != 0
    }

    /// Clears a port's pending bit and tells whether it was set.
    #[must_use]
    pub fn take_pending(self, port: u32) -> bool {
        let bit = 1 << (port % 64);
        self.pending_word(port / 64).fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Sets a port's mask bit.
    pub fn mask(self, port: u32) {
        self.mask_word(port / 64).fetch_or(1 << (port % 64), Ordering::SeqCst);
    }

    /// Clears a port's mask bit, without asking for a missed upcall.
    pub fn unmask(self, port: u32) {
        self.mask_word(port / 64).fetch_and(!(1 << (port % 64)), Ordering::SeqCst);
    }

    /// Whether a port is masked.
    #[must_use]
    pub fn is_masked(self, port: u32) -> bool {
        self.mask_word(port / 64).load(Ordering::SeqCst) >> (port % 64) & 1 != 0
    }

    /// The vcpu_info inside of the page.
    #[must_use]
    pub fn vcpu(self, vcpu: u32) -> Vcpu {
        Vcpu { address: self.page + u64::from(vcpu) * size_of::<VcpuInfo>() as u64 }
    }

    /// Seconds and nanoseconds of the wall clock at system time 0.
    #[must_use]
    pub fn wall_clock(self) -> (u64, u32) {
        let field = |offset: usize| memory::atomic_32(self.page + offset as u64).load(Ordering::SeqCst);
        loop {
            let version = field(core::mem::offset_of!(SharedInfo, wc_version));
            let low = field(core::mem::offset_of!(SharedInfo, wc_sec));
            let high = field(core::mem::offset_of!(SharedInfo, wc_sec_hi));
            let nanoseconds = field(core::mem::offset_of!(SharedInfo, wc_nsec));
            if version & 1 == 0 && version == field(core::mem::offset_of!(SharedInfo, wc_version)) {
                return (u64::from(high) << 32 | u64::from(low), nanoseconds);
            }
            rt::pause();
        }
    }
}

/// A vcpu_info, wherever it is.
#[derive(Clone, Copy, Debug)]
pub struct Vcpu {
    /// Its address.
    pub address: u64,
}

impl Vcpu {
    /// Not 0: an event is pending.
    #[must_use]
    pub fn upcall_pending(self) -> &'static AtomicU8 {
        memory::atomic_8(self.address)
    }

    /// The mask, which HVM guests have no use for.
    #[must_use]
    pub fn upcall_mask(self) -> &'static AtomicU8 {
        memory::atomic_8(self.address + 1)
    }

    /// Which words of pending bits to look at.
    #[must_use]
    pub fn selector(self) -> &'static AtomicU64 {
        memory::atomic_64(self.address + core::mem::offset_of!(VcpuInfo, evtchn_pending_sel) as u64)
    }

    /// A consistent copy of the clock, and the version it had. `None` if it never stood still.
    #[must_use]
    pub fn time(self) -> Option<VcpuTimeInfo> {
        let base = self.address + core::mem::offset_of!(VcpuInfo, time) as u64;
        time_at(base)
    }

    /// System time now, in nanoseconds.
    #[must_use]
    pub fn now(self) -> u64 {
        self.time().map_or(0, |time| nanoseconds(&time, rt::timestamp()))
    }
}

/// A consistent copy of a clock structure.
#[must_use]
pub fn time_at(base: u64) -> Option<VcpuTimeInfo> {
    let version: &AtomicU32 = memory::atomic_32(base);
    for _ in 0..1_000_000 {
        let before = version.load(Ordering::SeqCst);
        let scale: u64 = memory::read(base + core::mem::offset_of!(VcpuTimeInfo, tsc_to_system_mul) as u64);
        let [a, b, c, d, shift, flags, ..] = scale.to_le_bytes();
        let copy = VcpuTimeInfo {
            version: before,
            tsc_timestamp: memory::read(base + core::mem::offset_of!(VcpuTimeInfo, tsc_timestamp) as u64),
            system_time: memory::read(base + core::mem::offset_of!(VcpuTimeInfo, system_time) as u64),
            tsc_to_system_mul: u32::from_le_bytes([a, b, c, d]),
            tsc_shift: shift.cast_signed(),
            flags,
            ..Default::default()
        };
        if before & 1 == 0 && before == version.load(Ordering::SeqCst) {
            return Some(copy);
        }
        rt::pause();
    }
    None
}

/// System time at TSC value `tsc`.
#[must_use]
pub fn nanoseconds(time: &VcpuTimeInfo, tsc: u64) -> u64 {
    let difference = u128::from(tsc.wrapping_sub(time.tsc_timestamp));
    let shifted =
        if time.tsc_shift >= 0 { difference << time.tsc_shift } else { difference >> time.tsc_shift.unsigned_abs() };
    time.system_time.wrapping_add(((shifted * u128::from(time.tsc_to_system_mul)) >> 32) as u64)
}

/// XENMEM_add_to_physmap for this domain; the hypercall's result.
pub fn map_space(space: MapSpace, index: u64, gfn: u64) -> i64 {
    let mut request = AddToPhysmap { domid: DOMID_SELF, size: 0, space: space.number(), idx: index, gpfn: gfn };
    call::memory(MemoryOp::AddToPhysmap, &mut request)
}
