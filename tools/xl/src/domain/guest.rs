//! From a checked configuration to what libxc builds from: the images, read from their files, and the specification.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::ops::Deref;

use image::{ImageError, Kernel};
use libxc::linux::FileBytes;
use libxc::plan::spec::{GuestSpec, HostFacts};
use libxc::trap::Trap;
use public_abi::sysctl::{INVALID_NODE_ID, PhysCap};

use crate::config::cpus::CpuSet;
use crate::config::domain::{Affinity, DomainConfig, TimerMode};
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// A kernel may unpack to this many bytes at most.
const LARGEST_KERNEL: usize = 1 << 30;

/// The files a guest is started from.
pub struct Images {
    /// Name of the kernel's file, for messages.
    kernel_file: String,
    /// The kernel, unpacked.
    elf: Content,
    /// The initial RAM disk; empty without one.
    pub ramdisk: Content,
}

/// What a file holds, or what was made of it.
pub enum Content {
    /// In memory of its own.
    Read(Vec<u8>),
    /// Where the kernel has it anyway.
    Mapped(FileBytes),
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Content::Read(bytes) => bytes,
            Content::Mapped(bytes) => bytes,
        }
    }
}

impl Images {
    /// Reads the files.
    pub fn read(config: &DomainConfig) -> Outcome<Images> {
        let kernel_file = config.kernel.clone().unwrap_or_default();
        let packed = read_file("kernel", &kernel_file)?;
        let elf = match image::unpack(&packed, LARGEST_KERNEL) {
            Ok(Cow::Owned(elf)) => Content::Read(elf),
            // The file is an ELF file itself: no copy of tens of megabytes.
            Ok(Cow::Borrowed(_)) => packed,
            Err(error) => return Err(Failure::new(format!("kernel: {kernel_file}: {error}"))),
        };
        let ramdisk = match config.ramdisk.as_deref() {
            None | Some("") => Content::Read(Vec::new()),
            Some(file) => read_file("ramdisk", file)?,
        };
        Ok(Images { kernel_file, elf, ramdisk })
    }

    /// The kernel. It has a PVH entry point.
    pub fn kernel(&self) -> Outcome<Kernel<'_>> {
        let file = &self.kernel_file;
        let failed = |error: ImageError| Failure::new(format!("kernel: {file}: {error}"));
        let kernel = Kernel::parse(&self.elf).map_err(failed)?;
        match kernel.pvh_entry() {
            Ok(_) => Ok(kernel),
            Err(ImageError::NoNote { .. }) => Err(Failure::new(format!(
                "kernel: {file} has no PVH entry point (no PHYS32_ENTRY note); a Linux kernel needs CONFIG_PVH, version 4.11 or later"
            ))),
            Err(error) => Err(failed(error)),
        }
    }
}

fn read_file(key: &str, file: &str) -> Outcome<Content> {
    let read = || -> std::io::Result<Content> {
        let mut opened = File::open(file)?;
        if let Some(bytes) = FileBytes::map(&opened)? {
            return Ok(Content::Mapped(bytes));
        }
        let mut bytes = Vec::new();
        opened.read_to_end(&mut bytes)?;
        Ok(Content::Read(bytes))
    };
    let content = read().map_err(|error| Failure::new(format!("{key}: {file}: {error}")))?;
    if content.is_empty() { Err(Failure::new(format!("{key}: {file}: the file is empty"))) } else { Ok(content) }
}

/// For each CPU number of the host its node, `None` where there is no such CPU; padded to whole bytes of a CPU map.
pub fn nodes_of_cpus<T: Trap>(session: &Session<T>) -> Outcome<Vec<Option<u32>>> {
    let topology = session.handle.cpu_topology()?;
    let node = |node: u32| (node != INVALID_NODE_ID).then_some(node);
    let mut nodes: Vec<_> = topology.iter().map(|cpu| node(cpu.node)).collect();
    nodes.resize(nodes.len().next_multiple_of(8), None);
    Ok(nodes)
}

