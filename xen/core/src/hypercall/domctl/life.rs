//! domctl about a domain's life: creation, vCPUs, pauses, the end. The verbs are in `domain::create` and `domain::destroy`.

use super::{Answer, parameters};
use crate::domain::create::{self, Identity};
use crate::domain::destroy::{self, Paused};
use crate::domain::lifecycle::Stage;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::{Reply, Stop};
use crate::sched;
use machine::{DomId, log};
use public_abi::Errno;
use public_abi::domctl::Domctl;
use public_abi::domctl_domain::{CreateDomain, MaxVcpus, SetDomainHandle, Subscribe};
use public_abi::domid::DOMID_FIRST_RESERVED;
use public_abi::hypercall::Caller as Who;

/// createdomain: with the number in the request if it is an ordinary one, else with the next free one.
pub fn create(caller: &Caller<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let config: CreateDomain = parameters(request)?;
    let wanted = (1..DOMID_FIRST_RESERVED).contains(&request.domain).then_some(DomId(request.domain));
    if wanted.is_some_and(|id| caller.host.domains.get(id).is_some()) {
        return Err(Errno::EEXIST.into());
    }
    let settings = create::sanitise(&config).map_err(|refusal| {
        log!(Warning, "createdomain: {} = {:#x} {}", refusal.field, refusal.value, refusal.reason);
        refusal.errno
    })?;
    let identity = Identity { wanted, handle: config.handle, misc_flags: config.arch.misc_flags };
    request.domain = create::create(caller.host, settings, identity)?.0;
    Ok(Answer::Changed)
}

/// max_vcpus: allocates the vCPUs. Their number was said at creation and must be repeated.
pub fn max_vcpus(caller: &Caller<'_>, target: &Target<'_>, request: &Domctl) -> Result<Answer, Stop> {
    let wanted: MaxVcpus = parameters(request)?;
    target.other_or(Errno::EINVAL)?;
    if wanted.max != target.settings.max_vcpus || target.lifecycle.stage() != Stage::Alive {
        return Err(Errno::EINVAL.into());
    }
    create::allocate_vcpus(caller.host, target)?;
    Ok(Answer::Unchanged)
}

/// destroydomain. Begins anew after each restart and finds done what is done.
pub fn destroy(caller: &Caller<'_>, request: &Domctl) -> Reply {
    // The reference must not live on: the last step needs the domain to itself.
    drop(caller.find(request.domain)?);
    caller.permit(Who::Control)?;
    destroy::destroy(caller.host, caller.domain.id, DomId(request.domain))
}

/// pausedomain: once this has returned, nothing of the domain runs.
pub fn pause(caller: &Caller<'_>, target: &Target<'_>) -> Result<Answer, Stop> {
    target.other_or(Errno::EINVAL)?;
    if !target.lifecycle.pause_by_toolstack() {
        return Err(Errno::EOVERFLOW.into());
    }
    sched::wait_until_off(caller.host, target);
    Ok(Answer::Unchanged)
}

/// unpausedomain. The first time that no pause is left, the domain's making is finished.
pub fn unpause(caller: &Caller<'_>, target: &Target<'_>) -> Result<Answer, Stop> {
    if !target.lifecycle.unpause_by_toolstack() {
        return Err(Errno::EINVAL.into());
    }
    if !target.lifecycle.is_paused_by_toolstack() {
        target.control.lock().records.creation_finished = true;
        sched::resume_domain(caller.host, target);
    }
    Ok(Answer::Unchanged)
}

/// resumedomain: goes on after a suspension.
pub fn resume(caller: &Caller<'_>, target: &Target<'_>) -> Result<Answer, Stop> {
    target.other_or(Errno::EINVAL)?;
    // Nobody must see the domain running and shut down at once.
    let paused = Paused::new(caller.host, target);
    target.lifecycle.clear_shutdown();
    drop(paused);
    Ok(Answer::Unchanged)
}

/// setdomainhandle.
pub fn set_handle(target: &Target<'_>, request: &SetDomainHandle) -> Answer {
    target.control.lock().handle = request.handle;
    Answer::Unchanged
}

/// subscribe: which of the domain's own ports is raised when it suspends. The toolstack has connected it to one of its own.
pub fn subscribe(target: &Target<'_>, request: &Subscribe) -> Answer {
    target.events.set_suspend_port(request.port);
    Answer::Unchanged
}
