//! The lexer: the bytes of a configuration become tokens with places.
//!
//! The token classes are those of Xen's lexer (tools/libs/util/libxlu_cfg_l.l, as described by xl.cfg(5) "SYNTAX"): keys
//! are lower-case words, numbers start with a digit, strings stand in single or double quotes on one line. Where Xen stops
//! with a bare "lexical error" we say what was found and what it should be. Comes after `text`, before `parse`.

use super::report::{Place, Report};
use super::text::Text;

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A key: `[a-z][._0-9a-z]*`.
    Word(String),
    /// An unquoted number: `[0-9][0-9a-fx]*`, kept as written.
    Number(String),
    /// A quoted string, with its escapes resolved.
    Quoted(String),
    /// `=`
    Assign,
    /// `+=`
    Append,
    /// `,`
    Comma,
    /// `[`
    Open,
    /// `]`
    Close,
    /// `;`
    Semicolon,
    /// The end of a line; a comment belongs to it.
    Newline,
    /// Something that is no token. It has been reported; the parser skips the line.
    Bad,
}

/// A token and where it starts.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it starts.
    pub place: Place,
}

/// Splits `text` into tokens. Everything that is no token is reported, so one pass finds all lexical errors.
pub fn lex(text: &Text, report: &mut Report) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, line: 1, line_start: 0, report };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}

struct Lexer<'a> {
    text: &'a Text,
    /// Index of the next byte.
    at: usize,
    /// Line of the next byte, from 1.
    line: u32,
    /// Index of the first byte of that line.
    line_start: usize,
    report: &'a mut Report,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.bytes().get(self.at).copied()
    }

    fn place(&self) -> Place {
        let column = self.at.saturating_sub(self.line_start).saturating_add(1);
        self.text.place(self.line, u32::try_from(column).unwrap_or(u32::MAX))
    }

    fn next(&mut self) -> Option<Token> {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        let place = self.place();
        let kind = match self.peek()? {
            b'\n' => self.newline(),
            b'#' => self.comment(),
            b'a'..=b'z' => Kind::Word(self.run(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_'))),
            b'0'..=b'9' => Kind::Number(self.run(|b| matches!(b, b'a'..=b'f' | b'0'..=b'9' | b'x'))),
            quote @ (b'\'' | b'"') => self.string(quote, &place),
            b'+' if self.text.bytes().get(self.at + 1) == Some(&b'=') => self.punctuation(2, Kind::Append),
            b'=' => self.punctuation(1, Kind::Assign),
            b',' => self.punctuation(1, Kind::Comma),
            b'[' => self.punctuation(1, Kind::Open),
            b']' => self.punctuation(1, Kind::Close),
            b';' => self.punctuation(1, Kind::Semicolon),
            other => self.bad(other, &place),
        };
        Some(Token { kind, place })
    }

    fn punctuation(&mut self, length: usize, kind: Kind) -> Kind {
        self.at += length;
        kind
    }

    fn newline(&mut self) -> Kind {
        self.at += 1;
        self.line = self.line.saturating_add(1);
        self.line_start = self.at;
        Kind::Newline
    }

    /// Skips a comment; the text always ends with a newline, which the comment gives way to.
    fn comment(&mut self) -> Kind {
        while !matches!(self.peek(), None | Some(b'\n')) {
            self.at += 1;
        }
        self.newline()
    }

    /// Takes the ASCII bytes for which `belongs` holds.
    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> String {
        let mut word = String::new();
        while let Some(byte) = self.peek().filter(|&byte| belongs(byte)) {
            word.push(char::from(byte));
            self.at += 1;
        }
        word
    }

    /// A string up to the closing quote. Errors inside it are reported where they are, and the lexer goes on behind it.
    fn string(&mut self, quote: u8, start: &Place) -> Kind {
        self.at += 1;
        let mut bytes = Vec::new();
        let mut good = true;
        loop {
            match self.peek() {
                None | Some(b'\n') => {
                    self.report.error(start, "the string has no closing quote on its line");
                    return Kind::Bad;
                }
                Some(byte) if byte == quote => break,
                Some(b'\\') => match self.escape() {
                    Some(byte) => bytes.push(byte),
                    None => good = false,
                },
                Some(0) => {
                    self.report.error(&self.place(), "a string cannot hold a zero byte");
                    self.at += 1;
                    good = false;
                }
                Some(byte) => {
                    bytes.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        match String::from_utf8(bytes) {
            Ok(text) if good => Kind::Quoted(text),
            Ok(_) => Kind::Bad,
            Err(_) => {
                self.report.error(start, "the string is not valid UTF-8");
                Kind::Bad
            }
        }
    }

    /// Resolves one escape. `None`: it was reported.
    ///
    /// Xen 4.17 accepts the letters and quotes below; its numeric escapes never work (`\x` is always refused, and an
    /// octal escape vanishes from the string), so ours, which give the byte they name, take nothing from anyone.
    fn escape(&mut self) -> Option<u8> {
        let place = self.place();
        self.at += 1;
        let code = self.peek().unwrap_or(b'\n');
        if code != b'\n' {
            self.at += 1;
        }
        let byte = match code {
            b'"' | b'\'' | b'\\' => code,
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'x' => return self.numeric_escape(16, 2, 2, &place),
            b'0'..=b'7' => {
                self.at -= 1;
                return self.numeric_escape(8, 1, 3, &place);
            }
            _ => {
                self.report.error(&place, "unknown escape: after a backslash come \" ' \\ a b f n r t v x or a digit");
                return None;
            }
        };
        Some(byte)
    }

    fn numeric_escape(&mut self, radix: u32, least: usize, most: usize, place: &Place) -> Option<u8> {
        let mut value = 0;
        let mut digits = 0;
        while digits < most {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(radix)) else {
                break;
            };
            value = value * radix + digit;
            digits += 1;
            self.at += 1;
        }
        match u8::try_from(value) {
            Ok(byte) if digits >= least && byte != 0 => Some(byte),
            _ => {
                self.report.error(
                    place,
                    "a numeric escape is \\x and two hexadecimal digits or up to three octal digits, 1 to 255",
                );
                None
            }
        }
    }

    /// Something that starts no token: reports it with a cure and skips to the next white space, as Xen does.
    fn bad(&mut self, byte: u8, place: &Place) -> Kind {
        let start = self.at;
        while !matches!(self.peek(), None | Some(b' ' | b'\t' | b'\n')) {
            self.at += 1;
        }
        let found = String::from_utf8_lossy(&self.text.bytes()[start..self.at]).into_owned();
        let message = match byte {
            b'\r' => {
                "carriage return: the file has DOS line ends; convert it, for example with `sed -i 's/\\r$//'`".into()
            }
            b'-' => format!("`{}': a negative number must stand in quotes", found.escape_debug()),
            b'A'..=b'Z' => format!("`{}': keys are lower-case words, and strings need quotes", found.escape_debug()),
            b'(' | b')' | b'{' | b'}' | b':' | b'.' | b'+' | b'%' | b'*' => {
                format!(
                    "`{}': expressions are not part of the language, only strings, numbers and lists",
                    found.escape_debug()
                )
            }
            _ => format!("`{}' is no part of the language", found.escape_debug()),
        };
        self.report.error(place, message);
        Kind::Bad
    }
}
