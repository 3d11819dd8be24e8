//! `xl network-attach`, `network-detach` and `network-list`.

use libxc::device::detach::Force;
use libxc::device::list::{Entry, entries};
use libxc::linux::LinuxHost;
use serde_json::Value;

use super::{block, change_stored, or_minus_one};
use crate::cli::{Domains, NetworkAttach, NetworkDetach};
use crate::config::vif::{Vif, parse_mac};
use crate::device_json;
use crate::domain::devices;
use crate::failure::{Failure, Outcome};
use crate::host_config::HostConfig;
use crate::json::to_text;
use crate::output::{line, print};
use crate::session::Session;

pub(super) fn attach(options: &NetworkAttach, dry_run: bool) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    let mut vif = Vif::parse(&options.parts.join(",")).map_err(|error| Failure::new(format!("vif: {error}")))?;
    HostConfig::load().complete_vif(&mut vif);
    if dry_run {
        return print(format!("vif: {}\n", to_text(&device_json::nic((0, &vif)))));
    }
    let info = session.info(&options.domain)?;
    let on_machine = devices::on_this_machine(&session, &LinuxHost)?;
    let (device, vif) = devices::attach_vif(&session, &on_machine, domid, &info.uuid, &vif)?;
    let number = usize::try_from(device.number).unwrap_or(usize::MAX);
    let stored = change_stored(&info, "nics", |list| list.push(device_json::nic((number, &vif))));
    stored.or_else(|failure| {
        // An interface that the next build would not have is none.
        let entry =
            entries(&session.store, domid, Some("vif"))?.into_iter().find(|entry| entry.number == device.number);
        entry.map_or(Ok(()), |entry| devices::detach(&on_machine, &entry, Force::AtOnce))?;
        Err(failure)
    })
}

pub(super) fn detach(options: &NetworkDetach) -> Outcome {
    let session = Session::open()?;
    let info = session.info(&options.domain)?;
    let unknown = || Failure::new(format!("Unknown device {}.", options.device));
    let mut found = None;
    for entry in entries(&session.store, info.domid, Some("vif"))? {
        let is_it = match options.device.contains(':') {
            true => mac(&session, &entry)? == parse_mac(&options.device).ok(),
            false => options.device.parse() == Ok(entry.number),
        };
        if is_it {
            found = Some(entry);
        }
    }
    let entry = found.ok_or_else(unknown)?;
    devices::detach(&devices::to_remove(&session, &LinuxHost), &entry, Force::IfNeeded)?;
    let stays = |nic: &Value| nic["devid"].as_u64() != Some(entry.number.into());
    change_stored(&info, "nics", |list| list.retain(stays))
}

fn mac(session: &Session, entry: &Entry) -> Outcome<Option<[u8; 6]>> {
    Ok(entry.recorded(&session.store, "mac")?.and_then(|text| parse_mac(&text).ok()))
}

pub(super) fn list(options: &Domains) -> Outcome {
    let session = Session::open()?;
    if options.output.json {
        let nodes = [
            ("state", "state"),
            ("event_channel", "event-channel"),
            ("tx_ring_ref", "tx-ring-ref"),
            ("rx_ring_ref", "rx-ring-ref"),
        ];
        return block::list_json(&session, options, "vif", |entry| {
            let mut object = block::describe(&session, entry, &nodes)?;
            let mac = mac(&session, entry)?.map(libxc::device::nodes::mac_text);
            object.insert("mac".into(), mac.into());
            Ok(object)
        });
    }
    line(format_args!(
        "{:<3} {:<2} {:<17} {:<6} {:<5} {:<6} {:>5}/{:<5} {:<30}",
        "Idx", "BE", "Mac Addr.", "handle", "state", "evt-ch", "tx-", "rx-ring-ref", "BE-path"
    ))?;
    for domain in &options.domains {
        let domid = session.find(domain)?;
        for entry in entries(&session.store, domid, Some("vif"))? {
            let number = |node: &str| entry.frontend_number(&session.store, node).map(or_minus_one);
            let (state, port) = (number("state")?, number("event-channel")?);
            let (send, receive) = (number("tx-ring-ref")?, number("rx-ring-ref")?);
            let mac = libxc::device::nodes::mac_text(mac(&session, &entry)?.unwrap_or_default());
            line(format_args!(
                "{:<3} {:<2} {mac}{:6} {state:5} {port:6} {send:5}/{receive:<11} {:<30}",
                entry.number, entry.backend, entry.number, entry.backend_path
            ))?;
        }
    }
    Ok(())
}
