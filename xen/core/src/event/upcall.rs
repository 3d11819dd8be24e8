//! Telling a vCPU that it has events: its vcpu_info, its upcall, and waking it.
//!
//! What comes before is the `Effect` of the table. The flag in vcpu_info is set first, then the vCPU is told in the way that
//! the guest chose: a vector in its local APIC (HVMOP_set_evtchn_upcall_vector), or the domain's callback, which the run loop
//! evaluates before each entry with [`upcall_pending`]. HVM guests mask upcalls with their interrupt flag; the mask byte in
//! vcpu_info is for PV and has no meaning here, as in Xen.

use super::port::index;
use super::table::{Effect, Upcall};
use super::{DomainEvents, poll};
use crate::domain::Domain;
use crate::host::Host;
use crate::sched;
use crate::vcpu::{Vcpu, Wait};
use crate::x86::{interrupts, vlapic};
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use machine::frame::Pin;
use machine::lock::{Lock, rank};
use machine::memory;
use public_abi::Errno;
use public_abi::x86::{LEGACY_MAX_VCPUS, SharedInfo, VcpuInfo};
use zerocopy::{FromZeros, IntoBytes};

const PENDING: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
const MASK: usize = offset_of!(VcpuInfo, evtchn_upcall_mask);
const SELECTOR: usize = offset_of!(VcpuInfo, evtchn_pending_sel);
/// Vectors below are the processor's own (HVMOP_set_evtchn_upcall_vector refuses them).
const FIRST_VECTOR: u8 = 0x10;

/// Where a vCPU's vcpu_info is, and how it hears of events.
#[derive(Debug)]
pub(crate) struct VcpuUpcall {
    /// The page and place that the guest registered; until then it is in shared_info.
    registered: Lock<Option<(Pin, usize)>, { rank::VCPU_AREAS }>,
    /// Its own upcall vector, or 0.
    vector: AtomicU8,
}

impl VcpuUpcall {
    /// Nothing registered.
    pub const fn new() -> Self {
        Self { registered: Lock::new(None), vector: AtomicU8::new(0) }
    }

    /// Its own upcall vector, if it has one.
    #[inline]
    pub fn vector(&self) -> Option<u8> {
        Some(self.vector.load(Ordering::Acquire)).filter(|vector| *vector != 0)
    }

    /// Forgets vector and place: the vCPU is reset, or the domain dies.
    pub fn reset(&self) {
        self.vector.store(0, Ordering::Release);
        let place = self.registered.lock().take();
        drop(place);
    }
}

/// How vCPUs without an upcall vector of their own hear of events (HVM_PARAM_CALLBACK_IRQ, public/hvm/params.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Callback {
    /// They do not.
    None,
    /// A line of the I/O APIC, level triggered, for vCPU 0.
    Gsi(u8),
    /// An INTx line of a PCI device on bus 0, level triggered, for vCPU 0.
    PciIntx {
        /// Device number.
        device: u8,
        /// 0 for INTA.
        pin: u8,
    },
    /// This vector, on each vCPU.
    Vector(u8),
}

impl Callback {
    /// Decodes the parameter's value: the kind in the upper byte, its details below. What makes no sense is no callback.
    pub const fn decode(via: u64) -> Self {
        let [low, second, .., kind] = via.to_le_bytes();
        match kind {
            0 if low != 0 => Self::Gsi(low),
            1 => Self::PciIntx { device: second >> 3 & 31, pin: low & 3 },
            2 => Self::Vector(low),
            _ => Self::None,
        }
    }
}

/// Where the kind of a callback stands in the parameter, and the kind of a vector.
const KIND_SHIFT: u32 = 56;
const VECTOR_KIND: u64 = 2;

/// The domain's callback.
#[derive(Debug)]
pub(crate) struct CallbackPlace(AtomicU64);

impl CallbackPlace {
    /// None.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// What the guest chose.
    #[inline]
    pub fn get(&self) -> Callback {
        Callback::decode(self.0.load(Ordering::Acquire))
    }

    /// The vector that the guest chose, if it chose one.
    #[inline]
    fn vector(&self) -> Option<u8> {
        let via = self.0.load(Ordering::Acquire);
        (via >> KIND_SHIFT == VECTOR_KIND).then_some((via & 0xff) as u8)
    }
}

