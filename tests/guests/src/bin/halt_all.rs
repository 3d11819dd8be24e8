//! All vCPUs halted with interrupts off: the domain has powered itself off, as Linux does in PVH.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, environment, println, smp};

    guests::guest!("halt_all", run);

    fn nothing() {}

    fn run(test: &mut Test) {
        if environment::vcpus() > 1 {
            // It leaves its function, and halts.
            test.holds("vCPU 1 halts", smp::start_second(nothing));
        }
        test.holds("about to halt", true);
        test.finish();
        guests::console::drain();
        println!("GUEST-INFO now halting");
        rt::halt()
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