/// What the plan must know of the host.
pub fn host_facts<T: Trap>(session: &Session<T>) -> Outcome<HostFacts> {
    let capabilities = PhysCap::from_bits_truncate(session.handle.phys_info()?.capabilities);
    if !capabilities.contains(PhysCap::HVM | PhysCap::HAP) {
        return Err(Failure::new(
            "the hypervisor cannot run PVH guests: it has no nested paging (see virt_caps in `xl info')",
        ));
    }
    let grant_version = match capabilities {
        set if set.contains(PhysCap::GNTTAB_V2) => 2,
        set if set.contains(PhysCap::GNTTAB_V1) => 1,
        _ => 0,
    };
    let daemon = |name: &str| -> Outcome<u16> {
        let path = format!("/tool/{name}/domid");
        let text = session.store.read(libxc::xenstore::Tx::NONE, &path)?;
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
    };
    Ok(HostFacts { grant_version, xenstore_domid: daemon("xenstored")?, console_domid: daemon("xenconsoled")? })
}

/// What is assumed of a host that is not there, for `--plan` elsewhere: that of Xen with its daemons in domain 0.
pub const ABSENT_HOST: HostFacts = HostFacts { grant_version: 2, xenstore_domid: 0, console_domid: 0 };

/// The exit code when a configuration means something that the host does not have, as from Xen's xl.
const INVALID: u8 = 6;

/// The number of the CPU pool that the configuration names.
pub fn cpu_pool<T: Trap>(session: &Session<T>, config: &DomainConfig) -> Outcome<u32> {
    let Some(wanted) = &config.pool else { return Ok(0) };
    for pool in session.handle.cpu_pools()? {
        let path = format!("/local/pool/{}/name", pool.id);
        let name = session.store.read(libxc::xenstore::Tx::NONE, &path)?;
        if name.as_ref() == Some(wanted) || *wanted == format!("Pool-{}", pool.id) && name.is_none() {
            return Ok(pool.id);
        }
    }
    Err(Failure::new(format!("pool: there is no CPU pool named \"{wanted}\"")).with_code(INVALID))
}

/// The specification. `nodes` is as [`nodes_of_cpus`] gives it.
pub fn specification(
    config: &DomainConfig,
    uuid: [u8; 16],
    nodes: &[Option<u32>],
    cpu_pool: u32,
) -> Outcome<GuestSpec> {
    let affinity =
        |key: &str, affinity: &Option<Affinity>| affinities(key, affinity.as_ref(), config.most_vcpus(), nodes);
    let mut spec = GuestSpec::new(&config.name, uuid, config.memory_kib());
    spec.max_vcpus = config.most_vcpus();
    spec.online_vcpus = config.online_vcpus();
    spec.max_memory_kib = config.max_memory_kib();
    spec.paging_pool_kib = config.shadow_memory_mib.map(|mib| mib << 10);
    spec.command_line = config.command_line();
    spec.max_event_channels = config.max_event_channels.filter(|&most| most != 0).unwrap_or(spec.max_event_channels);
    spec.max_grant_frames = config.max_grant_frames;
    spec.max_maptrack_frames = config.max_maptrack_frames;
    spec.max_grant_version = config.max_grant_version;
    spec.cpu_pool = cpu_pool;
    spec.hard_affinity = affinity("cpus", &config.cpus)?;
    spec.soft_affinity = affinity("cpus_soft", &config.cpus_soft)?;
    spec.weight = config.scheduling.weight;
    spec.cap = config.scheduling.cap;
    spec.tsc_mode = config.tsc_mode as u32;
    spec.timer_mode = config.timer_mode.unwrap_or(TimerMode::NoDelayForMissedTicks) as u64;
    spec.acpi = config.acpi.unwrap_or(true);
    spec.out_of_sync = config.oos.unwrap_or(true);
    spec.never_migrates = config.no_migrate.unwrap_or(false);
    spec.driver_domain = config.driver_domain.unwrap_or(false);
    spec.claim = config.claim;
    Ok(spec)
}

/// The CPUs of each vCPU.
fn affinities(key: &str, affinity: Option<&Affinity>, vcpus: u32, nodes: &[Option<u32>]) -> Outcome<Vec<Vec<u32>>> {
    let exists = |cpu: u32| nodes.get(cpu as usize).is_some_and(Option::is_some);
    let resolve = |set: &CpuSet| {
        let cpus = set.resolve(nodes);
        match cpus.iter().any(|&cpu| exists(cpu)) {
            true => Ok(cpus),
            false => Err(Failure::new(format!("{key}: \"{set}\" names no CPU that this host has"))),
        }
    };
    let count = usize::try_from(vcpus).unwrap_or(usize::MAX);
    match affinity {
        None => Ok(Vec::new()),
        Some(Affinity::All(set)) => Ok(vec![resolve(set)?; count]),
        Some(Affinity::PerVcpu(sets)) => sets.iter().take(count).map(resolve).collect(),
    }
}
