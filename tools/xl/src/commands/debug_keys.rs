//! `xl debug-keys`: keys to the hypervisor, whose answer is in `xl dmesg`.

use crate::cli::Keys;
use crate::failure::Outcome;
use crate::session::hypervisor;

pub(super) fn run(options: &Keys) -> Outcome {
    Ok(hypervisor()?.debug_keys(&options.keys)?)
}
