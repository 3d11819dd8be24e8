//! Changing a domain that is there: its name, its memory, its vCPUs and where these run.
//!
//! What the guest must do itself (give memory back, take a vCPU down) it is asked for in xenstore, as by libxl, so that it
//! does not matter which toolstack asks. After this come the commands with the same names.

use libxc::plan::nodes::format_uuid;
use libxc::trap::Trap;
use libxc::verbs::vcpu::CpuMap;
use libxc::xenstore::Tx;

use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// What a domain may own beyond its RAM, in KiB (libxl's constant).
const EXTRA_KIB: u64 = 1024;
/// The least the control domain may be asked to shrink to, in KiB (libxl's constant).
const LEAST_CONTROL_KIB: u64 = 128 << 10;

/// Gives a domain another name, which no other domain may have.
pub fn rename<T: Trap>(session: &Session<T>, domid: u16, name: &str) -> Outcome {
    let info = existing(session, domid)?;
    if !name.is_empty()
        && let Some(other) = session.by_name(name)?.filter(|&other| other != domid)
    {
        return Err(Failure::new(format!("domain {other} is already named \"{name}\"")));
    }
    let store = &session.store;
    Ok(store.transaction(|tx| {
        store.write(tx, &format!("/local/domain/{domid}/name"), name)?;
        store.write(tx, &format!("/vm/{}/name", format_uuid(&info.uuid)), name)
    })?)
}

fn existing<T: Trap>(session: &Session<T>, domid: u16) -> Outcome<libxc::verbs::domain::DomainInfo> {
    session.handle.domain_info(domid)?.ok_or_else(|| Failure::new(format!("Domain {domid} does not exist.")))
}

/// A number in one of the domain's nodes; an error if it is not there or no number.
fn number<T: Trap>(session: &Session<T>, tx: Tx, path: &str) -> libxc::Result<u64> {
    let text = session.store.read(tx, path)?;
    let value = text.as_deref().and_then(|text| text.parse().ok());
    value.ok_or_else(|| libxc::Error::Protocol(format!("xenstore {path}: {text:?} is no number")))
}

/// What the control domain has and may have is in xenstore only once somebody has asked.
fn note_control_memory<T: Trap>(session: &Session<T>) -> Outcome {
    let info = existing(session, 0)?;
    let store = &session.store;
    Ok(store.transaction(|tx| {
        for (node, kib) in [("target", info.pages * 4), ("static-max", info.max_pages.saturating_mul(4))] {
            let path = format!("/local/domain/0/memory/{node}");
            if store.read(tx, &path)?.is_none() {
                store.write(tx, &path, &kib.to_string())?;
            }
        }
        Ok(())
    })?)
}

/// Asks a domain to have so much memory, in KiB, and forbids it more.
pub fn memory_target<T: Trap>(session: &Session<T>, domid: u16, kib: u64) -> Outcome {
    let info = existing(session, domid)?;
    if domid == 0 {
        note_control_memory(session)?;
    }
    let (store, handle) = (&session.store, &session.handle);
    let memory = format!("/local/domain/{domid}/memory");
    let most = number(session, Tx::NONE, &format!("{memory}/static-max"))?;
    number(session, Tx::NONE, &format!("{memory}/target"))?;
    let video = store.read(Tx::NONE, &format!("{memory}/videoram"))?.and_then(|text| text.parse().ok()).unwrap_or(0);
    let target = kib.saturating_sub(video);
    if target > most {
        return Err(Failure::new(format!("{} MiB is more than the domain may have, {} MiB", target >> 10, most >> 10)));
    }
    if domid == 0 && target < LEAST_CONTROL_KIB {
        return Err(Failure::new(format!("the control domain needs {} MiB or more", LEAST_CONTROL_KIB >> 10)));
    }
    let is_pv = session.guest_type(domid)? == "pv";
    handle.domain_max_memory(domid, target + video + EXTRA_KIB)?;
    let tell = || -> libxc::Result<()> {
        if !is_pv {
            handle.set_pod_target(domid, (target + EXTRA_KIB) / 4)?;
        }
        store.transaction(|tx| {
            store.write(tx, &format!("{memory}/target"), &target.to_string())?;
            store.write(tx, &format!("/vm/{}/memory", format_uuid(&info.uuid)), &(target >> 10).to_string())
        })
    };
    with_old_limit(session, &info, tell())
}

