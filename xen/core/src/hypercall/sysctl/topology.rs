//! sysctl about the host's shape: NUMA nodes, sockets and cores, where devices are.
//!
//! The host is one node. Threads share a core as CPUID says of the first CPU; the processors are alike.

use super::{answer, parameters};
use crate::hypercall::Caller;
use crate::hypercall::answer::Answer;
#[allow(unused_imports, reason = "needed only while LinearMemory lacks the methods")]
use crate::hypercall::guest_copy::GuestCopy as _;
use machine::platform::cpuid;
use machine::{PAGE_SIZE_U64, frame};
use public_abi::Errno;
use public_abi::physdev::PciDevice;
use public_abi::sysctl::{CpuTopo, CpuTopoInfo, INVALID_DEV, MemInfo, NumaInfo, PciTopoInfo, Sysctl};

/// The distance of a node to itself (ACPI specification, SLIT).
const LOCAL_DISTANCE: u32 = 10;

/// numainfo.
pub fn nodes(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    const NODES: u32 = 1;
    let mut numa: NumaInfo = parameters(request)?;
    let wants_data = !numa.meminfo.is_null() || !numa.distance.is_null();
    let count = if wants_data { NODES.min(numa.num_nodes) } else { NODES };
    if count > 0 && !numa.meminfo.is_null() {
        let memory = MemInfo {
            memsize: frame::total_pages().saturating_mul(PAGE_SIZE_U64),
            memfree: frame::free_pages().saturating_mul(PAGE_SIZE_U64),
        };
        caller.memory.write(numa.meminfo, &memory)?;
    }
    if count > 0 && !numa.distance.is_null() {
        caller.memory.write(numa.distance, &LOCAL_DISTANCE)?;
    }
    numa.num_nodes = count;
    answer(request, &numa)
}

/// cputopoinfo.
pub fn cpus(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    let mut topology: CpuTopoInfo = parameters(request)?;
    let present = u32::try_from(caller.host.cpus.len()).unwrap_or(u32::MAX);
    if topology.cputopo.is_null() {
        topology.num_cpus = present;
        return answer(request, &topology);
    }
    let count = present.min(topology.num_cpus);
    let threads = threads_per_core();
    for number in 0..count {
        let place = CpuTopo { core: number / threads.max(1), socket: 0, node: 0 };
        caller.memory.write_at(topology.cputopo, u64::from(number), &place)?;
    }
    topology.num_cpus = count;
    answer(request, &topology)
}

/// pcitopoinfo: no device is known.
pub fn pci(caller: &Caller<'_>, request: &mut Sysctl) -> Result<Answer, Errno> {
    /// Devices answered in one call; the caller asks again for the rest, as with Xen when it is preempted.
    const MOST: u32 = 64;
    let mut topology: PciTopoInfo = parameters(request)?;
    if topology.devs.is_null() || topology.nodes.is_null() {
        return Err(Errno::EINVAL);
    }
    let count = topology.num_devs.min(MOST);
    for index in 0..u64::from(count) {
        let _device: PciDevice = caller.memory.read_at(topology.devs, index)?;
        caller.memory.write_at(topology.nodes, index, &INVALID_DEV)?;
    }
    topology.num_devs = count;
    answer(request, &topology)
}

/// Threads that share a core: 1 without simultaneous multithreading.
pub fn threads_per_core() -> u32 {
    let [highest, ..] = cpuid(0x8000_0000, 0);
    let [_, _, extended_features, _] = cpuid(0x8000_0001, 0);
    if highest < 0x8000_001e || extended_features & TOPOLOGY_EXTENSIONS == 0 {
        return 1;
    }
    let [_, compute_unit, ..] = cpuid(0x8000_001e, 0);
    threads(compute_unit)
}

/// CPUID 8000_0001 ECX: leaf 8000_001e exists (AMD APM volume 3).
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

/// CPUID 8000_001e EBX bits 8-15: threads per core, minus one.
fn threads(compute_unit: u32) -> u32 {
    let [_, threads_minus_one, ..] = compute_unit.to_le_bytes();
    u32::from(threads_minus_one).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_from_one() {
        assert_eq!(threads(0x0000_0007), 1);
        assert_eq!(threads(0x0000_0107), 2);
    }
}
