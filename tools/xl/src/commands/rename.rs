//! `xl rename`: another name for a domain.

use crate::cli::Rename;
use crate::domain::change;
use crate::failure::Outcome;
use crate::session::Session;

pub(super) fn run(options: &Rename) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    let renamed = change::rename(&session, domid, &options.name);
    renamed.map_err(|failure| failure.while_doing(format!("renaming {}", options.domain)))
}
