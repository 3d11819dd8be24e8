//! domctl scheduler_op: a domain's weight, in the shape of credit2's parameters.

use super::{Answer, answer, parameters};
use crate::hypercall::access::Target;
use crate::outcome::Stop;
use machine::log;
use public_abi::Errno;
use public_abi::domctl::Domctl;
use public_abi::domctl_domain::SchedulerOp;
use public_abi::sched_params::{DomctlSchedCredit2, DomctlSchedulerOp, SchedulerId};

/// Percent of one CPU.
const WHOLE_CPU: u64 = 100;

/// scheduler_op.
pub fn perform(target: &Target<'_>, request: &mut Domctl) -> Result<Answer, Stop> {
    let mut operation: SchedulerOp = parameters(request)?;
    if operation.sched_id != SchedulerId::Credit2.number() {
        return Err(Errno::EINVAL.into());
    }
    match DomctlSchedulerOp::try_from(operation.cmd).map_err(|_| Errno::EINVAL)? {
        DomctlSchedulerOp::PutInfo => put(target, operation.get())?,
        DomctlSchedulerOp::GetInfo => {
            let weight = target.control.lock().records.weight;
            operation.set(&DomctlSchedCredit2 { weight, cap: 0 });
        }
        // credit2 has no parameters of single vCPUs.
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(answer(request, &operation)?)
}

/// Sets the weight; 0 leaves it. A limit ("cap") cannot be kept, so only "none" is accepted.
fn put(target: &Target<'_>, wanted: DomctlSchedCredit2) -> Result<(), Errno> {
    check_cap(target.vcpus().len(), wanted.cap).inspect_err(|_| {
        log!(Warning, "{}: a cap of {}% is refused: CPU time is not limited here", target.id, wanted.cap);
    })?;
    if wanted.weight != 0 {
        target.control.lock().records.weight = wanted.weight;
        for vcpu in target.vcpus() {
            vcpu.sched.set_weight(wanted.weight);
        }
    }
    Ok(())
}

fn check_cap(vcpus: usize, cap: u16) -> Result<(), Errno> {
    let most = u64::try_from(vcpus).unwrap_or(u64::MAX).saturating_mul(WHOLE_CPU);
    match u64::from(cap) {
        0 => Ok(()),
        cap if cap > most => Err(Errno::EINVAL),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_no_cap_is_accepted() {
        assert_eq!(check_cap(2, 0), Ok(()));
        assert_eq!(check_cap(2, 200), Err(Errno::EOPNOTSUPP));
        assert_eq!(check_cap(2, 201), Err(Errno::EINVAL));
    }
}
