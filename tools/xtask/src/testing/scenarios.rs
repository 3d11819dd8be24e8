//! Layers 3 and 4: shell scripts that run in a Linux control domain (`tests/scenarios`, `tests/interop`).
//!
//! A script's status 0 is a success, unless its head expects another code; and dom0 must power off in order afterwards.
//! Scripts that can share a machine do so ([`super::shared`]): one machine for each set of options, and in layer 3 one for
//! each toolstack, where the tiny guests ([`super::tiny`]) run, too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::header::{self, Header};
use super::shared::{Case, Work};
use super::{End, Report, shared, tiny};
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
    /// Runs what is too long for every day, too.
    pub(crate) nightly: bool,
}

impl Overrides {
    /// Changes a request.
    fn apply(self, request: &mut Request) {
        if let Some(hypervisor) = self.hypervisor {
            request.hypervisor = hypervisor;
        }
        if let Some(tools) = self.tools {
            request.tools = tools;
        }
    }
}

/// The folders of scripts.
const SCENARIOS: &str = "tests/scenarios";
const INTEROP: &str = "tests/interop";
/// What machines that are shared have beside their scripts' options: kernels that need no unpacking.
const SHARED_OPTIONS: &str = "--dom0-elf --domu-elf";

/// One script with one set of options.
#[derive(Clone, Debug)]
struct Run {
    script: PathBuf,
    header: Header,
    options: String,
    /// The script's name, and its options where it has several runs.
    name: String,
}

impl Run {
    fn test(&self) -> String {
        self.script.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Runs layer 3 or 4: the runs whose names contain the filter. `between` is called when everything that a control domain is
/// made of is there, before the long part begins.
///
/// # Errors
/// A folder or a script's head cannot be read, or what `between` says.
pub(crate) fn run(
    paths: &Paths,
    layer: u8,
    filter: Option<&str>,
    overrides: Overrides,
    report: &mut Report,
    between: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let runs: Vec<Run> = runs(paths, layer, overrides)?
        .into_iter()
        .filter(|run| filter.is_none_or(|filter| run.name.contains(filter)))
        .collect();
    let (together, alone): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|run| run.header.shared.is_some());
    for run in alone {
        report.case(&format!("layer {layer}: {}", run.name), || {
            one(paths, &run, overrides).unwrap_or_else(|error| End::Failed(format!("{error:#}"), None))
        });
    }
    if !report.interrupted {
        between()?;
    }
    let mut machines = machines(layer, together, |names| tiny::programs(paths, names))?;
    if layer == 3 {
        add_tiny(paths, filter, overrides, &mut machines)?;
    }
    for (options, cases) in machines {
        let machine = format!("layer {layer}: machine [{options}]");
        let words = format!("{options} {SHARED_OPTIONS}");
        let request = request(&paths.root.join(SCENARIOS).join("any"), &words, overrides);
        if let Err(error) = request.and_then(|request| shared::run(paths, &machine, request, &cases, report)) {
            report.case(&machine, || End::Failed(format!("{error:#}"), None));
        }
    }
    Ok(())
}

/// The runs of a layer, in the order of the scripts' names.
fn runs(paths: &Paths, layer: u8, overrides: Overrides) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for folder in [SCENARIOS, INTEROP] {
        for script in scripts(&paths.root.join(folder))? {
            let source =
                std::fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
            let header = header::parse(&source).with_context(|| format!("{}", script.display()))?;
            let sets = match (layer, folder) {
                (3, SCENARIOS) => {
                    let mut sets = with_toolstacks(&header, &header.runs, overrides);
                    if overrides.nightly {
                        sets.extend(with_toolstacks(&header, &header.nightly, overrides));
                    }
                    sets
                }
                (4, SCENARIOS) => header.interop.clone(),
                (4, INTEROP) => header.runs.clone(),
                _ => continue,
            };
            let test = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let count = if layer == 4 { usize::MAX } else { sets.len() };
            runs.extend(sets.into_iter().map(|options| {
                let name = header::run_name(&test, &options, count);
                Run { script: script.clone(), header: header.clone(), options, name }
            }));
        }
    }
    Ok(runs)
}

/// The sets of options with which a scenario runs: if it shares its machine, with each toolstack, unless it names one.
fn with_toolstacks(header: &Header, runs: &[String], overrides: Overrides) -> Vec<String> {
    let names = |options: &str| options.contains("--tools");
    let mut sets = Vec::new();
    for options in runs {
        if header.shared.is_none() || names(options) {
            sets.push(options.clone());
            continue;
        }
        for tools in toolstacks(overrides) {
            sets.push(format!("{options} --tools {}", name_of(&tools)).trim().to_owned());
        }
    }
    sets
}

fn toolstacks(overrides: Overrides) -> Vec<Tools> {
    overrides.tools.map_or_else(|| vec![Tools::Debian, Tools::Oxen], |tools| vec![tools])
}

/// The word that chooses a value on the command line.
pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The machines for runs that share them: options, and the cases in the order of the runs.
fn machines(
    layer: u8,
    runs: Vec<Run>,
    programs: impl Fn(&[String]) -> Result<Vec<PathPair>>,
) -> Result<Vec<(String, Vec<Case>)>> {
    let mut machines: Vec<(String, Vec<Case>)> = Vec::new();
    for run in runs {
        let case = Case {
            name: run.test(),
            shown: format!("layer {layer}: {}", run.name),
            work: Work::Script(run.header.shared.unwrap_or_default()),
            needs: programs(&run.header.tiny)?,
            file: run.script,
        };
        match machines.iter_mut().find(|(options, _)| *options == run.options) {
            Some((_, cases)) => cases.push(case),
            None => machines.push((run.options, vec![case])),
        }
    }
    Ok(machines)
}

