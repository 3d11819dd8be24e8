//! Time: the system's, the wall clock's, and each vCPU's run state.
//!
//! System time is nanoseconds since the hypervisor's boot, computed from the time stamp counter, which is the same on all CPUs
//! (`machine::cpu::timestamp`). Guests compute it themselves from three constants in vcpu_time_info, so that page never
//! needs to be refreshed while a vCPU runs: only when it is registered, and when the guest's counter is shifted against the
//! machine's. What comes after: `timers`, the deadlines that guests set; `runstate`, the scheduler's account.

mod area;
mod runstate;
mod scale;
pub mod timers;

#[cfg(test)]
mod tests;

pub use area::Area;
use runstate::Account;
pub use runstate::runstate_changed;
pub use scale::Scale;

use crate::domain::Domain;
use crate::event::upcall;
use crate::host::Host;
use crate::vcpu::Vcpu;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use machine::frame::Pin;
use machine::lock::{Lock, rank};
use machine::memory;
use public_abi::vcpu::RunstateInfo;
use public_abi::x86::{PVCLOCK_TSC_STABLE, SharedInfo, VcpuInfo, VcpuTimeInfo};
use zerocopy::{FromZeros, IntoBytes};

const NANOSECONDS: u128 = 1_000_000_000;

/// The host's clocks.
#[derive(Debug)]
pub struct Clock {
    /// The time stamp at system time 0.
    boot: u64,
    scale: Scale,
    wall: Lock<WallClock, { rank::VCPU_AREAS }>,
    /// What guests are told of the counter.
    flags: u8,
}

/// The wall clock at system time 0 (UTC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WallClock {
    /// Seconds since 1970-01-01.
    pub seconds: u64,
    /// Nanoseconds of the second, below 10^9.
    pub nanoseconds: u32,
}

impl WallClock {
    /// The clock that shows `seconds` and `nanoseconds` at a system time.
    fn at(seconds: u64, nanoseconds: u64, system_time: u64) -> Self {
        let total = u128::from(seconds) * NANOSECONDS + u128::from(nanoseconds);
        let start = total.saturating_sub(u128::from(system_time));
        Self {
            seconds: u64::try_from(start / NANOSECONDS).unwrap_or(u64::MAX),
            nanoseconds: u32::try_from(start % NANOSECONDS).unwrap_or(0),
        }
    }
}

impl Clock {
    /// A clock that starts at time stamp `boot`, which counts `khz` thousand a second, while the wall clock shows
    /// `wall_seconds`.
    pub fn new(boot: u64, khz: u64, wall_seconds: u64) -> Self {
        let wall = WallClock { seconds: wall_seconds, nanoseconds: 0 };
        Self { boot, scale: Scale::for_khz(khz), wall: Lock::new(wall), flags: 0 }
    }

    /// A clock that starts now, by this machine's counter and battery-backed clock. Guests hear that the counter is the same on
    /// all CPUs and never changes its speed only if the processor says that it is invariant.
    pub fn start() -> Self {
        let now = machine::cpu::timestamp();
        let clock = Self::new(now, machine::cpu::timestamp_khz(), machine::cpu::wall_clock_seconds());
        Self { flags: if has_invariant_timestamp() { PVCLOCK_TSC_STABLE } else { 0 }, ..clock }
    }

    /// System time, in nanoseconds.
    #[inline]
    pub fn now(&self) -> u64 {
        self.at_timestamp(machine::cpu::timestamp())
    }

    /// System time at a time stamp, in nanoseconds; 0 for one before boot.
    #[inline]
    pub fn at_timestamp(&self, timestamp: u64) -> u64 {
        self.scale.nanoseconds(timestamp.saturating_sub(self.boot))
    }

    /// The first time stamp at which it is this system time or later.
    pub fn timestamp_at(&self, nanoseconds: u64) -> u64 {
        self.boot.saturating_add(self.scale.ticks(nanoseconds))
    }

    /// The numbers by which time stamps become nanoseconds.
    pub const fn scale(&self) -> Scale {
        self.scale
    }

