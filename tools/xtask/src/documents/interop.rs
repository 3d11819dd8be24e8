//! The tables of `docs/interop.md`: which command of xl is checked with whose toolstack on which hypervisor, and how the runs ended.
//!
//! What is checked says each scenario's head (`# checks:`, [`crate::testing::header`]); how it ended [`super::results`]. Nothing here
//! is claimed by hand, but for the list of commands. Used by `cargo xtask interop`; a test here says when the document is behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::results::{Ended, Results, Run};
use super::splice;
use crate::harness::request::{Hypervisor, Request};
use crate::initramfs::dom0::{Daemons, Tools};
use crate::paths::Paths;
use crate::testing::header::By;
use crate::testing::scenarios::{self, Planned};

/// The document.
pub(crate) const DOCUMENT: &str = "docs/interop.md";
/// The ends of runs.
pub(crate) const RESULTS: &str = "docs/interop.results";

/// The commands of Xen's xl that a PVH guest and its host need. Left out are those for kinds of devices that our xl does not have
/// (vkb, vsnd, vdispl, vtpm, usb) and `vncviewer`; the document says so.
const COMMANDS: [&str; 39] = [
    "create",
    "config-update",
    "console",
    "destroy",
    "domid",
    "domname",
    "rename",
    "list",
    "vm-list",
    "info",
    "dmesg",
    "uptime",
    "top",
    "help",
    "pause",
    "unpause",
    "shutdown",
    "reboot",
    "mem-set",
    "mem-max",
    "vcpu-list",
    "vcpu-set",
    "vcpu-pin",
    "sched-credit2",
    "debug-keys",
    "sysrq",
    "trigger",
    "button-press",
    "claims",
    "dump-core",
    "channel-list",
    "block-attach",
    "block-list",
    "block-detach",
    "network-attach",
    "network-list",
    "network-detach",
    "on_crash=coredump-…",
    "p9=",
];

/// The columns: whose toolstack on which hypervisor.
const COLUMNS: [(Tools, Hypervisor, &str); 3] = [
    (Tools::Debian, Hypervisor::Oxen, "Debian's xl on Oxen"),
    (Tools::Oxen, Hypervisor::Oxen, "our xl on Oxen"),
    (Tools::Oxen, Hypervisor::Xen, "our xl on Debian's Xen"),
];

/// The document with its tables made anew.
///
/// # Errors
/// A file cannot be read, or the document lacks the marks of a table.
pub(crate) fn document(paths: &Paths) -> Result<String> {
    let read =
        |name: &str| std::fs::read_to_string(paths.root.join(name)).with_context(|| format!("cannot read {name}"));
    let results = Results::read(&read(RESULTS)?).with_context(|| RESULTS.to_owned())?;
    let runs = scenarios::planned(paths)?;
    let mut text = read(DOCUMENT)?;
    for (name, table) in [
        ("commands", commands(&runs, &results)),
        ("unchecked", unchecked(&runs)),
        ("daemons", daemons(&runs, &results)),
        ("scenarios", scenario_list(&runs, &results)?),
        ("state", state(&runs, &results)),
    ] {
        text = splice(&text, name, &table).with_context(|| DOCUMENT.to_owned())?;
    }
    Ok(text)
}

/// Says for the name of a run which script it has, as a path below the workspace's root; for a tiny guest, which has none, an empty one.
///
/// # Errors
/// The scenarios cannot be read.
pub(crate) fn scripts(paths: &Paths) -> Result<impl Fn(&str) -> Option<PathBuf>> {
    let mut scripts = BTreeMap::new();
    for run in scenarios::planned(paths)? {
        let script = run.script.strip_prefix(&paths.root).unwrap_or(&run.script).to_path_buf();
        scripts.extend(run.names.into_iter().map(|name| (name, script.clone())));
    }
    Ok(move |name: &str| if is_tiny(name) { Some(PathBuf::new()) } else { scripts.get(name).cloned() })
}

