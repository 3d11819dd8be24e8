//! The text of a configuration: the file followed by the settings given on the command line.
//!
//! `xl create file key=value…` appends the arguments to the file's text, one line each (xl.1, `create`), so an argument
//! may hold several settings separated by `;` and wins over the file because the last setting of a key wins. This file
//! joins the texts and remembers which line came from where. The lexer comes next.

use std::rc::Rc;

use super::report::Place;

/// The joined text, and where each part of it came from.
#[derive(Debug)]
pub struct Text {
    bytes: Vec<u8>,
    /// The parts in order; each starts at the beginning of a line.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    name: Rc<str>,
    /// The first line of the part, counted from 1 in the joined text.
    first_line: u32,
}

impl Text {
    /// The text of `file`, whose content is `content`, with the command-line settings appended.
    pub fn new(file: &str, content: &[u8], overrides: &[String]) -> Text {
        let mut text = Text { bytes: Vec::with_capacity(content.len() + 1), parts: Vec::new() };
        text.append(file, content);
        for setting in overrides {
            text.append(&format!("command line `{setting}'"), setting.as_bytes());
        }
        text
    }

    /// Appends a part, which always ends its last line: a comment on the last line of a file needs no newline of its own.
    fn append(&mut self, name: &str, content: &[u8]) {
        let first_line = count_lines(&self.bytes).saturating_add(1);
        self.parts.push(Part { name: name.into(), first_line });
        self.bytes.extend_from_slice(content);
        if !content.ends_with(b"\n") {
            self.bytes.push(b'\n');
        }
    }

    /// The joined bytes; they end with a newline.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Turns a line of the joined text (from 1) and a column into a place in the part it came from.
    pub fn place(&self, line: u32, column: u32) -> Place {
        let part = self.parts.iter().rev().find(|part| part.first_line <= line);
        match part {
            Some(part) => Place { source: part.name.clone(), line: line - part.first_line + 1, column },
            None => Place { source: "".into(), line, column },
        }
    }

    /// The name of the file, for findings that have no place.
    pub fn file(&self) -> &str {
        self.parts.first().map_or("", |part| &part.name)
    }
}

fn count_lines(bytes: &[u8]) -> u32 {
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
    u32::try_from(lines).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_parts() {
        let text = Text::new("a.cfg", b"x = 1\ny = 2", &["z=3".into(), "w=4".into()]);
        assert_eq!(text.bytes(), b"x = 1\ny = 2\nz=3\nw=4\n");
        assert_eq!(text.place(2, 1).to_string(), "a.cfg:2:1");
        assert_eq!(text.place(3, 2).to_string(), "command line `z=3':1:2");
        assert_eq!(text.place(4, 1).to_string(), "command line `w=4':1:1");
    }
}
