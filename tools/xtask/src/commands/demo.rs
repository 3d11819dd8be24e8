//! `cargo xtask demo`: everything once, for a person who has just cloned the sources.
//!
//! Fetches what is needed, builds all, boots the hypervisor with Debian's kernel as dom0, creates a second Debian kernel
//! as a guest with `xl`, shows its console until it greets, shuts it down and powers off. The steps in dom0 are in
//! `demo.sh`.

use std::cell::Cell;
use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::Args;

use crate::exit::Verdict;
use crate::harness::dom0::{self, View};
use crate::harness::request::{Hypervisor, PathPair, Request};
use crate::harness::watch::News;
use crate::initramfs::dom0::Tools;
use crate::paths::Paths;
use crate::progress::{self, Step};

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Which hypervisor boots
    #[arg(long, value_enum, default_value = "oxen")]
    hypervisor: Hypervisor,
    /// Whose toolstack `xl` is
    #[arg(long, value_enum, default_value = "oxen")]
    tools: Tools,
}

/// The guest's configuration, shipped with the sources.
const CONFIG: &str = "examples/debian-pvh.cfg";
/// Limit for the whole machine in seconds; a slow and busy one needs a few minutes.
const SECONDS: &str = "900";

/// Runs the demonstration.
pub(crate) fn run(paths: &Paths, args: &DemoArgs) -> Result<ExitCode> {
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let script = work.path().join("demo.sh");
    std::fs::write(&script, include_str!("demo.sh"))?;
    let mut request = Request::from_words(["--timeout", SECONDS].map(str::to_owned))?;
    request.script = Some(script);
    request.hypervisor = args.hypervisor;
    request.tools = args.tools;
    request.put =
        vec![PathPair { from: paths.root.join(CONFIG).display().to_string(), to: "/demo/debian-pvh.cfg".to_owned() }];
    let outcome = dom0::run(paths, &request, view())?;
    if outcome.verdict == Verdict::Status(0) && !outcome.power_off_failed {
        progress::note("the machine has powered off; the demonstration is complete");
        return Ok(ExitCode::SUCCESS);
    }
    progress::note(&format!("the console's log is {}", outcome.log.display()));
    let verdict = match outcome.verdict {
        Verdict::Status(0) => Verdict::Broken("the machine did not power off".to_owned()),
        other => other,
    };
    progress::warn(&format!("the demonstration failed: {}", verdict.describe()));
    Ok(verdict.exit_code())
}

/// Progress while the machine boots; from then on what the script in dom0 prints.
fn view() -> View<'static> {
    let in_script = Rc::new(Cell::new(false));
    let screen = Screen { open: Rc::clone(&in_script), line: Vec::new() };
    let mut step: Option<Step> = None;
    View {
        name: "demo".to_owned(),
        screen: Box::new(screen),
        news: Box::new(move |news| {
            let next = match news {
                News::Booting { .. } => "booting the hypervisor, and Debian's kernel as dom0",
                News::Milestone { name: "dom0-userland", .. } => "starting xenstored and xenconsoled in dom0",
                News::Milestone { name: "script", .. } => {
                    in_script.set(true);
                    ""
                }
                News::Milestone { .. } | News::CaseBegins(_) | News::CaseEnded { .. } => return,
                News::Notice(text) => return progress::note(text),
            };
            if let Some(step) = step.take() {
                step.done();
            }
            if !next.is_empty() {
                step = Some(progress::step(next));
            }
        }),
    }
}

/// Shows whole lines of the console once it is open, without the hypervisor's own.
struct Screen {
    open: Rc<Cell<bool>>,
    line: Vec<u8>,
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for &byte in bytes.iter().filter(|byte| **byte != b'\r') {
            self.line.push(byte);
            if byte == b'\n' {
                if self.open.get() && !self.line.starts_with(b"(XEN)") {
                    std::io::stdout().write_all(&self.line)?;
                }
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}
