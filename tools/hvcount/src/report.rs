//! The report's text. `cargo xtask bench --profile` reads it.
//!
//! For each row a line `row NUMBER samples COUNT host MEDIAN guest MEDIAN exits MEDIAN total MEDIAN least LEAST`, the last two of host
//! and guest together; then `exit CODE COUNT` for each exit code, `call NUMBER COUNT` for each hypercall (decimal), and
//! `at ADDRESS COUNT` for each address (codes and addresses hexadecimal, counts over all samples).

use std::fmt::Write;

use crate::meter::{Counts, Row};

fn median(samples: &[Counts], part: impl Fn(&Counts) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(part).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

fn total(counts: &Counts) -> u64 {
    counts.host + counts.guest
}

/// A row as text.
pub(crate) fn text(row: &Row) -> String {
    let samples = &row.samples;
    let mut text = format!(
        "row {} samples {} host {} guest {} exits {} total {} least {}\n",
        row.number,
        samples.len(),
        median(samples, |counts| counts.host),
        median(samples, |counts| counts.guest),
        median(samples, |counts| counts.exits),
        median(samples, total),
        samples.iter().map(total).min().unwrap_or(0),
    );
    // Writing to a String does not fail.
    for (code, count) in &row.codes {
        writeln!(text, "exit {code:x} {count}").ok();
    }
    for (number, count) in &row.calls {
        writeln!(text, "call {number} {count}").ok();
    }
    for (address, count) in &row.addresses {
        writeln!(text, "at {address:x} {count}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_row_has_medians_codes_and_addresses() {
        let sample = |host| Counts { guest: 4, host, exits: 1 };
        let row = Row {
            number: 7,
            samples: vec![sample(9), sample(1), sample(5)],
            codes: BTreeMap::from([(0x72, 3)]),
            calls: BTreeMap::from([(12, 6)]),
            addresses: BTreeMap::from([(0xffff_8000, 15)]),
        };
        assert_eq!(
            text(&row),
            "row 7 samples 3 host 5 guest 4 exits 1 total 9 least 5\nexit 72 3\ncall 12 6\nat ffff8000 15\n"
        );
    }
}
