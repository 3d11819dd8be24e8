//! Layer 2: every program of the package `guests` boots as the control domain and gives its verdict.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;

use super::{End, Report, header};
use crate::artifacts;
use crate::exit::Verdict;
use crate::harness::dom0::View;
use crate::harness::guest::{self, GuestRequest};
use crate::paths::Paths;
use crate::qemu::command::split_words;

/// Where the guests' sources are, one file each.
const SOURCES: &str = "tests/guests/src/bin";

/// The options line of a guest's source.
#[derive(Parser)]
#[command(name = "run:", no_binary_name = true)]
struct RunLine {
    #[command(flatten)]
    request: GuestRequest,
    /// Arguments for QEMU
    #[arg(last = true)]
    qemu_args: Vec<String>,
}

/// Builds and runs the guests whose names contain the filter.
///
/// # Errors
/// Hypervisor or guests cannot be built.
pub(crate) fn run(paths: &Paths, filter: Option<&str>, report: &mut Report) -> Result<()> {
    let hypervisor = artifacts::hypervisor(paths)?;
    for (name, elf) in artifacts::test_guests(paths)? {
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let source = paths.root.join(SOURCES).join(&name).with_extension("rs");
        // A guest in a folder of its own, or the package's only program, has no such file and no options.
        let text = std::fs::read_to_string(source).unwrap_or_default();
        let header = header::parse(&text).with_context(|| format!("guest {name}"))?;
        for options in &header.runs {
            let full_name = format!("layer 2: {}", header::run_name(&name, &header, options));
            report.case(&full_name, || match one(paths, &hypervisor, &elf, &name, options, header.expect) {
                Ok(end) => end,
                Err(error) => End::Failed(format!("{error:#}"), None),
            });
        }
    }
    Ok(())
}

fn one(paths: &Paths, hypervisor: &Path, elf: &Path, name: &str, options: &str, expect: u8) -> Result<End> {
    let line = RunLine::try_parse_from(split_words(options)?)
        .with_context(|| format!("the options of guest {name}: {options}"))?;
    let variant;
    let hypervisor = if line.request.pvh {
        variant = artifacts::pvh_variant(paths, hypervisor)?;
        &variant
    } else {
        hypervisor
    };
    let view = View { name: format!("guest-{name}"), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let outcome = guest::run(paths, hypervisor, elf, &line.request, &line.qemu_args, view)?;
    if outcome.verdict.code() == expect && (expect != 0 || outcome.has_verdict) {
        return Ok(End::Passed);
    }
    Ok(match outcome.verdict {
        Verdict::Status(0) => End::Failed("the guest ended without a verdict".to_owned(), Some(outcome.log)),
        other => End::from_unwanted(&other, outcome.log),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_options_line_takes_options_and_qemu_arguments() {
        let words = split_words("--smp 2 --args 'x y' -- -device edu").unwrap();
        let line = RunLine::try_parse_from(words).unwrap();
        assert_eq!((line.request.smp, line.request.args.as_str()), (2, "x y"));
        assert_eq!(line.qemu_args, ["-device", "edu"]);
    }
}
