//! `xl dmesg`: the hypervisor's console ring.

use crate::cli::Dmesg;
use crate::failure::Outcome;
use crate::output::print;
use crate::session::hypervisor;

pub(super) fn run(options: &Dmesg) -> Outcome {
    let text = hypervisor()?.console_ring(options.clear)?;
    print(text)
}