/// Runs `access` on the vCPU's vcpu_info. `None` if it has none: one beyond the 32 in shared_info that registered no place.
#[inline]
pub(crate) fn with_info<R>(events: &DomainEvents, vcpu: &Vcpu, access: impl FnOnce(&Pin, usize) -> R) -> Option<R> {
    let registered = vcpu.events.upcall.registered.lock();
    match &*registered {
        Some((page, offset)) => Some(access(page, *offset)),
        None => legacy_place(vcpu.index).map(|offset| access(events.shared_info(), offset)),
    }
}

/// The place of a vCPU's vcpu_info in shared_info.
fn legacy_place(vcpu: u32) -> Option<usize> {
    let vcpu = index(vcpu);
    (vcpu < LEGACY_MAX_VCPUS)
        .then(|| offset_of!(SharedInfo, vcpu_info).saturating_add(vcpu.saturating_mul(size_of::<VcpuInfo>())))
}

/// Whether a vCPU has a vcpu_info.
pub fn has_info(domain: &Domain, vcpu: &Vcpu) -> bool {
    with_info(&domain.events, vcpu, |_, _| ()).is_some()
}

/// Whether events are pending that the guest has not yet looked at. The run loop injects the domain's callback while this
/// holds (level triggered); with an upcall vector of the vCPU's own, the vector has been posted already.
#[inline]
pub fn upcall_pending(domain: &Domain, vcpu: &Vcpu) -> bool {
    let read = |page: &Pin, offset| {
        memory::atomic::<u8>(page, offset + PENDING).is_some_and(|byte| byte.load(Ordering::SeqCst) != 0)
    };
    with_info(&domain.events, vcpu, read).unwrap_or(false)
}

/// The vector to inject at this entry because of pending events, if the guest takes them by the domain's callback vector.
#[inline]
pub fn callback_vector(domain: &Domain, vcpu: &Vcpu) -> Option<u8> {
    domain.events.callback.vector().filter(|_| upcall_pending(domain, vcpu))
}

/// Whether the guest chose a callback for the domain at all.
#[inline]
pub fn has_callback(domain: &Domain) -> bool {
    domain.events.callback.0.load(Ordering::Acquire) != 0
}

/// The line that the guest chose instead of a vector, and whether it must be raised now: while vCPU 0 has pending events and
/// no upcall vector of its own. The run loop compares this with the line's state before each entry of vCPU 0.
pub fn callback_line(domain: &Domain) -> Option<(Callback, bool)> {
    let callback = domain.events.callback.get();
    let vcpu = domain.vcpu(0)?;
    let is_line =
        matches!(callback, Callback::Gsi(_) | Callback::PciIntx { .. }) && vcpu.events.upcall.vector().is_none();
    is_line.then(|| (callback, upcall_pending(domain, vcpu)))
}

/// Does what an event left to do. The caller holds no lock of rank VCPU_AREAS or above, and none of EVENT.
#[inline]
pub fn apply(host: &Host, domain: &Domain, effect: Effect) {
    if let Some(upcall) = effect.upcall {
        tell(host, domain, upcall);
    }
    if let Some(port) = effect.wake_pollers {
        poll::wake_pollers(host, domain, port);
    }
    if let Some(vcpu) = effect.answered.and_then(|vcpu| domain.vcpu(u32::from(vcpu))) {
        sched::wake(host, domain, vcpu, Wait::DEVICE);
    }
}

#[inline]
fn tell(host: &Host, domain: &Domain, upcall: Upcall) {
    let Some(vcpu) = domain.vcpu(u32::from(upcall.vcpu)) else { return };
    let set = |page: &Pin, offset: usize| {
        if let Some(word) = upcall.select {
            let bit = 1u64 << (word & 63);
            let selector = memory::atomic::<u64>(page, offset + SELECTOR)?;
            if selector.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
                return None;
            }
        }
        Some(memory::atomic::<u8>(page, offset + PENDING)?.fetch_or(1, Ordering::SeqCst) & 1 == 0)
    };
    if with_info(&domain.events, vcpu, set).flatten() == Some(true) {
        notify(host, domain, vcpu);
    }
}

