//! sysctl about the host as a whole: memory, CPUs, the list of domains, debug keys.

use super::{answer, parameters};
use crate::domain::console::keys;
use crate::domain::{create, info};
use crate::hypercall::Caller;
use crate::hypercall::answer::Answer;
use core::sync::atomic::Ordering;
use machine::platform::cpuid;
use machine::{DomId, PAGE_SIZE_U64, frame};
use public_abi::Errno;
use public_abi::cpu_policy::{CpuidRegister, FEATURESET_WORDS, WordSource};
use public_abi::sysctl::{AvailHeap, CpuInfo, DebugKeys, GetCpuInfo, GetDomainInfoList, PhysCap, PhysInfo, Sysctl};

/// physinfo.
pub fn physical(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let cpus = u32::try_from(caller.host.cpus.len()).unwrap_or(u32::MAX);
    let threads = super::topology::threads_per_core();
    let mut capabilities = PhysCap::HVM | PhysCap::HAP | PhysCap::GNTTAB_V1;
    // What a toolstack reads from it: pages that guests grant may be handed to devices. Guests get no devices of their own yet.
    capabilities.set(PhysCap::DIRECTIO, caller.host.translation.is_on());
    capabilities.set(PhysCap::GNTTAB_V2, create::MAX_GRANT_VERSION >= 2);
    answer(
        request,
        &PhysInfo {
            threads_per_core: threads,
            cores_per_socket: (cpus / threads.max(1)).max(1),
            nr_cpus: cpus,
            max_cpu_id: cpus.saturating_sub(1),
            nr_nodes: 1,
            max_node_id: 0,
            cpu_khz: u32::try_from(machine::cpu::timestamp_khz()).unwrap_or(u32::MAX),
            capabilities: capabilities.bits(),
            total_pages: frame::total_pages(),
            free_pages: frame::free_pages(),
            outstanding_pages: caller.host.domains.claimed_pages.load(Ordering::Relaxed),
            max_mfn: frame::last_page().number(),
            hw_cap: hardware_words(),
            ..PhysInfo::default()
        },
    )
}

/// The first eight words of the featureset, as the processor says.
fn hardware_words() -> [u32; 8] {
    let mut words = [0; 8];
    for (word, source) in words.iter_mut().zip(FEATURESET_WORDS) {
        if let WordSource::Cpuid { leaf, subleaf, register } = *source {
            let [eax, ebx, ecx, edx] = cpuid(leaf, subleaf);
            *word = match register {
                CpuidRegister::Eax => eax,
                CpuidRegister::Ebx => ebx,
                CpuidRegister::Ecx => ecx,
                CpuidRegister::Edx => edx,
            };
        }
    }
    words
}

/// getdomaininfolist. At most as many domains as there are places for, so that it is short enough to be done in one go.
pub fn domains(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut list: GetDomainInfoList = parameters(request)?;
    let mut next = Some(DomId(list.first_domain));
    let mut count = 0;
    while count < list.max_domains {
        let Some(domain) = next.and_then(|from| caller.host.domains.next_from(from)) else {
            break;
        };
        caller.memory.write_at(list.buffer, u64::from(count), &info::domain(caller.host, &domain))?;
        count = count.saturating_add(1);
        next = domain.id.0.checked_add(1).map(DomId);
    }
    list.num_domains = count;
    answer(request, &list)
}

/// getcpuinfo: how long each CPU has idled.
pub fn idle_times(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut list: GetCpuInfo = parameters(request)?;
    let mut count = 0;
    for cpu in &caller.host.cpus {
        if count == list.max_cpus {
            break;
        }
        let idle = cpu.idle_time.load(Ordering::Acquire);
        let idle = CpuInfo { idletime: caller.host.clock.scale().nanoseconds(idle) };
        caller.memory.write_at(list.info, u64::from(count), &idle)?;
        count = count.saturating_add(1);
    }
    list.nr_cpus = count;
    answer(request, &list)
}

/// availheap. Free memory is not kept by address width: a request for narrow addresses gets what lies below, at the least
/// nothing, when all RAM is within reach of them, and else 0.
pub fn free_memory(request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut heap: AvailHeap = parameters(request)?;
    let last_address = frame::last_page().number().saturating_mul(PAGE_SIZE_U64);
    let width = u64::BITS.saturating_sub(last_address.leading_zeros());
    let all_in_range = heap.min_bitwidth <= width && (heap.max_bitwidth == 0 || heap.max_bitwidth >= width);
    let exists = matches!(heap.node, -1 | 0);
    heap.avail_bytes = if all_in_range && exists { frame::free_pages().saturating_mul(PAGE_SIZE_U64) } else { 0 };
    answer(request, &heap)
}

/// debug_keys.
pub fn debug_keys(caller: &Caller<'_>, request: &DebugKeys) -> Result<Answer, Errno> {
    /// As many keys in a row as anybody types.
    const MOST: u32 = 256;
    if request.nr_keys > MOST {
        return Err(Errno::E2BIG);
    }
    for index in 0..request.nr_keys {
        let key: u8 = caller.memory.read_at(request.keys, u64::from(index))?;
        keys::press(caller.host, key);
    }
    Ok(Answer::Unchanged)
}
