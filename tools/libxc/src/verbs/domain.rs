//! Life of a domain, what it is like, its limits and its scheduling.

use public_abi::Errno;
use public_abi::bitmap::Bitmap;
use public_abi::domctl::DomctlOp;
use public_abi::domctl_domain::{
    ArchDomainConfig, CreateDomain, CreateDomainFlags, DomainInfoFlags, EmulationFlags, GetDomainInfo, MaxMem,
    MaxVcpus, NodeAffinity, PagingMempool, SchedulerOp, SetDomainHandle, TscInfo,
};
use public_abi::sched_params::{DomctlSchedCredit2, DomctlSchedulerOp, SchedulerId};
use public_abi::sysctl::{GetDomainInfoList, SysctlOp};
use public_abi::{GuestPtr, sched::ShutdownReason};
use zerocopy::{FromZeros, IntoBytes};

use crate::error::{Error, Result};
use crate::handle::{Array, Handle};
use crate::plan::Create;
use crate::trap::Trap;
use crate::verbs::vcpu::CpuMap;

/// What a domain is like at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// Its id.
    pub domid: u16,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its state.
    pub flags: DomainInfoFlags,
    /// Why it stopped; meaningful only with the flag SHUTDOWN.
    pub shutdown_code: u8,
    /// Pages it has.
    pub pages: u64,
    /// Pages it may have.
    pub max_pages: u64,
    /// Pages that are paged out.
    pub paged_pages: u64,
    /// Pages that are shared.
    pub shared_pages: u64,
    /// Pages it has claimed and not yet got.
    pub outstanding_pages: u64,
    /// CPU time of all its vCPUs in nanoseconds.
    pub cpu_time: u64,
    /// vCPUs that are up.
    pub online_vcpus: u32,
    /// vCPUs it has.
    pub max_vcpus: u32,
    /// Its CPU pool.
    pub cpu_pool: u32,
}

impl DomainInfo {
    /// Why it stopped, if it did: `Err` holds a reason that the ABI does not know.
    pub fn shutdown(&self) -> Option<std::result::Result<ShutdownReason, u8>> {
        let stopped = self.flags.contains(DomainInfoFlags::SHUTDOWN);
        stopped.then(|| ShutdownReason::try_from(u32::from(self.shutdown_code)).map_err(|_| self.shutdown_code))
    }

    /// Whether it is being destroyed.
    pub fn is_dying(&self) -> bool {
        self.flags.contains(DomainInfoFlags::DYING)
    }
}

impl From<&GetDomainInfo> for DomainInfo {
    fn from(raw: &GetDomainInfo) -> Self {
        let code = raw.flags >> DomainInfoFlags::SHUTDOWN_SHIFT & 0xff;
        DomainInfo {
            domid: raw.domain,
            uuid: raw.handle,
            flags: DomainInfoFlags::from_bits_truncate(raw.flags),
            shutdown_code: u8::try_from(code).unwrap_or(u8::MAX),
            pages: raw.tot_pages,
            max_pages: raw.max_pages,
            paged_pages: raw.paged_pages,
            shared_pages: raw.shr_pages,
            outstanding_pages: raw.outstanding_pages,
            cpu_time: raw.cpu_time,
            online_vcpus: raw.nr_online_vcpus,
            // All ones means that there are no vCPUs, and wraps around to 0.
            max_vcpus: raw.max_vcpu_id.wrapping_add(1),
            cpu_pool: raw.cpupool,
        }
    }
}

/// Scheduling parameters of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedParams {
    /// Share of busy CPUs, relative to other domains.
    pub weight: u16,
    /// Most CPU time in percent of a CPU; 0 for no limit.
    pub cap: u16,
}

/// How often a destroy that makes progress is asked to go on. Each call frees thousands of pages, so that a domain of the
/// largest size is done long before.
const DESTROY_ROUNDS: u32 = 1 << 24;

impl<T: Trap> Handle<T> {
    /// Creates a PVH domain, without vCPUs and memory. Its id.
    pub fn domain_create(&self, create: &Create) -> Result<u16> {
        let mut flags = CreateDomainFlags::HVM | CreateDomainFlags::HAP;
        flags.set(CreateDomainFlags::OOS_OFF, !create.out_of_sync);
        let frames = |frames: Option<u32>| frames.and_then(|frames| i32::try_from(frames).ok()).unwrap_or(-1);
        let arch = ArchDomainConfig { emulation_flags: EmulationFlags::PVH.bits(), misc_flags: 0 };
        let parameters = CreateDomain {
            handle: create.uuid,
            flags: flags.bits(),
            max_vcpus: create.max_vcpus,
            max_evtchn_port: create.max_event_channels,
            max_grant_frames: frames(create.max_grant_frames),
            max_maptrack_frames: frames(create.max_maptrack_frames),
            grant_opts: create.max_grant_version,
            cpupool_id: create.cpu_pool,
            arch,
            ..CreateDomain::default()
        };
        // Domain 0 in the request means that the hypervisor chooses.
        self.domctl(DomctlOp::CreateDomain, 0, Array::None, |_| parameters).map(|(domid, _)| domid)
    }

    /// Destroys a domain, to the end: a domain with much memory takes many calls.
    pub fn domain_destroy(&self, domain: u16) -> Result<()> {
        for _ in 0..DESTROY_ROUNDS {
            match self.domctl_plain(DomctlOp::DestroyDomain, domain) {
                Err(Error::Hypercall { errno: Errno::EAGAIN | Errno::ERESTART, .. }) => {}
                other => return other,
            }
        }
        Err(Error::Protocol(format!("destroying domain {domain} never ends")))
    }