    /// The wall clock at system time 0.
    pub fn wall(&self) -> WallClock {
        *self.wall.lock()
    }

    /// The clock of a vCPU whose counter is `offset` ahead of the machine's.
    fn time_info(&self, offset: u64) -> VcpuTimeInfo {
        VcpuTimeInfo {
            tsc_timestamp: self.boot.wrapping_add(offset),
            system_time: 0,
            tsc_to_system_mul: self.scale.mul,
            tsc_shift: self.scale.shift,
            flags: self.flags,
            ..VcpuTimeInfo::new_zeroed()
        }
    }
}

/// Whether the processor's time stamp counter keeps its speed whatever else changes (CPUID 80000007 EDX bit 8).
pub fn has_invariant_timestamp() -> bool {
    let [.., edx] = machine::platform::cpuid(0x8000_0007, 0);
    edx & 1 << 8 != 0
}

/// A vCPU's share of time.
#[derive(Debug)]
pub struct VcpuTime {
    /// Its run state.
    account: Lock<Account, { rank::VCPU_AREAS }>,
    /// The second copy of its clock, which the guest may show to its user mode.
    time_area: Lock<Option<Area>, { rank::VCPU_AREAS }>,
    /// How far the guest's time stamp counter is ahead of the machine's, modulo 2^64.
    tsc_offset: AtomicU64,
    /// Its periodic timer's period in nanoseconds, or 0.
    period: AtomicU64,
}

impl VcpuTime {
    /// Offline since boot, nothing registered.
    pub const fn new() -> Self {
        Self {
            account: Lock::new(Account::new()),
            time_area: Lock::new(None),
            tsc_offset: AtomicU64::new(0),
            period: AtomicU64::new(0),
        }
    }

    /// Forgets what the guest registered.
    pub fn reset(&self) {
        let account = self.account.lock().area.take();
        let time = self.time_area.lock().take();
        drop((account, time));
        self.period.store(0, Ordering::Release);
    }

    /// How far the guest's time stamp counter is ahead of the machine's, modulo 2^64.
    #[inline]
    pub fn tsc_offset(&self) -> u64 {
        self.tsc_offset.load(Ordering::Acquire)
    }
}

impl Default for VcpuTime {
    fn default() -> Self {
        Self::new()
    }
}

/// Begins the clocks of a domain whose vCPUs have just been made.
pub fn begin(host: &Host, domain: &Domain) {
    let now = host.clock.now();
    for vcpu in domain.vcpus() {
        vcpu.events.time.account.lock().begin(now);
        refresh_vcpu(host, domain, vcpu);
    }
    update_wall_clock(host, domain);
}

/// Shifts a guest's time stamp counter and tells its clock. The caller gives the processor the same offset.
pub fn set_tsc_offset(host: &Host, domain: &Domain, vcpu: &Vcpu, offset: u64) {
    vcpu.events.time.tsc_offset.store(offset, Ordering::Release);
    refresh_vcpu(host, domain, vcpu);
}

/// Writes a vCPU's clock to its vcpu_info and to the area that it registered.
pub fn refresh_vcpu(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    let info = host.clock.time_info(vcpu.events.time.tsc_offset());
    upcall::with_info(&domain.events, vcpu, |page, offset| {
        write_versioned(
            |at, bytes| memory::read(page, offset + TIME + at, bytes),
            |at, bytes| memory::write(page, offset + TIME + at, bytes),
            info,
        );
    });
    if let Some(area) = &*vcpu.events.time.time_area.lock() {
        publish_time(area, info);
    }
}

const TIME: usize = offset_of!(VcpuInfo, time);
const VERSION: usize = offset_of!(VcpuTimeInfo, version);

fn publish_time(area: &Area, info: VcpuTimeInfo) {
    let read = |at, bytes: &mut [u8]| {
        area.read(at, bytes);
        true
    };
    let write = |at, bytes: &[u8]| {
        area.write(at, bytes);
        true
    };
    write_versioned(read, write, info);
}

