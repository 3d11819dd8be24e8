//! sysctl about CPU pools and the scheduler: one pool with all CPUs, and a scheduler that takes credit2's parameters.

use super::{answer, parameters};
use crate::hypercall::Caller;
use crate::hypercall::answer::Answer;
use crate::hypercall::bitmaps;
use crate::sched::is_rate_limit;
use core::sync::atomic::{AtomicU32, Ordering};
use machine::DomId;
use public_abi::Errno;
use public_abi::sched_params::{SchedulerId, SysctlSchedCredit2, SysctlSchedulerOp};
use public_abi::sysctl::{CPUPOOL_PAR_ANY, CpupoolOp, CpupoolOperation, Sysctl, SysctlScheduler};

/// The number of the only pool.
const POOL: u32 = 0;

/// cpupool_op.
pub fn cpu_pools(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut pool: CpupoolOp = parameters(request)?;
    let cpus = caller.host.cpus.len();
    match CpupoolOperation::try_from(pool.op).map_err(|_| Errno::ENOSYS)? {
        // "This or the next larger": there is none after the first.
        CpupoolOperation::Info if pool.cpupool_id != POOL => Err(Errno::ENOENT),
        CpupoolOperation::Info => {
            pool.cpupool_id = POOL;
            pool.sched_id = SchedulerId::Credit2.number();
            pool.n_dom = domain_count(caller);
            bitmaps::write(caller, &pool.cpumap, u64::MAX, cpus)?;
            answer(request, &pool)
        }
        CpupoolOperation::FreeInfo => {
            bitmaps::write(caller, &pool.cpumap, 0, cpus)?;
            answer(request, &pool)
        }
        // The first pool cannot go while there are domains in it.
        CpupoolOperation::Destroy => Err(if pool.cpupool_id == POOL { Errno::EBUSY } else { Errno::ENOENT }),
        CpupoolOperation::AddCpu => Err(add_cpu(&pool, cpus)),
        CpupoolOperation::RmCpu if pool.cpupool_id != POOL => Err(Errno::ENOENT),
        CpupoolOperation::MoveDomain => {
            let domid = u16::try_from(pool.domid).map_err(|_| Errno::ESRCH)?;
            caller.find(domid)?.other_or(Errno::EINVAL)?;
            if pool.cpupool_id == POOL { Ok(Answer::Unchanged) } else { Err(Errno::ENOENT) }
        }
        // Further pools, and CPUs outside of any.
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// All CPUs are in the pool: there is none to add.
fn add_cpu(pool: &CpupoolOp, cpus: usize) -> Errno {
    if pool.cpupool_id != POOL {
        return Errno::ENOENT;
    }
    let exists = usize::try_from(pool.cpu).is_ok_and(|cpu| cpu < cpus);
    if exists || pool.cpu == CPUPOOL_PAR_ANY { Errno::ENODEV } else { Errno::EINVAL }
}

fn domain_count(caller: &Caller<'_>) -> u32 {
    let mut count = 0_u32;
    let mut next = Some(DomId(0));
    while let Some(domain) = next.and_then(|from| caller.host.domains.next_from(from)) {
        count = count.saturating_add(1);
        next = domain.id.0.checked_add(1).map(DomId);
    }
    count
}

/// scheduler_op: credit2's only parameter of a pool is the rate limit.
pub fn scheduler(limit: &AtomicU32, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut scheduler: SysctlScheduler = parameters(request)?;
    let command = SysctlSchedulerOp::try_from(scheduler.cmd).map_err(|_| Errno::EINVAL)?;
    if scheduler.cpupool_id != POOL {
        return Err(Errno::ESRCH);
    }
    if scheduler.sched_id != SchedulerId::Credit2.number() {
        return Err(Errno::EINVAL);
    }
    if command == SysctlSchedulerOp::PutInfo {
        let wanted: SysctlSchedCredit2 = scheduler.get();
        if !is_rate_limit(wanted.ratelimit_us) {
            return Err(Errno::EINVAL);
        }
        limit.store(wanted.ratelimit_us, Ordering::Relaxed);
    }
    scheduler.set(&SysctlSchedCredit2 { ratelimit_us: limit.load(Ordering::Relaxed) });
    answer(request, &scheduler)
}

#[cfg(test)]
mod tests {
    use super::*;
    use public_abi::sysctl::SysctlOp;

    fn ask(change: impl FnOnce(&mut SysctlScheduler)) -> Result<SysctlScheduler, Errno> {
        ask_with(&AtomicU32::new(1_000), change)
    }

    fn ask_with(limit: &AtomicU32, change: impl FnOnce(&mut SysctlScheduler)) -> Result<SysctlScheduler, Errno> {
        let mut parameters = SysctlScheduler { sched_id: 6, cmd: 1, ..SysctlScheduler::default() };
        change(&mut parameters);
        let mut request = Sysctl::with(SysctlOp::SchedulerOp, &parameters).unwrap();
        scheduler(limit, &mut request)?;
        Ok(request.get().unwrap())
    }

    #[test]
    fn the_rate_limit_has_xens_range_and_answers_with_itself() {
        let limit = AtomicU32::new(1_000);
        let answer = |result: Result<SysctlScheduler, Errno>| {
            result.map(|parameters| parameters.get::<SysctlSchedCredit2>().ratelimit_us)
        };
        let put = |wanted| {
            answer(ask_with(&limit, |parameters| {
                parameters.cmd = 0;
                parameters.set(&SysctlSchedCredit2 { ratelimit_us: wanted });
            }))
        };
        let get = || answer(ask_with(&limit, |_| ()));
        assert_eq!(get(), Ok(1_000));
        for wanted in [100, 500_000, 0] {
            assert_eq!((put(wanted), get()), (Ok(wanted), Ok(wanted)));
        }
        for wanted in [99, 500_001] {
            assert_eq!((put(wanted), get()), (Err(Errno::EINVAL), Ok(0)));
        }
    }

    #[test]
    fn other_pools_and_schedulers_do_not_exist() {
        assert_eq!(ask(|parameters| parameters.cmd = 2), Err(Errno::EINVAL));
        assert_eq!(ask(|parameters| parameters.cpupool_id = 1), Err(Errno::ESRCH));
        assert_eq!(ask(|parameters| parameters.sched_id = 5), Err(Errno::EINVAL));
    }

    #[test]
    fn no_cpu_is_free() {
        let pool = |cpupool_id, cpu| CpupoolOp { cpupool_id, cpu, ..CpupoolOp::default() };
        assert_eq!(add_cpu(&pool(0, 1), 2), Errno::ENODEV);
        assert_eq!(add_cpu(&pool(0, u32::MAX), 2), Errno::ENODEV);
        assert_eq!(add_cpu(&pool(0, 2), 2), Errno::EINVAL);
        assert_eq!(add_cpu(&pool(1, 0), 2), Errno::ENOENT);
    }
}
