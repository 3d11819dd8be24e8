//! What is wrong with a configuration, and where: places, diagnostics, and the list they are collected in.
//!
//! Every stage (text, lexer, parser, schema, checks) writes into one [`Report`], so that a user sees all mistakes of a
//! file at once and not only the first. After it comes `create`, which prints the report and stops if it holds errors.

use std::fmt;
use std::rc::Rc;

/// A place in a configuration: which source, and the line and column in it, both counted from 1.
///
/// Columns count bytes, as editors that jump to `file:line:column` do for ASCII text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name as the user gave it, or the command-line argument.
    pub source: Rc<str>,
    /// Line in that source, from 1.
    pub line: u32,
    /// Column in that line in bytes, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The domain can be built; the setting has no effect or a milder one.
    Warning,
    /// No domain may be built from this configuration.
    Error,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the domain from being built.
    pub severity: Severity,
    /// Where it is; `None` for something that is missing from the whole file.
    pub place: Option<Place>,
    /// What is wrong and, where there is one, the cure.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        let word = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{word}: {}", self.message)
    }
}

/// The findings of all stages, in the order they were made.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Diagnostic>,
}

impl Report {
    /// Records an error at `place`.
    pub fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.push(Severity::Error, Some(place.clone()), message.into());
    }

    /// Records a warning at `place`.
    pub fn warning(&mut self, place: &Place, message: impl Into<String>) {
        self.push(Severity::Warning, Some(place.clone()), message.into());
    }

    /// Records something about the file as a whole, for which there is no line; `source` names the file.
    pub fn about_file(&mut self, severity: Severity, source: &str, message: impl fmt::Display) {
        self.push(severity, None, format!("{source}: {message}"));
    }

    fn push(&mut self, severity: Severity, place: Option<Place>, message: String) {
        self.findings.push(Diagnostic { severity, place, message });
    }

    /// All findings.
    pub fn findings(&self) -> &[Diagnostic] {
        &self.findings
    }

    /// Whether at least one finding is an error.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}
