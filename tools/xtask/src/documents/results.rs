//! How the runs of scenarios ended, kept in `docs/interop.results`: a line for each, with the day and the sources' revision.
//!
//! A line has the script's fingerprint, too: the end of a run of another script says nothing about this one. Read from what `cargo xtask test` prints; a later end of a run replaces the earlier one. Before: [`crate::testing`], whose report it
//! reads. After: [`super::interop`].

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, bail};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it should.
    Ok,
    /// Otherwise.
    Failed,
}

impl Ended {
    const WORDS: [(Self, &str); 2] = [(Self::Ok, "ok"), (Self::Failed, "FAILED")];

    fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, text)| *text == word).map(|(ended, _)| *ended)
    }

    /// The word in reports.
    pub(crate) fn word(self) -> &'static str {
        if self == Self::Ok { "ok" } else { "FAILED" }
    }
}

/// The end of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// How.
    pub(crate) ended: Ended,
    /// The day, as 2026-11-29.
    pub(crate) day: String,
    /// The sources' revision.
    pub(crate) revision: String,
    /// The script that ran, by [`fingerprint`].
    pub(crate) script: String,
}

/// What a script without its comments is known by: FNV-1a in 32 bits.
pub(crate) fn fingerprint(source: &str) -> String {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with('#'));
    let hash = lines
        .flat_map(|line| line.bytes().chain([b'\n']))
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

/// The ends by the runs' names, such as `layer 3: boot [--tools oxen]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    runs: BTreeMap<String, Run>,
}

const HEAD: &str = "\
# How the runs of layers 3 and 4 ended, for interop.md. Written by `cargo xtask interop --log FILE`; a later end replaces an earlier one.
";

impl Results {
    /// Reads the file.
    ///
    /// # Errors
    /// A line that is not one of [`Results::text`].
    pub(crate) fn read(text: &str) -> Result<Self> {
        let mut results = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.splitn(5, ' ');
            let (Some(ended), Some(day), Some(revision), Some(script), Some(name)) =
                (words.next().and_then(Ended::of), words.next(), words.next(), words.next(), words.next())
            else {
                bail!("`{line}` is no end of a run");
            };
            let (day, revision, script) = (day.to_owned(), revision.to_owned(), script.to_owned());
            let run = Run { ended, day, revision, script };
            results.runs.insert(name.to_owned(), run);
        }
        Ok(results)
    }

    /// Adds what a log of `cargo xtask test` says about layers 3 and 4. `script_of` gives the fingerprint of a run's script, if there is
    /// such a run. True if the log says anything.
    pub(crate) fn add_log(
        &mut self,
        log: &str,
        day: &str,
        revision: &str,
        script_of: impl Fn(&str) -> Option<String>,
    ) -> bool {
        let mut is_any = false;
        for (ended, name) in log.lines().filter_map(case) {
            let Some(script) = script_of(name) else { continue };
            let run = Run { ended, day: day.to_owned(), revision: revision.to_owned(), script };
            self.runs.insert(name.to_owned(), run);
            is_any = true;
        }
        is_any
    }

    /// Forgets runs that do not exist any more.
    pub(crate) fn keep(&mut self, is_known: impl Fn(&str) -> bool) {
        self.runs.retain(|name, _| is_known(name));
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (name, run) in &self.runs {
            writeln!(text, "{} {} {} {} {name}", run.ended.word(), run.day, run.revision, run.script).ok();
        }
        text
    }

    /// The end of one run.
    pub(crate) fn get(&self, name: &str) -> Option<&Run> {
        self.runs.get(name)
    }

    /// All names with their ends.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Run)> {
        self.runs.iter().map(|(name, run)| (name.as_str(), run))
    }
}

/// The end and the name in a line such as `ok       layer 3: boot (2.0 s)` or `FAILED   layer 3: boot (2.0 s): why`.
fn case(line: &str) -> Option<(Ended, &str)> {
    let (word, rest) = line.split_once(' ')?;
    let ended = Ended::of(word)?;
    let rest = rest.trim_start();
    // Options may hold brackets; the time is the last of them, but for a reason's.
    let end = if ended == Ended::Ok { rest.strip_suffix(" s)")?.len() } else { rest.find(" s): ")? };
    Some((ended, rest[..end].rsplit_once(" (")?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_a_file_and_the_file_is_read() {
        let log = "xtask: booting\nok       layer 1: xl (3.0 s)\nok       layer 3: boot [--tools oxen] (2.2 s)\n\
                   FAILED   layer 4: a [--x (y)] (1.0 s): ended with status 1 (2 s)\n    | ok layer 3: no (1 s)\n\
                   FAILED   layer 3: machine [--tools oxen] (0.0 s): the machine did not power off\n1 passed, 1 failed\n";
        let script_of = |name: &str| (name.starts_with("layer 4") || name.contains("boot")).then(|| fingerprint(name));
        let (boot, other) = (fingerprint("layer 3: boot [--tools oxen]"), fingerprint("layer 4: a [--x (y)]"));
        let mut results = Results::default();
        assert!(results.add_log(log, "2026-11-29", "git:1", script_of));
        assert_eq!(
            results.text().lines().skip(1).collect::<Vec<_>>(),
            [
                format!("ok 2026-11-29 git:1 {boot} layer 3: boot [--tools oxen]"),
                format!("FAILED 2026-11-29 git:1 {other} layer 4: a [--x (y)]")
            ]
        );
        assert_eq!(Results::read(&results.text()).unwrap(), results);
        assert!(!results.clone().add_log("nothing\n", "2026-11-29", "git:1", script_of));
        // A later run counts.
        assert!(results.add_log("ok       layer 4: a [--x (y)] (1.0 s)\n", "2026-11-30", "git:2", script_of));
        let run = results.get("layer 4: a [--x (y)]").unwrap();
        assert_eq!((run.ended, run.day.as_str(), run.revision.as_str()), (Ended::Ok, "2026-11-30", "git:2"));
        results.keep(|name| name.contains("boot"));
        assert_eq!(results.iter().count(), 1);
    }

    #[test]
    fn comments_do_not_make_another_script() {
        assert_eq!(fingerprint("#!/bin/sh\n# A.\nxl list\n"), fingerprint("# B.\nxl list\n    # C.\n"));
        assert_ne!(fingerprint("xl list\n"), fingerprint("xl info\n"));
        assert_eq!(fingerprint(""), "811c9dc5");
    }

    #[test]
    fn other_lines_in_the_file_are_errors() {
        assert!(Results::read("maybe 2026-11-29 git:1 layer 3: a\n").is_err());
        assert!(Results::read("ok 2026-11-29\n").is_err());
    }
}
