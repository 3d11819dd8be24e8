//! From the machine's hand-over to the first vCPU.

use machine::boot_info::BootInfo;
use machine::log;

/// What the firmware and the command line said, for everybody to read.
#[derive(Debug)]
pub struct Platform {
    /// The hypervisor's command line as the loader gave it.
    pub command_line: machine::boot_info::CommandLine,
}

/// Goes on where the machine's boot ends.
pub fn start(info: BootInfo) -> ! {
    log!(Info, "Xen version 4.17 (Oxen {})", env!("CARGO_PKG_VERSION"));
    for range in &info.ranges {
        log!(Info, "{range:?}");
    }
    machine::cpu::stop()
}