/// Gives a domain the limit back that it had, if what came after changing it has failed.
fn with_old_limit<T: Trap>(
    session: &Session<T>,
    info: &libxc::verbs::domain::DomainInfo,
    done: libxc::Result<()>,
) -> Outcome {
    let Err(error) = done else { return Ok(()) };
    match session.handle.domain_max_memory(info.domid, info.max_pages.saturating_mul(4)) {
        Ok(()) => Err(error.into()),
        Err(second) => Err(Failure::new(format!("{error}; giving the old limit back failed, too: {second}"))),
    }
}

/// Changes how much memory a domain may have, in KiB, which may not be less than it is asked to have.
pub fn memory_maximum<T: Trap>(session: &Session<T>, domid: u16, kib: u64) -> Outcome {
    let info = existing(session, domid)?;
    let memory = format!("/local/domain/{domid}/memory");
    let target = number(session, Tx::NONE, &format!("{memory}/target"))?;
    if kib < target {
        return Err(Failure::new(format!(
            "{} MiB is less than the domain has, {} MiB; lower that by mem-set first",
            kib >> 10,
            target >> 10
        )));
    }
    session.handle.domain_max_memory(domid, kib + EXTRA_KIB)?;
    with_old_limit(session, &info, session.store.write(Tx::NONE, &format!("{memory}/static-max"), &kib.to_string()))
}

/// Asks a domain to have its first `count` vCPUs up and the others down.
pub fn online_vcpus<T: Trap>(session: &Session<T>, domid: u16, count: u32) -> Outcome {
    let info = existing(session, domid)?;
    if count == 0 || count > info.max_vcpus {
        return Err(Failure::new(format!("{count} vCPUs: this domain can have 1 to {}", info.max_vcpus)));
    }
    if session.guest_type(domid)? == "hvm" {
        return Err(Failure::new(
            "an HVM guest's vCPUs belong to its device model, to which this xl does not talk yet",
        ));
    }
    let store = &session.store;
    Ok(store.transaction(|tx| {
        (0..info.max_vcpus).try_for_each(|vcpu| {
            let state = if vcpu < count { "online" } else { "offline" };
            store.write(tx, &format!("/local/domain/{domid}/cpu/{vcpu}/availability"), state)
        })
    })?)
}

/// Where vCPUs shall run.
#[derive(Clone, Debug)]
pub struct Pin {
    /// Which one; `None`: all.
    pub vcpu: Option<u32>,
    /// CPUs it may run on; `None` leaves them.
    pub hard: Option<Vec<u32>>,
    /// CPUs it prefers; `None` leaves them.
    pub soft: Option<Vec<u32>>,
    /// Whether a pin of the guest's kernel ends.
    pub force: bool,
}

/// Chooses where vCPUs run.
pub fn pin<T: Trap>(session: &Session<T>, domid: u16, pin: &Pin) -> Outcome {
    let info = existing(session, domid)?;
    let handle = &session.handle;
    let cpus = u32::try_from(handle.cpu_count()?).unwrap_or(u32::MAX);
    let map = |list: &Option<Vec<u32>>| list.as_ref().map(|list| CpuMap::new(cpus, list));
    let (hard, soft) = (map(&pin.hard), map(&pin.soft));
    let vcpus = match pin.vcpu {
        Some(vcpu) => vcpu..vcpu.saturating_add(1),
        None => 0..info.max_vcpus,
    };
    for vcpu in vcpus {
        let set = match pin.force {
            true => handle.vcpu_force_affinity(domid, vcpu, hard.as_ref(), soft.as_ref()),
            false => handle.vcpu_set_affinity(domid, vcpu, hard.as_ref(), soft.as_ref()),
        };
        set.map_err(|error| Failure::from(error).while_doing(format!("vCPU {vcpu}")))?;
    }
    Ok(())
}
