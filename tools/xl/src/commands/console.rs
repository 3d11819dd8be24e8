//! `xl console`: the guest's console in the user's terminal.

use crate::cli;
use crate::console::Console;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

pub(super) fn run(options: &cli::Console) -> Outcome {
    let session = Session::open()?;
    let info = session.info(&options.domain)?;
    if session.guest_type(info.domid)? == "hvm" {
        return Err(Failure::new(format!(
            "{} is an HVM guest, whose serial console this xl does not serve",
            options.domain
        )));
    }
    let console = Console::open(info.domid)?;
    drop(session);
    console.relay()
}
