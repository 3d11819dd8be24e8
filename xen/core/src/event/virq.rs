//! Virtual interrupts: what the hypervisor raises by itself.
//!
//! Timers, the console, the end of domains come in here; they go out through the domain's table like any event. Which domain
//! hears of a global one is the control domain unless the toolstack chose another (domctl set_virq_handler).

use super::port::index;
use super::upcall;
use crate::domain::Domain;
use crate::host::Host;
use crate::vcpu::Vcpu;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, Ordering};
use machine::DomId;
use machine::boxed::OutOfMemory;
use public_abi::Errno;
use public_abi::virq::{NR_VIRQS, Virq, VirqScope};

/// Virtual interrupts that exist once per vCPU.
const PER_VCPU: usize = 4;

fn place_of(virq: Virq) -> usize {
    match virq {
        Virq::Timer => 0,
        Virq::Debug => 1,
        Virq::Xenoprof => 2,
        _ => 3,
    }
}

/// Which port each virtual interrupt of a domain is bound to; 0 for none, because port 0 is never bound.
#[derive(Debug)]
pub(crate) struct VirqPorts {
    global: [u32; index(NR_VIRQS)],
    /// By vCPU.
    per_vcpu: Vec<[u32; PER_VCPU]>,
}

impl VirqPorts {
    /// None bound.
    pub const fn new() -> Self {
        Self { global: [0; index(NR_VIRQS)], per_vcpu: Vec::new() }
    }

    /// The port, if one is bound. Global ones are the same on all vCPUs.
    #[inline]
    pub fn get(&self, virq: Virq, vcpu: u16) -> Option<u32> {
        let port = match virq.scope() {
            VirqScope::Global => self.global.get(index(virq.number()))?,
            VirqScope::Vcpu => self.per_vcpu.get(usize::from(vcpu))?.get(place_of(virq))?,
        };
        (*port != 0).then_some(*port)
    }

    /// Allocates what the virtual interrupts of a vCPU need.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn make_room(&mut self, vcpu: u16) -> Result<(), OutOfMemory> {
        let wanted = usize::from(vcpu).saturating_add(1);
        if let Some(missing) = wanted.checked_sub(self.per_vcpu.len()).filter(|missing| *missing > 0) {
            self.per_vcpu.try_reserve(missing).map_err(|_| OutOfMemory)?;
            self.per_vcpu.resize(wanted, [0; PER_VCPU]);
        }
        Ok(())
    }

    /// Records the port, in the room that [`VirqPorts::make_room`] made.
    pub fn set(&mut self, virq: Virq, vcpu: u16, port: Option<u32>) {
        let place = match virq.scope() {
            VirqScope::Global => self.global.get_mut(index(virq.number())),
            VirqScope::Vcpu => self.per_vcpu.get_mut(usize::from(vcpu)).and_then(|ports| ports.get_mut(place_of(virq))),
        };
        if let Some(place) = place {
            *place = port.unwrap_or(0);
        }
    }
}

/// Raises a virtual interrupt that exists once per vCPU. Nothing happens if the guest has not bound it.
pub fn send_virq(host: &Host, domain: &Domain, vcpu: &Vcpu, virq: Virq) {
    raise(host, domain, u16::try_from(vcpu.index).unwrap_or(u16::MAX), virq);
}

/// Raises a global virtual interrupt in the domain that handles it.
pub fn send_global_virq(host: &Host, virq: Virq) {
    if let Some(domain) = host.domains.get(host.virq_handlers.get(virq)) {
        raise(host, &domain, 0, virq);
    }
}

fn raise(host: &Host, domain: &Domain, vcpu: u16, virq: Virq) {
    let effect = {
        let mut table = domain.events.table();
        let Some(port) = table.virq_port(virq, vcpu) else { return };
        table.raise(domain.events.shared_info(), port)
    };
    upcall::apply(host, domain, effect);
}

/// Which domain hears of each global virtual interrupt.
#[derive(Debug)]
pub struct VirqHandlers {
    handlers: [AtomicU16; index(NR_VIRQS)],
}

impl VirqHandlers {
    /// The control domain hears of all.
    pub const fn new() -> Self {
        Self { handlers: [const { AtomicU16::new(DomId::CONTROL.0) }; index(NR_VIRQS)] }
    }

    /// Who hears of it.
    pub fn get(&self, virq: Virq) -> DomId {
        self.handlers.get(index(virq.number())).map_or(DomId::CONTROL, |id| DomId(id.load(Ordering::Acquire)))
    }

    /// Chooses who hears of a global virtual interrupt (domctl set_virq_handler). The caller has checked the domain.
    ///
    /// # Errors
    /// EINVAL for one that is not global.
    pub fn set(&self, virq: Virq, handler: DomId) -> Result<(), Errno> {
        if virq.scope() != VirqScope::Global {
            return Err(Errno::EINVAL);
        }
        let place = self.handlers.get(index(virq.number())).ok_or(Errno::EINVAL)?;
        place.store(handler.0, Ordering::Release);
        Ok(())
    }

    /// Gives all that a dying domain handles back to the control domain.
    pub fn forget(&self, domain: DomId) {
        for place in &self.handlers {
            // Another choice may be made at the same time; then that one stays.
            place.compare_exchange(domain.0, DomId::CONTROL.0, Ordering::AcqRel, Ordering::Acquire).ok();
        }
    }
}

impl Default for VirqHandlers {
    fn default() -> Self {
        Self::new()
    }
}