/// Tells a vCPU whose pending flag is set, in the way that its guest chose. Without any way it is not told, and what it waits
/// for in HLT goes on waiting, as in Xen: who polls for the very port is woken all the same (`poll`).
fn notify(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    match (vcpu.events.upcall.vector(), domain.events.callback.get()) {
        // Wakes by itself, once: a second wake could come when the vCPU has handled the first and sleeps again.
        (Some(vector), _) => {
            poll::stop(domain, vcpu);
            vlapic::post_vector(host, domain, vcpu, vector);
        }
        (None, Callback::Vector(_)) => {
            poll::stop(domain, vcpu);
            sched::wake(host, domain, vcpu, Wait::BLOCKED);
            sched::kick(host, vcpu);
        }
        // Whoever the line leads to is woken by its local APIC.
        (None, Callback::Gsi(_) | Callback::PciIntx { .. }) => interrupts::drive_callback_pin(host, domain, vcpu),
        (None, Callback::None) => {}
    }
}

/// Tells a vCPU again if its pending flag is set: its local APIC was off when the vector was posted, and is on now.
pub fn repeat(host: &Host, domain: &Domain, vcpu: &Vcpu) {
    if upcall_pending(domain, vcpu) {
        notify(host, domain, vcpu);
    }
}

/// HVMOP_set_evtchn_upcall_vector.
///
/// # Errors
/// EINVAL for a vector below 16, ENOENT for a vCPU that does not exist.
pub fn set_vector(host: &Host, domain: &Domain, vcpu: u32, vector: u8) -> Result<(), Errno> {
    if vector < FIRST_VECTOR {
        return Err(Errno::EINVAL);
    }
    let vcpu = domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    vcpu.events.upcall.vector.store(vector, Ordering::Release);
    // What is pending already was told by other means, or not at all; one upcall too many does no harm.
    notify(host, domain, vcpu);
    Ok(())
}

/// Takes a new value of HVM_PARAM_CALLBACK_IRQ.
pub fn set_callback(host: &Host, domain: &Domain, via: u64) {
    domain.events.callback.0.store(via, Ordering::Release);
    for vcpu in domain.vcpus().iter().filter(|vcpu| upcall_pending(domain, vcpu)) {
        notify(host, domain, vcpu);
    }
}

/// Makes a vCPU's vcpu_info be at `offset` in `page` (VCPUOP_register_vcpu_info): takes the old one's content over and marks
/// all as pending, because an event may have come meanwhile. The caller has checked the offset.
///
/// # Errors
/// EINVAL if it has been moved before.
pub fn register_info(host: &Host, domain: &Domain, vcpu: &Vcpu, page: Pin, offset: usize) -> Result<(), Errno> {
    {
        let mut registered = vcpu.events.upcall.registered.lock();
        if registered.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut content = VcpuInfo::new_zeroed();
        let is_copied = legacy_place(vcpu.index)
            .is_some_and(|old| memory::read(domain.events.shared_info(), old, content.as_mut_bytes()));
        if !is_copied {
            content.evtchn_upcall_mask = 1;
        }
        if !memory::write(&page, offset, content.as_bytes()) {
            return Err(Errno::EINVAL);
        }
        if let Some(selector) = memory::atomic::<u64>(&page, offset + SELECTOR) {
            selector.store(u64::MAX, Ordering::SeqCst);
        }
        if let Some(pending) = memory::atomic::<u8>(&page, offset + PENDING) {
            pending.store(1, Ordering::SeqCst);
        }
        *registered = Some((page, offset));
    }
    notify(host, domain, vcpu);
    Ok(())
}

/// Clears the selector of the two-level ABI, when the guest returns to it.
pub(super) fn clear_selector(domain: &Domain, vcpu: &Vcpu) {
    with_info(&domain.events, vcpu, |page, offset| {
        if let Some(selector) = memory::atomic::<u64>(page, offset + SELECTOR) {
            selector.store(0, Ordering::SeqCst);
        }
    });
}

/// Clears the upcall mask, as SCHEDOP_block does. HVM guests do not use it, but they can see it.
pub(crate) fn clear_mask(domain: &Domain, vcpu: &Vcpu) {
    with_info(&domain.events, vcpu, |page, offset| {
        if let Some(mask) = memory::atomic::<u8>(page, offset + MASK) {
            mask.store(0, Ordering::SeqCst);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_decode_as_the_header_says() {
        assert_eq!(Callback::decode(0), Callback::None);
        assert_eq!(Callback::decode(9), Callback::Gsi(9));
        assert_eq!(Callback::decode(1 << 56 | 0x1a01), Callback::PciIntx { device: 3, pin: 1 });
        assert_eq!(Callback::decode(2 << 56 | 0xf3), Callback::Vector(0xf3));
        assert_eq!(Callback::decode(3 << 56 | 0xf3), Callback::None);
    }
}
