//! What goes to standard output and to logs, and how sets of numbers look there.
//!
//! `println!` panics when nobody reads any more (`xl list | head -1`) or a disk is full. A command that cannot print ends
//! quietly; a monitor that cannot log goes on watching.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr, stdout};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::json::to_text;

/// Prints bytes to standard output.
pub fn print(bytes: impl AsRef<[u8]>) -> Outcome {
    print_to(&mut stdout().lock(), bytes)
}

/// Prints bytes to what stands for standard output.
pub fn print_to(output: &mut impl Write, bytes: impl AsRef<[u8]>) -> Outcome {
    let printed = output.write_all(bytes.as_ref()).and_then(|()| output.flush());
    printed.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::silent(),
        _ => Failure::new(format!("printing: {error}")),
    })
}

/// Prints a line to standard output.
pub fn line(text: Arguments<'_>) -> Outcome {
    print(format!("{text}\n"))
}

/// Prints a value as JSON, as `xl list -l` does.
pub fn print_json(value: &Value) -> Outcome {
    line(format_args!("{}", to_text(value).trim_end()))
}

/// Writes a line to the monitor's log, which is its standard output. If that fails there is nowhere to say so.
pub fn log(text: Arguments<'_>) {
    drop(writeln!(stdout(), "{text}"));
}

/// Writes a line for the user to standard error. If that fails there is nowhere to say so.
pub fn note(text: Arguments<'_>) {
    drop(writeln!(stderr(), "{text}"));
}

/// A domain's name in a table. One without a name, as a toolstack that was killed can leave it, is what C's printf makes of xl's missing
/// text: with nothing there, scripts that count columns take the id for the name.
pub fn shown(name: &str) -> &str {
    if name.is_empty() { "(null)" } else { name }
}

/// Members of a set of `count` CPUs or nodes as xl prints them: "all", "none", or ranges such as "0-3,5".
pub fn ranges(members: &[u32], count: u32) -> String {
    let members: Vec<u32> = members.iter().copied().filter(|&member| member < count).collect();
    if members.is_empty() {
        return "none".into();
    }
    if members.len() == usize::try_from(count).unwrap_or(0) {
        return "all".into();
    }
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for member in members {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == member => *last = member,
            _ => ranges.push((member, member)),
        }
    }
    let text = |(first, last): &(u32, u32)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_xls() {
        assert_eq!(ranges(&[], 4), "none");
        assert_eq!(ranges(&[0, 1, 2, 3, 4, 5, 6, 7], 4), "all");
        assert_eq!(ranges(&[0, 2, 3], 4), "0,2-3");
        assert_eq!(ranges(&[1, 2, 3], 4), "1-3");
    }
}
