//! Options in the head of a scenario.
//!
//! A scenario says in comment lines with which options it runs: each `# run: …` is one run, no such line is one run with
//! the defaults; each `# nightly: …` is one more run of `cargo xtask test --nightly`, and each `# interop: …` one more run in layer 4. `# expect: CODE` names the exit code of a success (default
//! 0), `# only: oxen` or `# only: xen` the hypervisor it is for. `# shared: SECONDS` says that it may run in one machine with
//! others that have the same options, one after the other, and how long it may take. `# tiny: NAME` puts the program of a
//! tiny guest at /tests/NAME in dom0. `# fetches: DOM0=FILE` fetches a file of dom0 (as `--get` does), which must then equal
//! the one beside the script.

use anyhow::{Context, Result};

use crate::harness::request::PathPair;

/// What the head says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Options of each run.
    pub(crate) runs: Vec<String>,
    /// Options of each further run that is too long for every day.
    pub(crate) nightly: Vec<String>,
    /// Options of each further run in layer 4.
    pub(crate) interop: Vec<String>,
    /// Files of dom0 that are fetched, and what they must equal.
    pub(crate) fetches: Vec<PathPair>,
    /// Exit code of a success.
    pub(crate) expect: u8,
    /// Tiny guests whose programs it wants.
    pub(crate) tiny: Vec<String>,
    /// The time limit in seconds of a scenario that can share a machine.
    pub(crate) shared: Option<u32>,
    /// The only hypervisor it is for.
    pub(crate) only: Option<String>,
}

/// Reads the comment lines at the beginning of a file.
///
/// # Errors
/// A value that cannot be understood.
pub(crate) fn parse(source: &str) -> Result<Header> {
    let mut header = Header::default();
    for line in source.lines() {
        let Some(comment) = line.strip_prefix('#') else {
            break;
        };
        let comment = comment.trim();
        if let Some(options) = comment.strip_prefix("run:") {
            header.runs.push(options.trim().to_owned());
        } else if let Some(options) = comment.strip_prefix("nightly:") {
            header.nightly.push(options.trim().to_owned());
        } else if let Some(options) = comment.strip_prefix("interop:") {
            header.interop.push(options.trim().to_owned());
        } else if let Some(seconds) = comment.strip_prefix("shared:") {
            let seconds = seconds.trim().parse().with_context(|| format!("`{comment}`: expected seconds"))?;
            header.shared = Some(seconds);
        } else if let Some(name) = comment.strip_prefix("tiny:") {
            header.tiny.push(name.trim().to_owned());
        } else if let Some(pair) = comment.strip_prefix("fetches:") {
            header.fetches.push(pair.trim().parse().with_context(|| format!("`{comment}`"))?);
        } else if let Some(code) = comment.strip_prefix("expect:") {
            header.expect = code.trim().parse().with_context(|| format!("`{comment}`: expected an exit code"))?;
        } else if let Some(name) = comment.strip_prefix("only:") {
            header.only = Some(name.trim().to_owned());
        }
    }
    if header.runs.is_empty() && header.nightly.is_empty() {
        header.runs.push(String::new());
    }
    Ok(header)
}

/// The name of one run: that of the test, and its options unless it has but one run.
pub(crate) fn run_name(test: &str, options: &str, runs: usize) -> String {
    if runs == 1 || options.is_empty() { test.to_owned() } else { format!("{test} [{options}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_scripts() {
        let script = "#!/bin/sh\n# Boots.\n# run: --smp 1\n# run: --smp 2 --timeout 90\n# expect: 121\n# only: oxen\necho\n# run: no\n";
        let header = parse(script).unwrap();
        assert_eq!(header.runs, ["--smp 1", "--smp 2 --timeout 90"]);
        assert_eq!((header.expect, header.only.as_deref()), (121, Some("oxen")));
        assert_eq!(run_name("boot", "--smp 1", 2), "boot [--smp 1]");
        assert_eq!(run_name("boot", "--smp 1", 1), "boot");
        let shared = parse("# shared: 90\n# interop: --hypervisor xen --tools oxen\n# tiny: hello\n").unwrap();
        assert_eq!((shared.shared, shared.interop.len()), (Some(90), 1));
        assert_eq!(shared.tiny, ["hello"]);
        let nightly = parse("# run: --smp 1\n# nightly: --smp 2\n").unwrap();
        assert_eq!((nightly.runs, nightly.nightly), (vec!["--smp 1".to_owned()], vec!["--smp 2".to_owned()]));
        assert_eq!(parse("# nightly: --smp 2\n").unwrap().runs, Vec::<String>::new(), "nightly alone");
    }

    #[test]
    fn defaults_and_errors() {
        assert_eq!(parse("echo\n").unwrap().runs, [""]);
        assert!(parse("# expect: many\n").is_err());
        assert!(parse("# shared: always\n").is_err());
        assert!(parse("# fetches: nothing\n").is_err());
        assert_eq!(parse("# fetches: /tmp/x=y.sh\n").unwrap().fetches[0].to, "y.sh");
    }
}
