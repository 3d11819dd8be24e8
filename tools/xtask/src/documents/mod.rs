//! Documents that are made from something else, wholly or in parts.
//!
//! [`drawing`] makes the picture of the architecture from a text; [`interop`] the tables of what works with what from the scenarios'
//! heads and the results of test runs; [`walkthrough`] has the terminals of the walkthrough shown anew. What stands between a
//! `<!-- begin NAME -->` and its `<!-- end NAME -->` is replaced ([`splice`]); all other text is people's. Used by the commands of the
//! same names; tests here say when a document is behind its source.

pub(crate) mod drawing;
pub(crate) mod interop;
pub(crate) mod results;
mod scene;
mod svg;
pub(crate) mod walkthrough;

use anyhow::{Context, Result, ensure};

/// The text with what is between the marks of `name` replaced by `content`.
///
/// # Errors
/// The marks are not there, or not each once.
pub(crate) fn splice(text: &str, name: &str, content: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    for mark in [&begin, &end] {
        ensure!(text.matches(mark.as_str()).count() == 1, "there should be one line `{}`", mark.trim_end());
    }
    let (before, rest) = text.split_once(&begin).context("the first mark")?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("`{end}` stands before its beginning"))?;
    Ok(format!("{before}{begin}{}\n{end}{after}", content.trim_end()))
}

/// The names of all parts of a text that can be replaced.
pub(crate) fn parts(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("<!-- begin ")?.strip_suffix(" -->")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_marks_is_replaced() {
        let text = "a\n<!-- begin x -->\nold\nold\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n";
        let new = splice(text, "x", "new\n\n").unwrap();
        assert_eq!(new, "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n");
        assert_eq!(splice(&new, "x", "new").unwrap(), new, "a second time changes nothing");
        assert_eq!(parts(text), ["x", "y"]);
    }

    #[test]
    fn missing_or_doubled_marks_are_errors() {
        assert!(splice("a\n", "x", "").is_err());
        assert!(splice("<!-- end x -->\n<!-- begin x -->\n", "x", "").is_err());
        let text = "<!-- begin x -->\n<!-- end x -->\n";
        assert!(splice(&format!("{text}{text}"), "x", "").is_err());
    }
}
