//! Tables: the rows of one emulator and scene, with both hypervisors side by side, their ratio and the goal.
//!
//! What measuring itself costs is taken off each cost: Xen intercepts its PVH control domain's RDTSC where the processor does
//! not promise a constant rate, which adds 5,500 instructions to each sample.

use super::parse::{Reading, Readings};
use super::plan::{Machine, Scene};
use super::rows::{self, Goal, Row, Unit};
use crate::harness::request::{Emulator, Hypervisor};

/// What the goal says of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// The largest number that is good, or the smallest.
    pub(crate) limit: u64,
    /// Whether it is the smallest.
    pub(crate) is_least: bool,
    /// Whether Oxen's is.
    pub(crate) met: bool,
}

/// A row with what was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Which row.
    pub(crate) row: &'static Row,
    /// Oxen's, without what measuring costs; none if it was not measured or cannot be.
    pub(crate) oxen: Option<Reading>,
    /// Xen's, likewise.
    pub(crate) xen: Option<Reading>,
    /// Oxen's median divided by Xen's.
    pub(crate) ratio: Option<f64>,
    /// None without a goal, or where it cannot be judged.
    pub(crate) goal: Option<Judged>,
}

/// One table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// The emulator.
    pub(crate) emulator: Emulator,
    /// The scene.
    pub(crate) scene: Scene,
    /// Its lines: every row that either hypervisor has.
    pub(crate) lines: Vec<Line>,
    /// Keys that were read and that no row has: a new row must be named in `rows`.
    pub(crate) unknown: Vec<String>,
}

impl Reading {
    fn median(self) -> Option<u64> {
        match self {
            Self::Value { median, .. } => Some(median),
            Self::Failed => None,
        }
    }

    /// What is left without the cost of measuring.
    fn without(self, overhead: u64) -> Self {
        match self {
            Self::Value { minimum, median } => {
                Self::Value { minimum: minimum.saturating_sub(overhead), median: median.saturating_sub(overhead) }
            }
            Self::Failed => Self::Failed,
        }
    }
}

/// What a row says in a list of readings, without the cost of measuring if it is a cost.
fn reading(readings: &Readings, row: &Row) -> Option<Reading> {
    let reading = readings.get(row.key).copied()?;
    let overhead = readings.get(rows::OVERHEAD).and_then(|reading| reading.median());
    let is_cost = row.unit == Unit::Instructions && row.key != rows::OVERHEAD;
    Some(reading.without(overhead.filter(|_| is_cost).unwrap_or(0)))
}

/// All tables of the machines that were run, operations first. Memory does not depend on who measured it: its figures make
/// one table, whichever machines they come from.
pub(crate) fn tables(runs: &[(Machine, Readings)]) -> Vec<Table> {
    let mut tables = Vec::new();
    for emulator in [Emulator::Qemu, Emulator::Bochs] {
        for scene in [Scene::Control, Scene::Guest] {
            let of = |hypervisor| gather(runs, |machine| *machine == Machine { emulator, scene, hypervisor });
            tables.push(table(rows::OPERATIONS, emulator, scene, &of(Hypervisor::Oxen), &of(Hypervisor::Xen)));
        }
    }
    let of =
        |hypervisor| gather(runs, |machine| machine.hypervisor == hypervisor && machine.emulator == Emulator::Qemu);
    for (list, scene) in [(rows::MEMORY, Scene::Memory), (rows::TOOLSTACK, Scene::Toolstack)] {
        tables.push(table(list, Emulator::Qemu, scene, &of(Hypervisor::Oxen), &of(Hypervisor::Xen)));
    }
    tables.retain(|table| !table.lines.is_empty());
    tables
}

fn gather(runs: &[(Machine, Readings)], wanted: impl Fn(&Machine) -> bool) -> Readings {
    let chosen = runs.iter().filter(|(machine, _)| wanted(machine));
    chosen.flat_map(|(_, readings)| readings.clone()).collect()
}

fn table(list: &'static [Row], emulator: Emulator, scene: Scene, oxen: &Readings, xen: &Readings) -> Table {
    let lines = list
        .iter()
        .filter(|row| oxen.contains_key(row.key) || xen.contains_key(row.key))
        .map(|row| line(row, emulator, reading(oxen, row), reading(xen, row)))
        .collect();
    let mut unknown: Vec<String> = oxen
        .keys()
        .chain(xen.keys())
        .filter(|key| rows::LISTS.iter().all(|list| rows::find(list, key).is_none()))
        .cloned()
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    Table { emulator, scene, lines, unknown }
}

fn line(row: &'static Row, emulator: Emulator, oxen: Option<Reading>, xen: Option<Reading>) -> Line {
    let (ours, theirs) = (oxen.and_then(Reading::median), xen.and_then(Reading::median));
    let ratio = ours.zip(theirs).filter(|(_, theirs)| *theirs != 0).map(|(ours, theirs)| ours as f64 / theirs as f64);
    let limit = row.goal.and_then(|goal| match goal {
        Goal::AtMost(limit) | Goal::AtLeast(limit) => Some(limit),
        Goal::ByNextRip { with, without } => Some(if emulator == Emulator::Bochs { with } else { without }),
        Goal::PartOfXen(part) => theirs.map(|theirs| (theirs as f64 * part) as u64),
    });
    // An operation that fails does not meet its goal.
    let is_least = matches!(row.goal, Some(Goal::AtLeast(_)));
    let is_good = |ours, limit| if is_least { ours >= limit } else { ours <= limit };
    let goal = limit.zip(oxen).map(|(limit, _)| Judged {
        limit,
        is_least,
        met: ours.is_some_and(|ours| is_good(ours, limit)),
    });
    Line { row, oxen, xen, ratio, goal }
}

