//! `xl dmesg`: the hypervisor's console ring.

use std::io::{Write, stdout};

use crate::cli::Dmesg;
use crate::failure::{Failure, Outcome};
use crate::session::hypervisor;

pub(super) fn run(options: &Dmesg) -> Outcome {
    let text = hypervisor()?.console_ring(options.clear)?;
    stdout().write_all(&text).map_err(|error| Failure::new(format!("dmesg: {error}")))
}
