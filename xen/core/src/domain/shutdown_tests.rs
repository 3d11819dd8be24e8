//! Tests of `shutdown.rs`: how the machine ends with its control domain.

extern crate std;

use super::*;
use crate::domain::Role;
use crate::x86::testing::with_domain;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::{String, ToString};

/// What the machine does in the end, and what the log says, when the control domain stops for a reason.
fn end(reason: ShutdownReason, after_crash: AfterCrash) -> (String, String) {
    let mut end = (String::new(), String::new());
    with_domain(Role::Control, 1, |machine, _, domain| {
        let mut host = crate::host::testing::host(1, 64, crate::time::Clock::start());
        host.platform.after_crash = after_crash;
        let stopped = catch_unwind(AssertUnwindSafe(|| shutdown(&host, domain, number(reason)))).unwrap_err();
        end = (stopped.downcast_ref::<&str>().unwrap().to_string(), machine.console());
        // Another vCPU of it that comes here meanwhile stops like any other domain's: the first reason counts.
        shutdown(&host, domain, number(ShutdownReason::Reboot));
        assert_eq!(domain.lifecycle.wanted_shutdown(), Some(number(reason)));
    });
    end
}

#[test]
fn each_reason_has_its_end_and_its_words() {
    const HALTS: &str = "the fake machine stops";
    const RESTARTS: &str = "the fake machine restarts";
    let cases = [
        (ShutdownReason::Poweroff, AfterCrash::Restart, HALTS, "Hardware Dom0 halted: "),
        (ShutdownReason::Poweroff, AfterCrash::Halt, HALTS, "Hardware Dom0 halted: "),
        (ShutdownReason::Reboot, AfterCrash::Halt, RESTARTS, "Hardware Dom0 shutdown: rebooting machine\n"),
        (ShutdownReason::Watchdog, AfterCrash::Halt, RESTARTS, "Hardware Dom0 shutdown: watchdog rebooting"),
        (
            ShutdownReason::Crash,
            AfterCrash::Restart,
            RESTARTS,
            "Hardware Dom0 crashed: rebooting machine in 5 seconds.",
        ),
        (ShutdownReason::Crash, AfterCrash::Halt, HALTS, "Hardware Dom0 crashed: 'noreboot' set - not rebooting."),
        (ShutdownReason::Suspend, AfterCrash::Halt, HALTS, "Hardware Dom0 shutdown (unknown reason 2): 'noreboot' set"),
    ];
    for (reason, after_crash, what, words) in cases {
        let (ended, log) = end(reason, after_crash);
        assert_eq!(ended, what, "{reason:?} {after_crash:?}");
        assert!(log.contains(&std::format!("(XEN) {words}")), "{reason:?} {after_crash:?}: {log}");
    }
}
