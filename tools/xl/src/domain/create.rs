//! Creating a domain: checks, plan, build, user data, devices, console. What `xl create` and the monitor's restart share.

use std::os::unix::fs::OpenOptionsExt;

use image::Kernel;
use libxc::build::{Payloads, build};
use libxc::device::host::Host;
use libxc::fault;
use libxc::plan::BuildPlan;
use libxc::plan::pvh::plan;
use libxc::trap::Trap;
use rustix::fs::{FlockOperation, fcntl_lock};

use super::destroy::destroy;
use super::devices;
use super::guest::{self, Images};
use super::machine::Machine;
use super::room;
use crate::config::domain::DomainConfig;
use crate::console;
use crate::failure::{Failure, Outcome};
use crate::host_config::HostConfig;
use crate::json;
use crate::session::Session;
use crate::userdata::CONFIGURATION;

/// Creates a domain and leaves it paused, with its console ready. Its id. Nothing is left behind by a failure.
pub fn create<T: Trap, H: Host>(
    session: &Session<T>,
    machine: &Machine<H>,
    config: &DomainConfig,
    uuid: [u8; 16],
    images: &Images,
) -> Outcome<u16> {
    let config = &devices::complete(config, &uuid);
    let settings = machine.settings();
    let _lock = lock(&settings.lock_file)?;
    let kernel = images.kernel()?;
    let prepared = prepare(session, machine, &settings, (config, uuid), &kernel, images.ramdisk.len() as u64);
    let (plan, nodes) =
        prepared.map_err(|failure| failure.while_doing(format!("planning domain \"{}\"", config.name)))?;
    let payloads = Payloads { kernel: &kernel, ramdisk: &images.ramdisk };
    let built = build(&plan, &payloads, &session.handle, &session.store)
        .map_err(|error| Failure::new(format!("building domain \"{}\": {error}", config.name)))?;
    let finished = finish(session, machine, config, uuid, built.domid, &nodes)
        .map_err(|failure| failure.while_doing(format!("finishing domain \"{}\"", config.name)));
    match finished {
        Ok(()) => Ok(built.domid),
        Err(failure) => match destroy(session, machine, built.domid) {
            Ok(()) => Err(failure),
            Err(second) => Err(Failure::new(format!("{failure}; destroying the domain failed, too: {second}"))),
        },
    }
}

/// Checks what can be checked before there is a domain. The plan, and the host's CPUs with their nodes.
fn prepare<T: Trap, H: Host>(
    session: &Session<T>,
    machine: &Machine<H>,
    settings: &HostConfig,
    (config, uuid): (&DomainConfig, [u8; 16]),
    kernel: &Kernel<'_>,
    ramdisk_bytes: u64,
) -> Outcome<(BuildPlan, Vec<Option<u32>>)> {
    if !devices::has_none(config) {
        devices::check(session, &devices::on_this_machine(session, &machine.host)?, config)?;
    }
    if let Some(other) = session.by_name(&config.name)? {
        return Err(Failure::new(format!("name: domain {other} is already named \"{}\"", config.name)));
    }
    let nodes = guest::nodes_of_cpus(session)?;
    let pool = guest::cpu_pool(session, config)?;
    let spec = guest::specification(config, uuid, &nodes, pool)?;
    room::make(session, settings, spec.max_memory_kib + spec.paging_pool())?;
    let host = guest::host_facts(session)?;
    let plan = plan(&spec, kernel, ramdisk_bytes, &host).map_err(|error| Failure::new(error.to_string()))?;
    Ok((plan, nodes))
}

/// Waits until no other domain is being created on this host, by this toolstack or by Xen's; it ends with the file's life.
fn lock(path: &str) -> Outcome<std::fs::File> {
    let doing = || format!("the lock file {path} (lockfile= in xl.conf)");
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", doing()));
    fault::check_host(doing).map_err(failed)?;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
    fcntl_lock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(file)
}

fn finish<T: Trap, H: Host>(
    session: &Session<T>,
    machine: &Machine<H>,
    config: &DomainConfig,
    uuid: [u8; 16],
    domid: u16,
    nodes: &[Option<u32>],
) -> Outcome {
    let context = json::Context { uuid, node_of_cpu: nodes };
    let description = json::stored_config(&json::domain_config(config, &context));
    // libxl stores the terminating zero, too.
    let mut text = json::to_text(&description).into_bytes();
    text.push(0);
    machine.user_data(domid, &uuid).store(CONFIGURATION, &text)?;
    if !devices::has_none(config) {
        devices::add_all(session, &devices::on_this_machine(session, &machine.host)?, domid, config)?;
    }
    console::wait_for_tty(&session.store, domid).map(|_| ())
}

/// A fresh UUID, random (version 4).
pub fn fresh_uuid() -> Outcome<[u8; 16]> {
    use std::io::Read;
    let failed = |error| Failure::new(format!("making a UUID: /dev/urandom: {error}"));
    let mut uuid = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut uuid)).map_err(failed)?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
