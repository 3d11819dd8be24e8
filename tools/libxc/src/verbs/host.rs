//! The host: its resources, its schedulers, its console, and what the hypervisor says about itself.

use public_abi::sched_params::{SchedulerId, SysctlSchedCredit2, SysctlSchedulerOp};
use public_abi::sysctl::{
    CPUPOOL_PAR_ANY, CpuTopo, CpuTopoInfo, CpupoolOp, CpupoolOperation, DebugKeys, MemInfo, NumaInfo, PhysInfo,
    ReadConsole, SchedId, SysctlOp, SysctlScheduler,
};
use public_abi::version::{
    BuildIdHeader, CAPABILITIES_INFO_LEN, CHANGESET_INFO_LEN, COMMANDLINE_LEN, CompileInfo, EXTRAVERSION_LEN,
    FeatureInfo, PlatformParameters, VersionOp,
};
use public_abi::{Errno, GuestPtr, Request};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::error::{Error, Result};
use crate::handle::{Array, Handle};
use crate::trap::Trap;

/// A CPU pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuPool {
    /// Its number.
    pub id: u32,
    /// Its scheduler; `Err` holds a number that the ABI does not know.
    pub scheduler: std::result::Result<SchedulerId, u32>,
    /// Domains in it.
    pub domains: u32,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// Bytes of memory; [`public_abi::sysctl::INVALID_MEM_SZ`] for a number without a node.
    pub memsize: u64,
    /// Bytes of free memory.
    pub memfree: u64,
    /// Distance to each node, 10 to itself.
    pub distances: Vec<u32>,
}

impl<T: Trap> Handle<T> {
    /// CPUs, memory and capabilities.
    pub fn phys_info(&self) -> Result<PhysInfo> {
        self.sysctl(SysctlOp::PhysInfo, Array::None, |_| PhysInfo::default())
    }

    /// The scheduler of the first pool; `Err` holds a number that the ABI does not know.
    pub fn scheduler(&self) -> Result<std::result::Result<SchedulerId, u32>> {
        let answer = self.sysctl(SysctlOp::SchedId, Array::None, |_| SchedId::default())?;
        Ok(SchedulerId::try_from(answer.sched_id).map_err(|_| answer.sched_id))
    }

    /// Core, socket and node of each CPU that there is.
    pub fn cpu_topology(&self) -> Result<Vec<CpuTopo>> {
        let mut list = vec![CpuTopo::new_zeroed(); self.cpu_count()?];
        let num_cpus = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let answer = self.sysctl(SysctlOp::CpuTopoInfo, Array::Out(list.as_mut_bytes()), |address| CpuTopoInfo {
            num_cpus,
            cputopo: GuestPtr::from_address(address),
            ..CpuTopoInfo::default()
        })?;
        list.truncate(usize::try_from(answer.num_cpus).unwrap_or(usize::MAX));
        Ok(list)
    }

    /// One more than the largest number of a CPU.
    pub fn cpu_count(&self) -> Result<usize> {
        Ok(usize::try_from(self.phys_info()?.max_cpu_id).unwrap_or(0) + 1)
    }

    /// Each NUMA node.
    pub fn numa_nodes(&self) -> Result<Vec<NumaNode>> {
        // The answer has two arrays, which here stand behind each other: sizes of each node, distances of each pair.
        let nodes = usize::try_from(self.phys_info()?.max_node_id).unwrap_or(0) + 1;
        let sizes_len = nodes * size_of::<MemInfo>();
        let mut answer = vec![0; sizes_len + nodes * nodes * size_of::<u32>()];
        let num_nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let numbers = self.sysctl(SysctlOp::NumaInfo, Array::Out(&mut answer), |address| NumaInfo {
            num_nodes,
            meminfo: GuestPtr::from_address(address),
            distance: GuestPtr::from_address(address + sizes_len as u64),
            ..NumaInfo::default()
        })?;
        let known = usize::try_from(numbers.num_nodes).unwrap_or(usize::MAX).min(nodes);
        let (sizes, distances) = answer.split_at(sizes_len);
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
        let distances: Vec<u32> = distances.chunks_exact(size_of::<u32>()).map(word).collect();
        let of_node = |(index, bytes): (usize, &[u8])| {
            let size = MemInfo::read_from_bytes(bytes).unwrap_or_else(|_| MemInfo::new_zeroed());
            let row = distances.get(index * known..(index + 1) * known).unwrap_or_default();
            NumaNode { memsize: size.memsize, memfree: size.memfree, distances: row.to_vec() }
        };
        Ok(sizes.chunks_exact(size_of::<MemInfo>()).take(known).enumerate().map(of_node).collect())
    }

