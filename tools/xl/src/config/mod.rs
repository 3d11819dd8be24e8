//! xl.cfg: from the text of a configuration file to a checked [`domain::DomainConfig`].
//!
//! In the order of the data: [`text`] joins the file and the command-line settings, [`lex`] makes tokens, [`parse`] makes
//! settings, [`schema`] checks every setting against one table and fills the typed configuration. All findings land in one
//! [`report::Report`]. What comes after is `create`.

pub mod cpuid;
pub mod cpus;
pub mod disk;
pub mod domain;
pub mod lex;
pub mod p9;
pub mod parse;
pub mod report;
pub mod schema;
pub mod text;
pub mod value;
pub mod vif;

use domain::DomainConfig;
use report::Report;
use text::Text;

/// Reads a whole configuration: `content` is what is in `file`, `overrides` are the settings given on the command line.
///
/// The configuration is worth using only if the report has no errors.
pub fn read(file: &str, content: &[u8], overrides: &[String]) -> (DomainConfig, Report) {
    read_text(&Text::new(file, content, overrides))
}

/// The same, from a text that is put together already.
pub fn read_text(text: &Text) -> (DomainConfig, Report) {
    let mut report = Report::default();
    let settings = parse::parse(text, &mut report);
    let config = schema::apply(&settings, text, &mut report);
    (config, report)
}

/// Reads a UUID in the form that `uuid=` takes.
pub fn uuid(text: &str) -> Result<[u8; 16], String> {
    schema::uuid(text)
}

#[cfg(test)]
mod tests;
