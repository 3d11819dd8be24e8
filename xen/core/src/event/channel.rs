//! What guests do with event channels: the table's steps put together, across domains where needed.
//!
//! Two domains' tables are never locked at once. A step that involves both reserves the local port, changes the far end, and
//! finishes locally; the far end of a channel is believed only if its own table names this end in return. So every crossing
//! of two such steps ends in a state that one of the two alone could have made.

use super::port::{Peer, State};
use super::table::{Closer, Closing};
use super::upcall;
use crate::domain::Domain;
use crate::host::Host;
use crate::outcome::Stop;
use machine::DomId;
use machine::cpu;
use public_abi::Errno;

/// Runs `act` with the domain of that number, which may be `domain` itself; not at all if it is gone.
fn with_domain<R>(host: &Host, domain: &Domain, id: DomId, act: impl FnOnce(&Domain) -> R) -> Option<R> {
    if id == domain.id { Some(act(domain)) } else { host.domains.get(id).map(|other| act(&other)) }
}

/// Makes a port of `domain` that `remote` may connect to.
///
/// # Errors
/// As [`super::table::EventTable::reserve`].
pub fn alloc_unbound(domain: &Domain, remote: DomId) -> Result<u32, Errno> {
    domain.events.table().bind(State::Unbound { remote }, 0)
}

/// Connects a new port of `local` to a port of `remote` that waits for it. The new port's event is raised at once, because
/// notices to the unbound port were lost.
///
/// # Errors
/// EINVAL if the port does not exist or does not wait for `local`; else as [`super::table::EventTable::reserve`].
pub fn bind_interdomain(host: &Host, local: &Domain, remote: &Domain, remote_port: u32) -> Result<u32, Errno> {
    let number = local.events.table().reserve()?;
    let here = Peer { domain: local.id, port: number };
    let there = Peer { domain: remote.id, port: remote_port };
    let connected = remote.events.table().connect(remote_port, here);
    if let Err(errno) = connected {
        local.events.table().release(number);
        return Err(errno);
    }
    finish_binding(host, local, remote, here, there)?;
    Ok(number)
}

/// The last step of connecting a reserved local port: the far end names it already.
fn finish_binding(host: &Host, local: &Domain, remote: &Domain, here: Peer, there: Peer) -> Result<(), Errno> {
    let effect = {
        let mut table = local.events.table();
        if table.bind_reserved(here.port, State::connected(there), 0) {
            Ok(table.raise(local.events.shared_info(), here.port))
        } else {
            Err(Errno::EINVAL)
        }
    };
    match effect {
        Ok(effect) => upcall::apply(host, local, effect),
        Err(errno) => {
            remote.events.table().disconnect(there.port, here);
            return Err(errno);
        }
    }
    // The far end may have been closed while the local port was still reserved, and then nobody told it.
    let agrees = remote.events.table().is_connected(there.port, here);
    if !agrees {
        local.events.table().disconnect(here.port, there);
    }
    Ok(())
}

/// Closes a port; the far end of a channel waits for this domain again.
///
/// # Errors
/// As [`super::table::EventTable::close`].
pub fn close(host: &Host, domain: &Domain, number: u32, closer: Closer) -> Result<(), Errno> {
    let closing = domain.events.table().close(domain.events.shared_info(), number, closer)?;
    if let Closing::Connected(peer) = closing {
        let here = Peer { domain: domain.id, port: number };
        with_domain(host, domain, peer.domain, |remote| remote.events.table().disconnect(peer.port, here));
        domain.events.table().release(number);
    }
    Ok(())
}

/// Sends an event through a port: to the far end of a channel, or to a vCPU of the domain itself. What is sent through a port
/// that waits to be connected is lost.
///
/// # Errors
/// EINVAL if there is no such port or nothing can be sent through it.
#[inline]
pub fn send(host: &Host, domain: &Domain, number: u32) -> Result<(), Errno> {
    let peer = {
        let mut table = domain.events.table();
        let port = table.port(number)?;
        match port.state {
            _ if port.is_hypervisors => return Err(Errno::EINVAL),
            State::Interdomain { domain, port } => Peer { domain, port },
            State::Unbound { .. } => return Ok(()),
            State::Ipi => {
                let effect = table.raise(domain.events.shared_info(), number);
                drop(table);
                upcall::apply(host, domain, effect);
                return Ok(());
            }
            State::Free | State::Reserved | State::Virq(_) => return Err(Errno::EINVAL),
        }
    };
    cross(host, domain, number, peer);
    Ok(())
}

/// Raises the event at the far end.
#[inline]
fn cross(host: &Host, domain: &Domain, number: u32, peer: Peer) {
    let here = Peer { domain: domain.id, port: number };
    with_domain(host, domain, peer.domain, |remote| {
        let effect = remote.events.table().raise_from(remote.events.shared_info(), peer.port, here);
        upcall::apply(host, remote, effect);
    });
}

/// EVTCHNOP_unmask.
///
/// # Errors
/// EINVAL if there is no such port.
pub fn unmask(host: &Host, domain: &Domain, number: u32) -> Result<(), Errno> {
    let effect = domain.events.table().unmask(domain.events.shared_info(), number)?;
    upcall::apply(host, domain, effect);
    Ok(())
}

/// Makes a port of `domain` for the hypervisor itself: it notifies `vcpu` when `remote`, a device model, answers.
///
/// # Errors
/// As [`super::table::EventTable::reserve`].
pub fn alloc_for_hypervisor(domain: &Domain, vcpu: u16, remote: DomId) -> Result<u32, Errno> {
    domain.events.table().bind_for_hypervisor(remote, vcpu)
}

