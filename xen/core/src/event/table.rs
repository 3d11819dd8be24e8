//! A domain's event channels as a state machine.
//!
//! Everything here happens under the domain's EVENT lock, touches this domain only, and answers with the `Effect` that the
//! caller applies after the lock is released: so an event that crosses domains never needs two of these locks. `channel`
//! composes these steps into the hypercalls; `two_level` and `fifo` write the bits that the guest sees.

use super::fifo::Fifo;
use super::port::{Peer, Port, Ports, State};
use super::two_level;
use super::virq::VirqPorts;
use machine::DomId;
use machine::boxed::OutOfMemory;
use machine::frame::Pin;
use public_abi::Errno;
use public_abi::event_channel::{FIFO_NR_CHANNELS, FIFO_PRIORITY_MIN, TWO_LEVEL_NR_CHANNELS};
use public_abi::virq::{Virq, VirqScope};

/// A vCPU that must hear of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upcall {
    /// Which one.
    pub vcpu: u16,
    /// Two-level ABI: the bit to set in its selector first; if that was set before, the vCPU has heard already.
    pub select: Option<u8>,
}

/// What is left to do outside of the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an effect that is not applied is a lost event"]
pub struct Effect {
    /// Wake those who poll for this port.
    pub wake_pollers: Option<u32>,
    /// Tell this vCPU.
    pub upcall: Option<Upcall>,
    /// This vCPU waits in the hypervisor for a message of its device model, and here it is.
    pub answered: Option<u16>,
}

impl Effect {
    /// Nothing is left to do.
    pub const NONE: Self = Self { wake_pollers: None, upcall: None, answered: None };
}

/// Who asks to close a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closer {
    /// A guest, which cannot close the hypervisor's own ports.
    Guest,
    /// The hypervisor.
    Hypervisor,
}

/// How far closing a port has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Closing {
    /// The port is free.
    Done,
    /// The port is reserved until the far end is disconnected; then [`EventTable::release`] frees it.
    Connected(Peer),
}

/// What [`EventTable::status`] tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// What the port is bound to.
    pub state: State,
    /// The vCPU that is notified.
    pub vcpu: u16,
}

/// The channels.
#[derive(Debug)]
pub struct EventTable {
    ports: Ports,
    max_port: u32,
    /// No port below this one is free.
    first_free: u32,
    /// Ports that are bound, without the hypervisor's own.
    bound: u32,
    /// The domain is dying: nothing new is bound.
    is_closing: bool,
    /// Where a preempted reset or relinquish goes on; 0 if none is under way.
    pub cursor: u32,
    /// The ports of virtual interrupts.
    virqs: VirqPorts,
    /// The FIFO ABI, if the guest has switched to it.
    pub fifo: Option<Fifo>,
}

