//! The scene in which a toolstack works, counted by the plugin: what it puts into the machine, and what its report means.
//!
//! The script marks rows and says in its log, in the same order, how they are called; the plugin's report has them by number.
//! Hypercalls by kind are those of the row `create-destroy`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::marks::{self, Mark};
use super::parse::{Reading, Readings};
use crate::harness::request::{Hypervisor, PathPair};
use crate::initramfs::{cpio, tree::Tree};

/// The row whose hypercalls are shown by kind.
const CALLS_OF: &str = "create-destroy";
/// What `moves.sh` moves.
const MOVED_MIB: u64 = 64;
/// Rows of what devices move: they are shown for each MiB.
const MOVES: [&str; 4] = ["disk-read", "disk-write", "net-to-control", "net-from-control"];

/// Where a hypervisor maps physical memory one to one: ours `machine::x86::paging`, Xen's config.h (DIRECTMAP_VIRT_START).
fn direct_map(hypervisor: Hypervisor) -> &'static str {
    match hypervisor {
        Hypervisor::Oxen => "ffff800000000000",
        Hypervisor::Xen => "ffff830000000000",
    }
}

/// QEMU's argument that loads the plugin.
pub(super) fn plugin(plugin: &Path, report: &Path, hypervisor: Hypervisor) -> String {
    format!("-plugin {},out={},dm={}", plugin.display(), report.display(), direct_map(hypervisor))
}

/// The files that the scripts want, written into a folder, and where they go in dom0. The script joins the archive of marks to the
/// guest's image.
pub(super) fn files(folder: &Path) -> Result<Vec<PathPair>> {
    let mut files = vec![
        ("first".to_owned(), marks::first_instruction(), "/tests/first"),
        ("idle".to_owned(), marks::sleeper(), "/tests/idle"),
    ];
    let mut guest = Tree::new();
    for (mark, name) in [(Mark::Begin, "mark-begin"), (Mark::End, "mark-end"), (Mark::Row, "mark-row")] {
        let program = marks::linux_program(mark);
        guest.file(name, 0o755, program.clone());
        let place = match mark {
            Mark::Begin => "/tests/mark-begin",
            Mark::End => "/tests/mark-end",
            Mark::Row => "/tests/mark-row",
        };
        files.push((name.to_owned(), program, place));
    }
    guest.file("bench.sh", 0o755, include_bytes!("moves.sh").to_vec());
    guest.file("ended.sh", 0o755, include_bytes!("ended.sh").to_vec());
    files.push(("marks.cpio".to_owned(), cpio::archive(&guest)?, "/tests/marks.cpio"));
    let mut pairs = Vec::new();
    for (name, contents, to) in files {
        let from = folder.join(name);
        std::fs::write(&from, contents).with_context(|| format!("cannot write {}", from.display()))?;
        let mut permissions = std::fs::metadata(&from)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        std::fs::set_permissions(&from, permissions)?;
        pairs.push(PathPair { from: from.display().to_string(), to: to.to_owned() });
    }
    Ok(pairs)
}

/// One row of the report.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    samples: u64,
    median: u64,
    least: u64,
    calls: BTreeMap<u64, u64>,
}

/// The report's rows by number.
fn rows(report: &str) -> BTreeMap<u64, Counted> {
    let mut rows: BTreeMap<u64, Counted> = BTreeMap::new();
    let mut current = None;
    for line in report.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.parse::<u64>().ok()
        };
        match words.as_slice() {
            ["row", ..] => {
                current = after("row");
                let counted = (after("samples"), after("total"), after("least"));
                if let (Some(number), (Some(samples), Some(median), Some(least))) = (current, counted) {
                    rows.insert(number, Counted { samples, median, least, calls: BTreeMap::new() });
                }
            }
            ["call", number, count] => {
                let row = current.and_then(|current| rows.get_mut(&current));
                if let (Some(row), Ok(number), Ok(count)) = (row, number.parse(), count.parse()) {
                    row.calls.insert(number, count);
                }
            }
            _ => {}
        }
    }
    rows
}

/// The readings in the plugin's report; `log` is the script's, with the rows' names in their order.
pub(super) fn readings(report: &str, log: &str) -> Readings {
    let rows = rows(report);
    let names = log.lines().filter_map(|line| line.strip_prefix("ROW ")).map(str::trim);
    let mut readings = Readings::new();
    for (number, name) in (0_u64..).zip(names) {
        let Some(row) = rows.get(&number).filter(|row| row.samples != 0) else { continue };
        let part = if MOVES.contains(&name) { MOVED_MIB } else { 1 };
        let value = Reading::Value { minimum: row.least / part, median: row.median / part };
        readings.insert(name.to_owned(), value);
        if name == CALLS_OF {
            readings.extend(calls(row));
        }
    }
    readings
}

/// Hypercalls of one sample, by kind and in all.
fn calls(row: &Counted) -> Vec<(String, Reading)> {
    let of_one = |count: u64| Reading::once(count / row.samples);
    let mut list: Vec<_> =
        row.calls.iter().map(|(number, count)| (format!("hypercalls-{number}"), of_one(*count))).collect();
    list.push(("hypercalls".to_owned(), of_one(row.calls.values().sum())));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "row 0 samples 3 host 5 guest 4 exits 0 total 9 least 8\nexit 81 2\n\
                          row 1 samples 2 host 600 guest 16 exits 1 total 616 least 600\ncall 12 8\ncall 36 4\n\
                          row 2 samples 0 host 0 guest 0 exits 0 total 0 least 0\n\
                          row 3 samples 1 host 6400 guest 0 exits 0 total 6400 least 6400\n";
    const LOG: &str = "something\nROW toolstack-nothing\nROW create-destroy\nROW destroy\nROW disk-read\nROW the-end\n";

    #[test]
    fn rows_get_their_names_in_order() {
        let found = readings(REPORT, LOG);
        assert_eq!(found["toolstack-nothing"], Reading::Value { minimum: 8, median: 9 });
        assert_eq!(found["create-destroy"], Reading::Value { minimum: 600, median: 616 });
        assert_eq!(found["disk-read"], Reading::once(100), "of one MiB");
        assert!(!found.contains_key("destroy"), "without samples");
        assert!(!found.contains_key("the-end"));
    }

    #[test]
    fn hypercalls_are_those_of_one_sample() {
        let found = readings(REPORT, LOG);
        assert_eq!(found["hypercalls-12"], Reading::once(4));
        assert_eq!(found["hypercalls-36"], Reading::once(2));
        assert_eq!(found["hypercalls"], Reading::once(6));
    }

    #[test]
    fn a_damaged_report_gives_nothing() {
        assert!(readings("row x samples 1 total 2\nrow 1\ncall 1 1\n", LOG).is_empty());
    }
}
