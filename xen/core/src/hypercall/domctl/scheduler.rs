//! domctl scheduler_op: a domain's weight and cap, which are credit2's parameters.

use super::{Answer, answer, parameters};
use crate::host::Host;
use crate::hypercall::Caller;
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use crate::sched;
use machine::cpu;
use public_abi::Errno;
use public_abi::domctl::Domctl;
use public_abi::domctl_domain::SchedulerOp;
use public_abi::sched_params::{DomctlSchedCredit2, DomctlSchedulerOp, SchedulerId};

/// scheduler_op.
pub fn perform(caller: &Caller<'_>, target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut operation: SchedulerOp = parameters(request)?;
    if operation.sched_id != SchedulerId::Credit2.number() {
        return Err(Errno::EINVAL.into());
    }
    match DomctlSchedulerOp::try_from(operation.cmd).map_err(|_| Errno::EINVAL)? {
        DomctlSchedulerOp::PutInfo => put(target, caller.host, operation.get())?,
        DomctlSchedulerOp::GetInfo => {
            let weight = target.control.lock().records.weight;
            operation.set(&DomctlSchedCredit2 { weight, cap: target.budget.cap() });
        }
        // credit2 has no parameters of single vCPUs.
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(answer(request, &operation)?)
}

/// Sets the weight, which 0 leaves, and the cap, which 0 takes away (`csched2_dom_cntl` of Xen 4.17). What cannot be had is
/// refused as a whole, where Xen has set the weight already.
fn put(target: &Target<'_>, host: &Host, wanted: DomctlSchedCredit2) -> Result<(), Errno> {
    let mut control = target.control.lock();
    target.budget.set(wanted.cap, target.vcpus().len(), cpu::timestamp(), sched::ticks)?;
    if wanted.weight != 0 {
        control.records.weight = wanted.weight;
        for vcpu in target.vcpus() {
            vcpu.sched.set_weight(wanted.weight);
        }
    }
    drop(control);
    sched::turn::cap_changed(host, target);
    Ok(())
}