impl EventTable {
    /// All ports from 1 to `max_port` may be used; none is bound.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn try_new(max_port: u32) -> Result<Self, OutOfMemory> {
        let mut ports = Ports::new();
        ports.grow()?;
        Ok(Self {
            ports,
            max_port,
            first_free: 1,
            bound: 0,
            is_closing: false,
            cursor: 0,
            virqs: VirqPorts::new(),
            fifo: None,
        })
    }

    /// Ports that the ABI in use has.
    const fn capacity(&self) -> u32 {
        if self.fifo.is_some() { FIFO_NR_CHANNELS } else { TWO_LEVEL_NR_CHANNELS }
    }

    /// Guests' ports that are bound.
    pub const fn bound(&self) -> u32 {
        self.bound
    }

    /// Ports that exist, bound or not.
    pub fn count(&self) -> u32 {
        self.ports.count()
    }

    /// A port's record.
    ///
    /// # Errors
    /// EINVAL if there is no such port.
    #[inline]
    pub fn port(&self, number: u32) -> Result<&Port, Errno> {
        self.ports.get(number).ok_or(Errno::EINVAL)
    }

    #[inline]
    fn port_mut(&mut self, number: u32) -> Result<&mut Port, Errno> {
        self.ports.get_mut(number).ok_or(Errno::EINVAL)
    }

    /// Ends all binding: the domain is dying. The first time closing begins at the first port, however far a reset of the
    /// guest's had come: it may have bound the ports before that anew.
    pub const fn begin_closing(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.cursor = 0;
        }
    }

    /// Reserves the lowest free port.
    ///
    /// # Errors
    /// EINVAL when the domain is dying, ENOSPC when all ports are in use, ENOMEM.
    pub fn reserve(&mut self) -> Result<u32, Errno> {
        if self.is_closing {
            return Err(Errno::EINVAL);
        }
        let mut first_free = None;
        let mut number = self.first_free;
        loop {
            if number > self.max_port || number >= self.capacity() {
                return Err(Errno::ENOSPC);
            }
            let Some(port) = self.ports.get(number) else {
                self.ports.grow().map_err(|_| Errno::ENOMEM)?;
                continue;
            };
            if port.state == State::Free {
                if !self.fifo.as_ref().is_some_and(|fifo| fifo.is_linked(number)) {
                    break;
                }
                // Free, but the guest has not yet taken it off its queue.
                first_free.get_or_insert(number);
            }
            number = number.saturating_add(1);
        }
        self.first_free = first_free.unwrap_or(number.saturating_add(1));
        self.port_mut(number)?.state = State::Reserved;
        Ok(number)
    }

    /// Binds a reserved port. False if the domain began to die meanwhile: then the port is free.
    #[must_use]
    pub fn bind_reserved(&mut self, number: u32, state: State, vcpu: u16) -> bool {
        if self.is_closing {
            self.release(number);
            return false;
        }
        let Some(port) = self.ports.get_mut(number) else { return false };
        port.bind(state, vcpu);
        self.bound = self.bound.saturating_add(1);
        true
    }

    /// Binds the lowest free port.
    ///
    /// # Errors
    /// As [`EventTable::reserve`].
    pub fn bind(&mut self, state: State, vcpu: u16) -> Result<u32, Errno> {
        let number = self.reserve()?;
        if self.bind_reserved(number, state, vcpu) { Ok(number) } else { Err(Errno::EINVAL) }
    }

    /// Binds the lowest free port for the hypervisor itself.
    ///
    /// # Errors
    /// As [`EventTable::reserve`].
    pub fn bind_for_hypervisor(&mut self, remote: DomId, vcpu: u16) -> Result<u32, Errno> {
        let number = self.reserve()?;
        let port = self.port_mut(number)?;
        port.bind(State::Unbound { remote }, vcpu);
        port.is_hypervisors = true;
        Ok(number)
    }

    /// Frees a reserved port.
    pub fn release(&mut self, number: u32) {
        if let Some(port) = self.ports.get_mut(number) {
            port.release();
            self.first_free = self.first_free.min(number);
        }
    }

    /// The port that a virtual interrupt is bound to, if it is.
    #[inline]
    pub fn virq_port(&self, virq: Virq, vcpu: u16) -> Option<u32> {
        self.virqs.get(virq, vcpu)
    }

    /// Binds a virtual interrupt. The caller has checked that the vCPU exists, and is 0 for global ones.
    ///
    /// # Errors
    /// EEXIST if it is bound already; else as [`EventTable::reserve`].
    pub fn bind_virq(&mut self, virq: Virq, vcpu: u16) -> Result<u32, Errno> {
        if self.virqs.get(virq, vcpu).is_some() {
            return Err(Errno::EEXIST);
        }
        self.virqs.make_room(vcpu).map_err(|_| Errno::ENOMEM)?;
        let number = self.bind(State::Virq(u8::try_from(virq.number()).unwrap_or(u8::MAX)), vcpu)?;
        self.virqs.set(virq, vcpu, Some(number));
        Ok(number)
    }

    /// Begins to close a port.
    ///
    /// # Errors
    /// EINVAL if there is no such port, nothing is bound to it, or it is not for this closer.
    pub fn close(&mut self, shared_info: &Pin, number: u32, closer: Closer) -> Result<Closing, Errno> {
        let port = *self.port(number)?;
        if !port.state.is_usable() || port.is_hypervisors && closer == Closer::Guest {
            return Err(Errno::EINVAL);
        }
        self.clear_pending(shared_info, number);
        if !port.is_hypervisors {
            self.bound = self.bound.saturating_sub(1);
        }
        match port.state {
            State::Interdomain { domain, port } => {
                self.port_mut(number)?.state = State::Reserved;
                return Ok(Closing::Connected(Peer { domain, port }));
            }
            State::Virq(virq) => {
                if let Ok(virq) = Virq::try_from(u32::from(virq)) {
                    // A global one can notify any vCPU, but is bound on vCPU 0.
                    let vcpu = if virq.scope() == VirqScope::Global { 0 } else { port.vcpu };
                    self.virqs.set(virq, vcpu, None);
                }
            }
            _ => {}
        }
        self.release(number);
        Ok(Closing::Done)
    }

    /// Connects an unbound port to a port of the domain that it waits for.
    ///
    /// # Errors
    /// EINVAL if there is no such port, it does not wait for that domain, or this domain is dying.
    pub fn connect(&mut self, number: u32, from: Peer) -> Result<(), Errno> {
        if self.is_closing {
            return Err(Errno::EINVAL);
        }
        let port = self.port_mut(number)?;
        if port.state != (State::Unbound { remote: from.domain }) {
            return Err(Errno::EINVAL);
        }
        port.state = State::connected(from);
        Ok(())
    }

    /// Whether a port is connected to `peer`, by this table.
    #[inline]
    pub fn is_connected(&self, number: u32, peer: Peer) -> bool {
        self.ports.get(number).is_some_and(|port| port.state == State::connected(peer))
    }

    /// Makes a port that is connected to `from` wait for that domain again.
    pub fn disconnect(&mut self, number: u32, from: Peer) {
        if let Some(port) = self.ports.get_mut(number)
            && port.state == State::connected(from)
        {
            port.state = State::Unbound { remote: from.domain };
        }
    }

    /// Raises the event of a port, for the vCPU that it notifies.
    #[inline]
    pub fn raise(&mut self, shared_info: &Pin, number: u32) -> Effect {
        let Some(port) = self.ports.get_mut(number) else { return Effect::NONE };
        let vcpu = port.vcpu;
        if !port.is_usable_by_guest() {
            let is_answer = port.is_hypervisors && matches!(port.state, State::Interdomain { .. });
            return Effect { answered: is_answer.then_some(vcpu), ..Effect::NONE };
        }
        let (newly_pending, upcall) = if let Some(fifo) = &mut self.fifo {
            let change = fifo.set_pending(number, port, vcpu);
            (change.newly_pending, change.is_news.then_some(Upcall { vcpu, select: None }))
        } else {
            let change = two_level::set_pending(shared_info, number);
            (change.newly_pending, change.select.map(|word| Upcall { vcpu, select: Some(word) }))
        };
        Effect { wake_pollers: newly_pending.then_some(number), upcall, answered: None }
    }

    /// Raises an event that comes from another port; nothing happens unless the two are connected.
    #[inline]
    pub fn raise_from(&mut self, shared_info: &Pin, number: u32, from: Peer) -> Effect {
        if self.is_connected(number, from) { self.raise(shared_info, number) } else { Effect::NONE }
    }

    fn clear_pending(&mut self, shared_info: &Pin, number: u32) {
        match &self.fifo {
            Some(fifo) => fifo.clear_pending(number),
            None => two_level::clear_pending(shared_info, number),
        }
    }

    /// Whether a port's event has been raised.
    ///
    /// # Errors
    /// EINVAL if there is no such port or nothing that a guest may use is bound to it.
    pub fn is_pending(&self, shared_info: &Pin, number: u32) -> Result<bool, Errno> {
        if !self.port(number)?.is_usable_by_guest() {
            return Err(Errno::EINVAL);
        }
        Ok(self
            .fifo
            .as_ref()
            .map_or_else(|| two_level::is_pending(shared_info, number), |fifo| fifo.is_pending(number)))
    }

    /// Unmasks a port and raises its event again if it has been waiting. Ports that are not bound are left alone.
    ///
    /// # Errors
    /// EINVAL if there is no such port.
    pub fn unmask(&mut self, shared_info: &Pin, number: u32) -> Result<Effect, Errno> {
        let port = *self.port(number)?;
        if !port.is_usable_by_guest() {
            return Ok(Effect::NONE);
        }
        match &self.fifo {
            Some(fifo) if fifo.unmask(number) => Ok(self.raise(shared_info, number)),
            Some(_) => Ok(Effect::NONE),
            None => {
                let select = two_level::unmask(shared_info, number);
                let upcall = select.map(|word| Upcall { vcpu: port.vcpu, select: Some(word) });
                Ok(Effect { upcall, ..Effect::NONE })
            }
        }
    }

    /// Chooses the vCPU that a port notifies. The caller has checked that it exists.
    ///
    /// # Errors
    /// EINVAL if there is no such port or it is bound to something that stays where it is.
    pub fn bind_vcpu(&mut self, number: u32, vcpu: u16) -> Result<(), Errno> {
        let port = self.port_mut(number)?;
        let may_move = match port.state {
            State::Unbound { .. } | State::Interdomain { .. } => true,
            State::Virq(virq) => Virq::try_from(u32::from(virq)).is_ok_and(|virq| virq.scope() == VirqScope::Global),
            State::Free | State::Reserved | State::Ipi => false,
        };
        if !may_move || port.is_hypervisors {
            return Err(Errno::EINVAL);
        }
        port.vcpu = vcpu;
        Ok(())
    }

    /// Sets the priority of future events.
    ///
    /// # Errors
    /// EINVAL for a port or priority that does not exist, ENOSYS with the two-level ABI, EACCES if nothing that a guest may
    /// use is bound.
    pub fn set_priority(&mut self, number: u32, priority: u32) -> Result<(), Errno> {
        let has_fifo = self.fifo.is_some();
        let port = self.port_mut(number)?;
        if !has_fifo {
            return Err(Errno::ENOSYS);
        }
        if !port.is_usable_by_guest() {
            return Err(Errno::EACCES);
        }
        if priority > FIFO_PRIORITY_MIN {
            return Err(Errno::EINVAL);
        }
        port.priority = u8::try_from(priority).map_err(|_| Errno::EINVAL)?;
        Ok(())
    }

    /// What a port is bound to.
    ///
    /// # Errors
    /// EINVAL if there is no such port, EACCES if it is the hypervisor's own.
    pub fn status(&self, number: u32) -> Result<Status, Errno> {
        let port = self.port(number)?;
        if port.is_hypervisors {
            return Err(Errno::EACCES);
        }
        Ok(Status { state: port.state, vcpu: port.vcpu })
    }

    /// Switches to the FIFO ABI: what is pending in shared_info is kept, to be raised when its event word comes. The old bits
    /// go, because a bit that stays would make events look raised already after a reset to the two-level ABI.
    pub fn switch_to_fifo(&mut self, shared_info: &Pin, fifo: Fifo) {
        for number in 1..self.count().min(TWO_LEVEL_NR_CHANNELS) {
            if two_level::is_pending(shared_info, number)
                && let Some(port) = self.ports.get_mut(number)
            {
                port.saved = true;
                two_level::clear_pending(shared_info, number);
            }
        }
        self.fifo = Some(fifo);
    }

    /// The first port from `from` on, before `end`, that was raised while it had no event word; raises it.
    pub fn raise_saved(&mut self, shared_info: &Pin, from: u32, end: u32) -> Option<(u32, Effect)> {
        for number in from..end.min(self.count()) {
            if let Some(port) = self.ports.get_mut(number)
                && core::mem::take(&mut port.saved)
            {
                return Some((number, self.raise(shared_info, number)));
            }
        }
        None
    }
}
