//! `cargo xtask walkthrough`: shows what docs/walkthrough.md shows anew, in two machines one after the other.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::documents::walkthrough::{DEMO, DOCUMENT, SCRIPT, document, split};
use crate::exit::Verdict;
use crate::harness::dom0::{self, View};
use crate::harness::request::{PathPair, Request};
use crate::paths::Paths;
use crate::progress;

/// The machine of the part with disks.
const OPTIONS: &str = "--disk virtio --tools oxen --daemons oxen --dom0-elf --mem 3072 --dom0-mem 1024 --timeout 3600";
/// Where the script leaves the terminal's text.
const TEXT: &str = "/tmp/walkthrough.txt";

/// Runs both and writes the document.
///
/// # Errors
/// Something does not work as the document says.
pub(crate) fn run(paths: &Paths) -> Result<ExitCode> {
    let step = progress::step("the demonstration");
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new(program)
        .arg("demo")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run the demonstration")?;
    ensure!(output.status.success(), "the demonstration failed");
    step.done();

    let step = progress::step("a guest on a disk");
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let fetched = work.path().join("text");
    let mut request = Request::from_words(OPTIONS.split(' ').map(str::to_owned))?;
    request.script = Some(paths.root.join(SCRIPT));
    request.get.push(PathPair { from: TEXT.to_owned(), to: fetched.display().to_string() });
    let view = View { name: "walkthrough".to_owned(), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let outcome = dom0::run(paths, &request, view)?;
    let text = std::fs::read(&fetched).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if outcome.verdict != Verdict::Status(0) {
        println!("{text}");
        progress::warn(&format!("{}; the console's log is {}", outcome.verdict.describe(), outcome.log.display()));
        return Ok(outcome.verdict.exit_code());
    }
    step.done();

    let mut terminals = split(&text);
    terminals.insert(DEMO.to_owned(), String::from_utf8_lossy(&output.stdout).into_owned());
    let file = paths.root.join(DOCUMENT);
    let old = std::fs::read_to_string(&file).with_context(|| format!("cannot read {DOCUMENT}"))?;
    std::fs::write(&file, document(&old, &terminals)?).with_context(|| format!("cannot write {DOCUMENT}"))?;
    progress::note(&format!("made the terminals of {DOCUMENT}"));
    Ok(ExitCode::SUCCESS)
}
