//! One event channel end, and the growing array of them.
//!
//! A port is 16 bytes. Ports are allocated in chunks of 64, as Xen does, so that a small guest pays one KiB and the range of
//! "valid" ports that the hypercalls report is the same. `table` gives the ports their meaning.

use alloc::vec::Vec;
use machine::DomId;
use machine::boxed::{Boxed, OutOfMemory};
use public_abi::event_channel::FIFO_PRIORITY_DEFAULT;

/// Ports in a chunk.
pub const CHUNK: u32 = 64;

/// A number of a vCPU, port or queue as an array index: `usize` has at least 32 bits wherever this runs.
#[inline]
pub const fn index(number: u32) -> usize {
    number as usize
}

/// The far end of an interdomain channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Whose port.
    pub domain: DomId,
    /// Its number there.
    pub port: u32,
}

/// What a port is bound to (public/event_channel.h, EVTCHNSTAT_*).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing.
    Free,
    /// Port 0, or a port whose binding or closing involves another table and is under way: nobody can use or close it.
    Reserved,
    /// Waits for a port of this domain.
    Unbound {
        /// Who may connect.
        remote: DomId,
    },
    /// Connected to another port. The far end's table decides whether it agrees: every message is checked there.
    Interdomain {
        /// Whose port the far end is.
        domain: DomId,
        /// The far end.
        port: u32,
    },
    /// A virtual interrupt.
    Virq(u8),
    /// From vCPU to vCPU of the same domain.
    Ipi,
}

impl State {
    /// Connected to `peer`.
    pub const fn connected(peer: Peer) -> Self {
        Self::Interdomain { domain: peer.domain, port: peer.port }
    }

    /// Whether events can be raised on it.
    pub const fn is_usable(self) -> bool {
        !matches!(self, Self::Free | Self::Reserved)
    }
}

/// One port.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// What it is bound to.
    pub state: State,
    /// The vCPU that is notified.
    pub vcpu: u16,
    /// FIFO: the vCPU whose queue the event was last put on.
    pub queue_vcpu: u16,
    /// FIFO: the priority of future events, 0 to 15.
    pub priority: u8,
    /// FIFO: the priority of the queue it was last put on.
    pub queue_priority: u8,
    /// FIFO: raised while its event word's page was missing; raised again when the page comes.
    pub saved: bool,
    /// The hypervisor itself listens here (a device model's port): guests can neither close nor use it.
    pub is_hypervisors: bool,
}

/// The default priority as the field's type.
const DEFAULT_PRIORITY: u8 = FIFO_PRIORITY_DEFAULT as u8;

impl Port {
    const FREE: Self = Self {
        state: State::Free,
        vcpu: 0,
        queue_vcpu: 0,
        priority: DEFAULT_PRIORITY,
        queue_priority: 0,
        saved: false,
        is_hypervisors: false,
    };

    /// Binds it, with the default priority. The queue it was last on stays known: it may still be linked there.
    pub const fn bind(&mut self, state: State, vcpu: u16) {
        self.state = state;
        self.vcpu = vcpu;
        self.priority = DEFAULT_PRIORITY;
    }

    /// Makes it free.
    pub const fn release(&mut self) {
        self.state = State::Free;
        self.vcpu = 0;
        self.saved = false;
        self.is_hypervisors = false;
    }

    /// Whether a guest may raise events on it, unmask it and so on.
    pub const fn is_usable_by_guest(&self) -> bool {
        self.state.is_usable() && !self.is_hypervisors
    }
}

const _: () = assert!(size_of::<Port>() == 16);

/// The ports from 0 to as far as they have been needed.
#[derive(Debug, Default)]
pub struct Ports {
    chunks: Vec<Boxed<[Port; index(CHUNK)]>>,
}

impl Ports {
    /// None yet.
    pub const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// One more than the highest port there is.
    pub fn count(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX).saturating_mul(CHUNK)
    }

    /// A port, if it exists.
    #[inline]
    pub fn get(&self, port: u32) -> Option<&Port> {
        self.chunks.get(index(port / CHUNK))?.get(index(port % CHUNK))
    }

    /// As [`Ports::get`], for changing it.
    #[inline]
    pub fn get_mut(&mut self, port: u32) -> Option<&mut Port> {
        self.chunks.get_mut(index(port / CHUNK))?.get_mut(index(port % CHUNK))
    }

    /// Adds a chunk of free ports.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing changed.
    pub fn grow(&mut self) -> Result<(), OutOfMemory> {
        self.chunks.try_reserve(1).map_err(|_| OutOfMemory)?;
        self.chunks.push(Boxed::try_new([Port::FREE; index(CHUNK)])?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_appear_in_chunks() {
        let mut ports = Ports::new();
        assert!(ports.get(0).is_none());
        ports.grow().unwrap();
        assert_eq!(ports.count(), CHUNK);
        assert!(ports.get(CHUNK - 1).is_some_and(|port| port.state == State::Free));
        assert!(ports.get_mut(CHUNK).is_none());
        assert!(ports.get(u32::MAX).is_none());
    }
}
