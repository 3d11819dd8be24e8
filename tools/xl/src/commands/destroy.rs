//! `xl destroy`: the domain goes at once, without asking the guest.

use crate::cli::Destroy;
use crate::domain::destroy::destroy;
use crate::domain::machine::Machine;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

pub(super) fn run(options: &Destroy) -> Outcome {
    let session = Session::open()?;
    let domid = session.find(&options.domain)?;
    if domid == 0 && !options.force {
        return Err(Failure::new(
            "Not destroying domain 0; use -f to force. This can only be done when using a disaggregated hardware domain and toolstack.",
        ));
    }
    destroy(&session, &Machine::this(), domid)
        .map_err(|failure| failure.while_doing(format!("destroying {}", options.domain)))
}
