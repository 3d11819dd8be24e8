//! The end of a domain, step by step, and pauses that wait until nothing of it runs.
//!
//! Before: `hypercall::domctl::life` decodes destroydomain. After: the number is free, and the toolstack hears of it by
//! VIRQ_DOM_EXC. Every step can stop in the middle and be called again; nothing but the domain itself remembers how far it
//! has come, so a call by another vCPU of the control domain goes on just as well.

use super::Domain;
use super::lifecycle::Stage;
use crate::host::Host;
use crate::outcome::{Reply, Stop};
use crate::{event, grant, memory, sched};
use machine::DomId;
use public_abi::Errno;
use public_abi::virq::Virq;

/// A pause of another domain by the hypervisor, which ends when this is dropped.
#[must_use = "the domain runs on when this is dropped"]
pub struct Paused<'a> {
    host: &'a Host,
    domain: &'a Domain,
}

impl<'a> Paused<'a> {
    /// Pauses a domain and waits until none of its vCPUs is on a CPU. It must not be the caller's, which would wait for
    /// itself, and the caller must hold no lock that a vCPU of it may be waiting for.
    pub fn new(host: &'a Host, domain: &'a Domain) -> Self {
        domain.lifecycle.pause_by_system();
        sched::wait_until_off(host, domain);
        Self { host, domain }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.domain.lifecycle.unpause_by_system();
        sched::resume_domain(self.host, self.domain);
    }
}

/// Destroys a domain: stops it for good, gives back what it has, and removes it from the table.
///
/// # Errors
/// `ESRCH` if there is none, `EINVAL` for the caller itself, `Stop::Restart` when there is more to do.
pub fn destroy(host: &Host, caller: DomId, target: DomId) -> Reply {
    if caller == target {
        return Err(Errno::EINVAL.into());
    }
    {
        let domain = host.domains.get(target).ok_or(Errno::ESRCH)?;
        let Some(_turn) = domain.lifecycle.begin_teardown_step() else {
            return Err(Stop::Restart(None));
        };
        take_apart(host, &domain)?;
    }
    remove(host, target)
}

/// Everything that a domain holds goes back: grants of others first, because they keep others' pages; then its channels,
/// because the other sides must hear of it; memory last, because the former may live in it.
fn take_apart(host: &Host, domain: &Domain) -> Result<(), Stop> {
    domain.lifecycle.advance(Stage::Dying);
    sched::wait_until_off(host, domain);
    grant::relinquish(host, domain)?;
    event::channel::relinquish(host, domain)?;
    memory::relinquish(host, domain)?;
    domain.lifecycle.advance(Stage::Dead);
    Ok(())
}

/// Removes a dead domain's object. Others may hold it for a moment, such as a vCPU that lists domains.
fn remove(host: &Host, target: DomId) -> Reply {
    let domain = {
        let _numbers = host.domains.change.lock();
        // Somebody else's call may have been faster, and the number may have been given to a new domain since.
        let is_ours = host.domains.get(target).is_some_and(|domain| domain.lifecycle.stage() == Stage::Dead);
        if !is_ours {
            return Ok(0);
        }
        let domain = host.domains.remove(target).ok_or(Stop::Restart(None))?;
        // While nobody can make a new domain of this number, whose vCPUs would be taken for the old one's.
        sched::release(host, target, domain.vcpus().len());
        domain
    };
    drop(domain);
    event::send_global_virq(host, Virq::DomExc);
    Ok(0)
}
