//! The terminals of `docs/walkthrough.md`: what `docs/walkthrough.sh` shows in a control domain, part by part, and what
//! `cargo xtask demo` prints.
//!
//! Used by `cargo xtask walkthrough`; a test here says when the document and the script do not have the same parts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::{parts, splice};

/// The document.
pub(crate) const DOCUMENT: &str = "docs/walkthrough.md";
/// The script.
pub(crate) const SCRIPT: &str = "docs/walkthrough.sh";
/// The part that is what `cargo xtask demo` prints.
pub(crate) const DEMO: &str = "demo";

/// How a part begins in the script's text.
const MARK: &str = "@@ ";

/// More lines of a kernel than this are not shown.
const LONG: usize = 5;

/// The parts of what the script printed, by name.
pub(crate) fn split(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in format!("\n{text}").split(&format!("\n{MARK}")).skip(1) {
        let (name, content) = part.split_once('\n').unwrap_or((part, ""));
        found.insert(name.trim().to_owned(), content.to_owned());
    }
    found
}

/// The document with these parts as terminals.
///
/// # Errors
/// A part of the document is missing, or one is not in the document.
pub(crate) fn document(text: &str, terminals: &BTreeMap<String, String>) -> Result<String> {
    for name in parts(text) {
        ensure!(terminals.contains_key(name), "nothing was printed for the part `{name}` of {DOCUMENT}");
    }
    let mut text = text.to_owned();
    for (name, content) in terminals {
        let lines: Vec<String> = content.lines().map(|line| clean(line).trim_end().to_owned()).collect();
        let lines = shorten(&lines);
        let terminal = format!("```console\n{}\n```", lines.join("\n").trim_matches('\n'));
        text = splice(&text, name, &terminal).with_context(|| DOCUMENT.to_owned())?;
    }
    Ok(text)
}

/// A line without letters that only a terminal understands.
fn clean(line: &str) -> String {
    line.chars().filter(|letter| *letter == '\t' || !letter.is_control()).collect()
}

/// Lines without the middle of what a kernel says, if that is long.
fn shorten(lines: &[String]) -> Vec<String> {
    let mut short = Vec::new();
    for run in lines.chunk_by(|one, next| one.starts_with('[') == next.starts_with('[')) {
        match run {
            [first, .., last] if first.starts_with('[') && run.len() > LONG => {
                short.extend([first.clone(), format!("({} more lines of the kernel's)", run.len() - 2), last.clone()]);
            }
            run => short.extend_from_slice(run),
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::paths::Paths;

    #[test]
    fn what_was_printed_comes_into_its_parts() {
        let terminals = split("@@ one\n# a\r\nb\n\n@@ two\nc @@ not\n");
        let text = "A.\n<!-- begin one -->\n<!-- end one -->\nB.\n<!-- begin two -->\nold\n<!-- end two -->\n";
        let new = document(text, &terminals).unwrap();
        assert!(new.contains("<!-- begin one -->\n```console\n# a\nb\n```\n<!-- end one -->"), "{new}");
        assert!(new.contains("```console\nc @@ not\n```\n<!-- end two -->") && !new.contains("old"));
        assert!(document(text, &split("@@ one\na\n")).is_err(), "a part without a text");
        assert!(document("A.\n", &terminals).is_err(), "a text without a part");
    }

    #[test]
    fn of_a_kernels_lines_the_first_and_the_last_are_shown() {
        let lines = |count: usize| (0..count).map(|number| format!("[ 0.{number}] text")).collect::<Vec<_>>();
        let said = [vec!["# xl create".to_owned()], lines(9), vec!["Greeting".to_owned()], lines(5)].concat();
        let short = shorten(&said);
        assert_eq!(
            short[..5],
            ["# xl create", "[ 0.0] text", "(7 more lines of the kernel's)", "[ 0.8] text", "Greeting"]
        );
        assert_eq!(short[5..], lines(5));
    }

    #[test]
    fn the_document_has_the_scripts_parts() {
        let root = Paths::find().unwrap().root;
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        let (text, script) = (read(DOCUMENT), read(SCRIPT));
        let wanted: BTreeSet<&str> =
            script.lines().filter_map(|line| line.strip_prefix("part ")).chain([DEMO]).collect();
        assert_eq!(parts(&text).into_iter().collect::<BTreeSet<_>>(), wanted);
        assert!(!text.contains("-->\n<!-- end"), "a part of {DOCUMENT} is empty: run cargo xtask walkthrough");
    }
}