    /// Pauses a domain once more.
    pub fn domain_pause(&self, domain: u16) -> Result<()> {
        self.domctl_plain(DomctlOp::PauseDomain, domain)
    }

    /// Undoes one pause.
    pub fn domain_unpause(&self, domain: u16) -> Result<()> {
        self.domctl_plain(DomctlOp::UnpauseDomain, domain)
    }

    /// Gives a domain another UUID.
    pub fn domain_set_uuid(&self, domain: u16, uuid: &[u8; 16]) -> Result<()> {
        let parameters = SetDomainHandle { handle: *uuid };
        self.domctl(DomctlOp::SetDomainHandle, domain, Array::None, |_| parameters).map(|_| ())
    }

    /// What a domain is like; `None` if there is none of that id.
    pub fn domain_info(&self, domain: u16) -> Result<Option<DomainInfo>> {
        Ok(self.domain_list(domain, 1)?.into_iter().find(|info| info.domid == domain))
    }

    /// Up to `most` domains from id `first` on, in ascending order.
    pub fn domain_list(&self, first: u16, most: usize) -> Result<Vec<DomainInfo>> {
        let mut list = vec![GetDomainInfo::new_zeroed(); most];
        let max_domains = u32::try_from(most).unwrap_or(u32::MAX);
        let array = Array::Out(list.as_mut_bytes());
        let answer = self.sysctl(SysctlOp::GetDomainInfoList, array, |address| GetDomainInfoList {
            first_domain: first,
            max_domains,
            buffer: GuestPtr::from_address(address),
            ..GetDomainInfoList::default()
        })?;
        let count = usize::try_from(answer.num_domains).unwrap_or(usize::MAX);
        Ok(list.iter().take(count).map(DomainInfo::from).collect())
    }

    /// All domains.
    pub fn domains(&self) -> Result<Vec<DomainInfo>> {
        const BATCH: usize = 256;
        let mut all: Vec<DomainInfo> = Vec::new();
        loop {
            let first = all.last().map_or(0, |last| last.domid.saturating_add(1));
            let batch = self.domain_list(first, BATCH)?;
            let last = batch.len() < BATCH;
            all.extend(batch);
            if last {
                return Ok(all);
            }
        }
    }

    /// The NUMA nodes from which a domain's memory comes, on a host with `nodes` of them.
    pub fn domain_node_affinity(&self, domain: u16, nodes: u32) -> Result<CpuMap> {
        let mut bytes = vec![0; usize::try_from(nodes.div_ceil(8)).unwrap_or(0)];
        let nr_bits = u32::try_from(bytes.len() * 8).unwrap_or(u32::MAX);
        self.domctl(DomctlOp::GetNodeAffinity, domain, Array::Out(&mut bytes), |address| NodeAffinity {
            nodemap: Bitmap { bitmap: GuestPtr::from_address(address), nr_bits, ..Bitmap::default() },
        })?;
        Ok(CpuMap::from_bytes(bytes))
    }

    /// Makes vCPUs.
    pub fn domain_max_vcpus(&self, domain: u16, max: u32) -> Result<()> {
        self.domctl(DomctlOp::MaxVcpus, domain, Array::None, |_| MaxVcpus { max }).map(|_| ())
    }

    /// Limits memory, in KiB.
    pub fn domain_max_memory(&self, domain: u16, max_memkb: u64) -> Result<()> {
        self.domctl(DomctlOp::MaxMem, domain, Array::None, |_| MaxMem { max_memkb }).map(|_| ())
    }

    /// Chooses how the time-stamp counter works.
    pub fn domain_tsc_mode(&self, domain: u16, tsc_mode: u32) -> Result<()> {
        let parameters = TscInfo { tsc_mode, ..TscInfo::default() };
        self.domctl(DomctlOp::SetTscInfo, domain, Array::None, |_| parameters).map(|_| ())
    }

    /// Gives memory for page tables, in bytes.
    pub fn domain_paging_pool(&self, domain: u16, size: u64) -> Result<()> {
        let operation = DomctlOp::SetPagingMempoolSize;
        self.domctl(operation, domain, Array::None, |_| PagingMempool { size }).map(|_| ())
    }

    /// Reads scheduling parameters. `scheduler` is that of the domain's pool; only credit2 and credit have these.
    pub fn domain_scheduling(&self, domain: u16, scheduler: SchedulerId) -> Result<SchedParams> {
        let answer =
            self.scheduling(domain, scheduler, DomctlSchedulerOp::GetInfo, SchedParams { weight: 0, cap: 0 })?;
        let DomctlSchedCredit2 { weight, cap } = answer.get();
        Ok(SchedParams { weight, cap })
    }

    /// Sets scheduling parameters.
    pub fn domain_set_scheduling(&self, domain: u16, scheduler: SchedulerId, params: SchedParams) -> Result<()> {
        self.scheduling(domain, scheduler, DomctlSchedulerOp::PutInfo, params).map(|_| ())
    }

    fn scheduling(
        &self,
        domain: u16,
        scheduler: SchedulerId,
        operation: DomctlSchedulerOp,
        params: SchedParams,
    ) -> Result<SchedulerOp> {
        if !matches!(scheduler, SchedulerId::Credit | SchedulerId::Credit2) {
            let name = scheduler.name();
            return Err(Error::Protocol(format!("the scheduler {name} has no weight and cap")));
        }
        let mut request =
            SchedulerOp { sched_id: scheduler.number(), cmd: operation.number(), ..SchedulerOp::default() };
        // Credit's parameters have the same layout.
        request.set(&DomctlSchedCredit2 { weight: params.weight, cap: params.cap });
        self.domctl(DomctlOp::SchedulerOp, domain, Array::None, |_| request).map(|(_, answer)| answer)
    }
}
