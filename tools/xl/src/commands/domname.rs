//! `xl domname`: a domain's name from its id.

use crate::cli::Id;
use crate::failure::{Failure, Outcome};
use crate::output::line;
use crate::session::Session;

pub(super) fn run(options: &Id) -> Outcome {
    let id = &options.id;
    let domid = id.parse().map_err(|_| Failure::new(format!("Invalid domain id: {id}")))?;
    let name = Session::open()?.name(domid)?;
    if name.is_empty() {
        return Err(Failure::new(format!(
            "Can't get domain name of domain id '{domid}', maybe this domain does not exist."
        )));
    }
    line(format_args!("{name}"))
}