/// Tiny guests made by xl, which have no script.
fn is_tiny(name: &str) -> bool {
    name.starts_with("layer 3: guest ")
}

fn end_of<'a>(run: &Planned, results: &'a Results) -> Option<&'a Run> {
    // The newest of its names' ends; a day's text sorts as days do.
    let is_same = |end: &&Run| end.script == run.fingerprint;
    run.names.iter().filter_map(|name| results.get(name)).filter(is_same).max_by(|one, other| one.day.cmp(&other.day))
}

/// The commands that a run checks by this toolstack.
fn checked(run: &Planned, tools: Tools) -> impl Iterator<Item = &str> {
    let is_xl = run.request.tools == tools;
    run.header
        .checks
        .iter()
        .filter(move |(by, _)| match by {
            By::Xl => is_xl,
            By::XlOf(only) => is_xl && *only == tools,
            By::Always(only) => *only == tools,
        })
        .flat_map(|(_, commands)| commands.iter().map(String::as_str))
}

fn checking<'a>(
    runs: &'a [Planned],
    command: &'a str,
    tools: Tools,
    hypervisor: Hypervisor,
) -> impl Iterator<Item = &'a Planned> {
    runs.iter().filter(move |run| {
        run.request.hypervisor == hypervisor && checked(run, tools).any(|checked| checked == command)
    })
}

/// A cell: how many runs show it, and those that failed by name.
fn cell<'a>(runs: impl Iterator<Item = &'a Planned>, results: &Results) -> String {
    let (mut ok, mut failed, mut is_any) = (0, BTreeSet::new(), false);
    for run in runs {
        is_any = true;
        match end_of(run, results).map(|end| end.ended) {
            Some(Ended::Ok) => ok += 1,
            Some(Ended::Failed) => drop(failed.insert(test_of(run))),
            None => {}
        }
    }
    let names: Vec<&str> = failed.iter().map(String::as_str).collect();
    let works = if ok == 1 { "works, 1 run".to_owned() } else { format!("works, {ok} runs") };
    let fails = format!("**fails** in {}", names.join(", "));
    match (ok, names.is_empty()) {
        (0, true) => (if is_any { "not run" } else { "–" }).to_owned(),
        (0, false) => fails,
        (_, true) => works,
        (_, false) => format!("{works}; {fails}"),
    }
}