/// Writes a clock so that a reader who sees the same even version before and after has read it whole.
fn write_versioned(
    read: impl Fn(usize, &mut [u8]) -> bool,
    write: impl Fn(usize, &[u8]) -> bool,
    mut info: VcpuTimeInfo,
) {
    let mut version = 0u32;
    if !read(VERSION, version.as_mut_bytes()) {
        return;
    }
    info.version = version.wrapping_add(1) | 1;
    let done = info.version.wrapping_add(1);
    let mut is_written = write(VERSION, info.version.as_bytes());
    fence(Ordering::Release);
    is_written &= write(0, info.as_bytes());
    fence(Ordering::Release);
    is_written &= write(VERSION, done.as_bytes());
    debug_assert!(is_written, "vcpu_info never crosses a page");
}

/// Sets the host's wall clock (XENPF_settime64): it shows `seconds` and `nanoseconds` at system time `system_time`, in
/// nanoseconds. All domains are told. The caller holds no lock of rank DOMAIN or above.
pub fn set_wall_clock(host: &Host, seconds: u64, nanoseconds: u64, system_time: u64) {
    *host.clock.wall.lock() = WallClock::at(seconds, nanoseconds, system_time);
    let mut next = machine::DomId(0);
    while let Some(domain) = host.domains.next_from(next) {
        update_wall_clock(host, &domain);
        let Some(number) = domain.id.0.checked_add(1) else { break };
        next = machine::DomId(number);
    }
}

/// Writes the wall clock, shifted by the domain's offset, to its shared_info (also after domctl settimeoffset).
pub fn update_wall_clock(host: &Host, domain: &Domain) {
    let offset = domain.control.lock().time_offset_seconds;
    // Held while writing, so that of two settings the later one stays everywhere.
    let wall = host.clock.wall.lock();
    write_wall_clock(domain.events.shared_info(), wall.seconds.wrapping_add_signed(offset), wall.nanoseconds);
}

fn write_wall_clock(page: &Pin, seconds: u64, nanoseconds: u32) {
    const WORDS: [usize; 4] = [
        offset_of!(SharedInfo, wc_version),
        offset_of!(SharedInfo, wc_sec),
        offset_of!(SharedInfo, wc_sec_hi),
        offset_of!(SharedInfo, wc_nsec),
    ];
    let [Some(version), Some(low), Some(high), Some(nano)] = WORDS.map(|offset| memory::atomic::<u32>(page, offset))
    else {
        return;
    };
    let [a, b, c, d, e, f, g, h] = seconds.to_le_bytes();
    let odd = version.load(Ordering::SeqCst).wrapping_add(1) | 1;
    version.store(odd, Ordering::SeqCst);
    low.store(u32::from_le_bytes([a, b, c, d]), Ordering::SeqCst);
    high.store(u32::from_le_bytes([e, f, g, h]), Ordering::SeqCst);
    nano.store(nanoseconds, Ordering::SeqCst);
    version.store(odd.wrapping_add(1), Ordering::SeqCst);
}

/// A vCPU's run state with all time up to now (VCPUOP_get_runstate_info, and for the toolstack).
pub fn runstate(host: &Host, vcpu: &Vcpu) -> RunstateInfo {
    vcpu.events.time.account.lock().info_at(host.clock.now())
}

/// Keeps a copy of a vCPU's run state in the guest's memory from now on, or no longer.
pub fn register_runstate_area(domain: &Domain, vcpu: &Vcpu, area: Option<Area>) {
    let mut account = vcpu.events.time.account.lock();
    let before = core::mem::replace(&mut account.area, area);
    account.publish(runstate::wants_flag(domain));
    drop(account);
    drop(before);
}

/// Keeps a copy of a vCPU's clock in the guest's memory from now on, or no longer.
pub fn register_time_area(host: &Host, domain: &Domain, vcpu: &Vcpu, area: Option<Area>) {
    let before = core::mem::replace(&mut *vcpu.events.time.time_area.lock(), area);
    drop(before);
    refresh_vcpu(host, domain, vcpu);
}
