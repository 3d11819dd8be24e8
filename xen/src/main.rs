//! The hypervisor image: joins the machine's entry to the core's. Nothing else is here.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use machine::boot_info::BootInfo;

/// What the machine calls once memory, traps and the console work.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the machine finds its successor by this name")]
fn oxen_main(info: &'static mut BootInfo) -> ! {
    // `cargo xtask` names the sources' revision.
    xen_core::boot::start(info, option_env!("OXEN_CHANGESET").unwrap_or("unavailable"))
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("oxen runs on bare metal: build it with `cargo xtask build`");
}