fn test_of(run: &Planned) -> String {
    run.script.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn commands(runs: &[Planned], results: &Results) -> String {
    let mut table = format!("| command | {} |\n|---|---|---|---|\n", COLUMNS.map(|(_, _, title)| title).join(" | "));
    for command in COMMANDS {
        let cells =
            COLUMNS.map(|(tools, hypervisor, _)| cell(checking(runs, command, tools, hypervisor), results)).join(" | ");
        writeln!(table, "| `{command}` | {cells} |").ok();
    }
    table
}

/// The cells of [`commands`] for which there is no scenario.
fn unchecked(runs: &[Planned]) -> String {
    let mut text = String::new();
    for (tools, hypervisor, title) in COLUMNS {
        let missing: Vec<String> = COMMANDS
            .iter()
            .filter(|command| checking(runs, command, tools, hypervisor).next().is_none())
            .map(|command| format!("`{command}`"))
            .collect();
        let missing = if missing.is_empty() { "none".to_owned() } else { missing.join(", ") };
        writeln!(text, "- {title}: {missing}").ok();
    }
    text
}

/// Whose daemons serve in a run: a disk has ours.
fn daemons_of(request: &Request) -> Daemons {
    if request.disk.is_some() { Daemons::Oxen } else { request.daemons }
}

fn daemons(runs: &[Planned], results: &Results) -> String {
    let mut table = String::from("| daemons | hypervisor | Debian's xl | our xl |\n|---|---|---|---|\n");
    for (daemons, whose) in [(Daemons::Debian, "Debian's"), (Daemons::Oxen, "ours")] {
        for (hypervisor, on) in [(Hypervisor::Oxen, "Oxen"), (Hypervisor::Xen, "Debian's Xen")] {
            let cells = [Tools::Debian, Tools::Oxen].map(|tools| {
                let with = |run: &&Planned| {
                    run.request.hypervisor == hypervisor
                        && daemons_of(&run.request) == daemons
                        && checked(run, tools).next().is_some()
                };
                cell(runs.iter().filter(with), results)
            });
            writeln!(table, "| {whose} | {on} | {} |", cells.join(" | ")).ok();
        }
    }
    table
}

/// A row for each script that checks a command: what it is about, and its runs.
fn scenario_list(runs: &[Planned], results: &Results) -> Result<String> {
    let mut table = String::from("| scenario | what it shows | runs |\n|---|---|---|\n");
    let mut done = BTreeSet::new();
    for run in runs.iter().filter(|run| !run.header.checks.is_empty()) {
        if !done.insert(run.script.clone()) {
            continue;
        }
        let source = std::fs::read_to_string(&run.script).with_context(|| run.script.display().to_string())?;
        let ends: Vec<String> = runs
            .iter()
            .filter(|other| other.script == run.script)
            .map(|run| {
                let end = end_of(run, results).map_or("not run", |end| end.ended.word());
                format!("{}: {end}", describe(&run.request))
            })
            .collect();
        writeln!(table, "| {} | {} | {} |", test_of(run), purpose(&source), ends.join("; ")).ok();
    }
    Ok(table)
}

/// What a script's head says first, to the end of the first sentence.
fn purpose(source: &str) -> String {
    let words: Vec<&str> = source
        .lines()
        .skip(1)
        .map_while(|line| line.strip_prefix("# "))
        .take_while(|line| !line.split(' ').next().is_some_and(|word| word.ends_with(':')))
        .collect();
    let text = words.join(" ");
    text.split_once(". ").map_or(text.clone(), |(first, _)| format!("{first}."))
}

fn describe(request: &Request) -> String {
    let tools = if request.tools == Tools::Oxen { "our xl" } else { "Debian's xl" };
    let daemons = if daemons_of(request) == Daemons::Oxen { ", our daemons" } else { "" };
    let on = if request.hypervisor == Hypervisor::Oxen { "Oxen" } else { "Debian's Xen" };
    format!("{tools}{daemons} on {on}")
}

/// When and from what the results are.
fn state(runs: &[Planned], results: &Results) -> String {
    let done = |end: Option<&Run>| end.is_some_and(|end| end.ended == Ended::Ok);
    let has_checks = || runs.iter().filter(|run| !run.header.checks.is_empty());
    let passed = has_checks().filter(|run| done(end_of(run, results))).count();
    let from: BTreeSet<String> = has_checks()
        .filter_map(|run| end_of(run, results))
        .map(|end| format!("{} ({})", end.day, end.revision))
        .collect();
    let from: Vec<String> = from.into_iter().collect();
    let mut text = format!("Of {} runs that check commands {passed} have passed", has_checks().count());
    let not_run = has_checks().filter(|run| end_of(run, results).is_none()).count();
    write!(text, " and {not_run} have not been run. The runs are of {}.", from.join(", ")).ok();
    for (tools, whose) in [("debian", "Debian's"), ("oxen", "our")] {
        let guests: Vec<bool> = results
            .iter()
            .filter(|(name, _)| is_tiny(name) && name.contains(&format!("[--tools {tools}]")))
            .map(|(_, end)| end.ended == Ended::Ok)
            .collect();
        let passed = guests.iter().filter(|passed| **passed).count();
        write!(text, " Tiny guests made by {whose} xl on Oxen: {passed} of {} passed.", guests.len()).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::header;

    fn run(script: &str, options: &str, head: &str) -> Planned {
        Planned {
            names: vec![format!("layer 3: {script} [{options}]")],
            script: format!("/w/{script}.sh").into(),
            fingerprint: "1".into(),
            header: header::parse(head).unwrap(),
            request: Request::from_words(options.split(' ').filter(|word| !word.is_empty()).map(str::to_owned))
                .unwrap(),
        }
    }

    #[test]
    fn the_document_is_what_scenarios_and_results_say() {
        let paths = Paths::find().unwrap();
        let text = std::fs::read_to_string(paths.root.join(DOCUMENT)).unwrap();
        assert!(document(&paths).unwrap() == text, "{DOCUMENT} is behind: run cargo xtask interop");
    }

    #[test]
    fn scenarios_check_what_they_say() {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        for run in scenarios::planned(&Paths::find().unwrap()).unwrap() {
            let source = std::fs::read_to_string(&run.script).unwrap();
            let words: BTreeSet<&str> = source
                .lines()
                .filter(|line| !line.starts_with('#'))
                .flat_map(|line| line.split(|c| !is_part(c)))
                .collect();
            for command in run.header.checks.iter().flat_map(|(_, commands)| commands) {
                let script = run.script.display();
                assert!(COMMANDS.contains(&command.as_str()), "{script}: `{command}` is not in the table");
                let word = command.trim_end_matches("coredump-…").trim_end_matches('=');
                assert!(words.contains(word), "{script} says that it checks `{command}`, which is nowhere in it");
            }
        }
    }

    #[test]
    fn cells_count_runs_of_their_column() {
        let head = "# checks: create\n# checks xl=oxen: top\n# checks debian-xl: list\n";
        let runs =
            [run("a", "--tools oxen", head), run("a", "--tools debian", head), run("b", "--hypervisor xen", head)];
        let one = |_: &str| Some("1".to_owned());
        let mut results = Results::default();
        let cell_of = |results: &Results, command, column: usize| {
            let (tools, hypervisor, _) = COLUMNS[column];
            cell(checking(&runs, command, tools, hypervisor), results)
        };
        assert_eq!(cell_of(&results, "create", 0), "not run");
        results.add_log("ok       layer 3: a [--tools oxen] (1.0 s)\n", "2026-11-29", "git:1", one);
        assert_eq!(cell_of(&results, "create", 0), "not run");
        assert_eq!(cell_of(&results, "create", 1), "works, 1 run");
        assert_eq!(cell_of(&results, "top", 0), "–", "only where xl is ours");
        assert_eq!(cell_of(&results, "list", 0), "works, 1 run", "by its own name");
        assert_eq!(cell_of(&results, "list", 1), "–");
        assert_eq!(cell_of(&results, "create", 2), "–", "that run has Debian's xl");
        results.add_log("FAILED   layer 3: a [--tools debian] (1.0 s): why\n", "2026-11-29", "git:1", one);
        assert_eq!(cell_of(&results, "list", 0), "works, 1 run; **fails** in a");
        results.add_log("ok       layer 3: a [--tools debian] (1.0 s)\n", "2026-11-30", "git:2", |_| Some("2".into()));
        assert_eq!(cell_of(&results, "list", 0), "works, 1 run", "another script's end does not count");
        results.add_log("FAILED   layer 3: a [--tools debian] (1.0 s): why\n", "2026-11-29", "git:1", one);
        assert!(unchecked(&runs).contains("our xl on Debian's Xen: `create`"), "{}", unchecked(&runs));
        assert!(daemons(&runs, &results).contains("| Debian's | Oxen | works, 1 run; **fails** in a | works, 1 run |"));
    }

    #[test]
    fn a_purpose_is_the_first_sentence() {
        let source = "#!/bin/sh\n# Guests come\n# and go. More.\n# shared: 5\n. /oxen/lib.sh\n";
        assert_eq!(purpose(source), "Guests come and go.");
        assert_eq!(purpose("#!/bin/sh\n# One line.\n# checks: list\n"), "One line.");
    }
}
