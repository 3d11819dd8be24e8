//! Options in the head of a scenario.
//!
//! A scenario says in comment lines with which options it runs: each `# run: …` is one run, no such line is one run with
//! the defaults. `# expect: CODE` names the exit code of a success (default 0), `# only: oxen` or `# only: xen` the
//! hypervisor it is for.

use anyhow::{Context, Result};

/// What the head says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Options of each run.
    pub(crate) runs: Vec<String>,
    /// Exit code of a success.
    pub(crate) expect: u8,
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
        } else if let Some(code) = comment.strip_prefix("expect:") {
            header.expect = code.trim().parse().with_context(|| format!("`{comment}`: expected an exit code"))?;
        } else if let Some(name) = comment.strip_prefix("only:") {
            header.only = Some(name.trim().to_owned());
        }
    }
    if header.runs.is_empty() {
        header.runs.push(String::new());
    }
    Ok(header)
}

/// The name of one run: that of the test, and its options when there are several runs.
pub(crate) fn run_name(test: &str, header: &Header, options: &str) -> String {
    if header.runs.len() == 1 { test.to_owned() } else { format!("{test} [{options}]") }
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
        assert_eq!(run_name("boot", &header, "--smp 1"), "boot [--smp 1]");
        let single = parse("# run: --smp 2\n").unwrap();
        assert_eq!(run_name("grants", &single, "--smp 2"), "grants");
    }

    #[test]
    fn defaults_and_errors() {
        assert_eq!(parse("echo\n").unwrap().runs, [""]);
        assert!(parse("# expect: many\n").is_err());
    }
}
