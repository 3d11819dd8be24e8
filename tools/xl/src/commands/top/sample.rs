//! One look at the host: what the hypervisor, xenstore and the kernel of the control domain say at one moment.
//!
//! Numbers of interfaces are those of the control domain's side, as in xentop: what a guest sends is received here.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libxc::device::list::{Entry, entries};
use libxc::verbs::domain::DomainInfo;
use libxc::xenstore::Tx;
use public_abi::domctl_domain::DomainInfoFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::failure::Outcome;
use crate::session::Session;

/// The kernel's numbers of network interfaces and of block backends.
const INTERFACES: &str = "/sys/class/net";
const BACKENDS: &str = "/sys/bus/xen-backend/devices";
/// SHUTDOWN_crash (public/sched.h).
const CRASHED: u8 = 3;

/// The host at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// When, by a clock that only goes forward.
    pub(super) when: Duration,
    /// The time of day in seconds, UTC.
    pub(super) time_of_day: u64,
    /// The hypervisor's version.
    pub(super) version: String,
    /// Memory in KiB.
    pub(super) total_kib: u64,
    /// Memory that nobody has, in KiB.
    pub(super) free_kib: u64,
    /// CPUs, and the frequency of one.
    pub(super) cpus: u32,
    pub(super) mhz: u32,
    /// The domains, in the order of their ids.
    pub(super) domains: Vec<Domain>,
}

/// What a domain is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) dying: bool,
    pub(super) shutdown: bool,
    pub(super) blocked: bool,
    pub(super) crashed: bool,
    pub(super) paused: bool,
    pub(super) running: bool,
}

/// A domain at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Domain {
    pub(super) domid: u16,
    pub(super) name: String,
    pub(super) state: State,
    /// CPU time of all vCPUs in nanoseconds.
    pub(super) cpu_ns: u64,
    pub(super) memory_kib: u64,
    /// `None`: no limit.
    pub(super) max_memory_kib: Option<u64>,
    pub(super) vcpus: u32,
    /// Each vCPU that is up, with its CPU time in nanoseconds.
    pub(super) vcpu_times: Vec<(u32, u64)>,
    pub(super) networks: Vec<Network>,
    pub(super) disks: Vec<Disk>,
}

/// What went one way through an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) drops: u64,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) number: u32,
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
}

/// Requests to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// Put off because the backend was busy.
    pub(super) delayed: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) sectors_read: u64,
    pub(super) sectors_written: u64,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disk {
    /// Its number in the guest.
    pub(super) number: u32,
    /// `None` if its backend does not count.
    pub(super) requests: Option<Requests>,
}

/// Looks at the host.
pub(super) fn take(session: &Session) -> Outcome<Sample> {
    let handle = &session.handle;
    let (major, minor) = handle.version()?;
    let physical = handle.phys_info()?;
    let now = clock_gettime(ClockId::Monotonic);
    let domains = handle.domains()?;
    Ok(Sample {
        when: Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0)),
        time_of_day: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400,
        version: format!("{major}.{minor}{}", handle.extra_version()?),
        total_kib: physical.total_pages * 4,
        free_kib: (physical.free_pages + physical.scrub_pages) * 4,
        cpus: physical.nr_cpus,
        mhz: physical.cpu_khz / 1000,
        domains: domains.iter().map(|info| domain(session, info)).collect::<Outcome<_>>()?,
    })
}

fn domain(session: &Session, info: &DomainInfo) -> Outcome<Domain> {
    let has = |flag| info.flags.contains(flag);
    let shutdown = has(DomainInfoFlags::SHUTDOWN);
    let is_crash = shutdown && info.shutdown_code == CRASHED;
    let mut vcpu_times = Vec::new();
    for vcpu in 0..info.max_vcpus {
        // The domain may have gone meanwhile.
        if let Ok(state) = session.handle.vcpu_info(info.domid, vcpu)
            && state.online
        {
            vcpu_times.push((vcpu, state.cpu_time));
        }
    }
    let of_kind = |kind| entries(&session.store, info.domid, Some(kind));
    let networks = of_kind("vif")?.iter().map(|entry| network(session, entry)).collect::<Outcome<_>>()?;
    let max_memory_kib = info.max_pages.checked_mul(4);
    Ok(Domain {
        domid: info.domid,
        name: session.name(info.domid)?,
        state: State {
            dying: has(DomainInfoFlags::DYING),
            shutdown,
            blocked: has(DomainInfoFlags::BLOCKED),
            crashed: is_crash,
            paused: has(DomainInfoFlags::PAUSED),
            running: has(DomainInfoFlags::RUNNING),
        },
        cpu_ns: info.cpu_time,
        memory_kib: info.pages * 4,
        // A control domain without a limit has one of 2^32 pages or more, which is none.
        max_memory_kib: max_memory_kib.filter(|_| info.max_pages < u64::from(u32::MAX)),
        vcpus: info.online_vcpus,
        vcpu_times,
        networks,
        disks: of_kind("vbd")?.iter().map(disk).collect(),
    })
}

fn network(session: &Session, entry: &Entry) -> Outcome<Network> {
    let given = session.store.read(Tx::NONE, &format!("{}/vifname", entry.backend_path))?;
    let name =
        given.filter(|name| !name.contains('/')).unwrap_or_else(|| format!("vif{}.{}", entry.domain, entry.number));
    let folder = Path::new(INTERFACES).join(name).join("statistics");
    let way = |way: &str| Traffic {
        bytes: number(&folder, &format!("{way}_bytes")).unwrap_or(0),
        packets: number(&folder, &format!("{way}_packets")).unwrap_or(0),
        errors: number(&folder, &format!("{way}_errors")).unwrap_or(0),
        drops: number(&folder, &format!("{way}_dropped")).unwrap_or(0),
    };
    Ok(Network { number: entry.number, received: way("rx"), sent: way("tx") })
}

fn disk(entry: &Entry) -> Disk {
    let folder = Path::new(BACKENDS).join(format!("vbd-{}-{}", entry.domain, entry.number)).join("statistics");
    let count = |name: &str| number(&folder, name);
    let requests = count("rd_req").map(|reads| Requests {
        delayed: count("oo_req").unwrap_or(0),
        reads,
        writes: count("wr_req").unwrap_or(0),
        sectors_read: count("rd_sect").unwrap_or(0),
        sectors_written: count("wr_sect").unwrap_or(0),
    });
    Disk { number: entry.number, requests }
}

/// A number that a file holds; `None` if there is no such file.
fn number(folder: &Path, name: &str) -> Option<u64> {
    std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}
