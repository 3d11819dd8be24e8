//! Busy CPUs share: who has had much on one CPU changes places with who has had little on another.
//!
//! Each queue is fair for those on it, but three equal vCPUs on two CPUs would otherwise stay as they came: two with half a
//! CPU and one with a whole one. So each vCPU's weighted time is summed up wherever it runs (`Unit::service`), and once a slice
//! (`turn`) the running vCPU is compared with those that wait on other CPUs. Exchanging the two leaves all queues as long as
//! they are, and so vCPUs take turns at the better places. A CPU with nothing to do takes whatever waits anywhere
//! (`super::pick`).

use super::queue::Waiting;
use super::{SLICE_MICROSECONDS, Unit, bit, entry_time, ticks};
use crate::host::Host;
use crate::vcpu::Vcpu;
use machine::CpuId;

/// So many slices more than the other one must the running vCPU have had.
const MARGIN_SLICES: u64 = 2;
/// So many slices less counts who has had still less: who slept has missed nothing.
const MOST_SLICES: u64 = 4;

/// Takes the vCPU over that has had least on other CPUs, if the one that runs here, and has run for `ran` ticks, has had clearly
/// more: the CPU that it came from.
pub fn take_neediest(host: &Host, me: CpuId, running: &Vcpu, ran: u64) -> Option<CpuId> {
    let slice = ticks(SLICE_MICROSECONDS);
    let mine = running.sched.service().saturating_add(running.sched.weighted(ran));
    let less = |slices: u64| mine.saturating_sub(slice.saturating_mul(slices));
    let (from, found) = neediest(host, me, less(MARGIN_SLICES))?;
    let mut queue = host.cpus.get(from.index())?.queue.lock();
    // Its turn may have come meanwhile.
    if !queue.remove(found.domain, found.vcpu) {
        return None;
    }
    let clock = queue.clock();
    drop(queue);
    let domain = host.domains.get(found.domain)?;
    let vcpu = domain.vcpu(found.vcpu)?;
    let service = vcpu.sched.raise_service(less(MOST_SLICES));
    vcpu.sched.set_cpu(me);
    let mut queue = host.cpus.get(me.index())?.queue.lock();
    let virtual_time = entry_time(&queue, vcpu, Some(clock));
    queue.add(Waiting { virtual_time, service, ..found });
    Some(from)
}

/// Who has had least, and less than `limit`, of those that wait on other CPUs and would as soon be here.
fn neediest(host: &Host, me: CpuId, limit: u64) -> Option<(CpuId, Waiting)> {
    let others = (0..).map(CpuId).zip(&host.cpus).filter(|(id, _)| *id != me);
    let candidates = others.filter_map(|(id, cpu)| {
        let queue = cpu.queue.lock();
        // A CPU that runs nobody is about to run the first of those that wait: they need no other one.
        let needy = queue.iter().filter(|waiting| queue.is_busy() && waiting.service < limit);
        let fits = needy.filter(|waiting| {
            let domain = host.domains.get(waiting.domain);
            domain.is_some_and(|domain| domain.vcpu(waiting.vcpu).is_some_and(|vcpu| likes(&vcpu.sched, me)))
        });
        fits.min_by_key(|waiting| waiting.service).map(|waiting| (id, *waiting))
    });
    candidates.min_by_key(|(_, waiting)| waiting.service)
}

/// Whether a vCPU may run on a CPU, and would as soon as on another one.
fn likes(unit: &Unit, cpu: CpuId) -> bool {
    unit.may_run_on(cpu) && unit.soft_affinity() & bit(cpu) != 0
}

/// Sends the running vCPU, which has run for `ran` ticks, to another CPU when it stops, if it likes to be there. It is charged
/// here, by the clock of this CPU.
pub fn send_away(host: &Host, me: CpuId, running: &Vcpu, ran: u64, to: CpuId) -> bool {
    let (Some(from), Some(cpu)) = (host.cpus.get(me.index()), host.cpus.get(to.index())) else { return false };
    if !likes(&running.sched, to) {
        return false;
    }
    running.sched.charge(ran);
    let clock = from.queue.lock().clock();
    entry_time(&cpu.queue.lock(), running, Some(clock));
    running.sched.set_cpu(to);
    true
}