/// A number for people.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(median: u64) -> Reading {
        Reading::Value { minimum: median, median }
    }

    fn run(emulator: Emulator, scene: Scene, hypervisor: Hypervisor, list: &[(&str, Reading)]) -> (Machine, Readings) {
        let readings = list.iter().map(|(key, reading)| ((*key).to_owned(), *reading)).collect();
        (Machine { emulator, scene, hypervisor }, readings)
    }

    #[test]
    fn both_hypervisors_stand_side_by_side() {
        let runs = [
            run(Emulator::Qemu, Scene::Control, Hypervisor::Oxen, &[("cpuid", value(400)), ("rdmsr", value(5))]),
            run(Emulator::Qemu, Scene::Control, Hypervisor::Xen, &[("cpuid", value(5_600))]),
        ];
        let tables = tables(&runs);
        assert_eq!(tables.len(), 1);
        let [cpuid, rdmsr] = tables[0].lines.as_slice() else { panic!("{tables:?}") };
        assert_eq!(cpuid.ratio, Some(400.0 / 5_600.0));
        assert_eq!(cpuid.goal, Some(Judged { limit: 500, is_least: false, met: true }));
        assert_eq!((rdmsr.xen, rdmsr.ratio, rdmsr.goal), (None, None, None));
    }

    #[test]
    fn a_goal_depends_on_the_emulator_and_on_xen() {
        let runs = [
            run(Emulator::Bochs, Scene::Control, Hypervisor::Oxen, &[("cpuid", value(400))]),
            run(Emulator::Qemu, Scene::Control, Hypervisor::Oxen, &[("pvh-create-vcpu-destroy", value(30))]),
            run(Emulator::Qemu, Scene::Control, Hypervisor::Xen, &[("pvh-create-vcpu-destroy", value(100))]),
        ];
        let tables = tables(&runs);
        assert_eq!(tables[0].lines[0].goal, Some(Judged { limit: 20, is_least: false, met: false }));
        assert_eq!(tables[1].lines[0].goal, Some(Judged { limit: 250, is_least: false, met: false }));
    }

    #[test]
    fn what_cannot_be_judged_is_not() {
        let only =
            |hypervisor| run(Emulator::Qemu, Scene::Control, hypervisor, &[("pvh-create-vcpu-destroy", value(9))]);
        assert_eq!(tables(&[only(Hypervisor::Oxen)])[0].lines[0].goal, None, "nothing of Xen's is known");
        let failed = run(Emulator::Qemu, Scene::Guest, Hypervisor::Oxen, &[("cpuid", Reading::Failed)]);
        assert_eq!(tables(&[failed])[0].lines[0].goal, Some(Judged { limit: 500, is_least: false, met: false }));
    }

    #[test]
    fn what_measuring_costs_is_taken_off_costs_and_nothing_else() {
        let runs = [
            run(
                Emulator::Qemu,
                Scene::Control,
                Hypervisor::Xen,
                &[
                    ("nothing", value(5_000)),
                    ("cpuid", value(11_000)),
                    ("rdmsr", value(10)),
                    ("wrmsr", Reading::Failed),
                ],
            ),
            run(Emulator::Qemu, Scene::Control, Hypervisor::Oxen, &[("cpuid", value(600))]),
            run(Emulator::Qemu, Scene::Memory, Hypervisor::Xen, &[("pages-created", value(300))]),
        ];
        let [costs, memory] = &tables(&runs)[..] else { panic!("two tables") };
        let of = |key: &str| costs.lines.iter().find(|line| line.row.key == key).unwrap();
        assert_eq!(of("nothing").xen, Some(value(5_000)));
        assert_eq!((of("cpuid").xen, of("cpuid").ratio), (Some(value(6_000)), Some(0.1)));
        assert_eq!(of("rdmsr").xen, Some(value(0)), "never less than nothing");
        assert_eq!(of("wrmsr").xen, Some(Reading::Failed));
        assert_eq!(memory.lines[0].xen, Some(value(300)));
    }

    #[test]
    fn memory_is_one_table_from_all_scenes() {
        let runs = [
            run(Emulator::Qemu, Scene::Control, Hypervisor::Oxen, &[("pages-domain-empty", value(12))]),
            run(Emulator::Qemu, Scene::Memory, Hypervisor::Xen, &[("pages-created", value(300))]),
        ];
        let tables = tables(&runs);
        assert_eq!(tables.len(), 1);
        assert_eq!((tables[0].scene, tables[0].lines.len()), (Scene::Memory, 2));
    }

    #[test]
    fn keys_without_a_row_are_told() {
        let runs = [run(Emulator::Qemu, Scene::Control, Hypervisor::Xen, &[("cpuid", value(1)), ("new", value(1))])];
        assert_eq!(tables(&runs)[0].unknown, ["new"]);
    }

    #[test]
    fn thousands_are_separated() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), text);
        }
    }
}
