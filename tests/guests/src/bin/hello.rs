//! The smallest guest: prints, finds a start info in order, and shuts down.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, environment, println};
    use public_abi::x86::HVM_START_MAGIC;

    guests::guest!("hello", run);

    fn run(test: &mut Test) {
        let (magic, version, flags) = environment::start_info();
        println!("GUEST-INFO hello from a guest: start info version {version}, flags {flags:#x}, {:?}", guests::role());
        println!("GUEST-INFO domain {:?}, {} vCPUs", environment::domain_id(), environment::vcpus());
        let entries = environment::memory_map(|start, length, kind| {
            println!("GUEST-INFO memory {start:#x}+{length:#x} kind {kind}");
        });
        println!("GUEST-INFO {entries} map entries, ACPI root at {:#x}", environment::acpi_root());
        test.equal("magic", magic, HVM_START_MAGIC);
        test.check("version", version <= 1, version);
        test.holds("an ACPI root", environment::acpi_root() != 0);
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
