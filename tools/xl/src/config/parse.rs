//! The parser: tokens become settings, the last one of a key winning.
//!
//! The grammar is Xen's (tools/libs/util/libxlu_cfg_y.y): statements end with a newline or `;`, the last one may end with
//! the file; a value is an atom or a list; newlines are free inside a list, and a comma may stand before `]`. `+=` joins a
//! value to what the key had. After an error the parser goes on with the next line, so that one run finds them all. The
//! schema reads the [`Settings`].

use super::lex::{Kind, Token, lex};
use super::report::{Place, Report};
use super::text::Text;
use super::value::{Content, Value};

/// Lists may nest this deep. Nothing in xl.cfg(5) nests deeper than two; the bound keeps a hostile file off our stack.
pub const MAX_DEPTH: usize = 32;

/// A key with its final value.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// Where the key stands in the statement that set it last.
    pub place: Place,
    /// The value, with everything `+=` added.
    pub value: Value,
    /// Whether `+=` had a part in it; Xen refuses that for numbers.
    pub appended: bool,
}

/// Settings are equal when they say the same; where they stand does not count.
impl PartialEq for Setting {
    fn eq(&self, other: &Setting) -> bool {
        (&self.key, &self.value, self.appended) == (&other.key, &other.value, other.appended)
    }
}

/// All settings of a configuration, each key once, in the order in which the keys first appear.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    settings: Vec<Setting>,
}

impl Settings {
    /// The setting of `key`.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// All settings.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter()
    }

    fn assign(&mut self, key: String, place: Place, value: Value) {
        let setting = Setting { key, place, value, appended: false };
        match self.settings.iter_mut().find(|old| old.key == setting.key) {
            Some(old) => *old = setting,
            None => self.settings.push(setting),
        }
    }

    /// Joins `value` to the key's: strings are concatenated, lists lengthened. Without an earlier value it is assigned.
    fn append(&mut self, key: String, place: Place, value: Value, report: &mut Report) {
        let Some(old) = self.settings.iter_mut().find(|old| old.key == key) else {
            self.settings.push(Setting { key, place, value, appended: true });
            return;
        };
        match (&mut old.value.content, value.content) {
            (Content::Atom { text, quoted }, Content::Atom { text: more, quoted: more_quoted }) => {
                text.push_str(&more);
                *quoted |= more_quoted;
            }
            (Content::List(values), Content::List(more)) => values.extend(more),
            (Content::Atom { .. }, Content::List(_)) => {
                report.error(&place, format!("{key}: a list cannot be added to a single value"));
            }
            (Content::List(_), Content::Atom { .. }) => {
                report.error(&place, format!("{key}: a single value cannot be added to a list; put it in brackets"));
            }
        }
        old.place = place;
        old.appended = true;
    }
}

/// Prints the settings as a configuration that reads back as the same settings.
impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Setting { key, value, appended, .. } in &self.settings {
            let operator = if *appended { "+=" } else { "=" };
            writeln!(f, "{key} {operator} {value}")?;
        }
        Ok(())
    }
}

/// Reads a whole configuration. Errors go into `report`; what could be read is returned even so, for further checks.
pub fn parse(text: &Text, report: &mut Report) -> Settings {
    let tokens = lex(text, report);
    let mut parser = Parser { tokens: &tokens, at: 0, end: text.place(1, 1), in_list: false, report };
    if let Some(last) = tokens.last() {
        parser.end = last.place.clone();
    }
    let mut settings = Settings::default();
    while parser.at < tokens.len() {
        if parser.statement(&mut settings).is_none() {
            parser.recover();
        }
    }
    settings
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    /// Where to say that something is missing at the end of the file.
    end: Place,
    /// Whether the statement being read has an open list, whose further lines must be skipped after an error.
    in_list: bool,
    report: &'a mut Report,
}

