//! `xl domid`: a domain's id from its name.

use crate::cli::Name;
use crate::failure::{Failure, Outcome};
use crate::output::line;
use crate::session::Session;

pub(super) fn run(options: &Name) -> Outcome {
    let name = &options.name;
    let domid = Session::open()?.by_name(name)?;
    let missing =
        || Failure::new(format!("Can't get domid of domain name '{name}', maybe this domain does not exist."));
    line(format_args!("{}", domid.ok_or_else(missing)?))
}
