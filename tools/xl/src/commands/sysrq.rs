//! `xl sysrq`: a letter for the guest's kernel, through its xenstore node `control/sysrq`.

use libxc::xenstore::Tx;

use crate::cli::Sysrq;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

pub(super) fn run(options: &Sysrq) -> Outcome {
    let session = Session::open()?;
    let domid = session.info(&options.domain)?.domid;
    if options.letter.len() != 1 {
        return Err(Failure::new(format!("sysrq: \"{}\" is not one letter", options.letter)));
    }
    Ok(session.store.write(Tx::NONE, &format!("/local/domain/{domid}/control/sysrq"), &options.letter)?)
}