/// Adds the tiny guests: on Oxen to the machines of both toolstacks, on Xen to a machine of their own.
fn add_tiny(
    paths: &Paths,
    filter: Option<&str>,
    overrides: Overrides,
    machines: &mut Vec<(String, Vec<Case>)>,
) -> Result<()> {
    for tools in toolstacks(overrides) {
        let mut options = format!("--tools {}", name_of(&tools));
        let cases = tiny::cases(paths, filter, &options)?;
        if cases.is_empty() {
            continue;
        }
        if overrides.hypervisor == Some(Hypervisor::Xen) {
            // The guests test XSAVE, too, which the usual model for real Xen leaves out for the sake of dom0's liblzma.
            options += " --cpu EPYC,-rdtscp";
        }
        match machines.iter_mut().find(|(known, _)| *known == options) {
            Some((_, all)) => all.extend(cases),
            None => machines.push((options, cases)),
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

/// Runs a script in a machine of its own.
fn one(paths: &Paths, run: &Run, overrides: Overrides) -> Result<End> {
    let mut request = request(&run.script, &run.options, overrides)?;
    request.script = Some(run.script.clone());
    request.put.extend(tiny::programs(paths, &run.header.tiny)?);
    let name = name_of(&request.hypervisor);
    if run.header.only.as_ref().is_some_and(|only| *only != name) {
        return Ok(End::Skipped(format!("not for {name}")));
    }
    let view =
        View { name: format!("scenario-{}", run.test()), screen: Box::new(std::io::sink()), news: Box::new(|_| {}) };
    let fetched = tempfile::tempdir().context("cannot make a temporary folder")?;
    let place = |index: usize| fetched.path().join(index.to_string());
    for (index, pair) in run.header.fetches.iter().enumerate() {
        request.get.push(PathPair { from: pair.from.clone(), to: place(index).display().to_string() });
    }
    let outcome = dom0::run(paths, &request, view)?;
    let beside = run.script.parent().unwrap_or(Path::new("."));
    let mut wrong = None;
    for (index, pair) in run.header.fetches.iter().enumerate() {
        let original = beside.join(&pair.to);
        let original = std::fs::read(&original).with_context(|| format!("cannot read {}", original.display()))?;
        if std::fs::read(place(index)).ok() != Some(original) {
            wrong = Some(pair);
        }
    }
    Ok(if outcome.verdict.code() != run.header.expect {
        End::from_unwanted(&outcome.verdict, outcome.log)
    } else if let Some(pair) = wrong {
        End::Failed(format!("{} was not fetched as it is", pair.from), Some(outcome.log))
    } else if outcome.power_off_failed {
        End::Failed("dom0 ended, but the machine did not power off".to_owned(), Some(outcome.log))
    } else {
        End::Passed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, options: &str) -> Run {
        let header = Header { shared: Some(60), ..Header::default() };
        Run { script: script.into(), header, options: options.into(), name: format!("{script} [{options}]") }
    }

    #[test]
    fn options_overrides_and_files_beside_the_script() {
        let overrides = Overrides { hypervisor: Some(Hypervisor::Xen), ..Overrides::default() };
        let script = Path::new("/w/tests/scenarios/a.sh");
        let request = request(script, "--smp 2 --put cfg/a.cfg=/a.cfg --tools oxen", overrides).unwrap();
        assert_eq!(request.hypervisor, Hypervisor::Xen);
        assert_eq!(request.tools, Tools::Oxen);
        assert_eq!(request.put[0].from, "/w/tests/scenarios/cfg/a.cfg");
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

    #[test]
    fn shared_scenarios_run_with_both_toolstacks_unless_told() {
        let sets = |text: &str, overrides: Overrides| {
            let header = header::parse(text).unwrap();
            with_toolstacks(&header, &header.runs, overrides)
        };
        let both = sets("# shared: 60\n", Overrides::default());
        assert_eq!(both, ["--tools debian", "--tools oxen"]);
        let ours = Overrides { tools: Some(Tools::Oxen), ..Overrides::default() };
        assert_eq!(sets("# shared: 60\n# run: --smp 1\n", ours), ["--smp 1 --tools oxen"]);
        assert_eq!(sets("# shared: 60\n# run: --tools oxen\n", Overrides::default()), ["--tools oxen"]);
        assert_eq!(sets("# run: --smp 1\n", Overrides::default()), ["--smp 1"]);
    }

    #[test]
    fn runs_with_equal_options_share_a_machine() {
        let runs = vec![run("a.sh", "-x"), run("b.sh", "-y"), run("c.sh", "-x")];
        let machines = machines(3, runs, |_| Ok(Vec::new())).unwrap();
        let names: Vec<Vec<&str>> =
            machines.iter().map(|(_, cases)| cases.iter().map(|case| case.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["a", "c"], vec!["b"]]);
        assert_eq!(machines[0].1[0].shown, "layer 3: a.sh [-x]");
    }
}
