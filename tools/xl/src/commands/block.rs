//! `xl block-attach`, `block-detach` and `block-list`.

use libxc::device::detach::Force;
use libxc::device::list::entries;

use super::or_minus_one;
use crate::cli::{Attach, BlockDetach, Domains};
use crate::config::disk::Disk;
use crate::device_json;
use crate::domain::attach;
use crate::domain::machine::Machine;
use crate::failure::{Failure, Outcome};
use crate::json::to_text;
use crate::output::{line, print};
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

pub(super) fn list(options: &Domains) -> Outcome {
    let session = Session::open()?;
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
