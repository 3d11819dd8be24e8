//! A domain that reports its own crash.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::Test;
    use public_abi::sched::ShutdownReason;

    guests::guest!("crash", run);

    fn run(test: &mut Test) {
        test.holds("about to crash", true);
        test.finish();
        guests::shut_down(ShutdownReason::Crash)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
