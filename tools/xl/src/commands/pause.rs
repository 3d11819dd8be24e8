//! `xl pause` and `xl unpause`.

use crate::cli::OneDomain;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

pub(super) fn pause(options: &OneDomain) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    session.handle.domain_pause(domid).map_err(|error| Failure::new(format!("pausing {}: {error}", options.domain)))
}

pub(super) fn unpause(options: &OneDomain) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    session.handle.domain_unpause(domid).map_err(|error| Failure::new(format!("unpausing {}: {error}", options.domain)))
}
