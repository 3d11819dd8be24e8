//! Values of the configuration language: atoms and lists, how they print, and atoms read as numbers.
//!
//! Xen's parser keeps every atom as text, quoted or not, and a key decides how to read it (`vcpus="2"` and `vcpus=2` are
//! the same). We keep that, and remember the quotes only to print what was written. The parser makes values; the schema
//! reads them.

use std::fmt;

use super::report::Place;

/// A value with the place where it starts.
#[derive(Clone, Debug)]
pub struct Value {
    /// What it is.
    pub content: Content,
    /// Where it starts.
    pub place: Place,
}

/// The two forms a value has.
#[derive(Clone, Debug)]
pub enum Content {
    /// A string or a number, as text; `quoted` tells which.
    Atom {
        /// The text after escapes were resolved.
        text: String,
        /// Whether it was written in quotes.
        quoted: bool,
    },
    /// A list in square brackets; lists nest.
    List(Vec<Value>),
}

/// Values are equal when they were written alike; where they stand does not count.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (&self.content, &other.content) {
            (Content::Atom { text: a, quoted: p }, Content::Atom { text: b, quoted: q }) => a == b && p == q,
            (Content::List(a), Content::List(b)) => a == b,
            _ => false,
        }
    }
}

impl Value {
    /// The text of an atom; `None` for a list.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Atom { text, .. } => Some(text),
            Content::List(_) => None,
        }
    }

    /// The elements of a list; `None` for an atom.
    pub fn list(&self) -> Option<&[Value]> {
        match &self.content {
            Content::Atom { .. } => None,
            Content::List(values) => Some(values),
        }
    }

    /// Whether the value switches something off or gives nothing: `0`, `""` or `[]`.
    pub fn is_off(&self) -> bool {
        match &self.content {
            Content::Atom { text, .. } => text.is_empty() || number(text) == Ok(0),
            Content::List(values) => values.is_empty(),
        }
    }
}

/// Prints a value so that reading it again gives the same value.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Atom { text, quoted: false } => f.write_str(text),
            Content::Atom { text, quoted: true } => write_quoted(f, text),
            Content::List(values) => {
                f.write_str("[ ")?;
                for value in values {
                    write!(f, "{value}, ")?;
                }
                f.write_str("]")
            }
        }
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\x07' => f.write_str("\\a")?,
            '\x08' => f.write_str("\\b")?,
            '\x0c' => f.write_str("\\f")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\x0b' => f.write_str("\\v")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// Why an atom is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotANumber {
    /// There is no digit, or something follows the digits.
    Malformed,
    /// It does not fit in 64 bits with sign.
    TooLarge,
}

/// Reads an atom as a number the way Xen does, by the rules of C's `strtol` with base 0: leading white space, a sign,
/// then `0x` and hexadecimal digits, `0` and octal digits, or decimal digits, and nothing after them.
pub fn number(text: &str) -> Result<i64, NotANumber> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (radix, digits) = match hexadecimal {
        Some(rest) => (16, rest),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    if digits.is_empty() {
        return Err(NotANumber::Malformed);
    }
    let mut value: i64 = 0;
    let mut overflow = false;
    for c in digits.chars() {
        let digit = c.to_digit(radix).ok_or(NotANumber::Malformed)?;
        let signed = if negative { -i64::from(digit) } else { i64::from(digit) };
        match value.checked_mul(i64::from(radix)).and_then(|value| value.checked_add(signed)) {
            Some(next) => value = next,
            // Keep looking: a malformed tail is the better thing to report.
            None => overflow = true,
        }
    }
    if overflow { Err(NotANumber::TooLarge) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_strtol() {
        assert_eq!(number("10"), Ok(10));
        assert_eq!(number("010"), Ok(8));
        assert_eq!(number("0x10"), Ok(16));
        assert_eq!(number("0"), Ok(0));
        assert_eq!(number(" -5"), Ok(-5));
        assert_eq!(number("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(number("9223372036854775808"), Err(NotANumber::TooLarge));
        for bad in ["", "0x", "08", "1f", "5 ", "-", "99999999999999999999999z"] {
            assert_eq!(number(bad), Err(NotANumber::Malformed), "{bad}");
        }
    }
}
