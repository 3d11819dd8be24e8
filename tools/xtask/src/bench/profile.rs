//! Where one row's instructions are spent: the plugin's report (`tools/hvcount`), with the hypervisor's function names.
//!
//! Only for Oxen in QEMU with the bench guest as control domain: that is where hot paths are looked for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol, SymbolKind};

use super::machines;
use super::plan::{Machine, Scene};
use crate::artifacts;
use crate::harness::request::{Emulator, Hypervisor};
use crate::paths::Paths;

/// Where Oxen maps physical memory one to one (`machine::x86::paging`).
const DIRECT_MAP: &str = "ffff800000000000";

/// The plugin's report on one row.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    samples: u64,
    /// Medians.
    host: u64,
    guest: u64,
    exits: u64,
    codes: BTreeMap<u64, u64>,
    addresses: BTreeMap<u64, u64>,
}

/// Runs the bench guest with the plugin and gives the report on the row of this number, as text for people.
///
/// # Errors
/// The plugin cannot be built, or the row was not reached.
pub(crate) fn run(paths: &Paths, row: usize) -> Result<String> {
    let plugin = artifacts::hvcount(paths)?;
    let image = artifacts::hypervisor(paths)?;
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let out = work.path().join("report");
    let words = format!("{},out={},dm={DIRECT_MAP},row={row}", plugin.display(), out.display());
    let machine = Machine { emulator: Emulator::Qemu, scene: Scene::Control, hypervisor: Hypervisor::Oxen };
    machines::run(paths, machine, &["-plugin".to_owned(), words])?;
    let text = std::fs::read_to_string(&out).context("the plugin has written no report")?;
    let report = parse(&text, row).context("the bench guest has no such row")?;
    ensure!(report.samples != 0, "the row has no samples: its operation failed");
    describe(&report, &Symbols::read(&image)?)
}

/// The report on a row, out of the plugin's text.
fn parse(text: &str, row: usize) -> Option<Report> {
    let mut found: Option<Report> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &mut found) {
            (["row", ..], Some(_)) => break,
            (["row", number, "samples", samples, "host", host, "guest", guest, "exits", exits, ..], None)
                if number.parse() == Ok(row) =>
            {
                found = Some(Report {
                    samples: samples.parse().ok()?,
                    host: host.parse().ok()?,
                    guest: guest.parse().ok()?,
                    exits: exits.parse().ok()?,
                    ..Report::default()
                });
            }
            (["exit", code, count], Some(report)) => {
                report.codes.insert(u64::from_str_radix(code, 16).ok()?, count.parse().ok()?);
            }
            (["at", address, count], Some(report)) => {
                report.addresses.insert(u64::from_str_radix(address, 16).ok()?, count.parse().ok()?);
            }
            _ => {}
        }
    }
    found
}

/// Functions by address.
struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    fn read(image: &Path) -> Result<Self> {
        let bytes = std::fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
        let file = object::File::parse(bytes.as_slice()).with_context(|| format!("{}", image.display()))?;
        let functions = file.symbols().filter(|symbol| matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown));
        Ok(Self(functions.filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?.to_owned()))).collect()))
    }

    fn name(&self, address: u64) -> &str {
        /// Below this there is no code of the hypervisor's, but the guest's.
        const UPPER_HALF: u64 = 1 << 63;
        if address < UPPER_HALF {
            return "(the guest)";
        }
        self.0.range(..=address).next_back().map_or("(unknown)", |(_, name)| name)
    }
}

fn describe(report: &Report, symbols: &Symbols) -> Result<String> {
    let mut text = format!(
        "{} samples; medians: {} instructions of the hypervisor, {} of the guest, {} exits\n",
        report.samples, report.host, report.guest, report.exits
    );
    for (code, count) in &report.codes {
        writeln!(text, "{:>10.1} × exit {code:#x}", *count as f64 / report.samples as f64)?;
    }
    let mut functions: BTreeMap<&str, u64> = BTreeMap::new();
    for (address, count) in &report.addresses {
        *functions.entry(symbols.name(*address)).or_default() += count;
    }
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    for (name, count) in functions {
        writeln!(text, "{:>10.1} {name}", count as f64 / report.samples as f64)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "row 0 samples 2 host 0 guest 8 exits 0\nrow 1 samples 2 host 600 guest 16 exits 1\n\
                        exit 81 2\nat 200010 6\nat ffffffff80001000 10\nat ffffffff80001004 20\nat ffffffff80002000 2\n\
                        row 2 samples 2 host 1 guest 1 exits 0\nexit 72 2\n";

    #[test]
    fn a_row_ends_where_the_next_begins() {
        let report = parse(TEXT, 1).unwrap();
        assert_eq!((report.samples, report.host, report.guest, report.exits), (2, 600, 16, 1));
        assert_eq!(report.codes, BTreeMap::from([(0x81, 2)]));
        assert_eq!(report.addresses.len(), 4);
        assert_eq!(parse(TEXT, 7), None);
    }

    #[test]
    fn addresses_are_counted_by_function() {
        let symbols = Symbols(BTreeMap::from([
            (0xffff_ffff_8000_1000, "svm_run".to_owned()),
            (0xffff_ffff_8000_2000, "other".to_owned()),
        ]));
        let text = describe(&parse(TEXT, 1).unwrap(), &symbols).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[1..], ["1.0 × exit 0x81", "15.0 svm_run", "3.0 (the guest)", "1.0 other"]);
    }
}
