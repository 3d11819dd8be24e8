//! `xl dump-core`: a domain's memory and registers in a file, for a debugger.

use std::path::Path;

use crate::cli::DumpCore;
use crate::domain::core_dump;
use crate::failure::Outcome;
use crate::session::Session;

pub(super) fn run(options: &DumpCore) -> Outcome {
    let session = Session::open()?;
    let domid = session.info(&options.domain)?.domid;
    let dumped = core_dump::write(&session, domid, Path::new(&options.file));
    dumped.map(drop).map_err(|failure| failure.while_doing("core dump failed"))
}
