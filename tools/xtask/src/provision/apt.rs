//! The apt programs, called as a person would.
//!
//! [`super::packages`] asks this file for records and downloads, [`super::qemu`] and [`super::grub`] for installations.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::paths::find_program;

/// What the tool needs to know of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Package name.
    pub(crate) name: String,
    /// Version that apt would choose.
    pub(crate) version: String,
    /// The Depends field: each inner list is a choice of names.
    pub(crate) depends: Vec<Vec<String>>,
}

/// Asks apt for a package's record; none when it knows no such package.
pub(crate) fn show(name: &str) -> Result<Option<Record>> {
    let output = Command::new("apt-cache")
        .args(["show", "--no-all-versions", name])
        .env("LC_ALL", "C")
        .stderr(Stdio::null())
        .output()
        .context("cannot run apt-cache: this command needs Debian's apt")?;
    Ok(parse_record(&String::from_utf8_lossy(&output.stdout)))
}

/// The first record of `apt-cache show`.
fn parse_record(text: &str) -> Option<Record> {
    let field = |key: &str| {
        text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    };
    let depends = field("Depends")
        .unwrap_or_default()
        .split(',')
        .map(|choice| choice.split('|').filter_map(bare_name).collect())
        .filter(|choice: &Vec<String>| !choice.is_empty())
        .collect();
    Some(Record { name: field("Package")?.to_owned(), version: field("Version")?.to_owned(), depends })
}

/// A dependency without its version bounds and architecture.
fn bare_name(dependency: &str) -> Option<String> {
    let name = dependency.split_whitespace().next()?;
    let name = name.split(':').next().unwrap_or(name);
    Some(name.to_owned())
}

/// All versions apt could install, best first, as (version, source line) of `apt-cache madison`.
pub(crate) fn versions(name: &str) -> Result<Vec<(String, String)>> {
    let output = Command::new("apt-cache")
        .args(["madison", name])
        .env("LC_ALL", "C")
        .stderr(Stdio::null())
        .output()
        .context("cannot run apt-cache: this command needs Debian's apt")?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('|').map(str::trim);
            columns.next()?;
            Some((columns.next()?.to_owned(), columns.next()?.to_owned()))
        })
        .collect())
}

/// Downloads packages (`NAME=VERSION` or `NAME`) into a folder. apt checks their signatures and sums.
pub(crate) fn download(specs: &[String], dir: &Path) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
        .args(specs)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get: this command needs Debian's apt")?;
    if !output.status.success() {
        bail!("apt-get download of {} failed: {}", specs.join(" "), last_lines(&output.stderr));
    }
    Ok(())
}

/// `apt-get update`, as root.
pub(crate) fn update() -> Result<()> {
    run_as_root(&["apt-get", "-q", "update"], "to refresh apt's package lists")
}

/// `apt-get install` without recommended packages, as root; from another suite when one is given.
pub(crate) fn install(names: &[&str], suite: Option<&str>) -> Result<()> {
    let mut words =
        vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "--no-install-recommends", "install"];
    if let Some(suite) = suite {
        words.extend(["-t", suite]);
    }
    words.extend(names);
    run_as_root(&words, &format!("to install {}", names.join(", ")))
}

/// Whether this process may change the system.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs with root's rights: directly, or through sudo.
///
/// # Errors
/// Neither root nor sudo; `why` says what for.
pub(crate) fn as_root(program: &str, why: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find_program("sudo").is_none() {
        bail!("root's rights are needed {why}, and there is no sudo on this machine: run this command once as root");
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Runs a command with root's rights; its output is shown only when it fails.
fn run_as_root(words: &[&str], why: &str) -> Result<()> {
    let output =
        as_root(words[0], why)?.args(&words[1..]).output().with_context(|| format!("cannot run {}", words[0]))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", words.join(" "), last_lines(&output.stderr));
    }
    Ok(())
}

/// The end of a program's messages, enough to see the reason.
pub(crate) fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_name_version_and_choices() {
        let record = parse_record(
            "Package: xen-utils-4.17\nVersion: 4.17.7-1\nDepends: libc6 (>= 2.34), python3:any, libfoo1 | libbar1 (>= 2)\n\nPackage: other\n",
        )
        .unwrap();
        assert_eq!((record.name.as_str(), record.version.as_str()), ("xen-utils-4.17", "4.17.7-1"));
        assert_eq!(record.depends, [vec!["libc6"], vec!["python3"], vec!["libfoo1", "libbar1"]]);
    }

    #[test]
    fn no_record_without_a_version() {
        assert_eq!(parse_record(""), None);
    }
}
