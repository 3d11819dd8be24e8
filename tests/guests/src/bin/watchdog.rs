//! A domain that does not serve its watchdog: it ends so. For scenarios; as the control domain it would take the machine with it.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod guest {
    use guests::{Test, call, clock};
    use public_abi::sched::{SchedOp, SchedWatchdog};

    guests::guest!("watchdog", run);

    fn run(test: &mut Test) {
        let timer = call::sched(SchedOp::Watchdog, &mut SchedWatchdog { id: 0, timeout: 1 });
        test.equal("first timer", timer, 1);
        test.finish();
        loop {
            clock::delay(1_000);
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