    /// All CPU pools, in the order of their numbers.
    pub fn cpu_pools(&self) -> Result<Vec<CpuPool>> {
        let mut pools = Vec::new();
        let mut next = 0;
        while next != CPUPOOL_PAR_ANY {
            let question = CpupoolOp { op: CpupoolOperation::Info.number(), cpupool_id: next, ..CpupoolOp::default() };
            let answer = match self.sysctl(SysctlOp::CpupoolOp, Array::None, |_| question) {
                Ok(answer) => answer,
                Err(Error::Hypercall { errno: Errno::ENOENT, .. }) => break,
                Err(error) => return Err(error),
            };
            if answer.cpupool_id < next {
                return Err(Error::Protocol(format!(
                    "asked for CPU pool {next} or a later one, got {}",
                    answer.cpupool_id
                )));
            }
            let scheduler = SchedulerId::try_from(answer.sched_id).map_err(|_| answer.sched_id);
            pools.push(CpuPool { id: answer.cpupool_id, scheduler, domains: answer.n_dom });
            next = answer.cpupool_id.saturating_add(1);
        }
        Ok(pools)
    }

    /// The rate limit of a CPU pool with credit2, in microseconds; 0: none.
    pub fn rate_limit(&self, pool: u32) -> Result<u32> {
        self.credit2(pool, SysctlSchedulerOp::GetInfo, 0)
    }

    /// Sets the rate limit of a CPU pool with credit2.
    pub fn set_rate_limit(&self, pool: u32, microseconds: u32) -> Result<()> {
        self.credit2(pool, SysctlSchedulerOp::PutInfo, microseconds).map(|_| ())
    }

    fn credit2(&self, pool: u32, operation: SysctlSchedulerOp, ratelimit_us: u32) -> Result<u32> {
        let mut request = SysctlScheduler {
            cpupool_id: pool,
            sched_id: SchedulerId::Credit2.number(),
            cmd: operation.number(),
            ..SysctlScheduler::default()
        };
        request.set(&SysctlSchedCredit2 { ratelimit_us });
        let answer = self.sysctl(SysctlOp::SchedulerOp, Array::None, |_| request)?;
        Ok(answer.get::<SysctlSchedCredit2>().ratelimit_us)
    }

    /// What is in the hypervisor's console ring, and nothing of it twice; with `clear`, it is emptied.
    pub fn console_ring(&self, clear: bool) -> Result<Vec<u8>> {
        self.read_console(clear, 0).map(|(text, _)| text)
    }

    /// What the hypervisor's console ring has got since `index`, and the index for the next time; the first time it is 0.
    pub fn console_ring_since(&self, index: u32) -> Result<(Vec<u8>, u32)> {
        self.read_console(false, index)
    }

    fn read_console(&self, clear: bool, mut index: u32) -> Result<(Vec<u8>, u32)> {
        let mut text = Vec::new();
        loop {
            let mut part = vec![0; 32 << 10];
            let room = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let answer = self.sysctl(SysctlOp::ReadConsole, Array::Out(&mut part), |address| {
                ReadConsole {
                    clear: u8::from(clear),
                    // From `index` on; one that is older than the ring's text means the oldest there is.
                    incremental: 1,
                    index,
                    buffer: GuestPtr::from_address(address),
                    count: room,
                    ..ReadConsole::default()
                }
            })?;
            let count = usize::try_from(answer.count).unwrap_or(0).min(part.len());
            if count == 0 {
                return Ok((text, index));
            }
            text.extend_from_slice(&part[..count]);
            index = answer.index;
        }
    }

    /// Sends keys to the hypervisor as if typed at its serial console.
    pub fn debug_keys(&self, keys: &str) -> Result<()> {
        let nr_keys = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let answer = self.sysctl(SysctlOp::DebugKeys, Array::In(keys.as_bytes()), |address| DebugKeys {
            keys: GuestPtr::from_address(address),
            nr_keys,
            ..DebugKeys::default()
        });
        answer.map(|_| ())
    }

    /// Version: major, minor.
    pub fn version(&self) -> Result<(u32, u32)> {
        let answer = self.version_number(VersionOp::Version)?;
        Ok(((answer >> 16) as u32, (answer & 0xffff) as u32))
    }

