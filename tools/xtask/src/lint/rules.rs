//! One function per rule; each gives lines and what is wrong with them.

/// A line, counted from 1, and what is wrong.
type Found = (usize, String);

/// Lines of a file at the most, unless its first lines say why it is longer.
const LONGEST_FILE: usize = 500;
/// How such a reason begins.
const REASON: &str = "//! Longer than 500 lines because";
/// Lines of a function at the most. (Clippy counts only the lines of its body that hold code.)
const LONGEST_FUNCTION: usize = 100;

/// Where unsafe code may be.
const UNSAFE_HOMES: [&str; 5] =
    ["xen/machine/", "rt/", "tools/libxc/src/linux/raw.rs", "tools/hvcount/src/qemu.rs", "xen/src/main.rs"];

/// All rules.
pub(super) fn all(file: &str, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    found.extend(length(text));
    found.extend(opening(file, text));
    found.extend(long_functions(text));
    found.extend(each_line(file, text));
    found
}

fn length(text: &str) -> Option<Found> {
    let lines = text.lines().count();
    let has_reason = text.lines().take(10).any(|line| line.starts_with(REASON));
    (lines > LONGEST_FILE && !has_reason)
        .then(|| (0, format!("{lines} lines: split it, or begin a line on top with `{REASON}`")))
}

/// A file tells its place: what it is, and what comes before and after.
fn opening(file: &str, text: &str) -> Option<Found> {
    let is_small = text.lines().count() < 20;
    let first = text.lines().find(|line| !line.starts_with("#!") && !line.is_empty()).unwrap_or_default();
    (!first.starts_with("//!") && !is_small && !file.ends_with("build.rs"))
        .then(|| (1, "the file does not begin with `//!` and what it is".into()))
}

/// Functions are found by their indentation, which rustfmt keeps.
fn long_functions(text: &str) -> Vec<Found> {
    let mut open: Option<(usize, usize)> = None;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if is_function(line.trim_start()) && !line.trim_end().ends_with(';') {
            open = Some((number, indent));
        }
        let ends = |(_, at): &(usize, usize)| *at == indent && line.trim_start().starts_with('}');
        if let Some((start, _)) = open.filter(ends) {
            open = None;
            if number - start > LONGEST_FUNCTION {
                found.push((start + 1, format!("a function of {} lines", number - start + 1)));
            }
        }
    }
    found
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || matches!(*word, "const" | "unsafe" | "extern" | "\"C\"" | "async" | "in")
    });
    words.next() == Some("fn")
}

fn each_line(file: &str, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let code = without_comment_and_text(line);
        if has_word(&code, "unsafe") && !UNSAFE_HOMES.iter().any(|home| file.starts_with(home)) {
            found.push((number, "unsafe code outside of its home".into()));
        }
        if file.starts_with("xen/core/src") && !is_test(file) && is_static(&code) {
            found.push((number, "core owns no static: state hangs off the Host".into()));
        }
        if code.contains("#[ignore") {
            found.push((number, "an ignored test".into()));
        }
        // Written in two parts, so that this line does not find itself.
        for mark in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
            if has_word(line, mark) {
                found.push((number, format!("an unfinished mark ({mark})")));
            }
        }
    }
    found
}

fn is_test(file: &str) -> bool {
    file.contains("test") || file.contains("fixture") || file.contains("model")
}

fn is_static(code: &str) -> bool {
    let code = code.trim_start();
    let code = code.strip_prefix("pub ").or_else(|| code.strip_prefix("pub(crate) ")).unwrap_or(code);
    code.starts_with("static ")
}

/// A line's code: what is in quotes is emptied, and a comment is cut off. Good enough for lines as rustfmt leaves them.
fn without_comment_and_text(line: &str) -> String {
    let mut code = String::new();
    let mut in_text = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_text => {
                characters.next();
            }
            '"' => {
                in_text = !in_text;
                code.push('"');
            }
            _ if in_text => {}
            '/' if characters.peek() == Some(&'/') => break,
            other => code.push(other),
        }
    }
    code
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(is_part)
            && !text[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(found: &[Found]) -> Vec<usize> {
        found.iter().map(|(line, _)| *line).collect()
    }

    #[test]
    fn unsafe_is_code_and_has_homes() {
        let text = "//! About unsafe.\n\nfn f() {\n    // unsafe here\n    let text = \"unsafe \\\" unsafe\";\n    unsafe { g() };\n}\n";
        assert_eq!(lines(&all("xen/core/src/x.rs", text)), [6]);
        assert!(all("xen/machine/src/x.rs", text).is_empty());
        assert!(all("xen/core/src/x.rs", "#![forbid(unsafe_code)]").is_empty(), "another word");
    }

    #[test]
    fn long_files_give_their_reason() {
        let long = format!("//! A.\n{}", "// line\n".repeat(500));
        assert_eq!(lines(&all("a.rs", &long)), [0]);
        let reason = format!("//! A.\n{REASON} of a table.\n{}", "// line\n".repeat(500));
        assert!(all("a.rs", &reason).is_empty());
    }

    #[test]
    fn long_functions_are_found_by_indentation() {
        let body =
            |lines| format!("//! A.\n\nimpl A {{\n    pub fn f() {{\n{}    }}\n}}\n", "        g();\n".repeat(lines));
        assert!(all("a.rs", &body(99)).is_empty());
        assert_eq!(lines(&all("a.rs", &body(120))), [4]);
        assert!(is_function("pub(crate) const unsafe extern \"C\" fn f() {"));
        assert!(!is_function("let fn_name = 1;"));
    }

    #[test]
    fn marks_statics_and_ignored_tests() {
        let mark = concat!("// TO", "DO later\n");
        assert_eq!(lines(&all("a.rs", mark)), [1]);
        assert_eq!(lines(&all("xen/core/src/a.rs", "pub static A: u8 = 1;\n")), [1]);
        assert!(all("tools/a.rs", "static A: u8 = 1;\n").is_empty());
        assert_eq!(lines(&all("a.rs", "    #[ignore = \"slow\"]\n")), [1]);
    }

    #[test]
    fn files_say_what_they_are() {
        let code = "fn f() {}\n".repeat(20);
        assert_eq!(lines(&all("a.rs", &code)), [1]);
        assert!(all("a.rs", &format!("//! What.\n{code}")).is_empty());
    }
}
