//! `xl network-attach`, `network-detach` and `network-list`.

use libxc::device::list::entries;

use super::{block, or_minus_one};
use crate::cli::{Domains, NetworkAttach, NetworkDetach};
use crate::config::vif::Vif;
use crate::device_json;
use crate::domain::attach;
use crate::domain::machine::Machine;
use crate::failure::{Failure, Outcome};
use crate::host_config::HostConfig;
use crate::json::to_text;
use crate::output::{line, print};
use crate::session::Session;

pub(super) fn attach(options: &NetworkAttach, dry_run: bool) -> Outcome {
    let session = Session::open()?;
    session.find(&options.domain)?;
    let mut vif = Vif::parse(&options.parts.join(",")).map_err(|error| Failure::new(format!("vif: {error}")))?;
    HostConfig::load().complete_vif(&mut vif);
    if dry_run {
        return print(format!("vif: {}\n", to_text(&device_json::nic((0, &vif)))));
    }
    let info = session.info(&options.domain)?;
    attach::network(&session, &Machine::this(), &info, &vif)
}

pub(super) fn detach(options: &NetworkDetach) -> Outcome {
    let session = Session::open()?;
    let info = session.info(&options.domain)?;
    attach::network_detach(&session, &Machine::this(), &info, &options.device)
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
            let mac = attach::mac(&session, entry)?.map(libxc::device::nodes::mac_text);
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
            let mac = libxc::device::nodes::mac_text(attach::mac(&session, &entry)?.unwrap_or_default());
            line(format_args!(
                "{:<3} {:<2} {mac}{:6} {state:5} {port:6} {send:5}/{receive:<11} {:<30}",
                entry.number, entry.backend, entry.number, entry.backend_path
            ))?;
        }
    }
    Ok(())
}
