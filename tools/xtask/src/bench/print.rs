//! Tables for people.

use std::fmt::Write;

use super::parse::Reading;
use super::plan::Scene;
use super::rows::Unit;
use super::table::{Line, Table, number};
use crate::harness::request::Emulator;

/// All tables as text.
pub(crate) fn text(tables: &[Table]) -> String {
    tables.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn heading(table: &Table) -> &'static str {
    match (table.scene, table.emulator) {
        (Scene::Control, Emulator::Qemu) => "Instructions in QEMU (no NRIPS), the bench guest as control domain",
        (Scene::Control, Emulator::Bochs) => "Instructions in Bochs (NRIPS), the bench guest as control domain",
        (Scene::Guest, Emulator::Qemu) => "Instructions in QEMU (no NRIPS), the bench guest made by xl",
        (Scene::Guest, Emulator::Bochs) => "Instructions in Bochs (NRIPS), the bench guest made by xl",
        (Scene::Memory, _) => "Memory",
        (Scene::Toolstack, _) => "Instructions of a toolstack's work in QEMU (no NRIPS): ours on Oxen, Debian's on Xen",
    }
}

fn one(table: &Table) -> String {
    let head = ["operation", "Oxen", "Xen 4.17", "Oxen/Xen", "goal"].map(str::to_owned);
    let cells: Vec<[String; 5]> = std::iter::once(head).chain(table.lines.iter().map(row)).collect();
    let widths: [usize; 5] =
        std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = format!("{}\n\n", heading(table));
    for (index, [title, oxen, xen, ratio, goal]) in cells.iter().enumerate() {
        let [a, b, c, d, e] = widths;
        // Writing to a String does not fail.
        writeln!(text, "| {title:a$} | {oxen:>b$} | {xen:>c$} | {ratio:>d$} | {goal:e$} |").ok();
        if index == 0 {
            let dash = |width: usize| "-".repeat(width);
            writeln!(text, "|-{}-|-{}:|-{}:|-{}:|-{}-|", dash(a), dash(b), dash(c), dash(d), dash(e)).ok();
        }
    }
    if !table.unknown.is_empty() {
        writeln!(text, "\nMeasured, but not in the list of rows: {}", table.unknown.join(", ")).ok();
    }
    text
}

fn row(line: &Line) -> [String; 5] {
    let cell = |reading: Option<Reading>| match reading {
        Some(Reading::Value { median, .. }) => number(median),
        Some(Reading::Failed) => "failed".to_owned(),
        None => "n/a".to_owned(),
    };
    let goal = line.goal.map_or(String::new(), |goal| {
        let sign = if goal.is_least { "≥" } else { "≤" };
        format!("{sign} {}{}", number(goal.limit), if goal.met { "" } else { " MISSED" })
    });
    let unit = match line.row.unit {
        Unit::Instructions | Unit::Count => "",
        Unit::Pages => " (pages)",
        Unit::Bytes => " (bytes)",
    };
    [
        format!("{}{unit}", line.row.title),
        cell(line.oxen),
        cell(line.xen),
        line.ratio.map_or("n/a".to_owned(), |ratio| format!("{ratio:.3}")),
        goal,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::parse::Readings;
    use crate::bench::plan::Machine;
    use crate::bench::table::tables;
    use crate::harness::request::Hypervisor;

    #[test]
    fn columns_line_up_and_what_is_missing_says_so() {
        let readings = |list: &[(&str, Reading)]| -> Readings {
            list.iter().map(|(key, reading)| ((*key).to_owned(), *reading)).collect()
        };
        let machine = |hypervisor| Machine { emulator: Emulator::Qemu, scene: Scene::Control, hypervisor };
        let ours = readings(&[("cpuid", Reading::once(1_234)), ("rdmsr", Reading::Failed)]);
        let text = text(&tables(&[
            (machine(Hypervisor::Oxen), ours),
            (machine(Hypervisor::Xen), readings(&[("cpuid", Reading::once(5_600))])),
        ]));
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            lines,
            [
                "| operation  |   Oxen | Xen 4.17 | Oxen/Xen | goal         |",
                "|------------|-------:|---------:|---------:|--------------|",
                "| CPUID exit |  1,234 |    5,600 |    0.220 | ≤ 500 MISSED |",
                "| RDMSR exit | failed |      n/a |      n/a |              |",
            ]
        );
    }
}
