//! `cargo xtask interop`: makes the tables of docs/interop.md anew, from the scenarios and from logs of `cargo xtask test`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::changeset;
use crate::documents::interop::{self, DOCUMENT, RESULTS};
use crate::documents::results::{Results, fingerprint};
use crate::paths::Paths;
use crate::progress;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub(crate) struct InteropArgs {
    /// What `cargo xtask test` has printed, in a file (repeatable); kept in docs/interop.results
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// The revision that was tested, as git:0123456789ab, if it is not this one
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

/// Takes the logs in, and writes both files.
///
/// # Errors
/// A file cannot be read or written, or a log says nothing of layers 3 and 4.
pub(crate) fn run(paths: &Paths, args: &InteropArgs) -> Result<ExitCode> {
    let file = paths.root.join(RESULTS);
    let mut results =
        if file.is_file() { Results::read(&std::fs::read_to_string(&file)?)? } else { Results::default() };
    let revision = args.revision.clone().unwrap_or_else(|| changeset::of(&paths.root));
    let script_of = interop::scripts(paths)?;
    let print_of = |name: &str| {
        let script = script_of(name)?;
        if script.as_os_str().is_empty() {
            Some("-".to_owned())
        } else {
            source(paths, args, &script).map(|text| fingerprint(&text))
        }
    };
    for log in &args.log {
        let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        let is_any = results.add_log(&String::from_utf8_lossy(&text), &day_of(log)?, &revision, print_of);
        ensure!(is_any, "{} has no results of layers 3 and 4", log.display());
    }
    results.keep(|name| script_of(name).is_some());
    std::fs::write(&file, results.text()).with_context(|| format!("cannot write {RESULTS}"))?;
    let text = interop::document(paths)?;
    std::fs::write(paths.root.join(DOCUMENT), text).with_context(|| format!("cannot write {DOCUMENT}"))?;
    progress::note(&format!("made {DOCUMENT} from {RESULTS} and the scenarios' heads"));
    Ok(ExitCode::SUCCESS)
}

/// A script as it was in the revision that was tested.
fn source(paths: &Paths, args: &InteropArgs, script: &Path) -> Option<String> {
    let Some(revision) = &args.revision else { return std::fs::read_to_string(paths.root.join(script)).ok() };
    let revision = revision.strip_prefix("git:").unwrap_or(revision);
    let object = format!("{revision}:{}", script.display());
    let output = Command::new("git").arg("-C").arg(&paths.root).args(["show", &object]).output().ok()?;
    if output.status.success() { String::from_utf8(output.stdout).ok() } else { None }
}

/// The day on which a file was written last.
fn day_of(file: &Path) -> Result<String> {
    let output = Command::new("date").arg("-u").arg("-r").arg(file).arg("+%F").output().context("cannot run date")?;
    ensure!(output.status.success(), "date does not know {}", file.display());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
