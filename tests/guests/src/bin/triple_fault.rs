//! A triple fault: the domain reboots.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, println};

    guests::guest!("triple_fault", run);

    fn run(test: &mut Test) {
        test.holds("about to fault", true);
        test.finish();
        guests::console::drain();
        println!("GUEST-INFO now faulting");
        rt::trap::forget_gates();
        // ud2
        rt::execute(&[0x0f, 0x0b], &mut rt::Registers::default()).ok();
        println!("GUEST-TEST triple_fault FAIL survived");
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
