//! apt's list of sources, in both of its syntaxes.
//!
//! Needed for two things: when this release's QEMU is too old, the backports suite is added from the very archive that
//! the machine already uses ([`backports_entry`]); and `crate::disk` makes Debian disks from that archive. Facts: the manual page sources.list(5).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Which of the two syntaxes a source was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// `deb [options] URI SUITE COMPONENTS` in a `.list` file.
    OneLine,
    /// Paragraphs of fields in a `.sources` file.
    Deb822,
}

/// One source of binary packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// How it was written.
    pub(crate) syntax: Syntax,
    /// Archive addresses, as written.
    pub(crate) uris: Vec<String>,
    /// Suites or code names.
    pub(crate) suites: Vec<String>,
    /// Components such as main.
    pub(crate) components: Vec<String>,
    /// Options of the one-line syntax, or further fields of deb822 (Signed-By, Trusted, …), as (key, raw value).
    pub(crate) options: Vec<(String, String)>,
}

impl Source {
    /// The same source for other suites, written in its own syntax.
    pub(crate) fn text_with(&self, suites: &[String]) -> String {
        let (uris, suites, components) = (self.uris.join(" "), suites, self.components.join(" "));
        match self.syntax {
            Syntax::OneLine => {
                let options: Vec<String> = self.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let options = if options.is_empty() { String::new() } else { format!("[{}] ", options.join(" ")) };
                suites.iter().map(|suite| format!("deb {options}{uris} {suite} {components}\n")).collect()
            }
            Syntax::Deb822 => {
                let suites = suites.join(" ");
                let mut text = format!("Types: deb\nURIs: {uris}\nSuites: {suites}\nComponents: {components}\n");
                for (key, value) in &self.options {
                    let gap = if value.starts_with('\n') { "" } else { " " };
                    text.push_str(&format!("{key}:{gap}{value}\n"));
                }
                text
            }
        }
    }
}

/// Reads a `.list` file's text; comments and source-package lines are left out.
pub(crate) fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None;
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        syntax: Syntax::OneLine,
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        options: options
            .split_whitespace()
            .filter_map(|option| option.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    })
}

/// Reads a `.sources` file's text; disabled paragraphs and those of source packages only are left out.
pub(crate) fn parse_deb822(text: &str) -> Vec<Source> {
    let mut paragraphs: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(current) = paragraphs.last_mut() else {
            break;
        };
        if line.trim().is_empty() {
            paragraphs.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = current.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            current.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    paragraphs.into_iter().filter_map(parse_paragraph).collect()
}

fn parse_paragraph(fields: Vec<(String, String)>) -> Option<Source> {
    let words = |key: &str| -> Vec<String> {
        fields
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let disabled = words("Enabled").first().is_some_and(|value| value.eq_ignore_ascii_case("no") || value == "false");
    let source = Source {
        syntax: Syntax::Deb822,
        uris: words("URIs"),
        suites: words("Suites"),
        components: words("Components"),
        options: Vec::new(),
    };
    if disabled || !words("Types").iter().any(|kind| kind == "deb") || source.uris.is_empty() {
        return None;
    }
    let known = ["Types", "URIs", "Suites", "Components", "Enabled"];
    let options =
        fields.into_iter().filter(|(key, _)| !known.iter().any(|name| key.eq_ignore_ascii_case(name))).collect();
    Some(Source { options, ..source })
}

/// A list file to add: its name and its text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// File name for the folder of list parts.
    pub(crate) file_name: &'static str,
    /// What to write into it.
    pub(crate) text: String,
}

/// The source that adds `CODENAME-backports`, derived from the one that serves the release itself. None when a source
/// with that suite exists already.
///
/// # Errors
/// No source serves the release.
pub(crate) fn backports_entry(sources: &[Source], codename: &str) -> Result<Option<Entry>> {
    let suite = format!("{codename}-backports");
    if sources.iter().any(|source| source.suites.contains(&suite)) {
        return Ok(None);
    }
    let Some(base) = sources.iter().find(|source| source.suites.iter().any(|suite| suite == codename)) else {
        bail!("none of the machine's apt sources serves the suite {codename}, so {suite} cannot be derived");
    };
    let comment = "# Added by Oxen's `cargo xtask`: a newer QEMU than the release has. May be removed.\n";
    let text = format!("{comment}{}", base.text_with(&[suite]));
    Ok(Some(Entry {
        file_name: match base.syntax {
            Syntax::OneLine => "oxen-backports.list",
            Syntax::Deb822 => "oxen-backports.sources",
        },
        text,
    }))
}

/// Where apt reads its sources: the single file and the folder of parts, as apt itself is configured.
pub(crate) struct Places {
    list: PathBuf,
    /// Folder for further list files.
    pub(crate) parts: PathBuf,
}

impl Places {
    /// Asks `apt-config`.
    pub(crate) fn find() -> Result<Self> {
        let output = Command::new("apt-config")
            .args(["shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"])
            .output()
            .context("cannot run apt-config: this command needs Debian's apt")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix("='")?.strip_suffix('\''))
                .map(PathBuf::from)
                .with_context(|| format!("apt-config does not say {key}"))
        };
        Ok(Self { list: value("LIST")?, parts: value("PARTS")? })
    }

    /// All sources of the machine, in apt's order.
    pub(crate) fn read(&self) -> Result<Vec<Source>> {
        let mut files = vec![self.list.clone()];
        if let Ok(entries) = std::fs::read_dir(&self.parts) {
            let mut parts: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            parts.sort();
            files.extend(parts);
        }
        let mut sources = Vec::new();
        for file in files.iter().filter(|file| file.is_file()) {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            sources.extend(match ending(file) {
                "list" => parse_one_line(&text),
                "sources" => parse_deb822(&text),
                _ => Vec::new(),
            });
        }
        Ok(sources)
    }
}

fn ending(file: &Path) -> &str {
    file.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
