//! Makes sure that a QEMU of version 10 or later is there, and says how to call it.
//!
//! Oxen needs QEMU's SVM emulation as version 10 has it. Debian 12 carries 7.2; the backports suite carries 10. This file
//! installs it when it is missing, [`super::qemu_patch`] and [`super::qemu_private`] make the private copies under which Oxen
//! and Debian's real Xen run. The result is a [`Qemu`], from which `crate::qemu` builds command lines.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::sources::{self, Places};
use super::{apt, packages};
use crate::paths::{Paths, find_program};
use crate::progress;

/// Name of the program for x86-64 machines.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// Name of Debian's package with it.
const PACKAGE: &str = "qemu-system-x86";
/// Older versions lack parts of the SVM emulation that Oxen relies on.
const OLDEST_MAJOR: u32 = 10;

/// A QEMU that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    /// Program to run; for a private copy this may be its own dynamic loader.
    pub(crate) program: PathBuf,
    /// Arguments that must come first.
    pub(crate) first_args: Vec<String>,
    /// Environment that this copy needs.
    pub(crate) env: Vec<(String, String)>,
    /// CPU model under which Debian's real Xen runs with this copy.
    pub(crate) xen_cpu: &'static str,
}

impl Qemu {
    /// The installed program, unchanged.
    fn installed(program: PathBuf) -> Self {
        Self {
            program,
            first_args: Vec::new(),
            env: Vec::new(),
            // Without RDTSCP: TCG reports RDTSCP as RDTSC, on which Xen crashes a guest whose RDTSC it traps. Without
            // XSAVE: with it, dom0's SSE registers are wrong once a PVH guest has run (seen as liblzma's "File is
            // corrupt" in the next xl create), and they are right when Xen falls back to FXSAVE.
            xen_cpu: "EPYC,-rdtscp,-xsave",
        }
    }
}

/// The machine's own QEMU; installs it when it is missing or too old.
pub(crate) fn stock(paths: &Paths) -> Result<Qemu> {
    if let Some(qemu) = present()? {
        return Ok(qemu);
    }
    let _lock = packages::lock(paths)?;
    if present()?.is_none() {
        install()?;
    }
    present()?.with_context(|| format!("{PROGRAM} {OLDEST_MAJOR} or later is still missing after installing {PACKAGE}"))
}

/// The QEMU in PATH if it is recent enough.
fn present() -> Result<Option<Qemu>> {
    let Some(program) = find_program(PROGRAM) else {
        return Ok(None);
    };
    let output = Command::new(&program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let major = major_version(&String::from_utf8_lossy(&output.stdout));
    Ok(major.is_some_and(|major| major >= OLDEST_MAJOR).then(|| Qemu::installed(program)))
}

/// The major number in "QEMU emulator version 10.0.2 (Debian …)".
fn major_version(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// The major number of a Debian version such as "1:10.0.2+ds-2~bpo12+1".
fn package_major(version: &str) -> Option<u32> {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split('.').next()?.parse().ok()
}

fn install() -> Result<()> {
    let step = progress::step(&format!("installing QEMU {OLDEST_MAJOR}"));
    let recent = |versions: &[(String, String)]| {
        versions.iter().find(|(version, _)| package_major(version).is_some_and(|major| major >= OLDEST_MAJOR)).cloned()
    };
    let known = apt::versions(PACKAGE)?;
    let best_is_recent = recent(&known[..known.len().min(1)]).is_some();
    if best_is_recent && !known[0].1.contains("-backports") {
        apt::install(&[PACKAGE], None)?;
    } else {
        let suite = add_backports(&step)?;
        step.now("refreshing apt's package lists");
        apt::update()?;
        if recent(&apt::versions(PACKAGE)?).is_none() {
            bail!("the suite {suite} has no {PACKAGE} of version {OLDEST_MAJOR} or later");
        }
        step.now(&format!("{PACKAGE} from {suite}"));
        apt::install(&[PACKAGE], Some(&suite))?;
    }
    step.done();
    Ok(())
}

/// Adds the backports suite in one list file of its own, unless it is among the sources. Gives the suite's name.
fn add_backports(step: &progress::Step) -> Result<String> {
    let codename = codename()?;
    let places = Places::find()?;
    let suite = format!("{codename}-backports");
    if let Some(entry) = sources::backports_entry(&places.read()?, &codename)? {
        let path = places.parts.join(entry.file_name);
        step.now(&format!("adding {}", path.display()));
        progress::note(&format!(
            "adding the suite {suite} to this machine's apt sources, in the new file {}",
            path.display()
        ));
        let mut tee = apt::as_root("tee", &format!("to write {}", path.display()))?
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run tee")?;
        tee.stdin.take().context("tee has no input")?.write_all(entry.text.as_bytes())?;
        if !tee.wait()?.success() {
            bail!("cannot write {}", path.display());
        }
    }
    Ok(suite)
}

/// The release's code name from os-release.
pub(crate) fn codename() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release has no VERSION_CODENAME: is this a Debian release?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_program_and_package() {
        assert_eq!(major_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2)\n"), Some(10));
        assert_eq!(major_version("nonsense"), None);
        assert_eq!(package_major("1:10.0.2+ds-2+deb13u1~bpo12+1"), Some(10));
        assert_eq!(package_major("1:7.2+dfsg-7+deb12u18+b3"), Some(7));
    }
}
