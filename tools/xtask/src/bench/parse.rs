//! Numbers out of the text of a console.
//!
//! Lines (they may stand behind what another has begun): `BENCH key minimum median`, `BENCH key failed`,
//! `FIGURE key value`. Whoever prints them is the bench guest, or a script in dom0.

use std::collections::BTreeMap;

/// What became of a row on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Least and median of its samples; the same for a number that was taken once.
    Value {
        /// The least.
        minimum: u64,
        /// The median, which the tables show.
        median: u64,
    },
    /// The operation did not do what it should.
    Failed,
}

impl Reading {
    /// A number that was taken once.
    pub(crate) fn once(value: u64) -> Self {
        Self::Value { minimum: value, median: value }
    }
}

/// The readings of one machine by key.
pub(crate) type Readings = BTreeMap<String, Reading>;

/// All readings in a text. A console shows some lines twice; the last whole one counts.
pub(crate) fn readings(text: &str) -> Readings {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<(String, Reading)> {
    if let Some((_, rest)) = line.split_once("BENCH ") {
        let words: Vec<&str> = rest.split_whitespace().collect();
        return match words.as_slice() {
            [key, "failed"] => Some(((*key).to_owned(), Reading::Failed)),
            [key, minimum, median] => {
                let reading = Reading::Value { minimum: minimum.parse().ok()?, median: median.parse().ok()? };
                Some(((*key).to_owned(), reading))
            }
            _ => None,
        };
    }
    let (_, rest) = line.split_once("FIGURE ")?;
    let (key, value) = rest.trim().split_once(' ')?;
    Some((key.to_owned(), Reading::once(value.trim().parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_among_others() {
        let text = "(XEN) boot\r\nBENCH cpuid 390 392\r\n(d1) BENCH rdmsr 1 2\nhalf a BENCH wrmsr failed\nFIGURE pages-booted 31\r\n";
        let found = readings(text);
        assert_eq!(found.len(), 4);
        assert_eq!(found["cpuid"], Reading::Value { minimum: 390, median: 392 });
        assert_eq!(found["rdmsr"], Reading::Value { minimum: 1, median: 2 });
        assert_eq!(found["wrmsr"], Reading::Failed);
        assert_eq!(found["pages-booted"], Reading::once(31));
    }

    #[test]
    fn damaged_lines_count_for_nothing() {
        for text in ["BENCH cpuid 390", "BENCH cpuid x 3", "BENCH", "FIGURE a", "FIGURE a b", "BENCH cpuid 3 4 5"] {
            assert!(readings(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_line_seen_twice_counts_once() {
        assert_eq!(readings("BENCH a 1 1\nBENCH a 1 1\n").len(), 1);
    }
}