    /// The rest of the version, such as ".7".
    pub fn extra_version(&self) -> Result<String> {
        self.version_text::<EXTRAVERSION_LEN>(VersionOp::ExtraVersion)
    }

    /// Kinds of guests, such as "xen-3.0-x86_64 hvm-3.0-x86_64".
    pub fn capabilities(&self) -> Result<String> {
        self.version_text::<CAPABILITIES_INFO_LEN>(VersionOp::Capabilities)
    }

    /// Where in its history the hypervisor was built from.
    pub fn changeset(&self) -> Result<String> {
        self.version_text::<CHANGESET_INFO_LEN>(VersionOp::Changeset)
    }

    /// The hypervisor's command line.
    pub fn command_line(&self) -> Result<String> {
        self.version_text::<COMMANDLINE_LEN>(VersionOp::Commandline)
    }

    /// Who built it, when, with what.
    pub fn compile_info(&self) -> Result<CompileInfo> {
        self.version_struct(VersionOp::CompileInfo)
    }

    /// The features of the calling domain's interface: bits [`public_abi::version::Feature`].
    pub fn features(&self) -> Result<u32> {
        let operation = VersionOp::GetFeatures;
        let mut info = FeatureInfo::default();
        let call = |arg| Request::XenVersion { cmd: operation.number(), arg };
        self.exchange(operation.name(), &mut info, Array::None, |_, _| (), call)?;
        Ok(info.submap)
    }

    /// First address that is reserved for the hypervisor in PV guests.
    pub fn virt_start(&self) -> Result<u64> {
        Ok(self.version_struct::<PlatformParameters>(VersionOp::PlatformParameters)?.virt_start)
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> Result<u64> {
        self.version_number(VersionOp::Pagesize)
    }

    /// The build id, empty if the hypervisor has none.
    pub fn build_id(&self) -> Result<Vec<u8>> {
        const ROOM: usize = 252;
        let mut bytes = [0; 4 + ROOM];
        bytes[..4].copy_from_slice(BuildIdHeader { len: 252 }.as_bytes());
        let operation = VersionOp::BuildId;
        let call = |arg| Request::XenVersion { cmd: operation.number(), arg };
        match self.exchange(operation.name(), &mut bytes, Array::None, |_, _| (), call) {
            Ok(length) => Ok(bytes[4..].iter().copied().take(length as usize).collect()),
            Err(Error::Hypercall { errno: Errno::ENODATA | Errno::ENOSYS, .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// All of it in one record, as it stands in core dumps: version, extra version, how it was compiled, capabilities,
    /// changeset, platform parameters, page size (`struct xen_dumpcore_elfnote_xen_version_desc` of Xen's xc_core.h).
    pub fn version_record(&self) -> Result<Vec<u8>> {
        let (major, minor) = self.version()?;
        let mut record = Vec::new();
        record.extend_from_slice([u64::from(major), u64::from(minor)].as_bytes());
        record.extend_from_slice(&self.version_struct::<[u8; EXTRAVERSION_LEN]>(VersionOp::ExtraVersion)?);
        record.extend_from_slice(self.compile_info()?.as_bytes());
        record.extend_from_slice(&self.version_struct::<[u8; CAPABILITIES_INFO_LEN]>(VersionOp::Capabilities)?);
        record.extend_from_slice(&self.version_struct::<[u8; CHANGESET_INFO_LEN]>(VersionOp::Changeset)?);
        record.extend_from_slice([self.virt_start()?, self.page_size()?].as_bytes());
        Ok(record)
    }

    fn version_number(&self, operation: VersionOp) -> Result<u64> {
        self.call(operation.name(), &Request::XenVersion { cmd: operation.number(), arg: GuestPtr::NULL })
    }

    fn version_struct<S: FromBytes + IntoBytes + Immutable>(&self, operation: VersionOp) -> Result<S> {
        let mut value = S::new_zeroed();
        let call = |arg| Request::XenVersion { cmd: operation.number(), arg };
        self.exchange(operation.name(), &mut value, Array::None, |_, _| (), call)?;
        Ok(value)
    }

    fn version_text<const N: usize>(&self, operation: VersionOp) -> Result<String> {
        self.version_struct::<[u8; N]>(operation).map(|bytes| text(&bytes))
    }
}

/// The text in a field that is padded with zeros.
pub fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}