/// Sends an event through a port of the hypervisor's own. Nothing happens if nobody is connected.
pub fn notify_from_hypervisor(host: &Host, domain: &Domain, number: u32) {
    let peer = match domain.events.table().port(number) {
        Ok(port) if port.is_hypervisors => match port.state {
            State::Interdomain { domain, port } => Peer { domain, port },
            _ => return,
        },
        _ => return,
    };
    cross(host, domain, number, peer);
}

/// How many ports are closed between two looks at whether others must run.
const PREEMPT_EVERY: u32 = 64;

/// Closes all ports from the table's cursor on. `Restart` when others must run first.
fn close_all(host: &Host, domain: &Domain, closer: Closer) -> Result<(), Stop> {
    let mut number = domain.events.table().cursor.max(1);
    loop {
        let end = domain.events.table().count();
        if number >= end {
            domain.events.table().cursor = 0;
            return Ok(());
        }
        // Not bound, or the hypervisor's: there is nothing to close.
        close(host, domain, number, closer).ok();
        number = number.saturating_add(1);
        if number < end && number.is_multiple_of(PREEMPT_EVERY) && cpu::must_yield() {
            domain.events.table().cursor = number;
            return Err(Stop::Restart(None));
        }
    }
}

/// Closes all ports of a domain and returns it to the two-level ABI (EVTCHNOP_reset). Restarts until it is done.
///
/// # Errors
/// EAGAIN if ports were bound in the meantime.
pub fn reset(host: &Host, domain: &Domain) -> Result<(), Stop> {
    let began_before = domain.events.table().cursor != 0;
    close_all(host, domain, Closer::Guest)?;
    let fifo = {
        let mut table = domain.events.table();
        if table.bound() > 0 {
            // A pass that went on where an earlier one stopped has not seen the ports below; one more pass does.
            return Err(if began_before { Stop::Restart(None) } else { Errno::EAGAIN.into() });
        }
        table.fifo.take()
    };
    if fifo.is_some() {
        // Guests of the FIFO ABI never look at the selectors; what is left there would make events look told already.
        for vcpu in domain.vcpus() {
            upcall::clear_selector(domain, vcpu);
        }
    }
    // The references to the guest's pages go without the lock.
    drop(fifo);
    Ok(())
}

/// Takes a dying domain's events apart: nothing new is bound, all ports are closed, all guest pages are let go. Restarts
/// until it is done.
///
/// # Errors
/// Only `Restart`.
pub fn relinquish(host: &Host, domain: &Domain) -> Result<(), Stop> {
    domain.events.table().begin_closing();
    close_all(host, domain, Closer::Hypervisor)?;
    let fifo = domain.events.table().fifo.take();
    drop(fifo);
    for vcpu in domain.vcpus() {
        vcpu.events.reset();
    }
    host.virq_handlers.forget(domain.id);
    Ok(())
}

/// Whether the port is bound and its event raised, for SCHEDOP_poll.
///
/// # Errors
/// As [`super::table::EventTable::is_pending`].
pub fn is_pending(domain: &Domain, number: u32) -> Result<bool, Errno> {
    domain.events.table().is_pending(domain.events.shared_info(), number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::{domain, with_host};

    #[test]
    fn a_far_end_closed_in_between_is_noticed() {
        with_host(2, 1, |_, host| {
            let (local, remote) = (domain(host, 0), domain(host, 1));
            let far = alloc_unbound(&remote, local.id).unwrap();
            let here = Peer { domain: local.id, port: local.events.table().reserve().unwrap() };
            let there = Peer { domain: remote.id, port: far };
            remote.events.table().connect(far, here).unwrap();
            close(host, &remote, far, Closer::Guest).unwrap();
            assert_eq!(finish_binding(host, &local, &remote, here, there), Ok(()));
            let state = local.events.table().port(here.port).unwrap().state;
            assert_eq!(state, State::Unbound { remote: remote.id });
        });
    }

    #[test]
    fn a_domain_that_begins_to_die_in_between_lets_the_far_end_go() {
        with_host(2, 1, |_, host| {
            let (local, remote) = (domain(host, 0), domain(host, 1));
            let far = alloc_unbound(&remote, local.id).unwrap();
            let here = Peer { domain: local.id, port: local.events.table().reserve().unwrap() };
            remote.events.table().connect(far, here).unwrap();
            assert_eq!(relinquish(host, &local), Ok(()));
            let there = Peer { domain: remote.id, port: far };
            assert_eq!(finish_binding(host, &local, &remote, here, there), Err(Errno::EINVAL));
            let state = remote.events.table().port(far).unwrap().state;
            assert_eq!(state, State::Unbound { remote: local.id });
            assert_eq!(local.events.table().port(here.port).unwrap().state, State::Free);
        });
    }

    #[test]
    fn a_port_is_given_out_anew_only_when_its_far_end_knows() {
        with_host(2, 1, |_, host| {
            let (local, remote) = (domain(host, 0), domain(host, 1));
            let far = alloc_unbound(&remote, local.id).unwrap();
            let port = bind_interdomain(host, &local, &remote, far).unwrap();
            let closing = local.events.table().close(local.events.shared_info(), port, Closer::Guest);
            assert_eq!(closing, Ok(Closing::Connected(Peer { domain: remote.id, port: far })));
            assert_ne!(alloc_unbound(&local, remote.id), Ok(port));
            assert_eq!(send(host, &local, port), Err(Errno::EINVAL));
            assert_eq!(close(host, &local, port, Closer::Guest), Err(Errno::EINVAL));
        });
    }
}
