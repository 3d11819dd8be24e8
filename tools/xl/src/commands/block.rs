//! `xl block-attach`, `block-detach` and `block-list`.

use libxc::device::detach::Force;
use libxc::device::list::{Entry, entries};
use serde_json::{Map, Value};

use super::or_minus_one;
use crate::cli::{Attach, BlockDetach, Domains};
use crate::config::disk::Disk;
use crate::device_json;
use crate::domain::attach;
use crate::domain::machine::Machine;
use crate::failure::{Failure, Outcome};
use crate::json::to_text;
use crate::output::{line, print, print_json};
use crate::session::Session;

pub(super) fn attach(options: &Attach, dry_run: bool) -> Outcome {
    let session = Session::open()?;
    session.find(&options.domain)?;
    let disk = Disk::parse_parts(options.parts.iter().map(String::as_str))
        .map_err(|error| Failure::new(format!("disk: {error}")))?;
    if dry_run {
        return print(format!("disk: {}\n", to_text(&device_json::disk(&disk))));
    }
    let info = session.info(&options.domain)?;
    attach::block(&session, &Machine::this(), &info, &disk)
}

pub(super) fn detach(options: &BlockDetach) -> Outcome {
    let session = Session::open()?;
    let info = session.info(&options.domain)?;
    let force = if options.force { Force::AtOnce } else { Force::Never };
    attach::block_detach(&session, &Machine::this(), &info, &options.device, force)
}

/// What a device's list shows of both halves; `nodes` are the guest's numbers, with the names that they have in JSON.
pub(super) fn describe(session: &Session, entry: &Entry, nodes: &[(&str, &str)]) -> Outcome<Map<String, Value>> {
    let mut object = Map::new();
    object.insert("domid".into(), entry.domain.into());
    object.insert("number".into(), entry.number.into());
    object.insert("backend_domid".into(), entry.backend.into());
    for (name, node) in nodes {
        object.insert((*name).into(), entry.frontend_number(&session.store, node)?.into());
    }
    object.insert("backend_path".into(), entry.backend_path.clone().into());
    Ok(object)
}

/// `--json` of both lists: all devices of a kind, each as `of_entry` says.
pub(super) fn list_json(
    session: &Session,
    options: &Domains,
    kind: &str,
    of_entry: impl Fn(&Entry) -> Outcome<Map<String, Value>>,
) -> Outcome {
    let mut all = Vec::new();
    for domain in &options.domains {
        for entry in entries(&session.store, session.find(domain)?, Some(kind))? {
            all.push(Value::Object(of_entry(&entry)?));
        }
    }
    print_json(&Value::Array(all))
}

pub(super) fn list(options: &Domains) -> Outcome {
    let session = Session::open()?;
    if options.output.json {
        let nodes = [("state", "state"), ("event_channel", "event-channel"), ("ring_ref", "ring-ref")];
        return list_json(&session, options, "vbd", |entry| describe(&session, entry, &nodes));
    }
    line(format_args!(
        "{:<5} {:<3} {:<6} {:<5} {:<6} {:<8} {:<30}",
        "Vdev", "BE", "handle", "state", "evt-ch", "ring-ref", "BE-path"
    ))?;
    for domain in &options.domains {
        let domid = session.find(domain)?;
        for entry in entries(&session.store, domid, Some("vbd"))? {
            let number = |node: &str| entry.frontend_number(&session.store, node).map(or_minus_one);
            let (state, port, ring) = (number("state")?, number("event-channel")?, number("ring-ref")?);
            line(format_args!(
                "{:<5} {:<3} {domid:<6} {state:<5} {port:<6} {ring:<8} {:<30}",
                entry.number, entry.backend, entry.backend_path
            ))?;
        }
    }
    Ok(())
}
