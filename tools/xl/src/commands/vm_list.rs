//! `xl vm-list`: the domains with their UUIDs.

use libxc::plan::nodes::format_uuid;
use libxc::verbs::domain::DomainInfo;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::failure::Outcome;
use crate::output::{line, print_json, shown};
use crate::session::Session;

pub(super) fn run(output: &Output) -> Outcome {
    let session = Session::open()?;
    if output.json {
        let of_domain = |info: &DomainInfo| {
            let name = session.name(info.domid)?;
            Ok(json!({ "uuid": format_uuid(&info.uuid), "domid": info.domid, "name": name }))
        };
        return print_json(&session.handle.domains()?.iter().map(of_domain).collect::<Outcome<Value>>()?);
    }
    line(format_args!("UUID                                  ID    name"))?;
    for info in session.handle.domains()? {
        let name = session.name(info.domid)?;
        line(format_args!("{}  {}    {:<30}", format_uuid(&info.uuid), info.domid, shown(&name)))?;
    }
    Ok(())
}
