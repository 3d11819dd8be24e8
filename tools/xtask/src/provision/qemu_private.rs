//! Debian 12's own QEMU 7.2, unpacked privately beside whatever is installed.
//!
//! Only used for `--hypervisor xen` when the installed QEMU cannot be patched ([`super::qemu_patch`]). It runs with its
//! own dynamic loader and libraries, so it does not care what the machine has installed.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::qemu::Qemu;
use super::{apt, packages};
use crate::paths::Paths;

/// The unpacked QEMU 7.2 and how to start it.
///
/// # Errors
/// The machine's apt sources do not serve version 7.2.
pub(crate) fn qemu72(paths: &Paths) -> Result<Qemu> {
    let root = packages::ensure(paths, "qemu72-1", "a private QEMU 7.2", || closure(paths))?;
    let dir = |below: &str| root.join(below).display().to_string();
    let libraries =
        ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio"].map(dir).join(":");
    Ok(Qemu {
        program: root.join("lib64/ld-linux-x86-64.so.2"),
        first_args: [
            "--library-path".to_owned(),
            libraries,
            dir("usr/bin/qemu-system-x86_64"),
            "-L".to_owned(),
            dir("usr/share/qemu"),
            "-L".to_owned(),
            dir("usr/share/seabios"),
        ]
        .to_vec(),
        env: vec![("QEMU_MODULE_DIR".to_owned(), dir("usr/lib/x86_64-linux-gnu/qemu"))],
        // With SMAP this version takes a fault inside of Xen as soon as a PV dom0 starts; for the rest see the stock one.
        xen_cpu: "EPYC,-smap,-rdtscp,-xsave",
    })
}

/// Everything that QEMU 7.2 needs, as if no package were installed on this machine.
fn closure(paths: &Paths) -> Result<Vec<String>> {
    let version = apt::versions("qemu-system-x86")?
        .into_iter()
        .map(|(version, _)| version)
        .find(|version| version.starts_with("1:7.2"))
        .context("the machine's apt sources have no qemu-system-x86 7.2")?;
    let empty = paths.cache.join("no-installed-packages");
    std::fs::write(&empty, "")?;
    let output = Command::new("apt-get")
        .arg("-o")
        .arg(format!("Dir::State::status={}", empty.display()))
        .args(["-o", "APT::Install-Recommends=false", "--print-uris", "-qq", "-y", "install"])
        .arg(format!("qemu-system-x86={version}"))
        .env("LC_ALL", "C")
        .output()
        .context("cannot run apt-get")?;
    let specs: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().filter_map(spec).collect();
    if specs.is_empty() {
        bail!("apt-get lists no packages: {}", apt::last_lines(&output.stderr));
    }
    Ok(specs)
}

/// `NAME=VERSION` from a line of `--print-uris`: address in quotes, file name, size, sum.
fn spec(line: &str) -> Option<String> {
    let file = line.strip_prefix('\'')?.split_whitespace().nth(1)?;
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let name = parts.next()?;
    let version = parts.next()?.replace("%3a", ":");
    Some(format!("{name}={version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_print_uris() {
        let line = "'http://m.example/q_7.2.deb' qemu-system-x86_1%3a7.2+dfsg-7_amd64.deb 123 SHA256:00";
        assert_eq!(spec(line).unwrap(), "qemu-system-x86=1:7.2+dfsg-7");
        assert_eq!(spec("Reading package lists..."), None);
    }
}
