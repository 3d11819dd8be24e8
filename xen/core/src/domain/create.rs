//! A new domain: what the toolstack asked for is checked, the object is made and put into the table.
//!
//! Before: `hypercall::domctl::life` decodes createdomain and max_vcpus; the control domain's builder calls the same
//! functions. After: the domain is paused, has no memory, and waits for the toolstack to fill it.

use super::{Domain, Role, Settings};
use crate::host::Host;
use crate::sched;
use crate::time;
use crate::vcpu::Vcpu;
use alloc::vec::Vec;
use machine::boxed::{Boxed, OutOfMemory};
use machine::{DomId, log};
use public_abi::Errno;
use public_abi::domctl_domain::{CreateDomain, CreateDomainFlags, EmulationFlags, GRANT_VERSION_MASK, X86_MSR_RELAXED};

/// vCPUs of a domain at the most (Xen's HVM_MAX_VCPUS).
pub const MAX_VCPUS: u32 = 128;
/// Grant table frames at the most, and by default (Xen's default of `gnttab_max_frames`).
pub const MAX_GRANT_FRAMES: u32 = 64;
/// Maptrack frames at the most, and by default (Xen's default of `gnttab_max_maptrack_frames`).
pub const MAX_MAPTRACK_FRAMES: u32 = 1024;
/// The newest grant table layout.
pub const MAX_GRANT_VERSION: u32 = 2;
/// The weight of a domain for which the toolstack set none (credit2's default).
pub const DEFAULT_WEIGHT: u16 = 256;

/// What the toolstack tells about a domain and gets back, and what it switches; nothing here is read on a hot path.
#[derive(Clone, Debug)]
pub struct Records {
    /// The domain was unpaused for the first time: its CPU policy is fixed.
    pub creation_finished: bool,
    /// Share against other domains.
    pub weight: u16,
    /// The createdomain flags for MSRs (`XEN_X86_MSR_RELAXED`).
    pub misc_flags: u32,
    /// Time stamp counter mode, rate and count of restores (public/domctl.h, tsc_info).
    pub tsc: Tsc,
}

/// What `settscinfo` set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tsc {
    /// A `TscMode`.
    pub mode: u32,
    /// How often the domain was restored.
    pub incarnation: u32,
    /// The guest's rate in kHz; 0 is the host's.
    pub khz: u32,
}

impl Default for Records {
    fn default() -> Self {
        Self { creation_finished: false, weight: DEFAULT_WEIGHT, misc_flags: 0, tsc: Tsc::default() }
    }
}

/// Why a configuration is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What the toolstack gets.
    pub errno: Errno,
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What is wrong with it.
    pub reason: &'static str,
}

fn refuse<T>(errno: Errno, field: &'static str, value: impl Into<u64>, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal { errno, field, value: value.into(), reason })
}

/// Checks a configuration as Xen 4.17 does (common/domain.c, arch/x86/domain.c, common/grant_table.c) and turns it into
/// the settings of an ordinary domain.
///
/// # Errors
/// [`Refusal`]: `EINVAL` mostly, `EOPNOTSUPP` for kinds of guests that do not exist here, `ESRCH` for other CPU pools.
pub fn sanitise(config: &CreateDomain) -> Result<Settings, Refusal> {
    check_flags(config)?;
    if config.max_vcpus < 1 || config.max_vcpus > MAX_VCPUS {
        return refuse(Errno::EINVAL, "max_vcpus", config.max_vcpus, "must be 1 to 128");
    }
    if config.arch.misc_flags & !X86_MSR_RELAXED != 0 {
        return refuse(Errno::EINVAL, "arch.misc_flags", config.arch.misc_flags, "has unknown bits");
    }
    check_emulation(config.arch.emulation_flags)?;
    let (max_grant_frames, max_maptrack_frames, max_grant_version) = check_grants(config)?;
    if config.cpupool_id != 0 {
        return refuse(Errno::ESRCH, "cpupool_id", config.cpupool_id, "names no CPU pool; there is only pool 0");
    }
    Ok(Settings {
        role: Role::Guest,
        max_vcpus: config.max_vcpus,
        max_port: config.max_evtchn_port.min(i32::MAX.unsigned_abs()),
        max_grant_frames,
        max_maptrack_frames,
        max_grant_version,
        flags: config.flags,
        emulation: config.arch.emulation_flags,
        identity_mapped: false,
    })
}

