//! Layers 3 and 4: shell scripts that run in a Linux control domain (`tests/scenarios`, `tests/interop`).
//!
//! A script's status 0 is a success, unless its head expects another code; and dom0 must power off in order afterwards.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::{End, Report, header};
use crate::harness::dom0::{self, View};
use crate::harness::request::{Hypervisor, PathPair, Request};
use crate::initramfs::dom0::Tools;
use crate::paths::Paths;
use crate::qemu::command::split_words;

/// What the command line of `cargo xtask test` changes in every scenario's options.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides {
    /// Boots this one.
    pub(crate) hypervisor: Option<Hypervisor>,
    /// Uses this toolstack.
    pub(crate) tools: Option<Tools>,
}

impl Overrides {
    /// Changes a request.
    pub(crate) fn apply(self, request: &mut Request) {
        if let Some(hypervisor) = self.hypervisor {
            request.hypervisor = hypervisor;
        }
        if let Some(tools) = self.tools {
            request.tools = tools;
        }
    }
}

/// Runs the scripts of a folder whose names contain the filter, in the order of their names.
///
/// # Errors
/// The folder or a script's head cannot be read.
pub(crate) fn run(
    paths: &Paths,
    layer: u8,
    folder: &str,
    filter: Option<&str>,
    overrides: Overrides,
    report: &mut Report,
) -> Result<()> {
    for script in scripts(&paths.root.join(folder))? {
        let test = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
        let header = header::parse(&source).with_context(|| format!("{}", script.display()))?;
        for options in &header.runs {
            let run_name = header::run_name(&test, &header, options);
            if filter.is_some_and(|filter| !run_name.contains(filter)) {
                continue;
            }
            report.case(&format!("layer {layer}: {run_name}"), || {
                match one(paths, &script, &test, &header, options, overrides) {
                    Ok(end) => end,
                    Err(error) => End::Failed(format!("{error:#}"), None),
                }
            });
        }
    }
    Ok(())
}

/// The scripts of a folder, sorted; none when there is no such folder.
fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "sh") {
            scripts.push(path);
        }
    }
    scripts.sort();
    Ok(scripts)
}

/// The request that a script's options make.
fn request(script: &Path, options: &str, overrides: Overrides) -> Result<Request> {
    let mut request = Request::from_words(split_words(options)?)
        .with_context(|| format!("the options `{options}` of {}", script.display()))?;
    request.script = Some(script.to_path_buf());
    overrides.apply(&mut request);
    // Files named in a script's head stand beside the script.
    let beside = script.parent().unwrap_or(Path::new("."));
    request.put = request
        .put
        .into_iter()
        .map(|pair| PathPair { from: beside.join(&pair.from).display().to_string(), to: pair.to })
        .collect();
    Ok(request)
}

fn one(
    paths: &Paths,
    script: &Path,
    test: &str,
    header: &header::Header,
    options: &str,
    overrides: Overrides,
) -> Result<End> {
    let request = request(script, options, overrides)?;
    let name = request.hypervisor.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    if header.only.as_ref().is_some_and(|only| *only != name) {
        return Ok(End::Skipped(format!("not for {name}")));
    }
    let view = View { name: format!("scenario-{test}"), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let outcome = dom0::run(paths, &request, view)?;
    Ok(if outcome.verdict.code() != header.expect {
        End::from_unwanted(&outcome.verdict, outcome.log)
    } else if outcome.power_off_failed {
        End::Failed("dom0 ended, but the machine did not power off".to_owned(), Some(outcome.log))
    } else {
        End::Passed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_overrides_and_files_beside_the_script() {
        let overrides = Overrides { hypervisor: Some(Hypervisor::Xen), tools: None };
        let script = Path::new("/w/tests/scenarios/a.sh");
        let request = request(script, "--smp 2 --put cfg/a.cfg=/a.cfg --tools oxen", overrides).unwrap();
        assert_eq!(request.hypervisor, Hypervisor::Xen);
        assert_eq!(request.tools, Tools::Oxen);
        assert_eq!(request.put[0].from, "/w/tests/scenarios/cfg/a.cfg");
        assert_eq!(request.script.as_deref(), Some(script));
    }

    #[test]
    fn wrong_options_name_the_script() {
        let error = request(Path::new("/w/a.sh"), "--smp many", Overrides::default()).unwrap_err();
        assert!(format!("{error:#}").contains("/w/a.sh"));
    }

    #[test]
    fn scripts_come_sorted_and_a_missing_folder_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.sh", "a.sh", "notes.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> = scripts(dir.path()).unwrap();
        assert_eq!(names, [dir.path().join("a.sh"), dir.path().join("b.sh")]);
        assert!(scripts(&dir.path().join("none")).unwrap().is_empty());
    }
}
