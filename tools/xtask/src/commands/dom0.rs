//! `cargo xtask dom0`: a Linux control domain on Oxen or on Debian's Xen, with a script or a shell in it.
//!
//! The console goes to standard output, everything of the tool's own to standard error. The exit codes are in
//! `crate::exit`.

use std::process::ExitCode;

use crate::exit::Verdict;
use crate::harness::dom0::{self, View};
use crate::harness::request::Request;
use crate::harness::watch::News;
use crate::paths::Paths;
use crate::progress;

/// Runs one machine.
pub(crate) fn run(paths: &Paths, request: &Request) -> ExitCode {
    let raw = request.script.is_none();
    if raw {
        progress::note("Ctrl-A X ends the machine; leaving dom0's shell powers it off");
    }
    // In raw mode the terminal does not return to the line's beginning by itself.
    let line_end = if raw { "\r\n" } else { "\n" };
    let view = View {
        name: "dom0".to_owned(),
        screen: Box::new(std::io::stdout()),
        news: Box::new(move |news| match news {
            News::Booting { .. } | News::CaseBegins(_) | News::CaseEnded { .. } => {}
            News::Milestone { name, seconds } => {
                eprint!("xtask: {name} after {seconds:.1} s{line_end}");
            }
            News::Notice(text) => eprint!("xtask: notice from dom0: {text}{line_end}"),
        }),
    };
    let verdict = match dom0::run(paths, request, view) {
        Ok(outcome) => {
            if outcome.power_off_failed {
                progress::warn("dom0 ended, but the machine did not power off and was killed");
            }
            if outcome.verdict != Verdict::Status(0) {
                progress::note(&format!("the console's log is {}", outcome.log.display()));
            }
            outcome.verdict
        }
        Err(error) => Verdict::Broken(format!("{error:#}")),
    };
    progress::note(&verdict.describe());
    verdict.exit_code()
}
