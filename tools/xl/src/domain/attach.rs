//! Devices that come and go while a domain is there: `xl block-attach` and its kind, with the configuration that is stored for the
//! next build. Both or none: a device that the next build would not have is none.
//!
//! After the commands have found the domain and read what is wanted; before [`super::devices`], which does it.

use libxc::device::Device;
use libxc::device::detach::Force;
use libxc::device::host::Host;
use libxc::device::list::{Entry, entries};
use libxc::device::vdev;
use libxc::trap::Trap;
use libxc::verbs::domain::DomainInfo;
use serde_json::Value;

use super::devices;
use super::machine::Machine;
use crate::config::disk::Disk;
use crate::config::vif::{Vif, parse_mac};
use crate::device_json;
use crate::failure::{Failure, Outcome};
use crate::json;
use crate::session::Session;
use crate::userdata::CONFIGURATION;

/// Adds a block device.
///
/// # Errors
/// What failed; nothing of the device is left, unless the message says so.
pub fn block<T: Trap, H: Host>(session: &Session<T>, machine: &Machine<H>, info: &DomainInfo, disk: &Disk) -> Outcome {
    let on_machine = devices::on_this_machine(session, &machine.host)?;
    let device = devices::attach_disk(session, &on_machine, info.domid, disk)?;
    let stored = change_stored(machine, info, "disks", |list| list.push(device_json::disk(disk)));
    stored.map_err(|failure| take_back(session, machine, &device, failure))
}

/// Adds a network interface.
///
/// # Errors
/// As [`block`].
pub fn network<T: Trap, H: Host>(session: &Session<T>, machine: &Machine<H>, info: &DomainInfo, vif: &Vif) -> Outcome {
    let on_machine = devices::on_this_machine(session, &machine.host)?;
    let (device, vif) = devices::attach_vif(session, &on_machine, info.domid, &info.uuid, vif)?;
    let number = usize::try_from(device.number).unwrap_or(usize::MAX);
    let stored = change_stored(machine, info, "nics", |list| list.push(device_json::nic((number, &vif))));
    stored.map_err(|failure| take_back(session, machine, &device, failure))
}

/// Removes a device again that could not be stored; the failure, with what could not be undone.
fn take_back<T: Trap, H: Host>(
    session: &Session<T>,
    machine: &Machine<H>,
    device: &Device,
    failure: Failure,
) -> Failure {
    let remove = || -> Outcome {
        let entry = find(session, device.domain, device.kind.name(), |entry| entry.number == device.number)?;
        entry
            .map_or(Ok(()), |entry| devices::detach(&devices::to_remove(session, &machine.host), &entry, Force::AtOnce))
    };
    let failure = failure.while_doing("storing the configuration");
    match remove() {
        Ok(()) => failure,
        Err(second) => Failure::new(format!("{failure}; taking the device back failed, too: {second}")),
    }
}

fn find<T: Trap>(
    session: &Session<T>,
    domid: u16,
    kind: &str,
    is_it: impl Fn(&Entry) -> bool,
) -> Outcome<Option<Entry>> {
    Ok(entries(&session.store, domid, Some(kind))?.into_iter().find(is_it))
}

/// Removes a block device, by its name in the guest. One that is gone but still in the stored configuration goes from there.
///
/// # Errors
/// There is none, or it could not be removed; trying again goes on from there.
pub fn block_detach<T: Trap, H: Host>(
    session: &Session<T>,
    machine: &Machine<H>,
    info: &DomainInfo,
    name: &str,
    force: Force,
) -> Outcome {
    let number = vdev::number(name);
    let entry = find(session, info.domid, "vbd", |entry| Some(entry.number) == number)?;
    let is_it = |disk: &Value| number.is_some() && disk["vdev"].as_str().and_then(vdev::number) == number;
    remove(session, machine, info, entry.as_ref(), force, ("disks", &is_it), || {
        Failure::new(format!("Device {name} not connected."))
    })
}

/// Removes a network interface, by its number or its MAC address.
///
/// # Errors
/// As [`block_detach`].
pub fn network_detach<T: Trap, H: Host>(
    session: &Session<T>,
    machine: &Machine<H>,
    info: &DomainInfo,
    name: &str,
) -> Outcome {
    let wanted = if name.contains(':') { parse_mac(name).ok() } else { None };
    let number: Option<u32> = name.parse().ok();
    let mut found = None;
    for entry in entries(&session.store, info.domid, Some("vif"))? {
        let is_it = match wanted {
            Some(wanted) => mac(session, &entry)? == Some(wanted),
            None => number == Some(entry.number),
        };
        if is_it {
            found = Some(entry);
        }
    }
    let number = found.as_ref().map_or(number, |entry| Some(entry.number));
    let is_it = |nic: &Value| match (number, wanted) {
        (Some(number), _) => nic["devid"].as_u64() == Some(number.into()),
        (None, Some(wanted)) => nic["mac"].as_str().and_then(|mac| parse_mac(mac).ok()) == Some(wanted),
        (None, None) => false,
    };
    remove(session, machine, info, found.as_ref(), Force::IfNeeded, ("nics", &is_it), || {
        Failure::new(format!("Unknown device {name}."))
    })
}

/// The MAC address of an interface, if it is known.
///
/// # Errors
/// xenstore's.
pub fn mac<T: Trap>(session: &Session<T>, entry: &Entry) -> Outcome<Option<[u8; 6]>> {
    Ok(entry.recorded(&session.store, "mac")?.and_then(|text| parse_mac(&text).ok()))
}

/// Removes a device, if there is one, and its part of the stored configuration, whose key and test are given.
fn remove<T: Trap, H: Host>(
    session: &Session<T>,
    machine: &Machine<H>,
    info: &DomainInfo,
    entry: Option<&Entry>,
    force: Force,
    (key, is_it): (&str, &dyn Fn(&Value) -> bool),
    absent: impl FnOnce() -> Failure,
) -> Outcome {
    if let Some(entry) = entry {
        devices::detach(&devices::to_remove(session, &machine.host), entry, force)?;
    }
    let mut was_stored = false;
    change_stored(machine, info, key, |list| {
        was_stored = list.iter().any(is_it);
        list.retain(|device| !is_it(device));
    })
    .map_err(|failure| failure.while_doing("storing the configuration"))?;
    if entry.is_none() && !was_stored { Err(absent()) } else { Ok(()) }
}

/// Changes a list of the stored configuration, from which the domain is built the next time.
fn change_stored<H: Host>(
    machine: &Machine<H>,
    info: &DomainInfo,
    key: &str,
    change: impl FnOnce(&mut Vec<Value>),
) -> Outcome {
    machine.user_data(info.domid, &info.uuid).change(CONFIGURATION, |stored| {
        let mut config =
            json::from_text(stored).map_err(|error| Failure::new(format!("the stored configuration: {error}")))?;
        let mut list = config[key].as_array().cloned().unwrap_or_default();
        change(&mut list);
        match config.as_object_mut() {
            Some(object) if list.is_empty() => drop(object.shift_remove(key)),
            Some(object) => drop(object.insert(key.into(), Value::Array(list))),
            None => return Err(Failure::new("the stored configuration is no object")),
        }
        // libxl stores the terminating zero, too.
        let mut text = json::to_text(&json::in_order(config)).into_bytes();
        text.push(0);
        Ok(text)
    })
}