fn check_flags(config: &CreateDomain) -> Result<(), Refusal> {
    let Some(flags) = CreateDomainFlags::from_bits(config.flags) else {
        return refuse(Errno::EINVAL, "flags", config.flags, "has unknown bits");
    };
    if config.grant_opts & !GRANT_VERSION_MASK != 0 {
        return refuse(Errno::EINVAL, "grant_opts", config.grant_opts, "has unknown bits");
    }
    // What this host does not have, in the order in which Xen looks.
    let absent = [
        (CreateDomainFlags::IOMMU, "asks for an IOMMU, which guests do not get"),
        (CreateDomainFlags::VPMU, "asks for a virtual PMU, which does not exist"),
        (CreateDomainFlags::S3_INTEGRITY, "asks for tboot integrity, which does not exist"),
        (CreateDomainFlags::NESTED_VIRT, "asks for nested virtualisation, which is not available"),
    ];
    if flags.contains(CreateDomainFlags::HAP) && !flags.contains(CreateDomainFlags::HVM) {
        return refuse(Errno::EINVAL, "flags", config.flags, "asks for nested paging without HVM");
    }
    for (flag, reason) in absent {
        if flags.contains(flag) {
            return refuse(Errno::EINVAL, "flags", config.flags, reason);
        }
    }
    if config.iommu_opts != 0 {
        return refuse(Errno::EINVAL, "iommu_opts", config.iommu_opts, "is set, and guests get no IOMMU");
    }
    if config.vmtrace_size != 0 {
        return refuse(
            Errno::EINVAL,
            "vmtrace_size",
            config.vmtrace_size,
            "asks for processor trace, which is not available",
        );
    }
    if !flags.contains(CreateDomainFlags::HVM) {
        return refuse(Errno::EINVAL, "flags", config.flags, "asks for a classic PV guest, which is not available");
    }
    if !flags.contains(CreateDomainFlags::HAP) {
        return refuse(Errno::EINVAL, "flags", config.flags, "asks for shadow paging, which is not available");
    }
    Ok(())
}

fn check_emulation(emulation: u32) -> Result<(), Refusal> {
    const FIELD: &str = "arch.emulation_flags";
    match EmulationFlags::from_bits(emulation) {
        None => refuse(Errno::EINVAL, FIELD, emulation, "has unknown bits"),
        Some(EmulationFlags::PVH) => Ok(()),
        Some(EmulationFlags::HVM) => refuse(
            Errno::EOPNOTSUPP,
            FIELD,
            emulation,
            "asks for an HVM guest with emulated devices; only PVH is available",
        ),
        Some(_) => refuse(Errno::EOPNOTSUPP, FIELD, emulation, "is neither a PVH nor an HVM guest's selection"),
    }
}

fn check_grants(config: &CreateDomain) -> Result<(u32, u32, u8), Refusal> {
    let version = config.grant_opts & GRANT_VERSION_MASK;
    let Some(version) = u8::try_from(version).ok().filter(|_| (1..=MAX_GRANT_VERSION).contains(&version)) else {
        return refuse(Errno::EINVAL, "grant_opts", config.grant_opts, "must be grant table version 1 or 2");
    };
    // Negative means "as many as allowed".
    let frames = u32::try_from(config.max_grant_frames).unwrap_or(MAX_GRANT_FRAMES);
    if !(1..=MAX_GRANT_FRAMES).contains(&frames) {
        return refuse(Errno::EINVAL, "max_grant_frames", frames, "must be 1 to 64");
    }
    let maptrack = u32::try_from(config.max_maptrack_frames).unwrap_or(MAX_MAPTRACK_FRAMES);
    if maptrack > MAX_MAPTRACK_FRAMES {
        return refuse(Errno::EINVAL, "max_maptrack_frames", maptrack, "must be at most 1024");
    }
    Ok((frames, maptrack, version))
}

/// What a new domain needs beside its settings.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The number it shall have; `None` for the next free one.
    pub wanted: Option<DomId>,
    /// The toolstack's UUID.
    pub handle: [u8; 16],
    /// The createdomain flags for MSRs.
    pub misc_flags: u32,
}

/// Makes a domain and puts it into the table: paused once by the toolstack, without memory and vCPUs.
///
/// # Errors
/// `EEXIST` if the wanted number is in use, `ENOMEM` if there is no number, place or memory.
pub fn create(host: &Host, settings: Settings, identity: Identity) -> Result<DomId, Errno> {
    let mut numbers = host.domains.change.lock();
    let taken = if identity.wanted.is_some() { Errno::EEXIST } else { Errno::ENOMEM };
    let id = host.domains.choose_number(&mut numbers, identity.wanted).ok_or(taken)?;
    let domain = Domain::try_new(id, settings).map_err(|_| Errno::ENOMEM)?;
    {
        let mut control = domain.control.lock();
        control.handle = identity.handle;
        control.records.misc_flags = identity.misc_flags;
    }
    let boxed = Boxed::try_new(domain).map_err(|_| Errno::ENOMEM)?;
    if host.domains.insert(boxed).is_err() {
        log!(Warning, "{id}: not created: all {} places for domains are taken", crate::host::MAX_DOMAINS);
        return Err(Errno::ENOMEM);
    }
    Ok(id)
}

/// Allocates a domain's vCPUs, all of them, down. A second call finds them there and does nothing.
///
/// # Errors
/// `ENOMEM`; nothing is changed.
pub fn allocate_vcpus(host: &Host, domain: &Domain) -> Result<(), Errno> {
    // The lock makes a second caller wait until the first has them all.
    let control = domain.control.lock();
    if domain.vcpus.get().is_some() {
        return Ok(());
    }
    let count = usize::try_from(domain.settings.max_vcpus).map_err(|_| Errno::EINVAL)?;
    let mut vcpus = Vec::new();
    vcpus.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    for index in 0..domain.settings.max_vcpus {
        let vcpu = Vcpu::try_new(domain.id, index, domain.p2m.root()).map_err(|_| Errno::ENOMEM)?;
        vcpu.sched.set_weight(control.records.weight);
        vcpus.push(vcpu);
    }
    sched::reserve(host, count).map_err(|OutOfMemory| Errno::ENOMEM)?;
    domain.vcpus.call_once(|| vcpus);
    drop(control);
    time::begin(host, domain);
    Ok(())
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