/// `None` means: reported, go on with the next line.
type Parsed<T> = Option<T>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn place(&self) -> Place {
        self.tokens.get(self.at).map_or_else(|| self.end.clone(), |token| token.place.clone())
    }

    fn statement(&mut self, settings: &mut Settings) -> Parsed<()> {
        self.in_list = false;
        let place = self.place();
        let key = match self.peek() {
            Some(Kind::Newline | Kind::Semicolon) | None => {
                self.at += 1;
                return Some(());
            }
            Some(Kind::Word(key)) => key.clone(),
            _ => return self.unexpected("a key"),
        };
        self.at += 1;
        let append = match self.peek() {
            Some(Kind::Assign) => false,
            Some(Kind::Append) => true,
            _ => return self.unexpected("`=' or `+=' after the key"),
        };
        self.at += 1;
        let value = self.value(0)?;
        match self.peek() {
            Some(Kind::Newline | Kind::Semicolon) | None => self.at += 1,
            _ => return self.unexpected("a new line or `;' after the value"),
        }
        if append {
            settings.append(key, place, value, self.report);
        } else {
            settings.assign(key, place, value);
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Parsed<Value> {
        let place = self.place();
        let content = match self.peek() {
            Some(Kind::Quoted(text)) => Content::Atom { text: text.clone(), quoted: true },
            Some(Kind::Number(text)) => Content::Atom { text: text.clone(), quoted: false },
            Some(Kind::Open) => return self.list(depth, place),
            Some(Kind::Word(word)) => {
                self.report
                    .error(&place, format!("`{word}': a value is a number, a list, or a string in quotes: \"{word}\""));
                return None;
            }
            _ => return self.unexpected("a value"),
        };
        self.at += 1;
        Some(Value { content, place })
    }

    /// A list; the next token is its `[`.
    fn list(&mut self, depth: usize, place: Place) -> Parsed<Value> {
        if depth >= MAX_DEPTH {
            self.report.error(&place, format!("lists nest deeper than {MAX_DEPTH}"));
            return None;
        }
        self.at += 1;
        self.in_list = true;
        let mut values = Vec::new();
        loop {
            self.skip_newlines();
            match self.peek() {
                Some(Kind::Close) => break,
                Some(_) if !self.at_statement() => values.push(self.value(depth + 1)?),
                _ => return self.unclosed(&place),
            }
            self.skip_newlines();
            match self.peek() {
                Some(Kind::Comma) => self.at += 1,
                Some(Kind::Close) => {}
                Some(_) if !self.at_statement() => {
                    return self.unexpected("`,' or `]' after a list element");
                }
                _ => return self.unclosed(&place),
            }
        }
        self.at += 1;
        Some(Value { content: Content::List(values), place })
    }

    fn unclosed<T>(&mut self, open: &Place) -> Parsed<T> {
        self.report.error(open, "the list has no closing `]'");
        None
    }

    /// Whether the next tokens are a key and `=` or `+=`: inside a list that means that its `]` is missing.
    fn at_statement(&self) -> bool {
        let next = self.tokens.get(self.at + 1).map(|token| &token.kind);
        matches!((self.peek(), next), (Some(Kind::Word(_)), Some(Kind::Assign | Kind::Append)))
    }

    fn skip_newlines(&mut self) {
        while self.peek() == Some(&Kind::Newline) {
            self.at += 1;
        }
    }

    /// Error recovery: on to the next line, and after an error inside a list to the next line that starts a statement.
    fn recover(&mut self) {
        if self.in_list && self.at_statement() {
            return;
        }
        loop {
            while let Some(kind) = self.peek() {
                self.at += 1;
                if *kind == Kind::Newline {
                    break;
                }
            }
            if !self.in_list || self.peek().is_none() || self.at_statement() {
                break;
            }
        }
    }

    /// Reports the next token as the wrong one, unless the lexer has reported it already.
    fn unexpected<T>(&mut self, expected: &str) -> Parsed<T> {
        let found = match self.peek() {
            Some(Kind::Bad) => return None,
            Some(Kind::Word(word)) => format!("`{word}'"),
            Some(Kind::Number(number)) => format!("the number {number}"),
            Some(Kind::Quoted(_)) => "a string".into(),
            Some(Kind::Assign) => "`='".into(),
            Some(Kind::Append) => "`+='".into(),
            Some(Kind::Comma) => "`,'".into(),
            Some(Kind::Open) => "`['".into(),
            Some(Kind::Close) => "`]'".into(),
            Some(Kind::Semicolon) => "`;'".into(),
            Some(Kind::Newline) => "the end of the line".into(),
            None => "the end of the file".into(),
        };
        self.report.error(&self.place(), format!("{found} where {expected} should be"));
        None
    }
}
