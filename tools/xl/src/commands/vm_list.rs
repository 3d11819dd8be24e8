//! `xl vm-list`: the domains with their UUIDs.

use libxc::plan::nodes::format_uuid;

use crate::failure::Outcome;
use crate::output::line;
use crate::session::Session;

pub(super) fn run() -> Outcome {
    let session = Session::open()?;
    line(format_args!("UUID                                  ID    name"))?;
    for info in session.handle.domains()? {
        let name = session.name(info.domid)?;
        line(format_args!("{}  {}    {name:<30}", format_uuid(&info.uuid), info.domid))?;
    }
    Ok(())
}
